//! Bundles: from a commit's files, or the changes between two commits, to what a client is sent.
//!
//! First a [`Plan`] says which files belong into the bundle and in which order; once their
//! contents are read, [`Plan::fill`] makes the bundle. Both are pure.

use std::cmp::Ordering;

use opal_protocol::{CommitHash, DataModule, DeletedFiles, PolicyBundle, PolicyModule, RepoPath};

use super::error::BundleError;
use super::git::objects::{Change, ChangeKind, Contents, TreeFile};
use super::manifest::lines;
use super::selection::{ModuleKind, Selection};
use super::view::CommitView;

/// A file that belongs into a bundle.
#[derive(Debug)]
struct Module {
    path: String,
    id: String,
    kind: ModuleKind,
}

/// What a bundle will hold.
#[derive(Debug)]
pub(super) struct Plan {
    base: Option<CommitHash>,
    modules: Vec<Module>,
    deleted: Vec<(String, ModuleKind)>,
}

impl Plan {
    /// Everything that `directories` hold at the commit, in the order of a walk: the files of a
    /// directory, then its sub-directories.
    pub(super) fn complete(
        view: &CommitView,
        selection: &Selection,
        directories: &[RepoPath],
    ) -> Result<Self, BundleError> {
        let mut modules: Vec<Module> = view
            .files
            .iter()
            .filter_map(|file| module(file, selection, directories))
            .collect::<Result<_, _>>()?;
        modules.sort_by(|one, other| walk_order(&one.path, &other.path));
        Ok(Self {
            base: None,
            modules,
            deleted: Vec::new(),
        })
    }

    /// What changed in `directories` since `base`.
    ///
    /// Each side of a change is judged by its own path, so that base and diff together are the
    /// complete bundle. (Upstream mixes the sides of a rename that crosses the border of what is
    /// served, and lists a renamed and edited file twice.)
    pub(super) fn diff(
        base: CommitHash,
        changes: &[Change],
        selection: &Selection,
        directories: &[RepoPath],
    ) -> Result<Self, BundleError> {
        let mut plan = Self {
            base: Some(base),
            modules: Vec::new(),
            deleted: Vec::new(),
        };
        for kind in [ChangeKind::Added, ChangeKind::Renamed, ChangeKind::Modified] {
            let news = changes.iter().filter(|change| change.kind == kind);
            for file in news.filter_map(|change| change.new.as_ref()) {
                plan.modules
                    .extend(module(file, selection, directories).transpose()?);
            }
        }
        for kind in [
            ChangeKind::Deleted,
            ChangeKind::Renamed,
            ChangeKind::Modified,
        ] {
            let gone = changes.iter().filter(|change| change.kind == kind);
            for file in gone.filter_map(removed) {
                let kind = selection.kind(&file.path, directories);
                plan.deleted
                    .extend(kind.map(|kind| (file.path.clone(), kind)));
            }
        }
        Ok(plan)
    }

    /// The ids of the files whose contents [`Plan::fill`] needs, in order.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.modules
            .iter()
            .map(|module| module.id.as_str())
            .collect()
    }

    /// Makes the bundle.
    pub(super) fn fill(
        self,
        view: &CommitView,
        contents: &Contents,
    ) -> Result<PolicyBundle, BundleError> {
        let mut bundle = PolicyBundle {
            manifest: self.manifest(view),
            hash: view.commit.clone(),
            old_hash: self.base,
            data_modules: Vec::new(),
            policy_modules: Vec::new(),
            deleted_files: deleted_files(self.deleted, view),
        };
        for (at, module) in self.modules.into_iter().enumerate() {
            let text = text(&module.path, contents.get(at))?;
            match module.kind {
                ModuleKind::Data => bundle.data_modules.push(DataModule {
                    path: RepoPath::from(module.path).parent(),
                    data: text,
                }),
                ModuleKind::Policy => bundle.policy_modules.push(PolicyModule {
                    package_name: package_name(&text).to_owned(),
                    path: module.path.into(),
                    rego: text,
                }),
            }
        }
        Ok(bundle)
    }

    fn manifest(&self, view: &CommitView) -> Vec<RepoPath> {
        let mut paths: Vec<&str> = self.modules.iter().map(|m| m.path.as_str()).collect();
        view.order.sort(&mut paths, |path| path);
        paths.into_iter().map(RepoPath::from).collect()
    }
}

fn module(
    file: &TreeFile,
    selection: &Selection,
    directories: &[RepoPath],
) -> Option<Result<Module, BundleError>> {
    let kind = selection.kind(&file.path, directories)?;
    let path = file.path.clone();
    if !file.is_text {
        let what = "its name";
        return Some(Err(BundleError::NotText { path, what }));
    }
    let id = file.id.clone();
    Some(Ok(Module { path, id, kind }))
}

/// The old side of a change that leaves nothing at the old path.
fn removed(change: &Change) -> Option<&TreeFile> {
    match change.kind {
        ChangeKind::Deleted | ChangeKind::Renamed => change.old.as_ref(),
        ChangeKind::Modified if change.new.is_none() => change.old.as_ref(),
        ChangeKind::Modified | ChangeKind::Added => None,
    }
}

fn deleted_files(deleted: Vec<(String, ModuleKind)>, view: &CommitView) -> Option<DeletedFiles> {
    if deleted.is_empty() {
        return None;
    }
    let (policies, data): (Vec<_>, Vec<_>) = deleted
        .into_iter()
        .partition(|(_, kind)| *kind == ModuleKind::Policy);
    let mut policies: Vec<String> = policies.into_iter().map(|(path, _)| path).collect();
    view.order.sort(&mut policies, |path| path);
    // What others depend on is loaded first and removed last.
    policies.reverse();
    Some(DeletedFiles {
        data_modules: data
            .into_iter()
            .map(|(path, _)| RepoPath::from(path).parent())
            .collect(),
        policy_modules: policies.into_iter().map(RepoPath::from).collect(),
    })
}

fn text(path: &str, content: &[u8]) -> Result<String, BundleError> {
    let text = std::str::from_utf8(content).map_err(|_| BundleError::NotText {
        path: path.to_owned(),
        what: "its content",
    })?;
    Ok(text.to_owned())
}

/// In each directory files first, then sub-directories, both in git's order.
fn walk_order(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let differ = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shared = one[..differ]
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(0, |at| at + 1);
    let (one, other) = (&one[shared..], &other[shared..]);
    let (one_below, other_below) = (one.contains(&b'/'), other.contains(&b'/'));
    one_below.cmp(&other_below).then_with(|| one.cmp(other))
}

/// The name in the first line that is exactly `package <name>`, as upstream reads it; else `""`.
fn package_name(text: &str) -> &str {
    lines(text)
        .find_map(package_declaration)
        .unwrap_or_default()
}

fn package_declaration(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("package")?;
    let name = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{1f}');
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '"' | '[' | ']');
    let separated = name.len() < rest.len();
    (separated && !name.is_empty() && name.chars().all(allowed)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_where_upstream_finds_one() {
        for (text, expected) in [
            ("package a.b\n", "a.b"),
            ("# c\npackage   a[\"b\"]\r\nx = 1", "a[\"b\"]"),
            ("package a_b\npackage c", "c"),
            ("package a # c\n", ""),
            ("package a \n", ""),
            (" package a\n", ""),
            ("packagea\n", ""),
            ("package\u{a0}a", "a"),
            ("package ", ""),
            ("", ""),
        ] {
            assert_eq!(package_name(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_walk_takes_the_files_of_a_directory_before_its_sub_directories() {
        let mut paths = ["a/x", "a-b/x", "a.rego", "b", "a/b/c", "a/y", "a0/x"];
        paths.sort_by(|one, other| walk_order(one, other));
        assert_eq!(
            paths,
            ["a.rego", "b", "a-b/x", "a/x", "a/y", "a/b/c", "a0/x"]
        );
    }
}
