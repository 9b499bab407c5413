//! The updater's writes: what goes to the store next, and what is told of how it went.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use opal_protocol::policy::policy_digest;
use opal_protocol::report::report_hash;
use opal_protocol::{
    DataEntryReport, DataSourceEntry, DataUpdateReport, Document, PatchOperation, RedactedUrl,
    SaveMethod, UpdateId,
};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::{Updater, Work, Written};
use crate::data::queue::{Failure, Notice, Outcome, Retry, Seq, Write};
use crate::fetch::FetchError;
use crate::policy_store::{PolicyStore, StoreChange, StoreError};
use crate::record::Record;
use opal_runtime::chain;

impl Updater {
    pub(super) fn next_write(&mut self, now: Instant) -> Option<Work<Written>> {
        if !self.engine_is_up {
            return None;
        }
        if self.filling.is_some() {
            // What it holds is older than anything else.
            return self.next_filling(now);
        }
        let store = Arc::clone(&self.parts.store);
        if std::mem::take(&mut self.restore) {
            match self.record.as_ref().and_then(Record::replay) {
                Some(changes) => {
                    let restored = async move { Written::Restored(store.apply(changes).await) };
                    return Some(restored.boxed());
                }
                None => {
                    self.engine_holds_again();
                    self.replica.take_everything(now);
                }
            }
        }
        if let Some(copy) = self.next_copy(now) {
            return Some(copy);
        }
        let store = Arc::clone(&self.parts.store);
        if let Some(bundle) = self.ready_bundle.take() {
            return Some(
                async move {
                    let change = StoreChange::Bundle(Arc::new(bundle.bundle.clone()));
                    let outcome = store.apply(vec![change]).await.pop();
                    let outcome = match outcome.unwrap_or(Ok(())) {
                        // Without a feed nobody asks for it.
                        Ok(()) if bundle.position.is_some() => Ok(digest_of(&*store).await),
                        Ok(()) => Ok(None),
                        Err(error) => Err(error),
                    };
                    Written::Bundle(Box::new(bundle), outcome)
                }
                .boxed(),
            );
        }
        let changes = self.next_changes(now);
        if changes.is_empty() {
            return None;
        }
        let (seqs, batch): (Vec<Seq>, Vec<StoreChange>) = changes.into_iter().unzip();
        Some(
            async move {
                let outcomes = store.apply(batch.clone()).await;
                let written = seqs.into_iter().zip(batch).zip(outcomes);
                let written = written.map(|((seq, change), outcome)| (seq, change, outcome));
                Written::Data(written.collect())
            }
            .boxed(),
        )
    }

    /// The next changes of data. What is no change at all is refused, and may let others go on.
    fn next_changes(&mut self, now: Instant) -> Vec<(Seq, StoreChange)> {
        loop {
            let (changes, refused) = changes(self.replica.next_batch(now));
            if refused.is_empty() {
                return changes;
            }
            self.replica.written(refused, now, &mut rand::rng());
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    pub(super) fn on_written(&mut self, written: Written) {
        match written {
            Written::Bundle(bundle, outcome) => self.on_bundle_written(*bundle, outcome),
            Written::Restored(outcomes) => self.on_restored(&outcomes),
            Written::Filled(filled) => self.on_filled(filled),
            Written::Policies(policies) => self.on_policies(policies),
            Written::Data(written) => {
                let mut outcomes = Vec::with_capacity(written.len());
                for (seq, change, outcome) in written {
                    if let (Ok(()), Some(record)) = (&outcome, &mut self.record) {
                        record.data_applied(&change);
                    }
                    let spoiled = self.write_is_spoiled;
                    let outcome = outcome.map_err(|error| store_failure(&error, spoiled));
                    outcomes.push((seq, outcome));
                }
                self.replica
                    .written(outcomes, Instant::now(), &mut rand::rng());
            }
        }
    }

    pub(super) fn note(&mut self, notice: Notice) {
        let Notice {
            job,
            outcome,
            repeated,
        } = notice;
        // Only reports show hashes, and only of a first outcome.
        let hashes = self.parts.reporter.is_some() && !repeated;
        let hash = |document: Document| {
            let inline = job.entry.data.is_some();
            match hashes {
                true => Fetched::Hashed(report_hash(&document, job.method, inline)),
                false => Fetched::Yes,
            }
        };
        let settled = match outcome {
            Outcome::Written { document } => Settled {
                error: None,
                refused: false,
                fetched: hash(document),
            },
            Outcome::Failing { error, document } => {
                Settled::failing(error, document.map_or(Fetched::No, hash))
            }
            Outcome::Refused {
                error, document, ..
            } => Settled::refused(error, document.map_or(Fetched::No, hash)),
            Outcome::Replaced => {
                self.parts.transactions.entry_replaced(&job.entry);
                let settled = Settled::refused("a newer entry took its place".into(), Fetched::No);
                if !repeated {
                    self.settle_report(job.update, &job.entry, &settled);
                }
                return;
            }
        };
        self.settle(job.update, &job.update_id, &job.entry, &settled, !repeated);
    }

    /// Logs the outcome of an entry, and reports it if it is the first or a final one.
    pub(super) fn settle(
        &mut self,
        update: u64,
        id: &UpdateId,
        entry: &DataSourceEntry,
        settled: &Settled,
        report: bool,
    ) {
        let id = id.as_str();
        let transactions = &self.parts.transactions;
        match &settled.error {
            None => transactions.entry_succeeded(id, entry),
            Some(error) => {
                let url = RedactedUrl::new(&entry.url);
                let path = &entry.dst_path;
                warn!(
                    update.id = id,
                    "The entry `{url}` for `{path}` failed: {error}"
                );
                match settled.refused {
                    true => transactions.entry_refused(id, entry, error),
                    false => transactions.entry_failing(id, entry, error),
                }
            }
        }
        if report {
            self.settle_report(update, entry, settled);
        }
    }

    pub(super) fn settle_report(
        &mut self,
        update: u64,
        entry: &DataSourceEntry,
        settled: &Settled,
    ) {
        let Some(progress) = self.updates.get_mut(&update) else {
            return;
        };
        progress.outstanding = progress.outstanding.saturating_sub(1);
        progress.reports.push(DataEntryReport {
            entry: entry.clone(),
            fetched: !matches!(settled.fetched, Fetched::No),
            saved: settled.error.is_none(),
            hash: match &settled.fetched {
                Fetched::Hashed(hash) => Some(hash.clone()),
                Fetched::Yes | Fetched::No => None,
            },
        });
        progress.errors.extend(settled.error.clone());
        self.finish_if_complete(update);
    }

    pub(super) fn finish_if_complete(&mut self, update: u64) {
        let complete = self
            .updates
            .get(&update)
            .is_some_and(|progress| progress.outstanding == 0);
        if !complete {
            return;
        }
        let (Some(progress), Some(reporter)) = (self.updates.remove(&update), &self.parts.reporter)
        else {
            return;
        };
        let user_data = match progress.errors.is_empty() {
            true => Map::new(),
            false => error_data(&progress.errors.join("; ")),
        };
        let report = DataUpdateReport {
            update_id: Some(progress.id),
            reports: progress.reports,
            policy_hash: None,
            user_data,
        };
        reporter.report(report, progress.callback);
    }
}

/// The digest of the policies in the engine; none if it does not say.
pub(super) async fn digest_of(store: &dyn PolicyStore) -> Option<String> {
    match store.policies().await {
        Ok(policies) => Some(policy_digest(&policies)),
        Err(error) => {
            let error = chain(&error);
            warn!("Could not ask the engine for its policies: {error}");
            None
        }
    }
}

/// How an entry ended, for its report.
pub(super) struct Settled {
    error: Option<String>,
    /// Whether it will not be tried again.
    refused: bool,
    fetched: Fetched,
}

/// Whether there was a document.
pub(super) enum Fetched {
    No,
    Yes,
    Hashed(String),
}

impl Settled {
    pub(super) fn failing(error: String, fetched: Fetched) -> Self {
        Self {
            error: Some(error),
            refused: false,
            fetched,
        }
    }

    pub(super) fn refused(error: String, fetched: Fetched) -> Self {
        Self {
            refused: true,
            ..Self::failing(error, fetched)
        }
    }
}

pub(super) fn error_data(error: &str) -> Map<String, Value> {
    [("error".to_owned(), json!(error))].into_iter().collect()
}

/// What the store is to do for each write; what is no write at all is refused.
#[expect(
    clippy::type_complexity,
    reason = "two lists, each named by its element"
)]
fn changes(writes: Vec<Write>) -> (Vec<(Seq, StoreChange)>, Vec<(Seq, Result<(), Failure>)>) {
    let (mut changes, mut refused) = (Vec::new(), Vec::new());
    for write in writes {
        let (path, document) = (write.path, write.document);
        let change = match write.method {
            SaveMethod::Put => Ok(StoreChange::Put { path, document }),
            SaveMethod::Delete => Ok(StoreChange::Delete { path }),
            SaveMethod::Patch => serde_json::from_str::<Vec<PatchOperation>>(document.text())
                .map(|operations| StoreChange::Patch { path, operations }),
        };
        match change {
            Ok(change) => changes.push((write.seq, change)),
            Err(error) => {
                let failure = Failure {
                    // The error's own text would quote the document.
                    error: format!(
                        "the document is no JSON Patch (line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                    retry: Retry::Never,
                };
                refused.push((write.seq, Err(failure)));
            }
        }
    }
    (changes, refused)
}

/// A source that answers nonsense today may answer sense tomorrow; only an entry that cannot be
/// fetched by anyone is given up.
pub(super) fn fetch_failure(error: &FetchError) -> Failure {
    let retry = match error {
        FetchError::UnknownProvider { .. }
        | FetchError::InvalidConfig { .. }
        | FetchError::InvalidUrl { .. } => Retry::Never,
        _ => Retry::After(error.retry_after()),
    };
    Failure {
        error: chain(error),
        retry,
    }
}

/// What an engine says that came back empty in the middle of a batch is no verdict on a change.
fn store_failure(error: &StoreError, spoiled: bool) -> Failure {
    let retry = match error {
        StoreError::OutcomeUnknown { .. } => Retry::Unknown,
        _ if error.is_transient() || spoiled => Retry::After(None),
        _ => Retry::Never,
    };
    Failure {
        error: chain(error),
        retry,
    }
}
