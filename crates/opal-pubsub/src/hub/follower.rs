//! A connection that follows the feed, and what its client says of itself.

use std::sync::Arc;
use std::time::Instant;

use opal_protocol::feed::{AppliedArguments, ClientInfo, FailingEntry};
use opal_protocol::{CommitHash, Revision, ScopeId, Topic};

use super::outstanding::Outstanding;
use super::ranges::{Backwards, Ranges};
use super::{AppliedFault, ReportedPolicies, SubscriberId};

/// So many failing entries are kept of one client, those of the newest changes first.
const MOST_FAILING: usize = 1000;
/// So much is kept of what a client says about itself.
pub(super) const LONGEST_NAME: usize = 256;
/// So much is kept of an error.
const LONGEST_ERROR: usize = 2000;

/// A client of a scope, whichever connection it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    /// Whose feed it follows.
    pub(super) scope: ScopeId,
    /// Its id.
    pub(super) id: Arc<str>,
}

/// One connection that follows the feed.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) key: ClientKey,
    pub(super) info: ClientInfo,
    pub(super) topics: Vec<Topic>,
    pub(super) resumed_at: Instant,
    /// The last revision that it was told, by whichever frame.
    pub(super) told: Revision,
    pub(super) outstanding: Outstanding,
    /// It takes a snapshot, unless it said that it has reached `floor`.
    takes_snapshot: bool,
    /// What it has to say at least that it holds, before anything else can be said about it: what
    /// it was told before this connection, or all that a snapshot contains.
    floor: Revision,
    reached: bool,
    /// None until it said something.
    applied: Option<Revision>,
    done: Ranges,
    pub(super) failing: Vec<FailingEntry>,
    /// The changes that failed for good and are not among those kept, ascending.
    failed_too: Vec<Revision>,
    policies: Option<Policies>,
    /// The policies that were found to be others than those of their commit.
    drifted: Option<Policies>,
}

/// Policies as a client describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) commit: Option<CommitHash>,
    pub(super) digest: Option<String>,
}

/// How a client stands to one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its engine holds it.
    Applied,
    /// It tried, failed, and will not try again.
    Failed(String),
    /// Nothing is certain yet; with the latest error, if it tried.
    Pending(Option<String>),
}

impl Standing {
    /// How a client stands that has two connections: as the one that is worse off.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Applied, other) => other,
            (pending @ Self::Pending(_), _) | (_, pending @ Self::Pending(_)) => pending,
            (failed @ Self::Failed(_), _) => failed,
        }
    }
}

impl Follower {
    /// A client that starts from `floor`, by a snapshot or by what it has.
    pub(super) fn new(
        key: ClientKey,
        info: ClientInfo,
        topics: Vec<Topic>,
        start: (Revision, bool),
        now: Instant,
    ) -> Self {
        let (floor, takes_snapshot) = start;
        Self {
            key,
            info: shortened(info),
            topics,
            resumed_at: now,
            told: Revision(0),
            outstanding: Outstanding::default(),
            takes_snapshot,
            floor,
            reached: false,
            applied: None,
            done: Ranges::default(),
            failing: Vec::new(),
            failed_too: Vec::new(),
            policies: None,
            drifted: None,
        }
    }

    /// Notes a change that is being told.
    pub(super) fn tell(&mut self, revision: Revision) {
        self.outstanding.push(revision);
        self.told = revision;
    }

    /// Takes a report. After a fault everything is as before.
    pub(super) fn report(
        &mut self,
        report: AppliedArguments,
        head: Revision,
    ) -> Result<(), AppliedFault> {
        let low = report.low;
        let done = Ranges::normalised(report.done, low);
        let done = done.map_err(|Backwards| AppliedFault::Backwards)?;
        // Up to the head whatever it was not told does not concern it, so that claiming it is true.
        if low.max(done.last().unwrap_or(low)) > head {
            return Err(AppliedFault::NeverTold);
        }
        if let Some(before) = self.applied
            && low < before
        {
            // It lost something that it had.
            self.floor = self.floor.max(before);
            self.reached = false;
        }
        if low >= self.floor {
            self.reached = true;
            self.takes_snapshot = false;
        }
        self.outstanding.settle(low, &done);
        self.applied = Some(low);
        self.done = done;
        (self.failing, self.failed_too) = kept(report.failing);
        self.note_policies(report.commit, report.digest_of_policies);
        Ok(())
    }

    fn note_policies(&mut self, commit: Option<CommitHash>, digest: Option<String>) {
        let digest = digest.map(|digest| cut(digest, LONGEST_NAME));
        let policies = Policies { commit, digest };
        if policies.digest.is_some() && self.drifted.as_ref() != Some(&policies) {
            self.drifted = None;
        }
        self.policies = Some(policies);
    }

    /// Marks these policies as not those of their commit. Returns whether it still holds them.
    pub(super) fn mark_drift(&mut self, reported: &ReportedPolicies) -> bool {
        let drifted = Policies {
            commit: Some(reported.commit.clone()),
            digest: Some(reported.digest.clone()),
        };
        let holds = self.policies.as_ref() == Some(&drifted);
        if holds {
            self.drifted = Some(drifted);
        }
        holds
    }

    /// Whether the policies that it reported last were found to be others than they should be.
    pub(super) fn has_drifted(&self) -> bool {
        self.drifted.is_some()
    }

    /// The policies that it reported last.
    pub(super) fn policies(&self) -> Option<&Policies> {
        self.policies.as_ref()
    }

    /// The same for those who compare them, if it said both commit and digest.
    pub(super) fn reported_policies(&self, subscriber: SubscriberId) -> Option<ReportedPolicies> {
        let policies = self.policies()?;
        Some(ReportedPolicies {
            subscriber,
            client: self.key.id.to_string(),
            scope: self.key.scope.clone(),
            topics: self.topics.clone(),
            commit: policies.commit.clone()?,
            digest: policies.digest.clone()?,
        })
    }

    /// How it stands to `revision`, which concerns it.
    pub(super) fn standing(&self, revision: Revision) -> Standing {
        let mut tried = self
            .failing
            .iter()
            .filter(|entry| entry.revision == revision);
        let low = self.applied.unwrap_or_default();
        let holds = self.applied.is_some() && (revision <= low || self.done.contains(revision));
        match tried.clone().find(|entry| !entry.is_final).or(tried.next()) {
            Some(entry) if entry.is_final => Standing::Failed(entry.error.clone()),
            Some(entry) => Standing::Pending(Some(entry.error.clone())),
            None if self.failed_too.binary_search(&revision).is_ok() => {
                Standing::Failed("failed, as many others did".to_owned())
            }
            None if holds => Standing::Applied,
            None => Standing::Pending(None),
        }
    }

    /// Whether it still takes the snapshot that it started with.
    pub(super) fn is_in_snapshot(&self) -> bool {
        self.takes_snapshot
    }

    /// The last revision up to which it holds all that concerns it; `head` with nothing
    /// outstanding, and none before it said anything that settles the matter.
    pub(super) fn position(&self, head: Revision) -> Option<Revision> {
        let low = self.applied?;
        if !self.reached {
            return (!self.takes_snapshot).then_some(low);
        }
        let oldest = self.outstanding.oldest(low);
        Some(oldest.map_or(head, |oldest| Revision(oldest.0.saturating_sub(1))))
    }

    /// The oldest change that it was told of and does not hold.
    pub(super) fn oldest_outstanding(&self) -> Option<Revision> {
        self.outstanding.oldest(self.applied.unwrap_or_default())
    }

    /// Whether it has said that it holds what it started from.
    pub(super) fn has_reached_its_start(&self) -> bool {
        self.reached
    }
}

/// The entries that are kept, and the changes of the others that failed for good: those count as
/// done, so that nothing else says that they were not applied.
fn kept(mut failing: Vec<FailingEntry>) -> (Vec<FailingEntry>, Vec<Revision>) {
    let mut failed_too = Vec::new();
    if failing.len() > MOST_FAILING {
        failing.sort_by_key(|entry| std::cmp::Reverse(entry.revision));
        let others = failing.drain(MOST_FAILING..).rev();
        let finally = others.filter(|entry| entry.is_final);
        failed_too.extend(finally.map(|entry| entry.revision));
        failed_too.dedup();
    }
    for entry in &mut failing {
        entry.entry = cut(std::mem::take(&mut entry.entry), LONGEST_ERROR);
        entry.error = cut(std::mem::take(&mut entry.error), LONGEST_ERROR);
        entry.since = cut(std::mem::take(&mut entry.since), LONGEST_NAME);
    }
    (failing, failed_too)
}

fn shortened(info: ClientInfo) -> ClientInfo {
    ClientInfo {
        id: cut(info.id, LONGEST_NAME),
        host: cut(info.host, LONGEST_NAME),
        version: cut(info.version, LONGEST_NAME),
        instance: cut(info.instance, LONGEST_NAME),
    }
}

/// At most so many bytes of `text`, in whole characters.
pub(super) fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.shrink_to_fit();
    }
    text
}
