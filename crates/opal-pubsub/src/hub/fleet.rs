//! What a server can say about its clients: who they are, where they are, what went wrong.

use std::fmt;

use opal_protocol::feed::FailingEntry;
use opal_protocol::{AtLeast, CommitHash, ScopeId, Topic};
use serde::{Deserialize, Serialize};

use super::SubscriberId;

/// One client, as people and programs see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientView {
    /// What it calls itself, or the id of its connection.
    pub id: String,
    /// Where it runs: what it says, or where its connection comes from.
    pub host: Option<String>,
    /// Its version; empty if it does not say.
    pub version: String,
    /// Whose feed it follows.
    pub scope: ScopeId,
    /// What it subscribed to.
    pub topics: Vec<Topic>,
    /// How it is told.
    pub mode: ClientMode,
    /// How it is.
    pub state: ClientState,
    /// Up to where it holds everything that concerns it; none if that is not known.
    pub position: Option<AtLeast>,
    /// How many changes it was told and has not applied.
    pub lag_changes: usize,
    /// There are more than [`lag_changes`](Self::lag_changes), which stopped counting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lag_is_more: bool,
    /// For how long the oldest of them is outstanding.
    pub lag_seconds: f64,
    /// What it could not apply.
    pub failing: Vec<FailingEntry>,
    /// The commit of its policies.
    pub commit: Option<CommitHash>,
    /// The digest of its policies.
    pub digest: Option<String>,
    /// Its policies are not those of their commit; it was told to take a snapshot.
    pub drift: bool,
    /// For how long it has been connected, in seconds; none once it is lost.
    pub connected_since: Option<f64>,
    /// How long ago its connection ended, in seconds; none while it is connected.
    pub lost_since: Option<f64>,
}

/// How a client is told of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientMode {
    /// By the feed: it says what it applied.
    Feed,
    /// As released clients are: what it does with it is not known.
    Released,
}

/// How a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientState {
    /// It has applied all that it was told; of a released client, only that it is connected.
    Current,
    /// It was told of changes that it has not applied yet.
    Behind,
    /// It takes everything anew and has not finished.
    Snapshot,
    /// Something that it tried failed.
    Failing,
    /// Its connection ended within the last 30 s.
    Disconnected,
}

impl ClientMode {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Released => "released",
        }
    }
}

impl ClientState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Snapshot => "snapshot",
            Self::Failing => "failing",
            Self::Disconnected => "disconnected",
        }
    }
}

impl fmt::Display for ClientMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The policies that a client says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedPolicies {
    /// The connection, for [`Hub::mark_drift`](super::Hub::mark_drift).
    pub subscriber: SubscriberId,
    /// The client's id.
    pub client: String,
    /// Whose feed it follows.
    pub scope: ScopeId,
    /// What it subscribed to.
    pub topics: Vec<Topic>,
    /// The commit that the policies are of.
    pub commit: CommitHash,
    /// Their digest, as [`policy_digest`](opal_protocol::policy::policy_digest) makes it.
    pub digest: String,
}
