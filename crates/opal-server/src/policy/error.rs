//! What can go wrong with the policy repository, and what a client is told.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use opal_protocol::{RedactedUrl, RepoPath};

use super::git::GitError;

/// Why the clone could not be brought up to date.
///
/// All of these may pass without anyone changing our settings; the watcher repeats.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The remote did not answer, or refused.
    #[error("could not fetch from `{url}`")]
    Unreachable {
        /// The repository.
        url: RedactedUrl,
        /// What git said.
        source: GitError,
    },
    /// The remote has no branches at all.
    #[error("`{url}` is empty: it has no branches yet")]
    Empty {
        /// The repository.
        url: RedactedUrl,
    },
    /// The remote has branches, but not ours. The last commit that we have is still served.
    #[error("`{url}` has no branch `{branch}`")]
    NoSuchBranch {
        /// The repository.
        url: RedactedUrl,
        /// The branch that we follow.
        branch: String,
    },
    /// The directory of the clone cannot be used.
    #[error("could not use `{path}` for the clone")]
    CloneDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full. The clone that we have, if any, is kept.
    #[error("no space left for the clone in `{path}`")]
    NoSpace {
        /// The directory of clones.
        path: PathBuf,
        /// What git said.
        source: GitError,
    },
    /// The SSH key cannot be written.
    #[error("could not write the SSH key to `{path}`")]
    SshKey {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The clone does not give what it should hold.
    #[error("could not read the clone of `{url}`")]
    Unreadable {
        /// The repository.
        url: RedactedUrl,
        /// What git said.
        source: Arc<GitError>,
    },
    /// Nothing was fetched yet.
    #[error("there is no clone of `{url}` yet")]
    NotCloned {
        /// The repository.
        url: RedactedUrl,
    },
}

/// Why there is no bundle.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// There is no clone yet (503).
    #[error("the policy repository is not cloned yet")]
    NotCloned,
    /// The repository has no branches yet (503).
    #[error("the policy repository has no branches yet")]
    NotReady,
    /// A requested path is not in the head commit (404).
    #[error("`{path}` is not in the policy repository")]
    PathNotFound {
        /// The path as requested.
        path: RepoPath,
    },
    /// The base names something that is no commit (404).
    #[error("`{base}` is not a commit")]
    NotACommit {
        /// The expression as requested.
        base: String,
    },
    /// A file that must be served is not text, or its name is not (500).
    #[error("`{path}` is not UTF-8: {what}")]
    NotText {
        /// The path, with replacement characters if that is what is wrong.
        path: String,
        /// `its name` or `its content`.
        what: &'static str,
    },
    /// The bundle could not be written as JSON or its making was interrupted (500).
    #[error("the bundle could not be made: {problem}")]
    NotMade {
        /// What happened.
        problem: String,
    },
    /// Git did not give what the clone should hold (500). The clone is being repaired.
    #[error("could not read the policy repository")]
    Unreadable {
        /// What git said.
        source: Arc<GitError>,
    },
}

impl BundleError {
    /// The `detail` of the released response; `None` where that is a plain server error (500).
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::NotCloned => Some("policy repo was not found".to_owned()),
            Self::NotReady => Some("policy repo is not ready".to_owned()),
            Self::PathNotFound { path } => Some(format!(
                "requested path {path} was not found in the policy repo!"
            )),
            Self::NotACommit { base } => Some(format!(
                "commit with hash {base} was not found in the policy repo!"
            )),
            Self::NotText { .. } | Self::NotMade { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// Whether the same request may succeed later without a new commit.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotCloned | Self::NotReady | Self::Unreadable { .. } | Self::NotMade { .. } => {
                true
            }
            Self::PathNotFound { .. } | Self::NotACommit { .. } | Self::NotText { .. } => false,
        }
    }
}
