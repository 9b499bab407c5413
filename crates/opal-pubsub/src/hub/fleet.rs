//! What a server can say about its clients: who they are, where they are, what went wrong.

use std::fmt;
use std::time::Instant;

use opal_protocol::feed::FailingEntry;
use opal_protocol::{AtLeast, CommitHash, Position, ScopeId, Topic};
use serde::{Deserialize, Serialize};

use super::follower::Follower;
use super::timeline::Timeline;
use super::{Peer, SubscriberId};

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
    /// The connection, which is what [`Drift`] is said of.
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

/// Policies that were found to be others than those of their commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Who reported them, and what: a client that reported others meanwhile is not meant.
    pub reported: ReportedPolicies,
    /// Whether to tell the client, so that it takes a snapshot.
    pub tell: bool,
}

/// What is to be known of a scope to look at its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'s> {
    pub(super) head: Position,
    pub(super) timeline: &'s Timeline,
    pub(super) now: Instant,
}

impl Follower {
    /// What people see of it.
    pub(super) fn view(&self, peer: &Peer, since: Instant, moment: &Moment<'_>) -> ClientView {
        let (lag_changes, lag_is_more) = self.outstanding.count();
        let position = self.position(moment.head.revision);
        let behind_since = self.behind_since(moment.timeline);
        let seconds = |since: Instant| moment.now.duration_since(since).as_secs_f64();
        let named = (!self.info.host.is_empty()).then(|| self.info.host.clone());
        ClientView {
            id: self.key.id.to_string(),
            host: named.or_else(|| peer.host.clone()),
            version: self.info.version.clone(),
            scope: self.key.scope.clone(),
            topics: self.topics.clone(),
            mode: ClientMode::Feed,
            state: self.state(behind_since.is_some()),
            position: position.map(|revision| AtLeast {
                epoch: moment.head.epoch,
                revision,
            }),
            lag_changes,
            lag_is_more,
            lag_seconds: behind_since.map_or(0.0, seconds),
            failing: self.failing.clone(),
            commit: self.policies().and_then(|held| held.commit.clone()),
            digest: self.policies().and_then(|held| held.digest.clone()),
            drift: self.has_drifted(),
            connected_since: Some(seconds(since)),
            lost_since: None,
        }
    }

    fn state(&self, is_behind: bool) -> ClientState {
        if !self.failing.is_empty() {
            ClientState::Failing
        } else if self.is_in_snapshot() {
            ClientState::Snapshot
        } else if is_behind {
            ClientState::Behind
        } else {
            ClientState::Current
        }
    }

    /// Since when it has not held something that it was told, or started from.
    fn behind_since(&self, timeline: &Timeline) -> Option<Instant> {
        if !self.has_reached_its_start() {
            return Some(self.resumed_at);
        }
        let told = timeline.told_at(self.oldest_outstanding()?);
        // What was replayed was told when it was replayed.
        Some(told.map_or(self.resumed_at, |told| told.max(self.resumed_at)))
    }
}

/// What people see of a connection in the released way.
pub(super) fn released_view(
    peer: &Peer,
    topics: &[Topic],
    since: Instant,
    now: Instant,
) -> ClientView {
    ClientView {
        id: peer.name().to_owned(),
        host: peer.host.clone(),
        version: String::new(),
        scope: ScopeId::default(),
        topics: topics.to_vec(),
        mode: ClientMode::Released,
        state: ClientState::Current,
        position: None,
        lag_changes: 0,
        lag_is_more: false,
        lag_seconds: 0.0,
        failing: Vec::new(),
        commit: None,
        digest: None,
        drift: false,
        connected_since: Some(now.duration_since(since).as_secs_f64()),
        lost_since: None,
    }
}
