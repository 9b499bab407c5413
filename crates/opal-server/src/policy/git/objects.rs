//! Reads commits, trees and files out of a clone. One child process for each call.

use std::path::Path;

use opal_protocol::CommitHash;

use super::error::GitError;
use super::remote::Git;
use crate::policy::disk::blocking;

/// A regular file in a commit's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct TreeFile {
    /// Its path; what is not UTF-8 in it is replaced, and then `is_text` is false.
    pub(in crate::policy) path: String,
    /// Whether the path is UTF-8.
    pub(in crate::policy) is_text: bool,
    /// The id of its content.
    pub(in crate::policy) id: String,
}

/// What a commit's tree holds, in git's order. Symbolic links and submodules are left out.
#[derive(Debug, Default)]
pub(in crate::policy) struct Listing {
    pub(in crate::policy) files: Vec<TreeFile>,
    pub(in crate::policy) directories: Vec<String>,
    pub(in crate::policy) symlinks: usize,
}

/// How git classifies a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) enum ChangeKind {
    Added,
    Renamed,
    Modified,
    Deleted,
}

/// One change between two commits. A side that is no regular file is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Change {
    pub(in crate::policy) kind: ChangeKind,
    pub(in crate::policy) old: Option<TreeFile>,
    pub(in crate::policy) new: Option<TreeFile>,
}

/// What a revision expression names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum Revision {
    Commit(CommitHash),
    Other,
    Unknown,
}

impl Git {
    /// Lists the tree of `commit`, with directories.
    pub(in crate::policy) async fn list(
        &self,
        directory: &Path,
        commit: &CommitHash,
    ) -> Result<Listing, GitError> {
        let mut list = self.command(directory);
        list.args(["ls-tree", "-r", "-t", "-z", "--full-tree", commit.as_str()]);
        let printed = self.local("ls-tree", list, &[]).await?;
        parse("ls-tree", printed, parse_listing).await
    }

    /// The changes that lead from `old` to `new`, with renames as git finds them.
    pub(in crate::policy) async fn changes(
        &self,
        directory: &Path,
        old: &CommitHash,
        new: &CommitHash,
    ) -> Result<Vec<Change>, GitError> {
        let mut diff = self.command(directory);
        diff.args(["diff-tree", "-r", "-M", "--raw", "-z", "--no-abbrev"]);
        diff.args([old.as_str(), new.as_str()]);
        let printed = self.local("diff-tree", diff, &[]).await?;
        parse("diff-tree", printed, parse_changes).await
    }

    /// The contents of `ids`, in their order.
    pub(in crate::policy) async fn contents(
        &self,
        directory: &Path,
        ids: &[&str],
    ) -> Result<Contents, GitError> {
        if ids.is_empty() {
            return Ok(Contents::default());
        }
        let mut cat = self.command(directory);
        cat.args(["cat-file", "--batch"]);
        let mut input = ids.join("\n");
        input.push('\n');
        let printed = self.local("cat-file", cat, input.as_bytes()).await?;
        Contents::parse(printed, ids)
    }

    /// What `expression` names in the clone. It cannot be taken for an option.
    ///
    /// The expression must be one line.
    pub(in crate::policy) async fn resolve(
        &self,
        directory: &Path,
        expression: &str,
    ) -> Result<Revision, GitError> {
        let mut check = self.command(directory);
        check.args(["cat-file", "--batch-check=%(objectname) %(objecttype)"]);
        let input = format!("{expression}^{{commit}}\n{expression}\n");
        let printed = self.local("cat-file", check, input.as_bytes()).await?;
        Ok(parse_revision(&String::from_utf8_lossy(&printed)))
    }
}

/// Contents of files, in one piece as git printed them.
#[derive(Debug, Default)]
pub(in crate::policy) struct Contents {
    printed: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl Contents {
    fn parse(printed: Vec<u8>, ids: &[&str]) -> Result<Self, GitError> {
        let mut spans = Vec::with_capacity(ids.len());
        let mut at = 0;
        for id in ids {
            let size = header_size(&printed, at, id)?;
            let start = at + size.header;
            let end = start + size.content;
            if printed.get(end) != Some(&b'\n') {
                return Err(unexpected("cat-file", "the end of a file"));
            }
            spans.push((start, end));
            at = end + 1;
        }
        Ok(Self { printed, spans })
    }

    /// The content of the file that was asked for at this place.
    pub(in crate::policy) fn get(&self, index: usize) -> &[u8] {
        self.spans
            .get(index)
            .and_then(|(start, end)| self.printed.get(*start..*end))
            .unwrap_or_default()
    }
}

struct Sizes {
    header: usize,
    content: usize,
}

/// Reads `<id> blob <size>\n`.
fn header_size(printed: &[u8], at: usize, id: &str) -> Result<Sizes, GitError> {
    let rest = printed.get(at..).unwrap_or_default();
    let header = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .and_then(|end| std::str::from_utf8(&rest[..end]).ok())
        .ok_or_else(|| unexpected("cat-file", "a header"))?;
    let content = header
        .strip_prefix(id)
        .and_then(|rest| rest.strip_prefix(" blob "))
        .and_then(|size| size.parse().ok())
        .ok_or_else(|| GitError::Unexpected {
            operation: "cat-file",
            problem: format!("`{header}`"),
        })?;
    Ok(Sizes {
        header: header.len() + 1,
        content,
    })
}

fn unexpected(operation: &'static str, what: &str) -> GitError {
    GitError::Unexpected {
        operation,
        problem: format!("{what} is not as documented"),
    }
}

/// Reads what git printed, of which there may be much.
async fn parse<T: Send + 'static>(
    operation: &'static str,
    printed: Vec<u8>,
    read: fn(&[u8]) -> Option<T>,
) -> Result<T, GitError> {
    let parsed = blocking(move || read(&printed)).await;
    let parsed = parsed.map_err(|source| GitError::NotRead { operation, source })?;
    parsed.ok_or_else(|| unexpected(operation, "a line"))
}

/// `<mode> SP <type> SP <id> TAB <path> NUL`.
fn parse_listing(printed: &[u8]) -> Option<Listing> {
    let mut listing = Listing::default();
    for record in records(printed) {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let (fields, path) = (
            std::str::from_utf8(&record[..tab]).ok()?,
            &record[tab + 1..],
        );
        let mut fields = fields.split(' ');
        let (mode, _kind, id) = (fields.next()?, fields.next()?, fields.next()?);
        match mode {
            "040000" => listing
                .directories
                .push(String::from_utf8_lossy(path).into()),
            "120000" => listing.symlinks += 1,
            _ if is_regular(mode) => listing.files.push(tree_file(path, id)),
            _ => {}
        }
    }
    Some(listing)
}

/// `:<old mode> <new mode> <old id> <new id> <status> NUL <path> NUL [<new path> NUL]`.
fn parse_changes(printed: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut records = records(printed);
    while let Some(meta) = records.next() {
        let meta = std::str::from_utf8(meta).ok()?.strip_prefix(':')?;
        let fields: Vec<&str> = meta.split(' ').collect();
        let [old_mode, new_mode, old_id, new_id, status] = fields[..] else {
            return None;
        };
        let old_path = records.next()?;
        let kind = change_kind(status)?;
        let new_path = match kind {
            ChangeKind::Renamed => records.next()?,
            _ => old_path,
        };
        changes.push(Change {
            kind,
            old: is_regular(old_mode).then(|| tree_file(old_path, old_id)),
            new: is_regular(new_mode).then(|| tree_file(new_path, new_id)),
        });
    }
    Some(changes)
}

fn change_kind(status: &str) -> Option<ChangeKind> {
    match status.as_bytes().first()? {
        b'A' => Some(ChangeKind::Added),
        b'D' => Some(ChangeKind::Deleted),
        b'R' => Some(ChangeKind::Renamed),
        // A change of type is one of the two sides not being a regular file.
        b'M' | b'T' => Some(ChangeKind::Modified),
        _ => None,
    }
}

fn records(printed: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = printed.strip_suffix(b"\0").unwrap_or(printed);
    let none = whole.is_empty();
    whole.split(|byte| *byte == 0).skip(usize::from(none))
}

fn is_regular(mode: &str) -> bool {
    mode.starts_with("100")
}

fn tree_file(path: &[u8], id: &str) -> TreeFile {
    let text = String::from_utf8_lossy(path);
    TreeFile {
        is_text: matches!(text, std::borrow::Cow::Borrowed(_)),
        path: text.into_owned(),
        id: id.to_owned(),
    }
}

/// The first line is the expression peeled to a commit, the second what it is itself.
fn parse_revision(printed: &str) -> Revision {
    let mut lines = printed.lines();
    let peeled = lines.next().and_then(|line| line.strip_suffix(" commit"));
    if let Some(commit) = peeled.and_then(CommitHash::parse) {
        return Revision::Commit(commit);
    }
    let own = lines.next().and_then(|line| line.split_once(' '));
    match own {
        Some((id, "tree" | "blob" | "tag")) if CommitHash::parse(id).is_some() => Revision::Other,
        _ => Revision::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_survive_a_listing() {
        let id = "a".repeat(40);
        let printed = [
            format!("100644 blob {id}\ta \"b\"\n.rego\0"),
            format!("120000 blob {id}\tlink\0"),
            format!("160000 commit {id}\tmodule\0"),
            format!("040000 tree {id}\tdir\0"),
        ]
        .concat();
        let mut bytes = printed.into_bytes();
        bytes.extend_from_slice(format!("100755 blob {id}\tx").as_bytes());
        bytes.extend_from_slice(b"\xff.rego\0");

        let listing = parse_listing(&bytes).unwrap();

        let paths: Vec<&str> = listing.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a \"b\"\n.rego", "x\u{fffd}.rego"]);
        assert!(!listing.files[1].is_text);
        assert_eq!(listing.directories, ["dir"]);
        assert_eq!(listing.symlinks, 1);
        assert!(parse_listing(b"").unwrap().files.is_empty());
    }

    #[test]
    fn changes_have_two_sides_when_both_are_files() {
        let (a, b, none) = ("a".repeat(40), "b".repeat(40), "0".repeat(40));
        let printed = format!(
            ":000000 100644 {none} {a} A\0new.rego\0\
             :100644 100644 {a} {b} R090\0old.rego\0moved.rego\0\
             :100644 120000 {a} {b} T\0link.rego\0"
        );
        let changes = parse_changes(printed.as_bytes()).unwrap();
        assert_eq!(changes[0].old, None);
        assert_eq!(changes[1].old.as_ref().unwrap().path, "old.rego");
        assert_eq!(changes[1].new.as_ref().unwrap().path, "moved.rego");
        assert_eq!(changes[2].new, None);
        assert_eq!(parse_changes(b"nonsense\0"), None);
    }

    #[test]
    fn contents_that_are_missing_are_an_error() {
        let contents = Contents::parse(b"aa blob 3\nx\ny\nbb blob 0\n\n".to_vec(), &["aa", "bb"]);
        let contents = contents.unwrap();
        assert_eq!(contents.get(0), b"x\ny");
        assert_eq!(contents.get(1), b"");
        assert!(Contents::parse(b"aa missing\n".to_vec(), &["aa"]).is_err());
        assert!(Contents::parse(b"aa blob 9\nxy\n".to_vec(), &["aa"]).is_err());
    }
}
