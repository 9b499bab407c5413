//! Every change that was ever part of the feed, whatever the server has forgotten of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use opal_protocol::{CommitHash, DataUpdate, Epoch, Position, Revision};
use opal_pubsub::Payload;
use opal_pubsub::feed::Change;

use crate::model::Write;

/// How the id of an update begins that writes over everything there can be.
pub const COVER: &str = "cover-";

/// One epoch, from revision 1 on.
#[derive(Debug)]
pub struct History {
    /// Which.
    pub epoch: Epoch,
    changes: Vec<Recorded>,
    /// Changes that a publisher was told are stored: revision to id.
    accepted: BTreeMap<Revision, String>,
    /// Where the head was when the server's clone moved, and to which commit.
    clones: Vec<(Revision, CommitHash)>,
    /// What a client holds is defined from here on: everything that an earlier epoch may have left
    /// was written over.
    pub defined_from: Revision,
}

/// A change, read.
#[derive(Debug)]
pub struct Recorded {
    /// As it was appended.
    pub change: Arc<Change>,
    /// What it says of data.
    pub writes: Vec<Write>,
}

impl History {
    /// A history without a past, in which clients hold what is undefined before `defined_from`.
    pub fn new(epoch: Epoch, defined_from: Revision) -> Self {
        Self {
            epoch,
            changes: Vec::new(),
            accepted: BTreeMap::new(),
            clones: Vec::new(),
            defined_from,
        }
    }

    /// The last revision.
    pub fn head(&self) -> Revision {
        Revision(self.changes.len() as u64)
    }

    /// Adds a change, which is the next one.
    pub fn append(&mut self, change: &Arc<Change>) {
        let update = match &change.draft.payload {
            Payload::Data(document) => serde_json::from_str::<DataUpdate>(document.text()).ok(),
            _ => None,
        };
        let entries = update.iter().flat_map(|update| &update.entries);
        let writes = entries.filter_map(Write::read).collect();
        if change.draft.id.as_str().starts_with(COVER) {
            self.defined_from = self.defined_from.min(change.position.revision);
        }
        self.changes.push(Recorded {
            change: Arc::clone(change),
            writes,
        });
    }

    /// The changes after `revision`, in order.
    pub fn after(&self, revision: Revision) -> &[Recorded] {
        let from = usize::try_from(revision.0).unwrap_or(usize::MAX);
        self.changes.get(from..).unwrap_or_default()
    }

    /// The server's clone is at `commit` now.
    pub fn cloned(&mut self, commit: &CommitHash) {
        if self.clones.last().is_none_or(|(_, last)| last != commit) {
            self.clones.push((self.head(), commit.clone()));
        }
    }

    /// The commits that the clone was at while the feed was at `revision`, or later.
    pub fn clones_from(&self, revision: Revision) -> impl Iterator<Item = &CommitHash> {
        let ends = self.clones.iter().skip(1).map(|(until, _)| *until);
        let ends = ends.chain(std::iter::once(Revision(u64::MAX)));
        let clones = self.clones.iter().zip(ends);
        clones
            .filter(move |(_, until)| *until >= revision)
            .map(|((_, commit), _)| commit)
    }

    /// The commits that were current at `revision` or later.
    pub fn commits_from(&self, revision: Revision) -> Vec<CommitHash> {
        let mut current = None;
        let mut commits = Vec::new();
        for recorded in &self.changes {
            let at = recorded.change.position.revision;
            if let Payload::Policy(policy) = &recorded.change.draft.payload {
                if at > revision {
                    commits.extend(current.replace(policy.new.clone()));
                } else {
                    current = Some(policy.new.clone());
                }
            }
        }
        commits.extend(current);
        commits
    }

    /// A publisher was told that the change is stored.
    pub fn accepted(&mut self, position: Position) {
        let at = usize::try_from(position.revision.0).unwrap_or(0);
        let stored = at.checked_sub(1).and_then(|at| self.changes.get(at));
        if let Some(stored) = stored.filter(|_| position.epoch == self.epoch) {
            let id = stored.change.draft.id.as_str().to_owned();
            self.accepted.insert(position.revision, id);
        }
    }

    /// The server came back with `recovered` after the `base` revision, and nothing after those.
    /// What of it is wrong, if anything: a change that was accepted is not there, or another.
    pub fn recovered(&mut self, base: Revision, recovered: &[Arc<Change>]) -> Result<(), String> {
        let head = Revision(base.0 + recovered.len() as u64);
        if let Some((lost, id)) = self.accepted.iter().find(|(revision, _)| **revision > head) {
            return Err(format!(
                "revision {lost} ({id}) was accepted and is gone after a restart"
            ));
        }
        for change in recovered {
            let revision = change.position.revision;
            let id = change.draft.id.as_str();
            if self.accepted.get(&revision).is_some_and(|kept| kept != id) {
                return Err(format!("revision {revision} is another after a restart"));
            }
            let at = usize::try_from(revision.0).unwrap_or(usize::MAX) - 1;
            match self.changes.get(at) {
                Some(known) if known.change == *change => {}
                Some(_) => return Err(format!("revision {revision} differs after a restart")),
                None => self.append(change),
            }
        }
        let keep = usize::try_from(head.0).unwrap_or(usize::MAX);
        self.changes.truncate(keep);
        Ok(())
    }
}
