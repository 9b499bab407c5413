//! What an append comes to.

use std::sync::Arc;

use opal_protocol::{CommitHash, Position, Revision, ScopeId, UpdateId};

use super::change::Change;

/// The outcome of an append.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// The change has its place and is to be delivered.
    New(Arc<Change>),
    /// The same change, by its id, has been appended before.
    Repeated(Position),
}

impl Appended {
    /// Where the change is.
    pub fn position(&self) -> Position {
        match self {
            Self::New(change) => change.position,
            Self::Repeated(position) => *position,
        }
    }
}

/// Why a change was not appended. The feed is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Someone else appended first.
    #[error("the feed of scope `{scope}` is at revision {head}, not at {expected}")]
    HeadMoved {
        /// The feed.
        scope: ScopeId,
        /// Where it is.
        head: Revision,
        /// Where the caller thought it to be.
        expected: Revision,
    },
    /// A policy change starts from a commit that is not the current one.
    #[error("the policy of scope `{scope}` is at commit {}, the change starts from {}",
        current.as_ref().map_or("none", CommitHash::short), from.as_ref().map_or("none", CommitHash::short))]
    CommitMoved {
        /// The feed.
        scope: ScopeId,
        /// The current commit.
        current: Option<CommitHash>,
        /// Where the change starts.
        from: Option<CommitHash>,
    },
    /// The id is that of a change with other topics or another payload.
    #[error("the id `{id}` is that of another change, revision {revision} of scope `{scope}`")]
    IdReused {
        /// The feed.
        scope: ScopeId,
        /// The id.
        id: UpdateId,
        /// The change that has it.
        revision: Revision,
    },
}
