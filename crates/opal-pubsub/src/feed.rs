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

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use opal_protocol::{
    ChainDigest, CommitHash, Document, Epoch, PolicyUpdateMessage, Position, Revision, ScopeId,
    Topic, UpdateId,
};
use rand::Rng;
use sha2::{Digest as _, Sha256};

/// A new life for feeds that start without their past.
pub fn new_epoch(rng: &mut impl Rng) -> Epoch {
    Epoch(rng.random())
}

/// The digest of `draft` after everything that `before` stands for.
fn chain(before: ChainDigest, scope: &ScopeId, draft: &ChangeDraft) -> ChainDigest {
    let mut hash = Sha256::new();
    hash.update(before.0);
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(scope.as_str().as_bytes());
    part(draft.id.as_str().as_bytes());
    for topic in &draft.topics {
        part(topic.as_str().as_bytes());
    }
    part(draft.payload.data().text().as_bytes());
    let mut digest = [0; 16];
    let full = hash.finalize();
    for (to, from) in digest.iter_mut().zip(full) {
        *to = from;
    }
    ChainDigest(digest)
}

/// What a change says.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// The policy source moved.
    Policy(PolicyChange),
    /// A data update, as its JSON.
    Data(Document),
    /// Whatever a peer published to the others.
    Message(Document),
}

impl Payload {
    /// What subscribers get to see.
    pub fn data(&self) -> &Document {
        match self {
            Self::Policy(change) => &change.message,
            Self::Data(document) | Self::Message(document) => document,
        }
    }
}

/// The policy source moved from one commit to another.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyChange {
    /// The commit before; none for the first one that the feed hears of.
    pub old: Option<CommitHash>,
    /// The commit that is current now.
    pub new: CommitHash,
    /// The announcement, as its JSON.
    message: Document,
}

impl PolicyChange {
    /// A change from `old`, announced by `message`.
    pub fn new(old: Option<CommitHash>, message: &PolicyUpdateMessage) -> Self {
        let text = serde_json::to_string(message).expect("a message prints as JSON");
        Self {
            old,
            new: message.new_policy_hash.clone(),
            message: Document::parse(text).expect("a message prints as JSON"),
        }
    }
}

/// A change before it has its place.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeDraft {
    /// Makes a repeated append harmless.
    pub id: UpdateId,
    /// Whom it concerns, exactly as subscribed to.
    pub topics: Vec<Topic>,
    /// What it says.
    pub payload: Payload,
}

/// A change in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The feed it is part of.
    pub scope: ScopeId,
    /// Its place, and the digest of everything up to it.
    pub position: Position,
    /// What was appended.
    pub draft: ChangeDraft,
}

/// The outcome of an append.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// The change has its place and is to be delivered.
    New(Arc<Change>),
    /// A change with this id has been appended before.
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
}

/// How much history is kept for each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// At most so many changes.
    pub changes: usize,
    /// At most so many bytes of payload and topics.
    pub bytes: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            changes: 10_000,
            bytes: 32 * 1024 * 1024,
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

/// The feeds of all scopes of one server, in memory.
#[derive(Debug)]
pub struct FeedLog {
    epoch: Epoch,
    limits: FeedLimits,
    scopes: HashMap<ScopeId, ScopeLog>,
}

#[derive(Debug, Default)]
struct ScopeLog {
    revision: Revision,
    digest: ChainDigest,
    commit: Option<CommitHash>,
    /// The newest changes, oldest first.
    history: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Positions of the changes in `history` by id.
    known: HashMap<UpdateId, Position>,
}

impl FeedLog {
    /// Empty feeds of a new life.
    pub fn new(epoch: Epoch, limits: FeedLimits) -> Self {
        Self {
            epoch,
            limits,
            scopes: HashMap::new(),
        }
    }

    /// Where the feed of `scope` is.
    pub fn head(&self, scope: &ScopeId) -> Position {
        let log = self.scopes.get(scope);
        Position {
            epoch: self.epoch,
            revision: log.map_or(Revision(0), |log| log.revision),
            digest: log.map_or(ChainDigest::default(), |log| log.digest),
        }
    }

    /// The commit that the last policy change of `scope` led to.
    pub fn commit(&self, scope: &ScopeId) -> Option<&CommitHash> {
        self.scopes.get(scope)?.commit.as_ref()
    }

    /// Gives `draft` the next revision of `scope`, if the feed still is where the caller thinks.
    pub fn append(
        &mut self,
        scope: &ScopeId,
        expected: Option<Revision>,
        draft: ChangeDraft,
    ) -> Result<Appended, AppendError> {
        let epoch = self.epoch;
        let limits = self.limits;
        let log = self.scopes.entry(scope.clone()).or_default();
        if let Some(position) = log.known.get(&draft.id) {
            return Ok(Appended::Repeated(*position));
        }
        log.check(scope, expected, &draft.payload)?;
        log.digest = chain(log.digest, scope, &draft);
        log.revision = Revision(log.revision.0 + 1);
        if let Payload::Policy(change) = &draft.payload {
            log.commit = Some(change.new.clone());
        }
        let position = Position {
            epoch,
            revision: log.revision,
            digest: log.digest,
        };
        let change = Arc::new(Change {
            scope: scope.clone(),
            position,
            draft,
        });
        log.keep(&change, limits);
        Ok(Appended::New(change))
    }

    /// The change with that revision, if it is still part of the history.
    pub fn change(&self, scope: &ScopeId, revision: Revision) -> Option<&Arc<Change>> {
        let history = &self.scopes.get(scope)?.history;
        let at = history
            .binary_search_by_key(&revision, |change| change.position.revision)
            .ok()?;
        history.get(at)
    }

    /// What someone at `position` of `scope` has missed.
    pub fn since(&self, scope: &ScopeId, position: &Position) -> Since {
        let head = self.head(scope);
        if *position == head {
            return Since::Changes(Vec::new());
        }
        let Some(log) = self.scopes.get(scope) else {
            return Since::Snapshot;
        };
        let known = log
            .history
            .iter()
            .position(|change| change.position == *position);
        match known {
            Some(at) => Since::Changes(log.history.iter().skip(at + 1).cloned().collect()),
            None => Since::Snapshot,
        }
    }
}

impl ScopeLog {
    fn check(
        &self,
        scope: &ScopeId,
        expected: Option<Revision>,
        payload: &Payload,
    ) -> Result<(), AppendError> {
        if let Some(expected) = expected
            && expected != self.revision
        {
            return Err(AppendError::HeadMoved {
                scope: scope.clone(),
                head: self.revision,
                expected,
            });
        }
        if let Payload::Policy(change) = payload
            && change.old != self.commit
        {
            return Err(AppendError::CommitMoved {
                scope: scope.clone(),
                current: self.commit.clone(),
                from: change.old.clone(),
            });
        }
        Ok(())
    }

    fn keep(&mut self, change: &Arc<Change>, limits: FeedLimits) {
        self.bytes += size(change);
        self.known.insert(change.draft.id.clone(), change.position);
        self.history.push_back(Arc::clone(change));
        while self.history.len() > limits.changes || self.bytes > limits.bytes {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
            self.known.remove(&oldest.draft.id);
        }
    }
}

fn size(change: &Change) -> usize {
    let topics = change.draft.topics.iter();
    let topics: usize = topics.map(|topic| topic.as_str().len()).sum();
    change.draft.payload.data().text().len() + topics
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn log(limits: FeedLimits) -> FeedLog {
        FeedLog::new(new_epoch(&mut StdRng::seed_from_u64(1)), limits)
    }

    fn data(id: &str) -> ChangeDraft {
        ChangeDraft {
            id: id.into(),
            topics: vec!["t".into()],
            payload: Payload::Data(Document::parse(format!("{{\"{id}\":1}}")).unwrap()),
        }
    }

    fn policy(id: &str, old: Option<char>, new: char) -> ChangeDraft {
        let hash = |c: char| CommitHash::parse(&c.to_string().repeat(40)).unwrap();
        let message = PolicyUpdateMessage {
            old_policy_hash: hash(old.unwrap_or(new)),
            new_policy_hash: hash(new),
            changed_directories: vec![],
        };
        ChangeDraft {
            id: id.into(),
            topics: vec!["policy:.".into()],
            payload: Payload::Policy(PolicyChange::new(old.map(hash), &message)),
        }
    }

    #[test]
    fn revisions_are_dense_in_each_scope() {
        let mut feed = log(FeedLimits::default());
        let (here, there) = (ScopeId::default(), ScopeId::from("s1"));
        for (scope, id, revision) in [(&here, "a", 1), (&there, "a", 1), (&here, "b", 2)] {
            let appended = feed.append(scope, None, data(id)).unwrap();
            assert_eq!(appended.position().revision, Revision(revision));
        }
        assert_ne!(feed.head(&here).digest, feed.head(&there).digest);
    }

    #[test]
    fn of_two_writers_at_one_head_the_second_is_refused() {
        let mut feed = log(FeedLimits::default());
        let scope = ScopeId::default();
        feed.append(&scope, Some(Revision(0)), data("a")).unwrap();
        let refused = feed.append(&scope, Some(Revision(0)), data("b"));
        assert!(matches!(refused, Err(AppendError::HeadMoved { .. })));
        assert_eq!(feed.head(&scope).revision, Revision(1));
    }

    #[test]
    fn a_repeated_append_is_harmless() {
        let mut feed = log(FeedLimits::default());
        let scope = ScopeId::default();
        let first = feed.append(&scope, None, data("a")).unwrap();
        let second = feed.append(&scope, None, data("a")).unwrap();
        assert_eq!(second, Appended::Repeated(first.position()));
    }

    #[test]
    fn an_older_commit_cannot_come_after_a_newer_one_but_a_force_push_back_can() {
        let mut feed = log(FeedLimits::default());
        let scope = ScopeId::default();
        feed.append(&scope, None, policy("1", None, 'a')).unwrap();
        feed.append(&scope, None, policy("2", Some('a'), 'b'))
            .unwrap();
        let late = feed.append(&scope, None, policy("3", Some('a'), 'c'));
        assert!(matches!(late, Err(AppendError::CommitMoved { .. })));
        feed.append(&scope, None, policy("4", Some('b'), 'a'))
            .unwrap();
        assert_eq!(feed.commit(&scope).unwrap().as_str(), "a".repeat(40));
    }

    #[test]
    fn who_is_inside_the_history_gets_what_was_missed_and_others_take_everything() {
        let mut feed = log(FeedLimits {
            changes: 2,
            bytes: 1000,
        });
        let scope = ScopeId::default();
        let positions: Vec<Position> = ["a", "b", "c"]
            .map(|id| feed.append(&scope, None, data(id)).unwrap().position())
            .to_vec();
        let ids = |since| match since {
            Since::Changes(changes) => changes.iter().map(|c| c.draft.id.to_string()).collect(),
            Since::Snapshot => vec!["snapshot".to_owned()],
        };
        assert_eq!(ids(feed.since(&scope, &positions[0])), ["snapshot"]);
        assert_eq!(ids(feed.since(&scope, &positions[1])), ["c"]);
        assert!(ids(feed.since(&scope, &positions[2])).is_empty());
        let future = Position {
            revision: Revision(9),
            ..positions[2]
        };
        assert_eq!(ids(feed.since(&scope, &future)), ["snapshot"]);
    }
}
