//! What can go wrong with the `git` program.

use std::io;
use std::time::Duration;

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
            Self::Failed { .. } | Self::Unexpected { .. } => true,
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
}
