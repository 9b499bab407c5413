//! The updater's part for offline mode: it fills the engine from the file at the start, and writes
//! the file whenever it is due and no write runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::FutureExt;
use opal_protocol::{CommitHash, Position};
use opal_pubsub::Event;
use opal_pubsub::subscriber::{Subscriber, SubscriberConfig};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::writes::digest_of;
use super::{Updater, Work, Written};
use crate::offline::{Copy, OfflineConfig, OfflineFile, OfflineStatus, Saved};
use crate::policy_store::{StoreChange, StoreError};
use crate::record::Record;
use crate::standing::{Mode, Standing};
use opal_runtime::chain;

/// A subscription that begins once it is known from where: not before the engine was filled from
/// the file, which would write older data over what the events bring.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Whom to subscribe with. Its position is set here.
    pub(crate) config: SubscriberConfig,
    /// Where its events go.
    pub(crate) events: mpsc::Sender<Event>,
    /// Who runs it.
    pub(crate) runs: oneshot::Sender<Subscriber>,
}

/// What the file holds: the state of the record, and the rest of what is written with it.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    record: u64,
    position: Option<Position>,
    commit: Option<CommitHash>,
}

/// The file, and when to write it.
pub(super) struct Saver {
    file: Arc<OfflineFile>,
    interval: Duration,
    due: Instant,
    /// What was written last.
    saved: Option<Version>,
    /// What is being written.
    saving: Option<Version>,
    status: OfflineStatus,
}

impl Saver {
    pub(super) fn new(config: &OfflineConfig, file: Arc<OfflineFile>, now: Instant) -> Self {
        Self {
            status: OfflineStatus::new(&config.path),
            file,
            interval: config.interval,
            due: now + config.interval,
            saved: None,
            saving: None,
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        now >= self.due + self.interval
    }

    fn failed(&mut self, error: String) {
        warn!("The offline file is not up to date: {error}");
        self.status.failed(error, Utc::now());
    }
}

/// What came of reading the file into the engine.
pub(super) struct Filled {
    saved: Saved,
    outcomes: Vec<Result<(), StoreError>>,
    digest: Option<String>,
}

impl Updater {
    /// Reads the file, to be written into the engine before anything else. Without one, or with one
    /// that cannot be used, the subscription begins now.
    pub(super) async fn read_file(&mut self) {
        if let Some(saver) = &self.saver {
            let file = Arc::clone(&saver.file);
            let read = tokio::task::spawn_blocking(move || (file.check(), file.load()));
            if let Ok((checked, loaded)) = read.await {
                if let (Err(error), Some(saver)) = (checked, &mut self.saver) {
                    saver.failed(chain(&error));
                }
                match loaded {
                    Ok(saved) => self.filling = saved,
                    Err(error) => warn!("Starting without the offline file: {}", chain(&error)),
                }
            }
        }
        self.tell_offline();
        if self.filling.is_none() {
            self.open(None);
        }
    }

    /// Starts the subscription, from `position` if the engine holds that.
    fn open(&mut self, position: Option<Position>) {
        let Some(opening) = self.opening.take() else {
            return;
        };
        let mut config = opening.config;
        config.position = position;
        let subscriber = Subscriber::new(config, opening.events);
        self.applied = Some(subscriber.applied_sender());
        // Nobody takes it while the client stops.
        let _ = opening.runs.send(subscriber);
    }

    /// The write that fills the engine from the file, if that is still to be done.
    pub(super) fn next_filling(&mut self) -> Option<Work<Written>> {
        let saved = self.filling.take()?;
        // An engine that was lost meanwhile gets all of it now.
        self.restore = false;
        let store = Arc::clone(&self.parts.store);
        let filling = async move {
            let outcomes = store.apply(saved.changes.clone()).await;
            let digest = match saved.position {
                Some(_) => digest_of(&*store).await,
                None => None,
            };
            Written::Filled(Filled {
                saved,
                outcomes,
                digest,
            })
        };
        Some(filling.boxed())
    }

    pub(super) fn on_filled(&mut self, filled: Filled) {
        let Filled {
            saved,
            outcomes,
            digest,
        } = filled;
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        match failed {
            // It comes back empty, and is filled then.
            Some(_) if self.write_is_spoiled => self.filling = Some(saved),
            Some(error) => {
                let error = chain(error);
                warn!("The engine did not take all of the offline file: {error}");
                self.note_filled(&saved.changes, &outcomes);
                self.open(None);
            }
            None => {
                self.note_filled(&saved.changes, &outcomes);
                self.filled_whole(&saved, digest);
            }
        }
    }

    fn note_filled(&mut self, changes: &[StoreChange], outcomes: &[Result<(), StoreError>]) {
        let Some(record) = &mut self.record else {
            return;
        };
        for (change, outcome) in changes.iter().zip(outcomes) {
            if outcome.is_ok() {
                record.data_applied(change);
            }
        }
        self.parts.landmark.send_replace(record.any_policy());
    }

    fn filled_whole(&mut self, saved: &Saved, digest: Option<String>) {
        info!("The policy engine holds what the offline file says");
        self.parts.transactions.restored();
        self.parts.progress.standing.send_modify(Standing::restored);
        let position = saved
            .position
            .filter(|position| self.replica.restored(*position, saved.commit.clone()));
        if position.is_some()
            && let Some((commit, digest)) = saved.commit.clone().zip(digest)
        {
            self.replica.policies_are(commit, digest);
        }
        let version = self.version();
        if let Some(saver) = &mut self.saver {
            saver.status.restored();
            saver.saved = version;
        }
        self.tell_offline();
        self.open(position);
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
        if version == saver.saved {
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
        let version = self.version();
        let is_current = self
            .saver
            .as_ref()
            .is_none_or(|saver| saver.saved == version);
        // An engine that was not filled yet holds less than the file does.
        if is_current || self.opening.is_some() || !self.engine_is_up {
            return;
        }
        let policies = self.parts.store.policies().await;
        self.on_policies(policies);
        if let Some(save) = self.save.take() {
            let outcome = save.await;
            self.on_saved(outcome);
        }
    }

    fn tell_offline(&self) {
        let status = self.saver.as_ref().map(|saver| saver.status.clone());
        self.parts.progress.offline.send_replace(status);
    }
}
