//! Which data entry may be fetched and which may be written now. No I/O, no clock.
//!
//! The rules, in the order in which they matter:
//!
//! - Entries whose paths overlap are written in the order in which they were pushed; fetches run
//!   side by side, and a slow one never lets an older value overwrite a newer one.
//! - An entry whose round of fetching failed stops holding up the others. It is tried again,
//!   with growing pauses, until it succeeds or a newer document replaces it.
//! - When it succeeds late, it is written together with every newer entry below it that was
//!   written meanwhile, in order, as one batch. Those are kept for that purpose.
//! - A patch is written once, after all that was pushed before it and overlaps it: it waits for
//!   the outcome of those entries, failing ones included, and is not repeated when its own is
//!   unknown. Newer documents do not wait for such a patch, and are written again after it.
//! - A newer document at the same path or above makes an older entry that fails or waits pointless,
//!   but only once it has itself been written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use opal_protocol::{DataPath, DataSourceEntry, Document, SaveMethod, UpdateId};
use rand::Rng;

use crate::replica::Place;

/// The place of an entry in the order of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(u64);

/// An entry to fetch and write.
#[derive(Debug, Clone)]
pub struct Job {
    /// The update it is part of, as the caller numbers them.
    pub update: u64,
    /// That update's id, for people.
    pub update_id: UpdateId,
    /// Whether it is one of the sources that the server names, and not part of a publish.
    pub is_source: bool,
    /// Whether it may stand on what a bundle brings that is still to come.
    pub needs_bundle: bool,
    /// Where the ledger keeps it; nowhere if nobody counts on it.
    pub place: Option<Place>,
    /// The entry as received.
    pub entry: DataSourceEntry,
    /// Where its document goes.
    pub path: DataPath,
    /// How it is written.
    pub method: SaveMethod,
}

/// A fetch to run.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The entry's place; to be given back with the result.
    pub seq: Seq,
    /// What to fetch.
    pub entry: DataSourceEntry,
}

/// A write, in order.
#[derive(Debug, Clone)]
pub struct Write {
    /// The entry's place.
    pub seq: Seq,
    /// Where.
    pub path: DataPath,
    /// How.
    pub method: SaveMethod,
    /// What.
    pub document: Document,
}

/// Why a fetch or a write did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people; names the entry, holds no secret.
    pub error: String,
    /// Whether trying again can help.
    pub retry: Retry,
}

/// Whether and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After the queue's own pause, or this one if it is longer.
    After(Option<Duration>),
    /// Only a change by a person helps.
    Never,
    /// A patch may have been applied or not: it must not be sent again.
    Unknown,
}

/// What the caller is to know of an entry.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The entry.
    pub job: Job,
    /// Whether an outcome of the entry had been told before.
    pub repeated: bool,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to an entry.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is in the store.
    Written {
        /// What was written.
        document: Document,
    },
    /// It failed, and will be tried again.
    Failing {
        /// The error.
        error: String,
        /// What was fetched, if it was the store that failed.
        document: Option<Document>,
    },
    /// It failed and is given up: trying again cannot help.
    Refused {
        /// The error.
        error: String,
        /// What was fetched, if it was the store that refused.
        document: Option<Document>,
        /// Whether it was a patch whose effect is unknown: what it is based on must be taken
        /// anew.
        unknown: bool,
    },
    /// A newer entry took its place before it succeeded.
    Replaced,
}

/// Entries between publication and store.
#[derive(Debug)]
pub struct Queue {
    workers: usize,
    next: u64,
    items: BTreeMap<Seq, Item>,
}

#[derive(Debug)]
struct Item {
    job: Job,
    state: State,
    /// Rounds that failed so far.
    rounds: u32,
    /// Whether an outcome has been told.
    told: bool,
    /// Whether it was ever given to the store, which may hold it whatever the outcome was.
    was_sent: bool,
    /// Whether it is dropped once the write that runs has ended: it is part of a newer snapshot.
    is_forgotten: bool,
}

#[derive(Debug)]
enum State {
    /// To be fetched.
    Waiting,
    Fetching,
    /// To be written when its turn comes.
    Ready(Document),
    Writing(Document),
    /// To be fetched again at that time.
    Failed(Instant),
    /// In the store, and kept because an older entry that it overlaps is still failing.
    Written(Document),
}

impl Item {
    /// Whether it has stopped holding up newer entries.
    fn is_late(&self) -> bool {
        self.rounds > 0
    }

    fn is_written(&self) -> bool {
        matches!(self.state, State::Written(_))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.job.path.overlaps(&other.job.path)
    }

    /// Whether `newer`, once written, leaves nothing of this entry.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        newer.job.method != SaveMethod::Patch && newer.job.path.contains(&self.job.path)
    }

    /// Whether both fetch the same thing to the same place.
    fn same_source(&self, job: &Job) -> bool {
        job.method == SaveMethod::Put && self.has_source(&job.entry, &job.path)
    }

    fn has_source(&self, entry: &DataSourceEntry, path: &DataPath) -> bool {
        let own = &self.job.entry;
        self.job.method == SaveMethod::Put
            && own.data.is_none()
            && entry.data.is_none()
            && self.job.path == *path
            && own.url == entry.url
            && own.config == entry.config
    }
}

/// Pauses between the rounds of a failing entry.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause before round `rounds + 1`, jittered; what a server asked for is honoured.
pub fn round_pause(rounds: u32, asked: Option<Duration>, rng: &mut impl Rng) -> Duration {
    let grown = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(rounds.saturating_sub(1).min(16)));
    let own = grown
        .min(LONGEST_PAUSE)
        .mul_f64(rng.random_range(0.5..=1.0));
    own.max(asked.unwrap_or_default())
}

impl Queue {
    /// An empty queue that fetches at most `workers` documents at once.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            next: 1,
            items: BTreeMap::new(),
        }
    }

    /// How many entries are on their way for the first time. Those that failed and those that are
    /// kept do not count: they may never drain, and must not hold up what is new.
    pub fn on_their_way(&self) -> usize {
        let items = self.items.values();
        items
            .filter(|item| !item.is_late() && !item.is_written())
            .count()
    }

    /// Whether the same source is being fetched or written for the same place just now.
    pub fn is_busy_with(&self, entry: &DataSourceEntry, path: &DataPath) -> bool {
        self.items.values().any(|item| {
            let busy = !matches!(
                item.state,
                State::Waiting | State::Failed(_) | State::Written(_)
            );
            busy && item.has_source(entry, path)
        })
    }

    /// Forgets the sources that wait for a fetch: they are about to be named anew.
    pub fn forget_sources(&mut self) -> Vec<Notice> {
        let waiting: Vec<Seq> = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item.state, State::Waiting | State::Failed(_)))
            .filter(|(_, item)| item.job.is_source)
            .map(|(seq, _)| *seq)
            .collect();
        let notices = waiting
            .into_iter()
            .filter_map(|seq| self.take(seq, Outcome::Replaced))
            .collect();
        self.forget_kept();
        notices
    }

    /// Forgets every entry: all data is about to be taken anew. Those that are being written are
    /// dropped once their write has ended, however it ends.
    pub fn forget_all(&mut self) -> Vec<Notice> {
        let mut forgotten = Vec::new();
        for (seq, item) in &mut self.items {
            match item.state {
                State::Writing(_) => item.is_forgotten = true,
                _ => forgotten.push(*seq),
            }
        }
        forgotten
            .into_iter()
            .filter_map(|seq| {
                let was_written = self.items.get(&seq).is_some_and(Item::is_written);
                let notice = self.take(seq, Outcome::Replaced);
                notice.filter(|_| !was_written)
            })
            .collect()
    }

    /// Adds an entry behind all others. Older entries that wait to fetch the same source for the
    /// same place are replaced by it.
    pub fn push(&mut self, job: Job) -> Vec<Notice> {
        let same: Vec<Seq> = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item.state, State::Waiting | State::Failed(_)))
            .filter(|(_, item)| item.same_source(&job))
            .map(|(seq, _)| *seq)
            .collect();
        let notices: Vec<Notice> = same
            .into_iter()
            .filter_map(|seq| self.take(seq, Outcome::Replaced))
            .collect();
        let seq = Seq(self.next);
        self.next += 1;
        let state = match &job.entry.data {
            Some(document) => State::Ready(document.clone()),
            None => State::Waiting,
        };
        let item = Item {
            job,
            state,
            rounds: 0,
            told: false,
            was_sent: false,
            is_forgotten: false,
        };
        self.items.insert(seq, item);
        self.forget_kept();
        notices
    }

    fn take(&mut self, seq: Seq, outcome: Outcome) -> Option<Notice> {
        let item = self.items.remove(&seq)?;
        Some(Notice {
            job: item.job,
            repeated: item.told,
            outcome,
        })
    }

    /// The next fetch to start, if a worker is free for it.
    ///
    /// Repeated rounds get at most half of the workers, so that sources that hang do not hold up
    /// those that do not.
    pub fn next_fetch(&mut self, now: Instant) -> Option<Fetch> {
        let fetching = |late: bool| {
            let of_kind = |item: &&Item| item.is_late() == late;
            let items = self.items.values();
            items
                .filter(|item| matches!(item.state, State::Fetching))
                .filter(of_kind)
                .count()
        };
        let (fresh, late) = (fetching(false), fetching(true));
        if fresh + late >= self.workers {
            return None;
        }
        let late_allowed = late < (self.workers / 2).max(1);
        let due = |item: &Item| match item.state {
            State::Waiting => Some(now),
            State::Failed(at) => (late_allowed && at <= now).then_some(at),
            _ => None,
        };
        // First rounds come before repeated ones, and of those the one that waits longest.
        let (seq, _) = self
            .items
            .iter()
            .filter_map(|(seq, item)| Some((*seq, (item.is_late(), due(item)?, *seq))))
            .min_by_key(|(_, order)| *order)?;
        let item = self.items.get_mut(&seq)?;
        item.state = State::Fetching;
        Some(Fetch {
            seq,
            entry: item.job.entry.clone(),
        })
    }

    /// Takes the result of a fetch. That of an entry that was replaced meanwhile is dropped.
    pub fn fetched(
        &mut self,
        seq: Seq,
        result: Result<Document, Failure>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<Notice> {
        let Some(item) = self.items.get_mut(&seq) else {
            return Vec::new();
        };
        match result {
            Ok(document) => {
                item.state = State::Ready(document);
                Vec::new()
            }
            Err(failure) => self.failed(seq, failure, None, now, rng),
        }
    }

    fn failed(
        &mut self,
        seq: Seq,
        failure: Failure,
        document: Option<Document>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<Notice> {
        let error = failure.error;
        // What does not fit on what the store holds may fit on what an older entry will bring.
        let may_fit_later = document.is_some() && self.waits_for_older(seq);
        let Some(item) = self.items.get_mut(&seq) else {
            return Vec::new();
        };
        let asked = match failure.retry {
            Retry::After(asked) => asked,
            Retry::Never if may_fit_later => None,
            Retry::Never | Retry::Unknown => {
                let unknown = failure.retry == Retry::Unknown;
                let outcome = Outcome::Refused {
                    error,
                    document,
                    unknown,
                };
                let notice = self.take(seq, outcome);
                self.forget_kept();
                return notice.into_iter().collect();
            }
        };
        item.rounds += 1;
        item.state = State::Failed(now + round_pause(item.rounds, asked, rng));
        vec![Notice {
            job: item.job.clone(),
            repeated: std::mem::replace(&mut item.told, true),
            outcome: Outcome::Failing { error, document },
        }]
    }

    /// Whether an older entry that it overlaps is still to be written.
    fn waits_for_older(&self, seq: Seq) -> bool {
        let Some(item) = self.items.get(&seq) else {
            return false;
        };
        let mut older = self.items.range(..seq);
        older.any(|(_, older)| !older.is_written() && older.overlaps(item))
    }

    /// Whether the store may hold a newer entry that it overlaps.
    fn is_overtaken(&self, seq: Seq, item: &Item) -> bool {
        let mut others = self.items.range(seq..).filter(|(other, _)| **other != seq);
        others.any(|(_, newer)| newer.was_sent && newer.overlaps(item))
    }

    /// Takes out the patches whose turn has come and before which newer entries were written: what
    /// such a patch would do now need not be what it does in its place. What it is based on must be
    /// taken anew.
    pub fn take_overtaken_patches(&mut self, bundle_is_due: bool) -> Vec<Notice> {
        let is_overtaken = |(seq, item): &(&Seq, &Item)| {
            let is_held = bundle_is_due && item.job.needs_bundle;
            let is_patch = item.job.method == SaveMethod::Patch;
            let is_ready = matches!(item.state, State::Ready(_));
            is_patch
                && is_ready
                && !is_held
                && !self.waits_for_older(**seq)
                && self.is_overtaken(**seq, item)
        };
        let overtaken: Vec<Seq> = self
            .items
            .iter()
            .filter(is_overtaken)
            .map(|(seq, _)| *seq)
            .collect();
        let outcome = || Outcome::Refused {
            error: "newer changes were written before it could be".to_owned(),
            document: None,
            unknown: true,
        };
        overtaken
            .into_iter()
            .filter_map(|seq| self.take(seq, outcome()))
            .collect()
    }

    /// Everything that may be written now, in order. Each of them has to be given to
    /// [`Queue::written`] before the next batch that it could affect is handed out.
    ///
    /// While a `bundle_is_due`, entries that need it wait, as a patch waits for a failing entry.
    pub fn next_batch(&mut self, bundle_is_due: bool) -> Vec<Write> {
        let stalled = self.stalled(bundle_is_due);
        let mut batch: BTreeSet<Seq> = BTreeSet::new();
        for (seq, item) in &self.items {
            let is_ready = matches!(item.state, State::Ready(_));
            let is_held = bundle_is_due && item.job.needs_bundle;
            if is_ready && !is_held && self.may_write(*seq, item, &stalled, &batch) {
                batch.insert(*seq);
                batch.extend(self.written_ahead_of(*seq, item));
            }
        }
        batch
            .into_iter()
            .filter_map(|seq| self.start(seq))
            .collect()
    }

    /// The entries that newer ones need not wait for: those that failed, and patches that wait for
    /// one of those.
    fn stalled(&self, bundle_is_due: bool) -> BTreeSet<Seq> {
        let mut stalled: BTreeSet<Seq> = BTreeSet::new();
        for (seq, item) in &self.items {
            let waits_for = |older: &Seq| {
                let older = self.items.get(older);
                older.is_some_and(|older| older.overlaps(item))
            };
            let is_patch = item.job.method == SaveMethod::Patch;
            let waits = is_patch && stalled.iter().any(waits_for);
            let is_held = bundle_is_due && item.job.needs_bundle;
            if !item.is_written() && (item.is_late() || waits || is_held) {
                stalled.insert(*seq);
            }
        }
        stalled
    }

    fn may_write(
        &self,
        seq: Seq,
        item: &Item,
        stalled: &BTreeSet<Seq>,
        batch: &BTreeSet<Seq>,
    ) -> bool {
        let is_patch = item.job.method == SaveMethod::Patch;
        let others = self.items.iter().filter(|(other, _)| **other != seq);
        others
            // A patch waits for the outcome of what it is based on.
            .filter(|(other, _)| is_patch || !batch.contains(other))
            .filter(|(_, other)| other.overlaps(item))
            .all(|(other_seq, other)| match other.state {
                State::Writing(_) => false,
                State::Written(_) => true,
                _ if *other_seq > seq => true,
                _ => stalled.contains(other_seq) && !is_patch,
            })
    }

    /// The newer entries that did not wait for this one, and have to be written again after it: those
    /// that it overlaps, and in turn those that they overlap.
    fn written_ahead_of(&self, seq: Seq, late: &Item) -> Vec<Seq> {
        let mut again: Vec<(Seq, &Item)> = Vec::new();
        for (seq, item) in self.items.range(seq..) {
            let is_disturbed = item.overlaps(late) || again.iter().any(|(_, it)| it.overlaps(item));
            if item.is_written() && is_disturbed {
                again.push((*seq, item));
            }
        }
        again.into_iter().map(|(seq, _)| seq).collect()
    }

    fn start(&mut self, seq: Seq) -> Option<Write> {
        let item = self.items.get_mut(&seq)?;
        let (State::Ready(document) | State::Written(document)) = &item.state else {
            return None;
        };
        let document = document.clone();
        item.state = State::Writing(document.clone());
        item.was_sent = true;
        Some(Write {
            seq,
            path: item.job.path.clone(),
            method: item.job.method,
            document,
        })
    }

    /// Takes the outcome of each write of a batch.
    pub fn written(
        &mut self,
        outcomes: Vec<(Seq, Result<(), Failure>)>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (seq, outcome) in outcomes {
            let Some(item) = self.items.get_mut(&seq) else {
                continue;
            };
            let State::Writing(document) = &item.state else {
                continue;
            };
            let document = document.clone();
            if item.is_forgotten {
                let outcome = match outcome {
                    Ok(()) => Outcome::Written { document },
                    Err(_) => Outcome::Replaced,
                };
                notices.extend(self.take(seq, outcome));
                continue;
            }
            match outcome {
                Ok(()) => {
                    item.state = State::Written(document.clone());
                    item.rounds = 0;
                    notices.push(Notice {
                        job: item.job.clone(),
                        repeated: std::mem::replace(&mut item.told, true),
                        outcome: Outcome::Written { document },
                    });
                    notices.extend(self.replace_older(seq));
                }
                Err(failure) => {
                    notices.extend(self.failed(seq, failure, Some(document), now, rng));
                }
            }
        }
        self.forget_kept();
        notices
    }

    /// Drops the entries that a written one did not wait for and leaves nothing of.
    fn replace_older(&mut self, written: Seq) -> Vec<Notice> {
        let Some(newer) = self.items.get(&written) else {
            return Vec::new();
        };
        let replaced: Vec<Seq> = self
            .items
            .range(..written)
            .filter(|(_, item)| item.is_replaced_by(newer))
            .map(|(seq, _)| *seq)
            .collect();
        let is_removal = newer.job.method == SaveMethod::Delete;
        let mut notices = Vec::new();
        for seq in replaced {
            if is_removal && self.leave_only_the_way(seq) {
                continue;
            }
            let was_written = self.items.get(&seq).is_some_and(Item::is_written);
            let notice = self.take(seq, Outcome::Replaced);
            notices.extend(notice.filter(|_| !was_written));
        }
        notices
    }

    /// Of a document that is removed, the objects that lead to it stay: in its place an empty one is
    /// written, or is kept to be written again, and the removal after it. Whether that is so.
    fn leave_only_the_way(&mut self, seq: Seq) -> bool {
        let item = self.items.get_mut(&seq);
        let document = item.filter(|item| item.job.method == SaveMethod::Put);
        let Some(item) = document else {
            return false;
        };
        let empty = Document::from(&serde_json::json!({}));
        match item.state {
            State::Writing(_) => {}
            State::Written(_) => item.state = State::Written(empty),
            _ => item.state = State::Ready(empty),
        }
        true
    }

    /// Forgets written entries that no older one can disturb any more, be it by being written again.
    fn forget_kept(&mut self) {
        let written = self.items.iter().filter(|(_, item)| item.is_written());
        let written: Vec<Seq> = written.map(|(seq, _)| *seq).collect();
        for seq in written {
            let is_needed = self.items.get(&seq).is_some_and(|item| {
                let mut older = self.items.range(..seq);
                older.any(|(_, older)| older.overlaps(item))
            });
            if !is_needed {
                self.items.remove(&seq);
            }
        }
    }

    /// Makes every failing entry due at once: what it failed on has changed.
    pub fn retry_now(&mut self, now: Instant) {
        for item in self.items.values_mut() {
            if let State::Failed(at) = &mut item.state {
                *at = now;
            }
        }
    }

    /// When [`Queue::next_fetch`] may have something new without anything else happening. What is
    /// due at `now` already and was not handed out waits for a fetch to end.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        self.items
            .values()
            .filter_map(|item| match item.state {
                State::Failed(at) => Some(at),
                _ => None,
            })
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests;
