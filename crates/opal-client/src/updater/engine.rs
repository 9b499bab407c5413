//! The updater's part for an engine that goes away and comes back empty: it is filled again from the
//! record, and until then nobody is told that it holds anything.

use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use opal_protocol::Revision;
use opal_protocol::feed::{AppliedArguments, FailingEntry};
use tracing::{info, warn};

use super::Updater;
use crate::policy_store::StoreError;
use crate::record::Record;
use crate::replica::{ReplicaStatus, Report};
use opal_runtime::chain;

/// The engine as one of the things that fail.
const ENGINE: &str = "engine";

impl Updater {
    pub(super) fn on_engine_up(&mut self, lost: bool) {
        self.engine_is_up = true;
        self.parts.transactions.engine_up();
        if lost {
            self.parts.transactions.engine_restarted();
            self.restore = true;
            self.write_is_spoiled = true;
            self.engine_lacks("it came back empty and is being filled");
        } else if !self.restore {
            // Nothing was in it yet when it went away.
            self.engine_holds_again();
        }
        self.replica.retry_now(Instant::now());
    }

    pub(super) fn on_engine_down(&mut self, reason: String) {
        self.engine_is_up = false;
        self.write_is_spoiled = true;
        self.engine_lacks(&reason);
        self.parts.transactions.engine_down(reason);
    }

    pub(super) fn on_restored(&mut self, outcomes: &[Result<(), StoreError>]) {
        if self.write_is_spoiled {
            // What was written is lost again.
            self.restore = true;
            return;
        }
        self.engine_holds_again();
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        if let Some(error) = failed {
            let error = chain(error);
            warn!(
                "Could not fill the policy engine from our record, taking everything anew: {error}"
            );
            self.replica.take_everything(Instant::now());
        } else if self.record.as_ref().is_some_and(Record::is_incomplete) {
            warn!("Too many patches to keep were written, taking everything anew");
            self.begin_renewal(Instant::now());
        } else {
            info!("The policy engine holds again what it held");
            self.parts.transactions.engine_refilled();
        }
        self.replica.retry_now(Instant::now());
    }

    fn engine_lacks(&mut self, error: &str) {
        let lost = self.engine_lost.get_or_insert_with(|| FailingEntry {
            revision: Revision(0),
            entry: ENGINE.to_owned(),
            error: String::new(),
            since: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            is_final: false,
        });
        error.clone_into(&mut lost.error);
    }

    /// What was written into the engine is in it, as far as the replica knows.
    pub(super) fn engine_holds_again(&mut self) {
        self.engine_lost = None;
    }

    /// Whether the engine is away, or empty though it had been filled.
    pub(super) fn engine_lacks_all(&self) -> bool {
        !self.engine_is_up || self.engine_lost.is_some()
    }

    /// Where the client is. Without its engine it holds nothing.
    pub(super) fn status(&self) -> ReplicaStatus {
        let mut status = self.replica.status();
        if let Some(lost) = &self.engine_lost {
            status.held = None;
            status.failing.insert(0, lost.clone());
        }
        status
    }

    /// Tells the server what the engine holds, if that is news.
    pub(super) fn report(&mut self) {
        let Some(applied) = &self.applied else {
            return;
        };
        let report = match &self.engine_lost {
            None => self.replica.take_report(),
            Some(_) => None,
        };
        let held = self.replica.held().filter(|_| self.engine_lost.is_none());
        if let Some(Report {
            epoch,
            applied: news,
            urgent,
        }) = report
        {
            applied.report(epoch, news.clone(), urgent);
            self.reported = Some((epoch, news));
            self.loss_reported = None;
            return;
        }
        let Some((epoch, before)) = &self.reported else {
            return;
        };
        match &self.engine_lost {
            Some(lost) if self.loss_reported.as_ref() != Some(lost) => {
                let nothing = AppliedArguments {
                    failing: vec![lost.clone()],
                    ..AppliedArguments::default()
                };
                applied.report(*epoch, nothing, false);
                self.loss_reported = Some(lost.clone());
            }
            // The replica has no news, and the server was told otherwise meanwhile.
            None if self.loss_reported.is_some() && held.is_some_and(|(now, _)| now == *epoch) => {
                applied.report(*epoch, before.clone(), false);
                self.loss_reported = None;
            }
            Some(_) | None => {}
        }
    }
}
