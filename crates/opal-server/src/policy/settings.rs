//! Where the policy repository is and how it is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opal_protocol::RedactedUrl;
use secrecy::SecretString;

/// How the policy repository is cloned and kept up to date.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The repository, in any form that `git` takes (`OPAL_POLICY_REPO_URL`).
    pub url: RedactedUrl,
    /// The branch to follow (`OPAL_POLICY_REPO_MAIN_BRANCH`).
    pub branch: String,
    /// The private key for SSH URLs, `_` standing for newlines (`OPAL_POLICY_REPO_SSH_KEY`).
    ///
    /// With it, host keys are not checked, as upstream. Without it, SSH is left to the user's own
    /// configuration.
    pub ssh_key: Option<SecretString>,
    /// Where that key is written, readable by us alone (`OPAL_GIT_SSH_KEY_FILE`).
    pub ssh_key_file: PathBuf,
    /// The directory that holds clones (`OPAL_POLICY_REPO_CLONE_PATH`).
    pub clone_parent: PathBuf,
    /// How the names of clones begin (`OPAL_POLICY_REPO_CLONE_FOLDER_PREFIX`).
    pub clone_prefix: String,
    /// Whether the clone outlives the process, under the bare prefix as its name
    /// (`OPAL_POLICY_REPO_REUSE_CLONE_PATH`).
    pub reuse_clone: bool,
    /// How long there may be no clone (`OPAL_POLICY_REPO_CLONE_TIMEOUT`); `None`: any time.
    ///
    /// After it has passed the watcher says so as an error and tries less often; it does not give
    /// up. One transfer may take as long, and at least twenty times [`Self::operation_timeout`].
    pub clone_timeout: Option<Duration>,
    /// How long a local operation may take, and how long a network one may be silent.
    pub operation_timeout: Duration,
}

impl GitSettings {
    /// Whether git can follow a branch of that name: the rules of `git check-ref-format`.
    pub fn has_valid_branch(&self) -> bool {
        is_branch_name(&self.branch)
    }

    /// The longest that one transfer may take, however busy it is.
    pub(super) fn transfer_timeout(&self) -> Duration {
        let busy = self.operation_timeout.saturating_mul(20);
        self.clone_timeout.map_or(busy, |limit| limit.max(busy))
    }

    /// Whether the configured key applies to this URL: the forms that upstream recognises.
    pub(super) fn uses_ssh_key(&self) -> bool {
        let url = self.url.expose();
        self.ssh_key.is_some() && (url.starts_with("ssh://") || url.starts_with("git@"))
    }

    /// Where a clone lives that is kept across restarts.
    pub(super) fn kept_clone(&self) -> PathBuf {
        self.clone_parent().join(&self.clone_prefix)
    }

    /// The directory of clones as an absolute path, so that it means the same for children.
    pub(super) fn clone_parent(&self) -> PathBuf {
        absolute(&self.clone_parent)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_branch_name(name: &str) -> bool {
    let never = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
    let is_component =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(never)
        && name.split('/').all(is_component)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_branch_name_is_valid_if_git_says_so() {
        let names = "main master feature/é v1.0 a-b a@b @ x.lock/y a.lock /a a/ a//b .a a/.b a. \
            a..b a@{b a~b a^b a:b a?b a*b a[b a]b a\\b a{b 'a' \"a\" a|b --";
        let odd = ["", "-x", "a b", "a\tb", "a\n", "a\u{7f}", "a\u{a0}b"];
        for name in names.split_whitespace().chain(odd) {
            let mut git = Command::new("git");
            git.args(["check-ref-format", &format!("refs/heads/{name}")]);
            let accepted = git.status().unwrap().success() && !name.starts_with('-');
            assert_eq!(is_branch_name(name), accepted, "{name:?}");
        }
    }
}
