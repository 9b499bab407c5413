//! The repository that we follow, as seen from a clone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opal_protocol::CommitHash;
use opal_runtime::config::{Kind, Program, Setting};
use tokio::process::Command;

use super::error::GitError;
use super::process::{Limits, run};
use super::redact::Redactor;
use super::ssh;
use crate::policy::disk::blocking;
use crate::policy::error::SourceError;
use crate::policy::settings::GitSettings;

/// How we call the repository inside a clone. Its URL is given for each run and not kept there.
const REMOTE: &str = "opal-source";

/// Bytes of output of one run, which hold a tree listing or the files of a bundle.
const LARGEST_OUTPUT: usize = 512 * 1024 * 1024;

/// Variables that would lead `git` to another repository than ours.
const FOREIGN: [&str; 14] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Settings that hold for every run, whatever the user's own say.
const SETTINGS: [&str; 9] = [
    "core.quotepath=off",
    // A clone that is kept may hold hooks that others put there.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    // The old heads of force pushes stay reachable for the reflog's lifetime.
    "core.logAllRefUpdates=always",
    "protocol.ext.allow=never",
    "gc.auto=0",
    "gc.autoDetach=false",
    "maintenance.auto=false",
    "safe.directory=*",
];

/// Runs `git` against one directory at a time, as the settings say.
#[derive(Debug)]
pub(in crate::policy) struct Git {
    settings: Arc<GitSettings>,
    redactor: Redactor,
}

/// What the remote has, as `ls-remote` tells.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::policy) enum RemoteBranches {
    /// None at all.
    Empty,
    /// Some, but not ours.
    OthersOnly,
    /// Ours, and whether its ids are SHA-256.
    Ours { sha256: bool },
}

impl Git {
    pub(in crate::policy) fn new(settings: Arc<GitSettings>) -> Self {
        let redactor = Redactor::new(&settings.url);
        Self { settings, redactor }
    }

    /// Makes the configured SSH key available, if there is one for this URL.
    pub(in crate::policy) async fn prepare_key(&self) -> Result<(), SourceError> {
        let Some(key) = self.key().cloned() else {
            return Ok(());
        };
        let path = self.settings.ssh_key_file.clone();
        let written = blocking(move || ssh::write_key(&key, &path)).await;
        written.flatten().map_err(|source| SourceError::SshKey {
            path: self.settings.ssh_key_file.clone(),
            source,
        })
    }

    fn key(&self) -> Option<&secrecy::SecretString> {
        let key = self.settings.ssh_key.as_ref()?;
        self.settings.uses_ssh_key().then_some(key)
    }

    /// Makes an empty bare repository whose HEAD is our branch.
    pub(in crate::policy) async fn init(
        &self,
        directory: &Path,
        sha256: bool,
    ) -> Result<(), GitError> {
        let mut init = self.command(directory);
        init.args(["init", "--bare", "--quiet", "--template="]);
        if sha256 {
            init.arg("--object-format=sha256");
        }
        init.arg("--").arg(directory);
        self.local("init", init, &[]).await?;
        let mut url = self.command(directory);
        // For people who look at it, and to know whose clone it is; without credentials.
        url.args(["config", "remote.origin.url"]);
        url.arg(self.settings.url.to_string());
        self.local("config", url, &[]).await?;
        self.point_head(directory).await
    }

    /// Points HEAD at our branch, so that `HEAD~1` means what it says.
    pub(in crate::policy) async fn point_head(&self, directory: &Path) -> Result<(), GitError> {
        let mut head = self.command(directory);
        head.args(["symbolic-ref", "HEAD", &self.branch_ref()]);
        self.local("symbolic-ref", head, &[]).await.map(drop)
    }

    /// The URL that a clone was made from.
    pub(in crate::policy) async fn origin(&self, directory: &Path) -> Result<String, GitError> {
        let mut url = self.command(directory);
        url.args(["config", "--get", "remote.origin.url"]);
        let printed = self.local("config", url, &[]).await?;
        Ok(String::from_utf8_lossy(&printed).trim_end().to_owned())
    }

    /// Asks the remote for its branches.
    pub(in crate::policy) async fn branches(
        &self,
        directory: &Path,
    ) -> Result<RemoteBranches, GitError> {
        let mut list = self.command(directory);
        list.args(["ls-remote", "--heads", REMOTE]);
        let limit = self.settings.operation_timeout;
        let printed = self.run("ls-remote", list, &[], limit, limit).await?;
        Ok(find_branch(
            &String::from_utf8_lossy(&printed),
            &self.branch_ref(),
        ))
    }

    /// Brings our branch up to the remote's, also if that moved backwards.
    pub(in crate::policy) async fn fetch(&self, directory: &Path) -> Result<(), GitError> {
        let mut fetch = self.command(directory);
        fetch.args([
            "fetch",
            "--progress",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--update-head-ok",
            REMOTE,
        ]);
        let branch = self.branch_ref();
        fetch.arg(format!("+{branch}:{branch}"));
        let silence = self.settings.operation_timeout;
        let total = self.settings.transfer_timeout();
        self.run("fetch", fetch, &[], total, silence)
            .await
            .map(drop)
    }

    /// The commit that our branch is at in the clone.
    pub(in crate::policy) async fn head(&self, directory: &Path) -> Result<CommitHash, GitError> {
        let mut parse = self.command(directory);
        parse.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        parse.arg(format!("{}^{{commit}}", self.branch_ref()));
        let printed = self.local("rev-parse", parse, &[]).await?;
        let text = String::from_utf8_lossy(&printed);
        CommitHash::parse(text.trim()).ok_or_else(|| GitError::Unexpected {
            operation: "rev-parse",
            problem: "no commit id".to_owned(),
        })
    }

    /// Repacks if git thinks that it is time.
    pub(in crate::policy) async fn tidy(&self, directory: &Path) -> Result<(), GitError> {
        let mut gc = self.command(directory);
        gc.args(["-c", "gc.auto=2000", "gc", "--auto", "--quiet"]);
        let limit = self.settings.transfer_timeout();
        self.run("gc", gc, &[], limit, limit).await.map(drop)
    }

    fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.settings.branch)
    }

    /// `git` for the repository in `directory`, without a subcommand yet.
    pub(super) fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("git");
        for name in FOREIGN {
            command.env_remove(name);
        }
        for name in secret_variables() {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_DIR", directory)
            .env("OPAL_GIT_SOURCE_URL", self.settings.url.expose())
            .arg(format!(
                "--config-env=remote.{REMOTE}.url=OPAL_GIT_SOURCE_URL"
            ));
        for setting in SETTINGS {
            command.args([OsStr::new("-c"), OsStr::new(setting)]);
        }
        if self.key().is_some() {
            let file: &PathBuf = &self.settings.ssh_key_file;
            command.env("GIT_SSH_COMMAND", ssh::command(file));
        }
        command
    }

    /// Runs what only touches the disk.
    pub(super) async fn local(
        &self,
        operation: &'static str,
        command: Command,
        input: &[u8],
    ) -> Result<Vec<u8>, GitError> {
        let limit = self.settings.operation_timeout;
        self.run(operation, command, input, limit, limit).await
    }

    async fn run(
        &self,
        operation: &'static str,
        command: Command,
        input: &[u8],
        total: Duration,
        silence: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let limits = Limits {
            total,
            silence,
            output: LARGEST_OUTPUT,
        };
        run(operation, command, input, limits, &self.redactor).await
    }
}

/// Variables with our secrets: no helper that git starts needs them.
fn secret_variables() -> impl Iterator<Item = String> {
    let programs = [Program::Server, Program::Client];
    let settings = programs.into_iter().flat_map(Program::settings);
    settings
        .filter(|setting| is_secret(setting))
        .map(|setting| format!("OPAL_{}", setting.key))
}

/// Whether its value is a secret or may hold one, in a URL or a header.
fn is_secret(setting: &Setting) -> bool {
    setting.secret
        || matches!(setting.kind, Kind::Key | Kind::Model(_))
        || matches!(setting.key, "POLICY_REPO_URL" | "BROADCAST_URI")
}

fn find_branch(listing: &str, branch: &str) -> RemoteBranches {
    let mut found = RemoteBranches::Empty;
    for line in listing.lines() {
        let Some((id, name)) = line.split_once('\t') else {
            continue;
        };
        if name == branch {
            return RemoteBranches::Ours {
                sha256: id.len() == 64,
            };
        }
        found = RemoteBranches::OthersOnly;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_tells_an_empty_repository_from_one_without_our_branch() {
        let branch = "refs/heads/main";
        assert_eq!(find_branch("", branch), RemoteBranches::Empty);
        let other = format!("{}\trefs/heads/x/main\n", "a".repeat(40));
        assert_eq!(find_branch(&other, branch), RemoteBranches::OthersOnly);
        let ours = format!("{other}{}\trefs/heads/main\n", "a".repeat(64));
        assert_eq!(
            find_branch(&ours, branch),
            RemoteBranches::Ours { sha256: true }
        );
    }
}
