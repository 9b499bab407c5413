//! What succeeded, what is failing since when: the ground of `/ready` and `/healthy`.
//!
//! [`TransactionLog`] is a handle: the updater writes it, health routes read it, and whoever waits
//! for readiness is woken by each change. What the outcomes mean is decided in
//! [`TransactionState`], a value that is told the time.
//!
//! Where released OPAL looks at the last *successful* transaction, we look at what is failing now:
//! a bundle that is refused, or an entry that cannot be fetched, makes the client unhealthy until
//! it succeeds or a newer change takes its place.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use opal_protocol::{CommitHash, DataSourceEntry, RedactedUrl, SaveMethod};
use tokio::sync::watch;
use url::Url;

use crate::policy_store::StoreError;
use opal_runtime::chain;

mod state;

pub use state::{
    EnabledUpdaters, Failing, Failure, KindLog, Reason, RemoteStatus, SourceState, SourceStatus,
    Statistics, Subject, Transaction, TransactionKind, TransactionState,
};

/// A shared [`TransactionState`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TransactionLog {
    log: Arc<watch::Sender<TransactionState>>,
}

impl TransactionLog {
    /// An empty log.
    pub fn new(updaters: EnabledUpdaters) -> Self {
        Self {
            log: Arc::new(watch::Sender::new(TransactionState::new(updaters))),
        }
    }

    /// What `read` finds in the log now.
    pub fn read<T>(&self, read: impl FnOnce(&TransactionState) -> T) -> T {
        read(&self.log.borrow())
    }

    /// The log, and a way to wait for it to change.
    pub fn changes(&self) -> watch::Receiver<TransactionState> {
        self.log.subscribe()
    }

    /// The engine is empty again.
    pub(crate) fn engine_restarted(&self) {
        self.log.send_modify(TransactionState::engine_restarted);
    }

    /// The engine answers.
    pub(crate) fn engine_up(&self) {
        self.log.send_modify(|log| log.probed(Ok(()), Utc::now()));
    }

    /// The engine is gone.
    pub(crate) fn engine_down(&self, reason: String) {
        self.log.send_modify(|log| {
            log.engine_restarted();
            log.probed(Err(reason), Utc::now());
        });
    }

    /// The engine was filled from a file.
    pub(crate) fn restored(&self) {
        self.log.send_modify(|log| {
            log.nothing_to_load(TransactionKind::Policy);
            log.nothing_to_load(TransactionKind::Data);
        });
    }

    /// The engine holds again what it held.
    pub(crate) fn engine_refilled(&self) {
        self.log.send_modify(TransactionState::engine_refilled);
    }

    /// How a probe of the engine went. Returns whether that is news.
    pub(crate) fn probed(&self, outcome: Result<(), StoreError>) -> bool {
        let outcome = outcome.map_err(|error| chain(&error));
        let was_reachable = self.read(TransactionState::is_reachable);
        let is_reachable = outcome.is_ok();
        self.log.send_modify(|log| log.probed(outcome, Utc::now()));
        was_reachable != is_reachable
    }

    /// The store holds a commit.
    pub(crate) fn policy_succeeded(&self, commit: &CommitHash, remote: &Url, began: DateTime<Utc>) {
        self.record(Transaction {
            id: commit.to_string(),
            kind: TransactionKind::Policy,
            actions: vec!["set_policies"],
            outcome: Ok(()),
            creation_time: began,
            end_time: Utc::now(),
            remotes: vec![remote_status(remote.as_str(), None)],
            subject: Subject::Policies,
        });
    }

    /// The store did not take a commit.
    pub(crate) fn policy_refused(
        &self,
        commit: &CommitHash,
        remote: &Url,
        error: &StoreError,
        began: DateTime<Utc>,
    ) {
        self.record(Transaction {
            id: commit.to_string(),
            kind: TransactionKind::Policy,
            actions: vec!["set_policies"],
            outcome: Err(Failure {
                error: chain(error),
                problems: error.problems().to_vec(),
            }),
            creation_time: began,
            end_time: Utc::now(),
            remotes: vec![remote_status(remote.as_str(), None)],
            subject: Subject::Policies,
        });
    }

    /// A bundle could not be fetched.
    pub(crate) fn policy_unfetched(&self, id: &str, remote: &Url, error: &str) {
        let now = Utc::now();
        self.record(Transaction {
            id: id.to_owned(),
            kind: TransactionKind::Policy,
            actions: Vec::new(),
            outcome: failed(error),
            creation_time: now,
            end_time: now,
            remotes: vec![remote_status(remote.as_str(), Some(error))],
            subject: Subject::Policies,
        });
    }

    /// An entry is in the store.
    pub(crate) fn entry_succeeded(&self, update: &str, entry: &DataSourceEntry) {
        self.record(entry_transaction(update, entry, None));
    }

    /// An entry failed and will be tried again.
    pub(crate) fn entry_failing(&self, update: &str, entry: &DataSourceEntry, error: &str) {
        self.record(entry_transaction(update, entry, Some(error)));
    }

    /// An entry failed for good. A source stays failing until the server names it no more or anew,
    /// since its data is missing; a publish that cannot be applied concerns its publisher, who is
    /// told by the report.
    pub(crate) fn entry_refused(&self, update: &str, entry: &DataSourceEntry, error: &str) {
        let transaction = entry_transaction(update, entry, Some(error));
        let is_inline = entry.data.is_some();
        self.log.send_modify(|log| match is_inline {
            true => log.record_refusal(transaction),
            false => log.record(transaction),
        });
    }

    /// A newer entry took the place of one that was failing.
    pub(crate) fn entry_replaced(&self, entry: &DataSourceEntry) {
        self.log.send_modify(|log| log.settle(&subject(entry)));
    }

    /// The server named our data sources; those that concern us follow as entries. There may be
    /// none, and then there is nothing to wait for.
    pub(crate) fn sources_named(&self, none: bool) {
        self.log.send_modify(|log| {
            log.settle_data();
            if none {
                log.nothing_to_load(TransactionKind::Data);
            }
        });
    }

    /// These are our data sources now: on their way, or `stored` already.
    pub(crate) fn sources_are<'e>(
        &self,
        sources: impl Iterator<Item = &'e DataSourceEntry>,
        stored: bool,
    ) {
        let state = match stored {
            true => SourceState::Stored,
            false => SourceState::Pending,
        };
        let sources: Vec<Subject> = sources.map(subject).collect();
        self.log
            .send_modify(|log| log.sources_are(sources, state, Utc::now()));
    }

    /// The server did not name our data sources.
    pub(crate) fn sources_unknown(&self, id: &str, remote: &Url, error: &str) {
        let now = Utc::now();
        self.record(Transaction {
            id: id.to_owned(),
            kind: TransactionKind::Data,
            actions: Vec::new(),
            outcome: failed(error),
            creation_time: now,
            end_time: now,
            remotes: vec![remote_status(remote.as_str(), Some(error))],
            subject: Subject::Sources,
        });
    }

    fn record(&self, transaction: Transaction) {
        self.log.send_modify(|log| log.record(transaction));
    }
}

fn failed(error: &str) -> Result<(), Failure> {
    Err(Failure {
        error: error.to_owned(),
        problems: Vec::new(),
    })
}

fn remote_status(url: &str, error: Option<&str>) -> RemoteStatus {
    RemoteStatus {
        remote_url: RedactedUrl::new(url).to_string(),
        succeed: error.is_none(),
        error: error.map(str::to_owned),
    }
}

fn subject(entry: &DataSourceEntry) -> Subject {
    Subject::Entry {
        dst_path: entry.dst_path.clone(),
        url: RedactedUrl::new(&entry.url).to_string(),
    }
}

fn entry_transaction(update: &str, entry: &DataSourceEntry, error: Option<&str>) -> Transaction {
    let now = Utc::now();
    let action = match entry.method() {
        Some(SaveMethod::Patch) => "patch_policy_data",
        Some(SaveMethod::Delete) => "delete_policy_data",
        Some(SaveMethod::Put) | None => "set_policy_data",
    };
    let fetched = entry.data.is_none() && !entry.url.is_empty();
    Transaction {
        id: update.to_owned(),
        kind: TransactionKind::Data,
        actions: vec![action],
        outcome: error.map_or(Ok(()), failed),
        creation_time: now,
        end_time: now,
        remotes: fetched
            .then(|| remote_status(&entry.url, error))
            .into_iter()
            .collect(),
        subject: subject(entry),
    }
}
