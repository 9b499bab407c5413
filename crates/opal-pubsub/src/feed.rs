//! The ordered list of changes of each scope.
//!
//! [`FeedLog`] is the feed of one server, in memory, as a state machine: it does no I/O and reads
//! no clock. Drivers for feeds that outlive a server keep the same promises:
//!
//! - a revision is the head's plus one, dense for its scope;
//! - appending is compare-and-append: on an expected head for those who name one, and on the
//!   current commit for policy changes, so that a slow writer cannot put an older commit after a
//!   newer one;
//! - a change's id makes a repeated append harmless;
//! - each change chains a digest, so that a position names a history and not just a number.
//!
//! Appending has two steps, because a change is told to nobody before it is durable:
//! [`FeedLog::stage`] gives changes their places, which only those staged after them can see;
//! [`FeedLog::commit_staged`] makes all of them part of the feed, [`FeedLog::discard_staged`] none.
//! What makes them durable in between is not done here: see [`journal_file`].
//!
//! The history is bounded. What leaves it is folded into the scope's [`base`].

mod append;
pub mod base;
mod change;
pub mod journal;
pub mod journal_file;
mod known_ids;
mod scope_log;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opal_protocol::feed::BaseSnapshot;
use opal_protocol::{ChainDigest, CommitHash, Epoch, Position, Revision, ScopeId, Topic};
use rand::Rng;

pub use append::{AppendError, Appended};
pub use change::{Change, ChangeDraft, Payload, PolicyChange};
pub use topics::Topics;

use base::Base;
use scope_log::{Place, ScopeImage, ScopeLog};
use topics::TopicPool;

/// A new life for feeds that start without their past.
pub fn new_epoch(rng: &mut impl Rng) -> Epoch {
    Epoch(rng.random())
}

/// How much history is kept for each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// At most so many changes.
    pub changes: usize,
    /// At most so many bytes of payload and topics.
    pub bytes: usize,
    /// No change older than this.
    pub age: Duration,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            changes: 100_000,
            bytes: 32 * 1024 * 1024,
            age: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What follows a position.
#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    /// These changes, in order.
    Changes(Vec<Arc<Change>>),
    /// The position is of another history, or older than what is kept: take everything.
    Snapshot,
}

/// What the feeds of all scopes consist of at one moment. Making one copies no changes, and it can be
/// written while the feeds go on.
#[derive(Debug, Clone)]
pub struct FeedImage {
    epoch: Epoch,
    scopes: Vec<ScopeImage>,
}

/// The feeds of all scopes of one server, in memory.
///
/// Whatever is asked of it is answered from what is committed.
#[derive(Debug)]
pub struct FeedLog {
    epoch: Epoch,
    limits: FeedLimits,
    scopes: BTreeMap<ScopeId, ScopeLog>,
    /// The scopes in which something is staged.
    staged: BTreeSet<ScopeId>,
    topics: TopicPool,
}

impl FeedLog {
    /// Empty feeds of a new life.
    pub fn new(epoch: Epoch, limits: FeedLimits) -> Self {
        Self {
            epoch,
            limits,
            scopes: BTreeMap::new(),
            staged: BTreeSet::new(),
            topics: TopicPool::default(),
        }
    }

    /// The life of all these feeds.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the feed of `scope` is.
    pub fn head(&self, scope: &ScopeId) -> Position {
        let log = self.scopes.get(scope);
        log.map_or_else(|| beginning(self.epoch), ScopeLog::head)
    }

    /// The commit that the last policy change of `scope` led to.
    pub fn commit(&self, scope: &ScopeId) -> Option<&CommitHash> {
        self.scopes.get(scope)?.commit()
    }

    /// Where the last policy change of `scope` is, whether the history still has it or not.
    pub fn announced(&self, scope: &ScopeId) -> Option<Position> {
        self.scopes.get(scope)?.announced()
    }

    /// Gives `draft` the next revision of `scope`, if the feed still is where the caller thinks, and
    /// counts what was staged before as part of it. `at` is the time in milliseconds since the Unix
    /// epoch.
    ///
    /// Nobody may hear of the outcome before [`FeedLog::commit_staged`], whatever it is: also
    /// [`Appended::Repeated`] may be the place of a change that is only staged, and a refusal may be
    /// for the sake of one. After [`FeedLog::discard_staged`] none of the outcomes holds.
    pub fn stage(
        &mut self,
        scope: &ScopeId,
        expected: Option<Revision>,
        mut draft: ChangeDraft,
        at: u64,
    ) -> Result<Appended, AppendError> {
        draft.topics = self.topics.shared(draft.topics);
        self.staged.insert(scope.clone());
        self.log(scope).stage(expected, draft, at)
    }

    fn log(&mut self, scope: &ScopeId) -> &mut ScopeLog {
        self.scopes.entry(scope.clone()).or_insert_with(|| {
            ScopeLog::new(scope.clone(), self.epoch, Place::default(), Base::default())
        })
    }

    /// Starts a feed whose history begins at `tail`.
    fn begin(&mut self, scope: ScopeId, tail: Place, base: Base) {
        let log = ScopeLog::new(scope.clone(), self.epoch, tail, base);
        self.scopes.insert(scope, log);
    }

    /// Puts a change back that was committed before; `false` if it does not follow what is here.
    fn restore(
        &mut self,
        scope: &ScopeId,
        position: (Revision, ChainDigest),
        at: u64,
        mut draft: ChangeDraft,
    ) -> bool {
        draft.topics = self.topics.shared(draft.topics);
        let limits = self.limits;
        self.log(scope).restore(position, at, draft, &limits)
    }

    /// What the feeds consist of, without what is staged.
    pub fn image(&self) -> FeedImage {
        FeedImage {
            epoch: self.epoch,
            scopes: self.scopes.values().map(ScopeLog::image).collect(),
        }
    }

    /// Makes everything staged part of the feeds; the history that the limits leave no room for is
    /// folded.
    pub fn commit_staged(&mut self) {
        for scope in std::mem::take(&mut self.staged) {
            if let Some(log) = self.scopes.get_mut(&scope) {
                log.commit_staged(&self.limits);
            }
        }
    }

    /// Takes back everything staged: the feeds are as they were after the last commit.
    pub fn discard_staged(&mut self) {
        for scope in std::mem::take(&mut self.staged) {
            if let Some(log) = self.scopes.get_mut(&scope) {
                log.discard_staged();
            }
        }
    }

    /// Stages and commits in one, for feeds that nobody makes durable. Commits whatever else is
    /// staged.
    pub fn append(
        &mut self,
        scope: &ScopeId,
        expected: Option<Revision>,
        draft: ChangeDraft,
        at: u64,
    ) -> Result<Appended, AppendError> {
        let appended = self.stage(scope, expected, draft, at);
        self.commit_staged();
        appended
    }

    /// Begins another life with the same past: every position that was given out is void, and whoever
    /// comes with one takes everything anew. For when what clients take beside the feed has changed.
    pub fn renew(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        for log in self.scopes.values_mut() {
            log.renew(epoch);
        }
    }

    /// Folds the history that is too old at `now`, in milliseconds since the Unix epoch.
    pub fn expire(&mut self, now: u64) {
        for log in self.scopes.values_mut() {
            log.expire(&self.limits, now);
        }
    }

    /// The change of `scope` with this revision, if the history has it.
    pub fn change(&self, scope: &ScopeId, revision: Revision) -> Option<&Arc<Change>> {
        self.scopes.get(scope)?.change(revision)
    }

    /// What someone at `position` of `scope` has missed.
    pub fn since(&self, scope: &ScopeId, position: &Position) -> Since {
        match self.scopes.get(scope) {
            Some(log) => log.since(position),
            None if *position == beginning(self.epoch) => Since::Changes(Vec::new()),
            None => Since::Snapshot,
        }
    }

    /// What the feed of `scope` comes down to at its head, for a client of `topics`.
    ///
    /// The first call after a change folds what was appended since the call before, so what it costs
    /// depends on that and on the size of the answer.
    pub fn base(&mut self, scope: &ScopeId, topics: &[Topic]) -> BaseSnapshot {
        match self.scopes.get_mut(scope) {
            Some(log) => log.base(topics),
            None => BaseSnapshot {
                position: beginning(self.epoch),
                entries: Vec::new(),
            },
        }
    }
}

/// Before the first change of any scope.
fn beginning(epoch: Epoch) -> Position {
    Position {
        epoch,
        revision: Revision(0),
        digest: ChainDigest::default(),
    }
}

#[cfg(test)]
mod test_drafts;
#[cfg(test)]
mod tests;
