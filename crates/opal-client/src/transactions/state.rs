//! The outcomes so far as a value: no clock, no lock, no I/O.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::policy_store::PolicyProblem;

/// Which updater a transaction belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionKind {
    /// A bundle.
    Policy,
    /// An entry of a data update.
    Data,
}

/// One fetch that a transaction needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteStatus {
    /// What was fetched, without secrets.
    pub remote_url: String,
    /// Whether it was.
    pub succeed: bool,
    /// Why not.
    pub error: Option<String>,
}

/// One write to the store, successful or not. Serialises as released OPAL logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The bundle's hash or the update's id.
    pub id: String,
    /// Which updater it belongs to.
    pub kind: TransactionKind,
    /// The store operations, by upstream's names (`set_policies`, `set_policy_data`, …).
    pub actions: Vec<&'static str>,
    /// Nothing, or why it failed.
    pub outcome: Result<(), Failure>,
    /// When it began.
    pub creation_time: DateTime<Utc>,
    /// When it ended.
    pub end_time: DateTime<Utc>,
    /// What was fetched for it.
    pub remotes: Vec<RemoteStatus>,
    /// What it was about: the name under which a failure is kept until it is settled.
    pub subject: Subject,
}

/// Why a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In a sentence, sources included, without secrets.
    pub error: String,
    /// Where the files of a bundle are wrong.
    pub problems: Vec<PolicyProblem>,
}

/// What a transaction is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The policies: there is only one state of them.
    Policies,
    /// A data source entry.
    Entry {
        /// Where it goes.
        dst_path: String,
        /// Where it comes from, without secrets; empty for inline data.
        url: String,
    },
    /// Which entries there are: the list of data sources, or an update that cannot be read.
    Sources,
}

/// Something that fails now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// What.
    pub subject: Subject,
    /// Why, most recently.
    pub error: String,
    /// Where the files of a bundle are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<PolicyProblem>,
    /// Since when it has not succeeded.
    #[serde(serialize_with = "rfc3339")]
    pub since: DateTime<Utc>,
    /// How often it failed since.
    pub attempts: u64,
}

/// How far a data source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// The server named it; its document is on the way.
    Pending,
    /// Its document is in the store.
    Stored,
    /// It cannot be fetched or stored.
    Failing,
}

/// A data source, or an entry of an update that fails, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// Where it goes.
    pub path: String,
    /// Where it comes from, without secrets.
    pub url: String,
    /// How far it is.
    pub state: SourceState,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when it is in this state; when it was last stored.
    #[serde(serialize_with = "rfc3339")]
    pub since: DateTime<Utc>,
    /// How often it failed since.
    pub attempts: u64,
}

/// Which updaters run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnabledUpdaters {
    /// Whether bundles are followed (`OPAL_POLICY_UPDATER_ENABLED`).
    pub policy: bool,
    /// Whether data is followed (`OPAL_DATA_UPDATER_ENABLED`).
    pub data: bool,
}

impl EnabledUpdaters {
    fn kinds(self) -> impl Iterator<Item = TransactionKind> {
        let policy = self.policy.then_some(TransactionKind::Policy);
        let data = self.data.then_some(TransactionKind::Data);
        policy.into_iter().chain(data)
    }
}

/// How many transactions of a kind ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Successes.
    pub successful: u64,
    /// Failures.
    pub failed: u64,
}

/// What is known of one kind of transaction.
#[derive(Debug, Clone, Default)]
pub struct KindLog {
    /// The last success.
    pub last_success: Option<Transaction>,
    /// The last failure.
    pub last_failure: Option<Transaction>,
    /// All of them, counted.
    pub statistics: Statistics,
    /// Whether the engine that runs now has been filled.
    filled: bool,
    /// Whether one that ran before had been.
    was_filled: bool,
}

/// Why the client is not healthy or not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// Nothing of this kind was stored yet, or not since the engine restarted.
    NothingStored {
        /// The kind.
        kind: TransactionKind,
    },
    /// Something fails.
    Failing(Failing),
    /// The store does not answer.
    StoreUnreachable {
        /// Why.
        error: String,
        /// Since when.
        #[serde(serialize_with = "rfc3339")]
        since: DateTime<Utc>,
    },
    /// What the server says everything comes down to is not in the store yet, for the first time.
    SnapshotPending {
        /// Since when it is awaited.
        #[serde(serialize_with = "rfc3339")]
        since: DateTime<Utc>,
    },
    /// The store has lacked changes that are in our hands for too long.
    Behind {
        /// How many.
        changes: usize,
        /// Whether everything is being taken anew.
        snapshot: bool,
        /// Since when something has been missing without a pause.
        #[serde(serialize_with = "rfc3339")]
        since: DateTime<Utc>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingStored {
                kind: TransactionKind::Policy,
            } => f.write_str("no policy has been stored"),
            Self::NothingStored {
                kind: TransactionKind::Data,
            } => f.write_str("no data has been stored"),
            Self::Failing(failing) => write!(f, "{}", failing.error),
            Self::StoreUnreachable { error, .. } => {
                write!(f, "the engine does not answer: {error}")
            }
            Self::SnapshotPending { .. } => f.write_str("the first snapshot is not stored yet"),
            Self::Behind { snapshot: true, .. } => f.write_str("a snapshot is not stored yet"),
            Self::Behind { changes, .. } => write!(f, "{changes} changes are not stored yet"),
        }
    }
}

/// The outcomes so far, and what they mean for health.
#[derive(Debug, Clone)]
pub struct TransactionState {
    updaters: EnabledUpdaters,
    policy: KindLog,
    data: KindLog,
    failing: BTreeMap<Subject, Failing>,
    /// The data sources that the server named, and since when they are as they are.
    sources: BTreeMap<Subject, (SourceState, DateTime<Utc>)>,
    /// Since when the store has answered every probe.
    reachable_since: Option<DateTime<Utc>>,
    /// Before the first probe the store counts as reachable.
    unreachable: Option<(String, DateTime<Utc>)>,
}

impl TransactionState {
    /// A log without entries.
    pub fn new(updaters: EnabledUpdaters) -> Self {
        Self {
            updaters,
            policy: KindLog::default(),
            data: KindLog::default(),
            failing: BTreeMap::new(),
            sources: BTreeMap::new(),
            reachable_since: None,
            unreachable: None,
        }
    }

    /// Takes note of how a write ended. A success settles what was failing about its subject.
    pub fn record(&mut self, transaction: Transaction) {
        self.note_source(&transaction);
        match &transaction.outcome {
            Ok(()) => {
                self.failing.remove(&transaction.subject);
            }
            Err(failure) => self.fail(&transaction.subject, failure, transaction.end_time),
        }
        let log = self.kind_mut(transaction.kind);
        if transaction.outcome.is_ok() {
            log.filled = true;
            log.statistics.successful += 1;
            log.last_success = Some(transaction);
        } else {
            log.statistics.failed += 1;
            log.last_failure = Some(transaction);
        }
    }

    fn note_source(&mut self, transaction: &Transaction) {
        let Some(source) = self.sources.get_mut(&transaction.subject) else {
            return;
        };
        let at = transaction.end_time;
        *source = match (&transaction.outcome, *source) {
            (Ok(()), _) => (SourceState::Stored, at),
            (Err(_), (SourceState::Failing, since)) => (SourceState::Failing, since),
            (Err(_), _) => (SourceState::Failing, at),
        };
    }

    /// Takes note of the data sources there are now, and how far they are.
    pub fn sources_are(
        &mut self,
        sources: impl IntoIterator<Item = Subject>,
        state: SourceState,
        now: DateTime<Utc>,
    ) {
        let sources = sources.into_iter();
        self.sources = sources.map(|subject| (subject, (state, now))).collect();
    }

    /// The data sources, and all other entries that fail.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let named = self.sources.iter();
        let named = named.filter_map(|(subject, (state, since))| {
            let failing = self.failing.get(subject);
            source_status(subject, *state, *since, failing)
        });
        let others = self.failing.iter();
        let others = others.filter(|(subject, _)| !self.sources.contains_key(subject));
        let others = others.filter_map(|(subject, failing)| {
            source_status(subject, SourceState::Failing, failing.since, Some(failing))
        });
        named.chain(others).collect()
    }

    /// Takes note of a failure that nothing is waiting for: it counts, and does not last.
    pub fn record_refusal(&mut self, transaction: Transaction) {
        let log = self.kind_mut(transaction.kind);
        log.statistics.failed += 1;
        log.last_failure = Some(transaction);
    }

    fn fail(&mut self, subject: &Subject, failure: &Failure, now: DateTime<Utc>) {
        let entry = self.failing.entry(subject.clone());
        let failing = entry.or_insert_with(|| Failing {
            subject: subject.clone(),
            error: String::new(),
            problems: Vec::new(),
            since: now,
            attempts: 0,
        });
        failing.error.clone_from(&failure.error);
        failing.problems.clone_from(&failure.problems);
        failing.attempts += 1;
    }

    /// Forgets what is failing about `subject`: a newer change has taken its place.
    pub fn settle(&mut self, subject: &Subject) {
        self.failing.remove(subject);
    }

    /// Forgets all failing entries of data: everything is about to be taken anew.
    pub fn settle_data(&mut self) {
        self.failing
            .retain(|subject, _| *subject == Subject::Policies);
    }

    /// Takes note that the engine restarted and is empty: not ready until it is filled again.
    pub fn engine_restarted(&mut self) {
        for log in [&mut self.policy, &mut self.data] {
            log.was_filled |= log.filled;
            log.filled = false;
        }
    }

    /// Takes note that the engine holds again what it held before it restarted.
    pub fn engine_refilled(&mut self) {
        for log in [&mut self.policy, &mut self.data] {
            log.filled |= std::mem::take(&mut log.was_filled);
        }
    }

    /// Takes note of how a probe of the store went.
    pub fn probed(&mut self, outcome: Result<(), String>, now: DateTime<Utc>) {
        self.reachable_since = match &outcome {
            Ok(()) => self.reachable_since.or(Some(now)),
            Err(_) => None,
        };
        self.unreachable = match (outcome, self.unreachable.take()) {
            (Ok(()), _) => None,
            (Err(error), Some((_, since))) => Some((error, since)),
            (Err(error), None) => Some((error, now)),
        };
    }

    /// Takes note that there is nothing of this kind to store.
    pub fn nothing_to_load(&mut self, kind: TransactionKind) {
        self.kind_mut(kind).filled = true;
    }

    /// Whether the store answered the last probe.
    pub fn is_reachable(&self) -> bool {
        self.unreachable.is_none()
    }

    /// Since when it has answered, or not; unknown before the first probe.
    pub fn reachable_since(&self) -> Option<DateTime<Utc>> {
        let unreachable = self.unreachable.as_ref().map(|(_, since)| *since);
        unreachable.or(self.reachable_since)
    }

    /// What is known of the transactions of `kind`.
    pub fn kind(&self, kind: TransactionKind) -> &KindLog {
        match kind {
            TransactionKind::Policy => &self.policy,
            TransactionKind::Data => &self.data,
        }
    }

    fn kind_mut(&mut self, kind: TransactionKind) -> &mut KindLog {
        match kind {
            TransactionKind::Policy => &mut self.policy,
            TransactionKind::Data => &mut self.data,
        }
    }

    /// What fails now, policies first.
    pub fn failing(&self) -> impl Iterator<Item = &Failing> {
        self.failing.values()
    }

    /// Why the client is not ready; empty: it is. Ready is a client whose engine has been filled once
    /// by each updater that runs.
    pub fn unready(&self) -> Vec<Reason> {
        let missing = self
            .updaters
            .kinds()
            .filter(|kind| !self.kind(*kind).filled);
        missing.map(|kind| Reason::NothingStored { kind }).collect()
    }

    /// Whether the client is ready.
    pub fn ready(&self) -> bool {
        self.unready().is_empty()
    }

    /// Why the client is not healthy; empty: it is. Healthy is a client that is ready, for which nothing
    /// fails now, and whose store answers.
    pub fn unhealthy(&self) -> Vec<Reason> {
        let mut reasons = self.unready();
        reasons.extend(self.failing.values().cloned().map(Reason::Failing));
        let unreachable = self.unreachable.clone();
        reasons.extend(unreachable.map(|(error, since)| Reason::StoreUnreachable { error, since }));
        reasons
    }

    /// Whether the client is healthy.
    pub fn healthy(&self) -> bool {
        self.unhealthy().is_empty()
    }
}

fn source_status(
    subject: &Subject,
    state: SourceState,
    since: DateTime<Utc>,
    failing: Option<&Failing>,
) -> Option<SourceStatus> {
    let Subject::Entry { dst_path, url } = subject else {
        return None;
    };
    Some(SourceStatus {
        path: dst_path.clone(),
        url: url.clone(),
        state,
        error: failing.map(|failing| failing.error.clone()),
        since,
        attempts: failing.map_or(0, |failing| failing.attempts),
    })
}

fn rfc3339<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As upstream: times are UTC without saying so.
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
        let error = self.outcome.as_ref().err().map(|failure| &failure.error);
        let mut members = serializer.serialize_struct("Transaction", 8)?;
        members.serialize_field("id", &self.id)?;
        members.serialize_field("actions", &self.actions)?;
        members.serialize_field("transaction_type", &self.kind)?;
        members.serialize_field("success", &self.outcome.is_ok())?;
        members.serialize_field("error", error.map_or("", String::as_str))?;
        members.serialize_field("creation_time", &time(self.creation_time))?;
        members.serialize_field("end_time", &time(self.end_time))?;
        members.serialize_field("remotes_status", &self.remotes)?;
        members.end()
    }
}

#[cfg(test)]
mod tests;
