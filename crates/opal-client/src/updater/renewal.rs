//! The updater's part for a record that had to forget something: everything is taken anew, and once
//! all of it has been written the record is whole again.

use std::time::Instant;

use tracing::info;

use super::Updater;
use crate::record::Record;
use crate::transactions::{SourceState, TransactionState};

/// What was not taken anew yet, as far as a server without a feed is concerned: with one the
/// position says it.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) lacks_bundle: bool,
    pub(super) lacks_sources: bool,
}

impl Updater {
    /// Takes everything anew if the record has forgotten something.
    pub(super) fn renew_record(&mut self, now: Instant) {
        if self.record.as_ref().is_some_and(Record::needs_renewal) && !self.engine_lacks_all() {
            info!("Too many patches to keep were written, taking everything anew");
            self.begin_renewal(now);
        }
    }

    pub(super) fn begin_renewal(&mut self, now: Instant) {
        if let Some(record) = &mut self.record {
            record.renewal_began();
        }
        self.renewal = Some(Renewal {
            lacks_bundle: self.parts.policy,
            lacks_sources: self.parts.data,
        });
        self.replica.take_everything(now);
    }

    /// Notes that the record is whole, once everything has been written again.
    pub(super) fn end_renewal(&mut self) {
        let Some(renewal) = &self.renewal else {
            return;
        };
        let is_done = match self.replica.status().received {
            Some(_) => self.replica.clean_position().is_some(),
            None => !renewal.lacks_bundle && !renewal.lacks_sources && self.holds_all_sources(),
        };
        if is_done && !self.engine_lacks_all() {
            self.renewal = None;
            if let Some(record) = &mut self.record {
                record.renewed();
            }
        }
    }

    fn holds_all_sources(&self) -> bool {
        let sources = self.parts.transactions.read(TransactionState::sources);
        let is_stored = |state: SourceState| state == SourceState::Stored;
        sources.iter().all(|source| is_stored(source.state))
    }
}
