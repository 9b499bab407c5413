//! A policy repository: a work tree where the test edits, and the bare one that servers clone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The branch that servers follow.
pub const BRANCH: &str = "main";

/// A real git repository in a directory of the test's.
#[derive(Debug)]
pub struct PolicyRepo {
    work: PathBuf,
    bare: PathBuf,
}

impl PolicyRepo {
    /// Makes an empty repository under `directory`; its bare half has no branch until a commit.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let repo = Self {
            work: directory.join("policy"),
            bare: directory.join("policy.git"),
        };
        fs::create_dir_all(&repo.work)?;
        fs::create_dir_all(&repo.bare)?;
        git(&repo.bare, &["init", "-q", "--bare", "-b", BRANCH])?;
        git(&repo.work, &["init", "-q", "-b", BRANCH])?;
        git(&repo.work, &["remote", "add", "origin", &repo.url()])?;
        Ok(repo)
    }

    /// What `OPAL_POLICY_REPO_URL` is set to.
    pub fn url(&self) -> String {
        self.bare.display().to_string()
    }

    /// Writes a file in the work tree.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let file = self.work.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, text).with_context(|| format!("could not write `{path}`"))
    }

    /// Removes a file from the work tree.
    pub fn remove(&self, path: &str) -> anyhow::Result<()> {
        git(&self.work, &["rm", "-q", path]).map(drop)
    }

    /// Moves a file within the work tree.
    pub fn rename(&self, from: &str, to: &str) -> anyhow::Result<()> {
        if let Some(parent) = self.work.join(to).parent() {
            fs::create_dir_all(parent)?;
        }
        git(&self.work, &["mv", from, to]).map(drop)
    }

    /// Commits everything in the work tree, pushes it and returns the commit.
    pub fn commit(&self, message: &str) -> anyhow::Result<String> {
        git(&self.work, &["add", "-A"])?;
        git(
            &self.work,
            &["commit", "-q", "--allow-empty", "-m", message],
        )?;
        self.push()
    }

    /// Takes the work tree back to `commit` and makes that the pushed head, history rewritten.
    pub fn reset_to(&self, commit: &str) -> anyhow::Result<String> {
        git(&self.work, &["reset", "-q", "--hard", commit])?;
        self.push()
    }

    /// Deletes the branch where servers look.
    pub fn delete_branch(&self) -> anyhow::Result<()> {
        git(
            &self.bare,
            &["update-ref", "-d", &format!("refs/heads/{BRANCH}")],
        )
        .map(drop)
    }

    /// Pushes the work tree's head, by force.
    pub fn push(&self) -> anyhow::Result<String> {
        git(&self.work, &["push", "-q", "--force", "origin", BRANCH])?;
        self.head()
    }

    /// Takes the bare half away, as a server that is down.
    pub fn go_away(&self) -> anyhow::Result<()> {
        Ok(fs::rename(&self.bare, self.bare.with_extension("away"))?)
    }

    /// Puts the bare half back.
    pub fn come_back(&self) -> anyhow::Result<()> {
        Ok(fs::rename(self.bare.with_extension("away"), &self.bare)?)
    }

    /// The current commit of the work tree.
    pub fn head(&self) -> anyhow::Result<String> {
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// The paths of all policy modules in the head commit.
    pub fn policies(&self) -> anyhow::Result<BTreeSet<String>> {
        let listing = git(&self.work, &["ls-tree", "-r", "--name-only", "HEAD"])?;
        let modules = listing.lines().filter(|path| path.ends_with(".rego"));
        Ok(modules.map(str::to_owned).collect())
    }
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Policy Author",
            "-c",
            "user.email=author@example.com",
        ])
        .args(["-c", "commit.gpgsign=false", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .context("could not run `git`")?;
    ensure!(
        output.status.success(),
        "`git {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
