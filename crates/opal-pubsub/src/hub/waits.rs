//! Who waits to hear that a change was applied. Knows clients by id only; the hub says how they
//! stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use opal_protocol::{Revision, ScopeId};

use super::follower::{ClientKey, Standing};
use super::wait_target::{Missing, WaitOutcome, WaitTarget};

/// One wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(u64);

/// All waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    started: u64,
    open: BTreeMap<WaitId, Wait>,
    deadlines: BTreeSet<(Instant, WaitId)>,
    finished: Vec<(WaitId, WaitOutcome)>,
}

/// What is waited for.
#[derive(Debug)]
pub(super) struct WaitFor {
    pub(super) scope: ScopeId,
    pub(super) revision: Revision,
    pub(super) target: WaitTarget,
    pub(super) deadline: Instant,
}

/// Whom a change concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    pub(super) clients: BTreeMap<Arc<str>, Progress>,
    pub(super) unconfirmed: BTreeSet<Arc<str>>,
}

/// A wait that is not over. Its clients are fixed from the beginning.
#[derive(Debug)]
struct Wait {
    what: WaitFor,
    concerned: Concerned,
    /// How many of the clients have applied it, and how many still may.
    applied: usize,
    open: usize,
}

/// What is known of one client of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is connected.
    Connected(Standing),
    /// It is not, and may come back.
    Lost,
    /// It is not, and is not expected any more.
    Gone,
    /// It is none of those whom the change concerns; the text says why.
    Absent(&'static str),
}

impl Waits {
    /// Starts a wait, which may be over at once.
    pub(super) fn start(&mut self, what: WaitFor, concerned: Concerned, now: Instant) -> WaitId {
        self.started += 1;
        let id = WaitId(self.started);
        let wait = Wait::new(what, concerned);
        if wait.is_over() || wait.what.deadline <= now {
            self.finished.push((id, wait.outcome()));
        } else {
            self.deadlines.insert((wait.what.deadline, id));
            self.open.insert(id, wait);
        }
        id
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The revisions of `scope` that somebody waits for.
    pub(super) fn revisions(&self, scope: &ScopeId) -> BTreeSet<Revision> {
        let waits = self.open.values().filter(|wait| wait.what.scope == *scope);
        waits.map(|wait| wait.what.revision).collect()
    }

    /// Notes news of a client. `progress` says how it stands to a revision.
    pub(super) fn note(&mut self, key: &ClientKey, progress: impl Fn(Revision) -> Progress) {
        let mut over = Vec::new();
        for (id, wait) in &mut self.open {
            if wait.what.scope == key.scope && wait.note(&key.id, &progress) && wait.is_over() {
                over.push(*id);
            }
        }
        over.into_iter().for_each(|id| self.finish(id));
    }

    /// Ends the waits whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.finish(id);
        }
    }

    /// Ends all of them.
    pub(super) fn finish_all(&mut self) {
        while let Some(id) = self.open.first_key_value().map(|(id, _)| *id) {
            self.finish(id);
        }
    }

    /// When the next one ends at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Forgets a wait.
    pub(super) fn cancel(&mut self, id: WaitId) {
        if let Some(wait) = self.open.remove(&id) {
            self.deadlines.remove(&(wait.what.deadline, id));
        }
    }

    /// Those that ended since this was last asked.
    pub(super) fn finished(&mut self) -> Vec<(WaitId, WaitOutcome)> {
        std::mem::take(&mut self.finished)
    }

    fn finish(&mut self, id: WaitId) {
        if let Some(wait) = self.open.remove(&id) {
            self.deadlines.remove(&(wait.what.deadline, id));
            self.finished.push((id, wait.outcome()));
        }
    }
}

impl Wait {
    fn new(what: WaitFor, concerned: Concerned) -> Self {
        let count = |what: fn(&Progress) -> bool| {
            let clients = concerned.clients.values();
            clients.filter(|progress| what(progress)).count()
        };
        Self {
            what,
            applied: count(Progress::is_applied),
            open: count(Progress::is_open),
            concerned,
        }
    }

    /// Notes news of a client; returns whether there was any.
    fn note(&mut self, client: &Arc<str>, progress: impl Fn(Revision) -> Progress) -> bool {
        let Some(known) = self.concerned.clients.get_mut(client) else {
            return false;
        };
        // What was applied stays applied, whatever becomes of the client.
        if known.is_applied() {
            return false;
        }
        self.open -= usize::from(known.is_open());
        *known = progress(self.what.revision);
        self.open += usize::from(known.is_open());
        self.applied += usize::from(known.is_applied());
        true
    }

    fn is_over(&self) -> bool {
        self.is_met() || self.open == 0
    }

    fn is_met(&self) -> bool {
        let clients = self.concerned.clients.len();
        match self.what.target {
            WaitTarget::All => self.applied == clients,
            WaitTarget::Percent(percent) => self.applied * 100 >= usize::from(percent) * clients,
            // One that was asked for by name has to say so itself.
            WaitTarget::Client(_) => self.applied > 0,
        }
    }

    fn outcome(self) -> WaitOutcome {
        let mut outcome = WaitOutcome {
            met: self.is_met(),
            unconfirmed: self
                .concerned
                .unconfirmed
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..WaitOutcome::default()
        };
        for (id, progress) in self.concerned.clients {
            let client = id.to_string();
            let reason = match progress {
                Progress::Connected(Standing::Applied) => {
                    outcome.applied.push(client);
                    continue;
                }
                Progress::Lost | Progress::Gone => {
                    outcome.disconnected.push(client);
                    continue;
                }
                Progress::Connected(Standing::Failed(error) | Standing::Pending(Some(error))) => {
                    error
                }
                Progress::Connected(Standing::Pending(None)) => "not applied yet".to_owned(),
                Progress::Absent(why) => why.to_owned(),
            };
            outcome.missing.push(Missing { client, reason });
        }
        outcome
    }
}

impl Progress {
    fn is_applied(&self) -> bool {
        matches!(self, Self::Connected(Standing::Applied))
    }

    /// Whether it may still become "applied".
    fn is_open(&self) -> bool {
        matches!(self, Self::Connected(Standing::Pending(_)) | Self::Lost)
    }
}
