//! The feed of one scope: the newest changes, and the base of all before them.

use std::collections::VecDeque;
use std::sync::Arc;

use opal_protocol::feed::BaseSnapshot;
use opal_protocol::{ChainDigest, CommitHash, Epoch, Position, Revision, ScopeId, Topic};
use serde::{Deserialize, Serialize};

use super::append::{AppendError, Appended};
use super::base::Base;
use super::change::{Change, ChangeDraft, Payload, chain};
use super::known_ids::KnownIds;
use super::{FeedLimits, Since};

/// A point between two changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: Revision,
    pub(super) digest: ChainDigest,
    pub(super) policy: Option<LastPolicy>,
}

/// The last policy change before a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastPolicy {
    pub(super) commit: CommitHash,
    pub(super) revision: Revision,
    pub(super) digest: ChainDigest,
}

impl Place {
    fn after(&self, change: &Change) -> Self {
        let Position {
            revision, digest, ..
        } = change.position;
        let policy = match &change.draft.payload {
            Payload::Policy(policy) => Some(LastPolicy {
                commit: policy.new.clone(),
                revision,
                digest,
            }),
            Payload::Data(_) | Payload::Message(_) => self.policy.clone(),
        };
        Self {
            revision,
            digest,
            policy,
        }
    }

    fn commit(&self) -> Option<&CommitHash> {
        self.policy.as_ref().map(|policy| &policy.commit)
    }

    fn position(&self, epoch: Epoch) -> Position {
        Position {
            epoch,
            revision: self.revision,
            digest: self.digest,
        }
    }
}

/// What the feed of one scope consists of. Making one copies no changes.
#[derive(Debug, Clone)]
pub(super) struct ScopeImage {
    pub(super) scope: ScopeId,
    pub(super) tail: Place,
    pub(super) base: Base,
    pub(super) history: Vec<Arc<Change>>,
}

/// The feed of one scope.
#[derive(Debug)]
pub(super) struct ScopeLog {
    scope: ScopeId,
    epoch: Epoch,
    /// Just before the oldest change that is kept.
    tail: Place,
    /// What everything up to `tail` comes down to.
    base: Base,
    /// After the last committed change.
    head: Place,
    /// After the last staged change.
    end: Place,
    /// The newest changes, oldest first: revisions are dense from the tail's to the end's.
    changes: VecDeque<Arc<Change>>,
    /// Of `changes`, those that are committed; the rest is staged.
    committed: usize,
    /// Size of the committed ones.
    bytes: usize,
    /// Revisions of `changes` by id.
    known: KnownIds,
    /// What everything up to some revision comes down to, kept for whoever asks next.
    late_base: Option<(Revision, Base)>,
}

impl ScopeLog {
    /// A feed whose history begins at `tail`, where it came down to `base`.
    pub(super) fn new(scope: ScopeId, epoch: Epoch, tail: Place, base: Base) -> Self {
        Self {
            scope,
            epoch,
            head: tail.clone(),
            end: tail.clone(),
            tail,
            base,
            changes: VecDeque::new(),
            committed: 0,
            bytes: 0,
            known: KnownIds::default(),
            late_base: None,
        }
    }

    pub(super) fn renew(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        for change in &mut self.changes {
            let mut renewed = (**change).clone();
            renewed.position.epoch = epoch;
            *change = Arc::new(renewed);
        }
    }

    pub(super) fn head(&self) -> Position {
        self.head.position(self.epoch)
    }

    pub(super) fn commit(&self) -> Option<&CommitHash> {
        self.head.commit()
    }

    /// Where the last policy change is.
    pub(super) fn announced(&self) -> Option<Position> {
        let policy = self.head.policy.as_ref()?;
        Some(Position {
            epoch: self.epoch,
            revision: policy.revision,
            digest: policy.digest,
        })
    }

    /// What is committed.
    pub(super) fn image(&self) -> ScopeImage {
        ScopeImage {
            scope: self.scope.clone(),
            tail: self.tail.clone(),
            base: self.base.clone(),
            history: self.history().cloned().collect(),
        }
    }

    /// The committed changes, oldest first.
    pub(super) fn history(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.changes.iter().take(self.committed)
    }

    pub(super) fn stage(
        &mut self,
        expected: Option<Revision>,
        draft: ChangeDraft,
        at: u64,
    ) -> Result<Appended, AppendError> {
        let id_of = |revision| Some(&self.at(revision)?.draft.id);
        if let Some(revision) = self.known.get(&draft.id, id_of) {
            return self.repeat(revision, &draft);
        }
        self.check(expected, &draft.payload)?;
        let digest = chain(self.end.digest, &self.scope, &draft);
        let change = self.place(draft, digest, at);
        Ok(Appended::New(change))
    }

    /// Puts a change back that was committed before, if it follows what is here. What it was checked
    /// for then is not checked again: its id may be that of a change which had left the history.
    pub(super) fn restore(
        &mut self,
        position: (Revision, ChainDigest),
        at: u64,
        draft: ChangeDraft,
        limits: &FeedLimits,
    ) -> bool {
        let (revision, digest) = position;
        let follows = revision.0 == self.end.revision.0 + 1
            && digest == chain(self.end.digest, &self.scope, &draft);
        if follows {
            self.place(draft, digest, at);
            self.commit_staged(limits);
        }
        follows
    }

    fn place(&mut self, draft: ChangeDraft, digest: ChainDigest, at: u64) -> Arc<Change> {
        let revision = Revision(self.end.revision.0 + 1);
        let change = Arc::new(Change {
            scope: self.scope.clone(),
            position: Position {
                epoch: self.epoch,
                revision,
                digest,
            },
            at,
            draft,
        });
        self.end = self.end.after(&change);
        let (tail, changes) = (self.tail.revision, &self.changes);
        let id_of = |revision| Some(&changes.get(index(tail, revision)?)?.draft.id);
        self.known.insert(&change.draft.id, revision, id_of);
        self.changes.push_back(Arc::clone(&change));
        change
    }

    fn repeat(&self, revision: Revision, draft: &ChangeDraft) -> Result<Appended, AppendError> {
        let held = self.at(revision);
        match held.filter(|held| held.draft == *draft) {
            Some(held) => Ok(Appended::Repeated(held.position)),
            None => Err(AppendError::IdReused {
                scope: self.scope.clone(),
                id: draft.id.clone(),
                revision,
            }),
        }
    }

    fn check(&self, expected: Option<Revision>, payload: &Payload) -> Result<(), AppendError> {
        if let Some(expected) = expected
            && expected != self.end.revision
        {
            return Err(AppendError::HeadMoved {
                scope: self.scope.clone(),
                head: self.end.revision,
                expected,
            });
        }
        if let Payload::Policy(change) = payload
            && change.old.as_ref() != self.end.commit()
        {
            return Err(AppendError::CommitMoved {
                scope: self.scope.clone(),
                current: self.end.commit().cloned(),
                from: change.old.clone(),
            });
        }
        Ok(())
    }

    /// Makes what is staged part of the history, and folds what the limits leave no room for.
    pub(super) fn commit_staged(&mut self, limits: &FeedLimits) {
        let staged = self.changes.iter().skip(self.committed);
        self.bytes += staged.map(|change| change.draft.size()).sum::<usize>();
        self.committed = self.changes.len();
        self.head = self.end.clone();
        let newest = self.changes.back().map_or(0, |change| change.at);
        self.expire(limits, newest);
    }

    /// Takes back what is staged.
    pub(super) fn discard_staged(&mut self) {
        for change in self.changes.drain(self.committed..) {
            self.known
                .remove(&change.draft.id, change.position.revision);
        }
        self.end = self.head.clone();
    }

    /// Folds what the limits leave no room for at `now`.
    pub(super) fn expire(&mut self, limits: &FeedLimits, now: u64) {
        let age = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
        while let Some(oldest) = self.changes.front().filter(|_| self.committed > 0) {
            let is_old = now.saturating_sub(oldest.at) > age;
            if !is_old && self.committed <= limits.changes && self.bytes <= limits.bytes {
                break;
            }
            self.fold_oldest();
        }
    }

    fn fold_oldest(&mut self) {
        let Some(oldest) = self.changes.pop_front() else {
            return;
        };
        self.committed -= 1;
        self.bytes -= oldest.draft.size();
        self.known
            .remove(&oldest.draft.id, oldest.position.revision);
        self.base.fold(&oldest);
        self.tail = self.tail.after(&oldest);
    }

    /// The change with this revision, staged ones included.
    fn at(&self, revision: Revision) -> Option<&Arc<Change>> {
        self.changes.get(index(self.tail.revision, revision)?)
    }

    pub(super) fn change(&self, revision: Revision) -> Option<&Arc<Change>> {
        self.at(revision).filter(|_| revision <= self.head.revision)
    }

    pub(super) fn since(&self, position: &Position) -> Since {
        let revision = position.revision;
        let digest = match self.change(revision) {
            Some(change) => Some(change.position.digest),
            None if revision == self.tail.revision => Some(self.tail.digest),
            None => None,
        };
        let known = digest == Some(position.digest) && position.epoch == self.epoch;
        let missed = revision.0.saturating_sub(self.tail.revision.0);
        match usize::try_from(missed) {
            Ok(from) if known => {
                Since::Changes(self.changes.range(from..self.committed).cloned().collect())
            }
            _ => Since::Snapshot,
        }
    }

    /// What everything up to the head comes down to for these topics.
    pub(super) fn base(&mut self, topics: &[Topic]) -> BaseSnapshot {
        let kept = self.late_base.take();
        let usable = kept.filter(|(revision, _)| *revision >= self.tail.revision);
        let (revision, mut base) =
            usable.unwrap_or_else(|| (self.tail.revision, self.base.clone()));
        let folded = usize::try_from(revision.0 - self.tail.revision.0).unwrap_or(usize::MAX);
        for change in self.history().skip(folded) {
            base.fold(change);
        }
        let snapshot = BaseSnapshot {
            position: self.head(),
            entries: base.entries_for(topics),
        };
        self.late_base = Some((self.head.revision, base));
        snapshot
    }
}

/// The index of a revision in a history that begins after `tail`.
fn index(tail: Revision, revision: Revision) -> Option<usize> {
    let after_tail = revision.0.checked_sub(tail.0)?;
    usize::try_from(after_tail.checked_sub(1)?).ok()
}
