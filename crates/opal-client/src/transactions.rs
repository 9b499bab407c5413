//! What succeeded, what is failing since when: the ground of `/ready` and `/healthy`.
//!
//! [`TransactionLog`] is a handle that everyone who writes to the store shares; what the outcomes mean
//! is decided in [`TransactionState`], a value that is told the time.
//!
//! Where released OPAL looks at the last *successful* transaction, we look at what is failing now: a
//! bundle that is refused, or an entry that cannot be fetched, makes the client unhealthy until it
//! succeeds or a newer change takes its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Utc;
use opal_protocol::{CommitHash, DataSourceEntry, RedactedUrl, SaveMethod};

use url::Url;

use crate::errors::chain;
use crate::policy_store::StoreError;

mod state;

pub use state::{
    EnabledUpdaters, Failing, Failure, KindLog, Reason, RemoteStatus, Statistics, Subject,
    Transaction, TransactionKind, TransactionState,
};

/// A shared [`TransactionState`] with the system's clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TransactionLog {
    state: Arc<Mutex<TransactionState>>,
}

impl TransactionLog {
    /// An empty log of a client that runs these updaters.
    pub fn new(updaters: EnabledUpdaters) -> Self {
        Self {
            state: Arc::new(Mutex::new(TransactionState::new(updaters))),
        }
    }

    /// A copy of everything known.
    pub fn snapshot(&self) -> TransactionState {
        self.state().clone()
    }

    /// The store holds `commit`, fetched from `remote`.
    pub fn policy_succeeded(&self, commit: &CommitHash, remote: &Url) {
        self.policy(commit.as_str(), remote, Ok(()), true);
    }

    /// The bundle from `remote` could not be fetched.
    pub fn policy_fetch_failed(&self, id: &str, remote: &Url, error: &str) {
        let failure = Failure {
            error: error.to_owned(),
            problems: Vec::new(),
        };
        self.policy(id, remote, Err(failure), false);
    }

    /// The store did not take `commit`, fetched from `remote`.
    pub fn policy_refused(&self, commit: &CommitHash, remote: &Url, error: &StoreError) {
        let failure = Failure {
            error: chain(error),
            problems: error.problems().to_vec(),
        };
        self.policy(commit.as_str(), remote, Err(failure), true);
    }

    fn policy(&self, id: &str, remote: &Url, outcome: Result<(), Failure>, fetched: bool) {
        let error = outcome.as_ref().err().filter(|_| !fetched);
        let remotes = vec![RemoteStatus {
            remote_url: RedactedUrl::new(remote.as_str()).to_string(),
            succeed: fetched,
            error: error.map(|failure| failure.error.clone()),
        }];
        let now = Utc::now();
        self.state().record(Transaction {
            id: id.to_owned(),
            kind: TransactionKind::Policy,
            actions: if fetched {
                vec!["set_policies"]
            } else {
                Vec::new()
            },
            outcome,
            creation_time: now,
            end_time: now,
            remotes,
            subject: Subject::Policies,
        });
    }

    /// The store took `entry` of update `id`.
    pub fn data_succeeded(&self, id: &str, entry: &DataSourceEntry) {
        self.data(id, Some(entry), Ok(()));
    }

    /// `entry` of update `id` was not fetched or not taken; without an entry, it is not known what
    /// the entries are.
    pub fn data_failed(&self, id: &str, entry: Option<&DataSourceEntry>, error: &str) {
        let error = error.to_owned();
        let problems = Vec::new();
        self.data(id, entry, Err(Failure { error, problems }));
    }

    fn data(&self, id: &str, entry: Option<&DataSourceEntry>, outcome: Result<(), Failure>) {
        let action = match entry.and_then(DataSourceEntry::method) {
            Some(SaveMethod::Patch) => "patch_policy_data",
            Some(SaveMethod::Delete) => "delete_policy_data",
            Some(SaveMethod::Put) | None => "set_policy_data",
        };
        let now = Utc::now();
        self.state().record(Transaction {
            id: id.to_owned(),
            kind: TransactionKind::Data,
            actions: entry.map(|_| action).into_iter().collect(),
            outcome,
            creation_time: now,
            end_time: now,
            remotes: Vec::new(),
            subject: entry.map_or(Subject::Sources, subject),
        });
    }

    /// A newer entry took the place of `entry`: what was failing about it no longer matters.
    pub fn data_replaced(&self, entry: &DataSourceEntry) {
        self.state().settle(&subject(entry));
    }

    /// All data is about to be taken anew.
    pub fn data_started_over(&self) {
        self.state().settle_data();
    }

    /// The engine came back empty.
    pub fn engine_restarted(&self) {
        self.state().engine_restarted();
    }

    /// The store was asked whether it is there.
    pub fn probed(&self, outcome: &Result<(), StoreError>) {
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(chain(error)),
        };
        self.state().probed(outcome, Utc::now());
    }

    /// Why the client is not healthy, for people and machines; empty: it is.
    pub fn failing(&self) -> Vec<Reason> {
        self.state().unhealthy()
    }

    /// Whether the client is healthy.
    pub fn healthy(&self) -> bool {
        self.state().healthy()
    }

    /// Whether the client is ready.
    pub fn ready(&self) -> bool {
        self.state().ready()
    }

    fn state(&self) -> MutexGuard<'_, TransactionState> {
        // A panic in between leaves a state that is at worst one transaction old.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn subject(entry: &DataSourceEntry) -> Subject {
    let url = match entry.data {
        Some(_) => String::new(),
        None => RedactedUrl::new(&entry.url).to_string(),
    };
    let dst_path = entry.dst_path.clone();
    Subject::Entry { dst_path, url }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_entry_is_named_without_the_secrets_of_its_url_until_it_is_replaced() {
        let log = TransactionLog::new(EnabledUpdaters {
            policy: false,
            data: true,
        });
        let entry = DataSourceEntry::from_url("https://u:pw@source/x?token=secret");
        log.data_succeeded("u1", &entry);
        log.data_failed("u2", Some(&entry), "answered 500");
        let shown = serde_json::to_string(&log.failing()).unwrap();
        assert!(
            shown.contains("https://source/x") && shown.contains("answered 500"),
            "{shown}"
        );
        assert!(
            !shown.contains("secret") && !shown.contains("pw"),
            "{shown}"
        );
        log.data_replaced(&entry);
        assert!(log.healthy());
    }

    #[test]
    fn unknown_sources_are_failing_until_an_entry_arrives() {
        let log = TransactionLog::new(EnabledUpdaters {
            policy: false,
            data: true,
        });
        log.data_failed("u1", None, "503");
        assert_eq!(log.failing().len(), 2);
        log.data_succeeded("u2", &DataSourceEntry::from_url("http://s/"));
        assert!(log.healthy());
    }
}
