//! The updater's part for offline mode that reads the file: it fills the engine from it at the start,
//! and then begins the subscription.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use opal_protocol::Position;
use opal_pubsub::Event;
use opal_pubsub::subscriber::{Subscriber, SubscriberConfig};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::writes::digest_of;
use super::{Updater, Work, Written};
use crate::data::queue::round_pause;
use crate::offline::Saved;
use crate::policy_store::{StoreChange, StoreError};
use crate::standing::Standing;
use opal_runtime::chain;

/// So often the engine is asked to take the file while what it says is no verdict. Then the server
/// is asked: an engine that never takes it must not keep newer data away.
const MOST_ATTEMPTS: u32 = 5;

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

/// What the engine is to be filled with before anything else.
pub(super) struct Filling {
    saved: Saved,
    /// How often the engine did not take it.
    failures: u32,
    /// When to try.
    due: Instant,
}

/// What came of writing the file into the engine.
pub(super) struct Filled {
    filling: Filling,
    outcomes: Vec<Result<(), StoreError>>,
    digest: Option<String>,
}

impl Filling {
    /// The same, to be tried again if that can help.
    fn again(mut self, outcomes: &[Result<(), StoreError>]) -> Result<Self, Self> {
        self.failures += 1;
        // All of it is written again, so that a patch of unknown outcome is no obstacle.
        let may_pass = |error: &StoreError| {
            error.is_transient() || matches!(error, StoreError::OutcomeUnknown { .. })
        };
        let mut errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        if self.failures >= MOST_ATTEMPTS || !errors.any(may_pass) {
            return Err(self);
        }
        self.due = Instant::now() + round_pause(self.failures, None, &mut rand::rng());
        Ok(self)
    }
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
                    Ok(saved) => {
                        self.filling = saved.map(|saved| Filling {
                            saved,
                            failures: 0,
                            due: Instant::now(),
                        });
                    }
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

    /// When the engine is to be filled from the file, if that is to wait.
    pub(super) fn filling_wake(&self, now: Instant) -> Option<Instant> {
        let due = self.filling.as_ref()?.due;
        (due > now).then_some(due)
    }

    /// The write that fills the engine from the file, if that is still to be done.
    pub(super) fn next_filling(&mut self, now: Instant) -> Option<Work<Written>> {
        let filling = self.filling.take_if(|filling| filling.due <= now)?;
        // An engine that was lost meanwhile gets all of it now.
        self.restore = false;
        let store = Arc::clone(&self.parts.store);
        let work = async move {
            let outcomes = store.apply(filling.saved.changes.clone()).await;
            let digest = match filling.saved.position {
                Some(_) => digest_of(&*store).await,
                None => None,
            };
            Written::Filled(Filled {
                filling,
                outcomes,
                digest,
            })
        };
        Some(work.boxed())
    }

    pub(super) fn on_filled(&mut self, filled: Filled) {
        let Filled {
            mut filling,
            outcomes,
            digest,
        } = filled;
        if self.write_is_spoiled {
            // It comes back empty, and is filled then.
            filling.due = Instant::now();
            self.filling = Some(filling);
            return;
        }
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        let Some(error) = failed.map(|error| chain(error)) else {
            self.note_filled(&filling.saved.changes, &outcomes);
            return self.filled(&filling.saved, digest);
        };
        match filling.again(&outcomes) {
            Ok(again) => {
                warn!("The engine did not take the offline file, trying again: {error}");
                self.filling = Some(again);
            }
            Err(given_up) => {
                warn!("The engine did not take all of the offline file: {error}");
                self.note_filled(&given_up.saved.changes, &outcomes);
                self.engine_holds_again();
                if let Some(saver) = &self.saver {
                    saver.file.keep_when_replaced();
                }
                self.open(None);
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

    fn filled(&mut self, saved: &Saved, digest: Option<String>) {
        info!("The policy engine holds what the offline file says");
        self.engine_holds_again();
        if saved.is_whole {
            self.parts.transactions.restored();
            self.parts.progress.standing.send_modify(Standing::restored);
        }
        let position = saved
            .position
            .filter(|position| self.replica.restored(*position, saved.commit.clone()));
        if position.is_some()
            && let Some((commit, digest)) = saved.commit.clone().zip(digest)
        {
            self.replica.policies_are(commit, digest);
        }
        if let Some(saver) = &mut self.saver {
            saver.status.restored();
            saver.was_whole = saved.is_whole;
        }
        self.file_is_current();
        self.tell_offline();
        self.open(position);
    }
}
