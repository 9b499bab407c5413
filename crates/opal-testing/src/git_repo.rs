//! A git repository in a temporary directory, as the remote that a server follows.
//!
//! Commits are written with git's plumbing, with fixed authors and dates, so that the same steps
//! give the same commit ids everywhere. Needs the `git` program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use opal_protocol::CommitHash;
use tempfile::TempDir;

/// A bare repository that tests commit to. Removed when dropped.
#[derive(Debug)]
pub struct TestRepo {
    directory: TempDir,
    branch: String,
    commits: u32,
}

/// The files of a commit under construction. [`Commit::push`] makes it the branch's head.
#[derive(Debug)]
pub struct Commit<'a> {
    repo: &'a mut TestRepo,
    parent: Option<CommitHash>,
    entries: BTreeMap<OsString, Entry>,
    message: String,
    date: Option<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    mode: String,
    id: String,
}

impl TestRepo {
    /// An empty repository whose branch will be `main`.
    pub fn empty() -> Result<Self> {
        Self::init(&["init", "--quiet", "--bare", "--template="])
    }

    /// An empty repository with SHA-256 ids.
    pub fn empty_sha256() -> Result<Self> {
        Self::init(&[
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format=sha256",
        ])
    }

    fn init(args: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let repo = Self {
            directory,
            branch: "main".to_owned(),
            commits: 0,
        };
        repo.git(args)?;
        repo.git(&["symbolic-ref", "HEAD", "refs/heads/main"])?;
        Ok(repo)
    }

    /// A repository with one commit that holds these files.
    pub fn with_files(files: &[(&str, &str)]) -> Result<Self> {
        let mut repo = Self::empty()?;
        let mut commit = repo.commit()?;
        for (path, text) in files {
            commit = commit.file(path, text)?;
        }
        commit.push()?;
        Ok(repo)
    }

    /// Where it is: also the URL to clone it from.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The URL to clone it from, over git's own transport.
    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// The branch that commits go to.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The branch's head.
    pub fn head(&self) -> Result<CommitHash> {
        self.resolve(&self.branch_ref())
    }

    /// The id of what a revision names.
    pub fn resolve(&self, revision: &str) -> Result<CommitHash> {
        let printed = self.git(&["rev-parse", "--verify", "--end-of-options", revision])?;
        CommitHash::parse(&printed).with_context(|| format!("`{revision}` is `{printed}`"))
    }

    /// Starts a commit on top of the branch's head, with its files; without any if there is none.
    pub fn commit(&mut self) -> Result<Commit<'_>> {
        let parent = self.head().ok();
        let entries = match &parent {
            Some(parent) => self.entries(parent)?,
            None => BTreeMap::new(),
        };
        Ok(self.commit_on(parent, entries))
    }

    /// Starts a commit without parent and files: pushing it is a force push of other history.
    pub fn unrelated_commit(&mut self) -> Commit<'_> {
        self.commit_on(None, BTreeMap::new())
    }

    fn commit_on(
        &mut self,
        parent: Option<CommitHash>,
        entries: BTreeMap<OsString, Entry>,
    ) -> Commit<'_> {
        Commit {
            message: format!("commit {}", self.commits + 1),
            repo: self,
            parent,
            entries,
            date: None,
        }
    }

    /// Moves the branch to a commit, as a force push does.
    pub fn force(&self, commit: &CommitHash) -> Result<()> {
        let branch = self.branch_ref();
        self.git(&["update-ref", &branch, commit.as_str()])?;
        Ok(())
    }

    /// Deletes the branch.
    pub fn delete_branch(&self) -> Result<()> {
        self.git(&["update-ref", "-d", &self.branch_ref()])?;
        Ok(())
    }

    /// Makes another branch at a commit.
    pub fn create_branch(&self, name: &str, commit: &CommitHash) -> Result<()> {
        self.git(&["update-ref", &format!("refs/heads/{name}"), commit.as_str()])?;
        Ok(())
    }

    /// Drops every object that no branch reaches, as a server does in time.
    pub fn prune(&self) -> Result<()> {
        self.git(&["prune", "--expire=now"])?;
        Ok(())
    }

    /// Moves the repository away, so that it cannot be reached; the guard brings it back.
    pub fn hide(&self) -> Result<Hidden> {
        let place = self.path().to_owned();
        let aside = place.with_extension("hidden");
        std::fs::rename(&place, &aside)?;
        Ok(Hidden { place, aside })
    }

    /// Runs `git` here and returns what it printed, trimmed.
    pub fn git(&self, args: &[&str]) -> Result<String> {
        let printed = self.run(args, b"", &[])?;
        Ok(String::from_utf8_lossy(&printed).trim().to_owned())
    }

    fn run(&self, args: &[&str], input: &[u8], env: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut child = Command::new("git")
            .args(args)
            .env("GIT_DIR", self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the `git` program is needed")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    fn entries(&self, commit: &CommitHash) -> Result<BTreeMap<OsString, Entry>> {
        let listing = self.run(&["ls-tree", "-r", "-z", commit.as_str()], b"", &[])?;
        let records = listing.split(|byte| *byte == 0).filter(|r| !r.is_empty());
        records.map(parse_entry).collect()
    }

    fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    fn blob(&self, content: &[u8]) -> Result<String> {
        let id = self.run(&["hash-object", "-w", "--stdin"], content, &[])?;
        Ok(String::from_utf8_lossy(&id).trim().to_owned())
    }
}

fn parse_entry(record: &[u8]) -> Result<(OsString, Entry)> {
    let tab = record.iter().position(|b| *b == b'\t').context("a tab")?;
    let fields = std::str::from_utf8(&record[..tab])?;
    let mut fields = fields.split(' ');
    let entry = Entry {
        mode: fields.next().context("a mode")?.to_owned(),
        id: fields.nth(1).context("an id")?.to_owned(),
    };
    Ok((OsString::from_vec(record[tab + 1..].to_vec()), entry))
}

impl Commit<'_> {
    /// Adds or replaces a file.
    pub fn file(self, path: impl AsRef<OsStr>, text: &str) -> Result<Self> {
        self.bytes(path, text.as_bytes())
    }

    /// Adds or replaces a file that may be no text.
    pub fn bytes(self, path: impl AsRef<OsStr>, content: &[u8]) -> Result<Self> {
        let id = self.repo.blob(content)?;
        Ok(self.entry(path.as_ref(), "100644", id))
    }

    /// Adds many files at once: one process for all of them.
    pub fn many(mut self, files: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut stream = Vec::new();
        let mut paths = Vec::new();
        for (mark, (path, text)) in files
            .into_iter()
            .zip(1..)
            .map(|(file, mark): (_, usize)| (mark, file))
        {
            writeln!(stream, "blob\nmark :{mark}\ndata {}\n{text}", text.len())?;
            paths.push(path);
        }
        let scratch = tempfile::tempdir()?;
        let marks = scratch.path().join("marks");
        let export = format!("--export-marks={}", marks.display());
        self.repo
            .run(&["fast-import", "--quiet", &export], &stream, &[])?;
        let marks = std::fs::read_to_string(marks)?;
        for line in marks.lines() {
            let (mark, id) = line.split_once(' ').context("a mark")?;
            let mark: usize = mark.trim_start_matches(':').parse()?;
            let path = paths.get(mark - 1).context("a known mark")?;
            self = self.entry(path.as_ref(), "100644", id.to_owned());
        }
        Ok(self)
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Result<Self> {
        let id = self.repo.blob(target.as_bytes())?;
        Ok(self.entry(path.as_ref(), "120000", id))
    }

    /// Adds a submodule.
    #[must_use]
    pub fn submodule(self, path: &str) -> Self {
        self.entry(path.as_ref(), "160000", "1".repeat(40))
    }

    fn entry(mut self, path: &OsStr, mode: &str, id: String) -> Self {
        let mode = mode.to_owned();
        self.entries.insert(path.to_owned(), Entry { mode, id });
        self
    }

    /// Removes a file, if it is there.
    #[must_use]
    pub fn remove(mut self, path: &str) -> Self {
        self.entries.remove(OsStr::new(path));
        self
    }

    /// Removes all files.
    #[must_use]
    pub fn clear(mut self) -> Self {
        self.entries.clear();
        self
    }

    /// Moves a file, if it is there.
    #[must_use]
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        if let Some(entry) = self.entries.remove(OsStr::new(from)) {
            self.entries.insert(to.into(), entry);
        }
        self
    }

    /// The commit's message, instead of one that counts.
    #[must_use]
    pub fn message(mut self, message: &str) -> Self {
        message.clone_into(&mut self.message);
        self
    }

    /// Author's and committer's date, in any form that git takes, instead of one that counts.
    #[must_use]
    pub fn date(mut self, date: &str) -> Self {
        self.date = Some(date.to_owned());
        self
    }

    /// Writes the commit and moves the branch to it.
    pub fn push(self) -> Result<CommitHash> {
        let repo = self.repo;
        repo.commits += 1;
        let tree = write_tree(repo, &self.entries)?;
        let counted = format!(
            "2024-01-01T00:{:02}:{:02}Z",
            repo.commits / 60 % 60,
            repo.commits % 60
        );
        let date = self.date.unwrap_or(counted);
        let env = [
            ("GIT_AUTHOR_NAME", "dev"),
            ("GIT_AUTHOR_EMAIL", "dev@example.com"),
            ("GIT_AUTHOR_DATE", &date),
            ("GIT_COMMITTER_NAME", "dev"),
            ("GIT_COMMITTER_EMAIL", "dev@example.com"),
            ("GIT_COMMITTER_DATE", &date),
        ];
        let mut args = vec!["commit-tree", &tree];
        if let Some(parent) = &self.parent {
            args.extend(["-p", parent.as_str()]);
        }
        let message = format!("{}\n", self.message);
        let id = repo.run(&args, message.as_bytes(), &env)?;
        let id = String::from_utf8(id)?;
        let commit = CommitHash::parse(id.trim()).context("a commit id")?;
        repo.force(&commit)?;
        Ok(commit)
    }
}

/// Writes the tree through an index of its own.
fn write_tree(repo: &TestRepo, entries: &BTreeMap<OsString, Entry>) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let index = scratch.path().join("index");
    let index = index.to_str().context("a plain temporary directory")?;
    let env = [("GIT_INDEX_FILE", index)];
    let mut input = Vec::new();
    for (path, Entry { mode, id }) in entries {
        write!(input, "{mode} {id}\t")?;
        input.extend_from_slice(path.as_bytes());
        input.push(0);
    }
    repo.run(&["update-index", "-z", "--index-info"], &input, &env)?;
    let tree = repo.run(&["write-tree"], b"", &env)?;
    Ok(String::from_utf8(tree)?.trim().to_owned())
}

/// A repository that is out of reach until this is dropped.
#[derive(Debug)]
pub struct Hidden {
    place: PathBuf,
    aside: PathBuf,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A failure shows in whatever the test does next.
        let _ = std::fs::rename(&self.aside, &self.place);
    }
}
