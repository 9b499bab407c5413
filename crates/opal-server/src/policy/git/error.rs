//! What can go wrong with the `git` program.

use std::io;
use std::time::Duration;

/// What the system says, and git with it, when there is no space left.
const FULL_DISK: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Why a run of `git` gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The program is not there or cannot be executed.
    #[error("could not run `git {operation}`")]
    NotStarted {
        /// The subcommand.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It was killed, with all that it had started, because its time was up.
    #[error("`git {operation}` was stopped after {limit:?}")]
    TimedOut {
        /// The subcommand.
        operation: &'static str,
        /// The limit that it exceeded.
        limit: Duration,
    },
    /// It ended with an error.
    #[error("`git {operation}` failed: {message}")]
    Failed {
        /// The subcommand.
        operation: &'static str,
        /// What it printed, shortened, without credentials.
        message: String,
    },
    /// It printed more than we are ready to hold.
    #[error("`git {operation}` printed more than {limit} bytes")]
    TooMuchOutput {
        /// The subcommand.
        operation: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// Reading what it printed was interrupted.
    #[error("could not read what `git {operation}` printed")]
    NotRead {
        /// The subcommand.
        operation: &'static str,
        /// What happened.
        source: io::Error,
    },
    /// It printed what we do not understand, or lacks an object that must be there.
    #[error("`git {operation}` answered unexpectedly: {problem}")]
    Unexpected {
        /// The subcommand.
        operation: &'static str,
        /// What was wrong with it.
        problem: String,
    },
}

impl GitError {
    /// Whether a clone that answers so is probably broken, rather than slow or out of reach.
    pub(in crate::policy) fn suggests_damage(&self) -> bool {
        match self {
            // Another clone would need still more space.
            Self::Failed { .. } => !self.is_full_disk(),
            Self::Unexpected { .. } => true,
            Self::NotStarted { .. }
            | Self::NotRead { .. }
            | Self::TimedOut { .. }
            | Self::TooMuchOutput { .. } => false,
        }
    }

    /// Whether the remote has no such branch.
    pub(in crate::policy) fn is_missing_branch(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.contains("couldn't find remote ref"))
    }

    /// Whether there was no space left on our side.
    pub(in crate::policy) fn is_full_disk(&self) -> bool {
        let Self::Failed { message, .. } = self else {
            return false;
        };
        let says_so = |line: &str| FULL_DISK.iter().any(|text| line.contains(text));
        // What the other side prints is marked.
        let mut ours = message
            .split("; ")
            .filter(|line| !line.starts_with("remote:"));
        ours.any(says_so)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str) -> GitError {
        GitError::Failed {
            operation: "fetch",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_full_disk_is_no_damage_of_the_clone() {
        for message in [
            "fatal: write error: No space left on device; fatal: fetch-pack: invalid index-pack output",
            "error: unable to create temporary file: Disk quota exceeded; remote: Total 3",
        ] {
            let error = failed(message);
            assert!(
                error.is_full_disk() && !error.suggests_damage(),
                "{message}"
            );
        }
    }

    #[test]
    fn any_other_failure_may_be_damage() {
        for message in [
            "fatal: bad object HEAD",
            "remote: fatal: write error: No space left on device; fatal: early EOF",
        ] {
            let error = failed(message);
            assert!(
                !error.is_full_disk() && error.suggests_damage(),
                "{message}"
            );
        }
    }
}
