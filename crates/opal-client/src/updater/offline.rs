//! The updater's part for offline mode that writes the file: whenever it is due and no write runs,
//! once the engine has been filled. What was never whole would be taken for a whole state at the next
//! start, and could take the place of a file that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::FutureExt;
use opal_protocol::{CommitHash, Position};
use tracing::{debug, warn};

use super::{Updater, Work, Written};
use crate::offline::{Copy, OfflineConfig, OfflineFile, OfflineStatus};
use crate::policy_store::StoreError;
use crate::record::Record;
use crate::standing::Mode;
use crate::transactions::TransactionState;
use opal_runtime::chain;

/// What the file holds: the state of the record, and the rest of what is written with it.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    record: u64,
    position: Option<Position>,
    commit: Option<CommitHash>,
}

/// The file, and when to write it.
pub(super) struct Saver {
    pub(super) file: Arc<OfflineFile>,
    interval: Duration,
    due: Instant,
    /// Whether the store has been whole once in this process.
    pub(super) was_whole: bool,
    /// What was written last.
    saved: Option<Version>,
    /// What is being written.
    saving: Option<Version>,
    pub(super) status: OfflineStatus,
}

impl Saver {
    pub(super) fn new(config: &OfflineConfig, file: Arc<OfflineFile>, now: Instant) -> Self {
        Self {
            status: OfflineStatus::new(&config.path),
            file,
            interval: config.interval,
            due: now + config.interval,
            was_whole: false,
            saved: None,
            saving: None,
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        now >= self.due + self.interval
    }

    pub(super) fn failed(&mut self, error: String) {
        warn!("The offline file is not up to date: {error}");
        self.status.failed(error, Utc::now());
    }
}

impl Updater {
    /// Takes note of it if the store is whole: everything that `/ready` asks for is there.
    pub(super) fn note_whole(&mut self) {
        let Some(saver) = self.saver.as_mut().filter(|saver| !saver.was_whole) else {
            return;
        };
        let is_filled = self.parts.progress.standing.borrow().unready().is_none();
        saver.was_whole = is_filled && self.parts.transactions.read(TransactionState::ready);
    }

    /// The file that was read, or written, is of what the store holds now.
    pub(super) fn file_is_current(&mut self) {
        let version = self.version();
        if let Some(saver) = &mut self.saver {
            saver.saved = version;
        }
    }

    /// What the file would hold if it were written now; `None` if there is nothing to hold.
    fn version(&self) -> Option<Version> {
        let record = self.record.as_ref()?;
        let position = self.replica.clean_position();
        (record.version() > 0).then(|| Version {
            record: record.version(),
            commit: position.and_then(|_| self.replica.commit().cloned()),
            position,
        })
    }

    /// Asks the engine for its policies, for the file, if that is due. No write runs meanwhile, so
    /// that they, the record and the position are of one moment.
    pub(super) fn next_copy(&mut self, now: Instant) -> Option<Work<Written>> {
        let saver = self.saver.as_ref()?;
        if saver.saving.is_some() || saver.due > now {
            return None;
        }
        let version = self.version();
        let mode = self.parts.progress.standing.borrow().mode();
        let saver = self.saver.as_mut()?;
        if version == saver.saved || !saver.was_whole {
            saver.due = now + saver.interval;
            return None;
        }
        // A moment with a position is worth waiting for.
        let has_position = version.as_ref().is_some_and(|now| now.position.is_some());
        if mode == Some(Mode::Feed) && !has_position && !saver.is_overdue(now) {
            return None;
        }
        let store = Arc::clone(&self.parts.store);
        Some(async move { Written::Policies(store.policies().await) }.boxed())
    }

    /// When the file is due without anything else happening.
    pub(super) fn save_wake(&self, now: Instant) -> Option<Instant> {
        let saver = self.saver.as_ref().filter(|_| self.engine_is_up)?;
        [saver.due, saver.due + saver.interval]
            .into_iter()
            .find(|at| *at > now)
    }

    pub(super) fn on_policies(&mut self, policies: Result<BTreeMap<String, String>, StoreError>) {
        let version = self.version();
        let record = self.record.as_ref();
        let Some(saver) = &mut self.saver else {
            return;
        };
        saver.due = Instant::now() + saver.interval;
        let changes = match record {
            Some(record) if record.is_incomplete() => Err("too many patches to keep were written"),
            record => Ok(record.and_then(Record::replay).unwrap_or_default()),
        };
        match (policies, changes, version) {
            (Ok(policies), Ok(changes), Some(version)) => {
                let copy = Copy {
                    policies,
                    changes,
                    position: version.position,
                    commit: version.commit.clone(),
                };
                saver.saving = Some(version);
                let file = Arc::clone(&saver.file);
                let saved = tokio::task::spawn_blocking(move || file.save(copy));
                let outcome = saved.map(|saved| match saved {
                    Ok(saved) => saved.map_err(|error| chain(&error)),
                    Err(error) => Err(error.to_string()),
                });
                self.save = Some(outcome.boxed());
            }
            (Err(error), _, _) => saver.failed(chain(&error)),
            (_, Err(error), _) => saver.failed(error.to_owned()),
            (_, _, None) => {}
        }
        self.tell_offline();
    }

    pub(super) fn on_saved(&mut self, outcome: Result<(), String>) {
        let Some(saver) = &mut self.saver else {
            return;
        };
        let version = saver.saving.take();
        match outcome {
            Ok(()) => {
                debug!("The offline file is up to date");
                saver.saved = version;
                saver.status.saved(Utc::now());
            }
            Err(error) => saver.failed(error),
        }
        self.tell_offline();
    }

    /// Writes the file once more, after the last write to the engine.
    pub(super) async fn save_last(&mut self) {
        if let Some(save) = self.save.take() {
            let outcome = save.await;
            self.on_saved(outcome);
        }
        // What the last write brought counts.
        self.tell();
        let version = self.version();
        let is_wanted = |saver: &Saver| saver.was_whole && saver.saved != version;
        // An engine that is still to be filled holds less than the file does.
        let lacks_much = self.opening.is_some() || self.engine_lacks_all();
        if lacks_much || !self.saver.as_ref().is_some_and(is_wanted) {
            return;
        }
        let policies = self.parts.store.policies().await;
        self.on_policies(policies);
        if let Some(save) = self.save.take() {
            let outcome = save.await;
            self.on_saved(outcome);
        }
    }

    pub(super) fn tell_offline(&self) {
        let status = self.saver.as_ref().map(|saver| saver.status.clone());
        self.parts.progress.offline.send_replace(status);
    }
}
