//! Mistakes that the simulation has to find. Each is made in the simulation's own parts, where they
//! meet the real ones.

use std::fmt;
use std::str::FromStr;

/// A mistake that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The first change that is replayed after a reconnect is not handed on.
    SkipChangeOnReconnect,
    /// A write counts as done when it begins.
    AcknowledgeBeforeApplying,
    /// A document that could not be fetched is never asked for again.
    ForgetFailingEntry,
    /// A fetch is answered with what an older one for the same URL brought.
    ApplyOlderFetchLate,
    /// A feed of another epoch is taken for the one that was followed before.
    TrustOldEpoch,
    /// A patch whose outcome is unknown is sent again.
    ApplyPatchTwice,
    /// What does not fit into the client's queue of events is dropped.
    DropOnFullQueue,
    /// The base holds of each document only the first entry.
    FoldBaseWrongly,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SkipChangeOnReconnect,
        Self::AcknowledgeBeforeApplying,
        Self::ForgetFailingEntry,
        Self::ApplyOlderFetchLate,
        Self::TrustOldEpoch,
        Self::ApplyPatchTwice,
        Self::DropOnFullQueue,
        Self::FoldBaseWrongly,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipChangeOnReconnect => "skip-change-on-reconnect",
            Self::AcknowledgeBeforeApplying => "acknowledge-before-applying",
            Self::ForgetFailingEntry => "forget-failing-entry",
            Self::ApplyOlderFetchLate => "apply-older-fetch-late",
            Self::TrustOldEpoch => "trust-old-epoch",
            Self::ApplyPatchTwice => "apply-patch-twice",
            Self::DropOnFullQueue => "drop-on-full-queue",
            Self::FoldBaseWrongly => "fold-base-wrongly",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no bug has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchBug(String);

impl std::error::Error for NoSuchBug {}

impl fmt::Display for NoSuchBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Bug::ALL.map(Bug::name).join(", ");
        write!(f, "no bug is named `{}`; expected one of {names}", self.0)
    }
}

impl FromStr for Bug {
    type Err = NoSuchBug;

    fn from_str(text: &str) -> Result<Self, NoSuchBug> {
        let named = Self::ALL.into_iter().find(|bug| bug.name() == text);
        named.ok_or_else(|| NoSuchBug(text.to_owned()))
    }
}
