//! The task that keeps the store in step: events in, fetches and writes out, outcomes noted.
//!
//! It decides nothing by itself. [`PolicySync`] says which bundle to fetch, [`Queue`] which entry
//! to fetch or write; this task runs what they ask for and tells them what came of it. The store
//! is written by one batch at a time, bundles before data.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use opal_protocol::report::report_hash;
use opal_protocol::{
    CommitHash, DataEntryReport, DataSourceConfig, DataSourceEntry, DataUpdate, DataUpdateReport,
    Document, PatchOperation, PolicyBundle, PolicyUpdateMessage, SaveMethod, UpdateCallback,
    UpdateId,
};
use opal_pubsub::subscriber::Event;
use opal_runtime::ConnRetryOptions;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::record::Record;

use crate::callbacks::Reporter;
use crate::data::intake::{Bursts, Interests, Subject, target};
use crate::data::queue::{Failure, Fetch, Job, Notice, Outcome, Queue, Retry, Seq, Write};
use crate::data::sources::{self, Polled};
use crate::errors::chain;
use crate::fetch::{FetchError, FetchRequest, Fetcher};
use crate::policy::sync::{BundleRequest, PolicySync};
use crate::policy_store::{PolicyStore, StoreChange, StoreError};
use crate::server_api::{ServerApi, ServerApiError};
use crate::transactions::TransactionLog;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// While so many entries are on their way, no more events are taken: the server notices, and we
/// start anew when there is room.
const MOST_ENTRIES: usize = 10_000;

/// How long data waits for the first bundle.
const BUNDLE_FIRST: Duration = Duration::from_secs(5);

/// What is asked of the updater from inside this process.
#[derive(Debug)]
pub enum Command {
    /// Fetch a complete bundle.
    TriggerPolicy,
    /// Load the data sources again. Answered once the server has named them.
    TriggerData(oneshot::Sender<Result<(), ServerApiError>>),
    /// The engine came back without what it held.
    StoreLost,
}

/// What an updater works with.
pub struct UpdaterParts {
    /// What the client subscribed to.
    pub interests: Interests,
    /// Whether it follows policy.
    pub policy: bool,
    /// Whether it follows data.
    pub data: bool,
    /// The server.
    pub api: ServerApi,
    /// How a bundle is asked for within one round.
    pub policy_retry: ConnRetryOptions,
    /// Documents.
    pub fetcher: Arc<Fetcher>,
    /// How many are fetched at once.
    pub workers: usize,
    /// The engine.
    pub store: Arc<dyn PolicyStore>,
    /// Whether the engine can lose what it holds while we live.
    pub store_is_elsewhere: bool,
    /// What succeeded and what fails.
    pub transactions: TransactionLog,
    /// Who is told; nobody if `None`.
    pub reporter: Option<Reporter>,
}

impl std::fmt::Debug for UpdaterParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdaterParts")
            .field("interests", &self.interests)
            .finish_non_exhaustive()
    }
}

/// The task. See the module.
pub struct Updater {
    parts: UpdaterParts,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    sync: Option<PolicySync>,
    queue: Queue,
    bursts: Bursts,
    polled: Polled,
    updates: HashMap<u64, UpdateProgress>,
    next_update: u64,
    data_waits_until: Option<Instant>,
    /// Whether data has been written before the current bundle.
    wrote_data: bool,
    /// What to write again into an engine that lost it.
    record: Option<Record>,
    /// Whether the engine has lost it.
    restore: bool,
    bundle: Option<Work<Result<PolicyBundle, ServerApiError>>>,
    bundle_is_complete: bool,
    bundle_began: DateTime<Utc>,
    ready_bundle: Option<Arc<PolicyBundle>>,
    fetches: FuturesUnordered<Work<(Seq, Result<Document, Failure>)>>,
    write: Option<Work<Written>>,
    load: Option<Load>,
}

/// Loading the data sources, and who waits for the server's answer.
struct Load {
    work: Work<Result<DataSourceConfig, ServerApiError>>,
    reason: &'static str,
    waiting: Vec<oneshot::Sender<Result<(), ServerApiError>>>,
    attempt: u32,
}

/// What a finished write was.
enum Written {
    Bundle(Arc<PolicyBundle>, Result<(), StoreError>),
    Data(Vec<(Seq, StoreChange, Result<(), StoreError>)>),
    Restored(Vec<Result<(), StoreError>>),
}

/// An update until each of its entries had a first outcome.
struct UpdateProgress {
    id: UpdateId,
    callback: UpdateCallback,
    outstanding: usize,
    reports: Vec<DataEntryReport>,
    errors: Vec<String>,
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updater")
            .field("parts", &self.parts)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

impl Updater {
    /// An updater that follows `events` and `commands`.
    pub fn new(
        parts: UpdaterParts,
        events: mpsc::Receiver<Event>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let directories = parts.interests.directories().to_vec();
        Self {
            sync: parts.policy.then(|| PolicySync::new(directories)),
            queue: Queue::new(parts.workers),
            bursts: Bursts::default(),
            polled: Polled::default(),
            updates: HashMap::new(),
            next_update: 1,
            data_waits_until: None,
            wrote_data: false,
            record: parts.store_is_elsewhere.then(Record::default),
            restore: false,
            bundle: None,
            bundle_is_complete: true,
            bundle_began: Utc::now(),
            ready_bundle: None,
            fetches: FuturesUnordered::new(),
            write: None,
            load: None,
            parts,
            events,
            commands,
        }
    }

    /// Runs until `shutdown`; a write that is under way is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            self.start_work();
            self.step(&shutdown).await;
        }
        if let Some(write) = self.write.take() {
            write.await;
        }
    }

    /// Starts everything that may run now.
    fn start_work(&mut self) {
        let now = Instant::now();
        if let Some(request) = self.sync.as_mut().and_then(|sync| sync.next_request(now)) {
            self.bundle_is_complete = request.base.is_none();
            self.bundle_began = Utc::now();
            self.bundle = Some(self.fetch_bundle(request));
        }
        for entry in self.polled.due(now) {
            self.push_update("Periodic Update", vec![entry]);
        }
        while let Some(fetch) = self.queue.next_fetch(now) {
            let work = self.fetch_document(fetch);
            self.fetches.push(work);
        }
        if self.write.is_none() {
            self.write = self.next_write(now);
        }
    }

    /// Waits for one thing to happen and handles it.
    async fn step(&mut self, shutdown: &CancellationToken) {
        let wake = self.next_wake();
        let has_room = self.queue.len() < MOST_ENTRIES;
        tokio::select! {
            () = shutdown.cancelled() => {}
            written = pending(&mut self.write) => {
                self.write = None;
                self.on_written(written);
            }
            bundle = pending(&mut self.bundle) => {
                self.bundle = None;
                self.on_bundle(bundle);
            }
            sources = load_of(&mut self.load) => self.on_sources(sources),
            Some((seq, result)) = self.fetches.next() => {
                let notices = self.queue.fetched(seq, result, Instant::now(), &mut rand::rng());
                self.note(notices);
            }
            Some(command) = self.commands.recv() => self.on_command(command),
            Some(event) = self.events.recv(), if has_room => self.on_event(event),
            () = sleep_until(wake) => {}
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let gate = self.data_waits_until.filter(|at| *at > now);
        let queue = self.queue.next_wake().filter(|at| *at > now);
        // A retry that is due and waits for a worker is woken by a fetch that ends.
        [
            gate,
            queue,
            self.polled.next_wake(),
            self.sync.as_ref().and_then(PolicySync::next_wake),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Subscribed(_) => {
                if let Some(sync) = &mut self.sync {
                    sync.subscribed();
                    self.data_waits_until
                        .get_or_insert_with(|| Instant::now() + BUNDLE_FIRST);
                }
                self.load_sources("Initial load", None);
            }
            Event::Message { topic, data } => match self.parts.interests.subject(&topic) {
                Subject::Policy => self.on_announcement(&data),
                Subject::Data => {
                    if self.bursts.is_new(&topic, &data, Instant::now()) {
                        self.on_update(&data);
                    }
                }
            },
            Event::Disconnected => {}
        }
    }

    fn on_announcement(&mut self, data: &Document) {
        match serde_json::from_str::<PolicyUpdateMessage>(data.text()) {
            Ok(message) => {
                let commit = message.new_policy_hash.short();
                info!(policy.head = commit, "The server announces commit {commit}");
                if let Some(sync) = &mut self.sync {
                    sync.announced(&message);
                }
            }
            // Whoever published it, something about the policy is new.
            Err(error) => {
                warn!("An announcement of policy cannot be read, asking for it all: {error}");
                if let Some(sync) = &mut self.sync {
                    sync.triggered();
                }
            }
        }
    }

    fn on_update(&mut self, data: &Document) {
        if !self.parts.data {
            return;
        }
        match serde_json::from_str::<DataUpdate>(data.text()) {
            Ok(update) => self.take_update(update),
            Err(error) => {
                warn!("Ignored an update that cannot be read: {error}");
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::TriggerPolicy => {
                if let Some(sync) = &mut self.sync {
                    sync.triggered();
                }
            }
            Command::TriggerData(answer) => self.load_sources("request from sdk", Some(answer)),
            Command::StoreLost => {
                self.parts.transactions.engine_restarted();
                self.restore = true;
            }
        }
    }

    /// The engine cannot be filled from our own record: take everything anew.
    fn take_everything(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.store_lost();
        }
        self.load_sources("policy store rehydration", None);
    }

    fn on_restored(&mut self, outcomes: &[Result<(), StoreError>]) {
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        if let Some(error) = failed {
            let error = chain(error);
            warn!(
                "Could not fill the policy engine from our record, taking everything anew: {error}"
            );
            self.take_everything();
        } else {
            info!("The policy engine holds again what it held");
            self.parts.transactions.engine_refilled();
            if self.record.as_ref().is_some_and(Record::is_incomplete) {
                self.load_sources("policy store rehydration", None);
            }
        }
        self.queue.retry_now(Instant::now());
        if let Some(sync) = &mut self.sync {
            sync.retry_now();
        }
    }
}

// Policy.
impl Updater {
    fn fetch_bundle(&self, request: BundleRequest) -> Work<Result<PolicyBundle, ServerApiError>> {
        let api = self.parts.api.clone();
        let retry = self.parts.policy_retry.clone();
        async move {
            for attempt in 1.. {
                let error = match api.bundle(&request).await {
                    Ok(bundle) => return Ok(bundle),
                    Err(error) => error,
                };
                let Some(pause) = retry.delay(attempt, &mut rand::rng()) else {
                    return Err(error);
                };
                debug!(
                    "Could not fetch the bundle, trying again: {}",
                    chain(&error)
                );
                let asked = error.retry_after().unwrap_or_default();
                tokio::time::sleep(pause.max(asked)).await;
            }
            unreachable!("attempts are counted without end")
        }
        .boxed()
    }

    fn on_bundle(&mut self, bundle: Result<PolicyBundle, ServerApiError>) {
        match bundle {
            Ok(bundle) => self.ready_bundle = Some(Arc::new(bundle)),
            Err(error) => {
                let error = chain(&error);
                warn!("Could not fetch the policy bundle, trying again: {error}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.policy_url();
                self.parts
                    .transactions
                    .policy_unfetched(&id, remote, &error);
                self.policy_failed(&error);
            }
        }
    }

    fn policy_failed(&mut self, error: &str) {
        if let Some(sync) = &mut self.sync {
            sync.failed(Instant::now(), &mut rand::rng());
        }
        self.report_policy(None, error_data(error));
    }

    fn on_bundle_written(&mut self, bundle: &PolicyBundle, outcome: Result<(), StoreError>) {
        let commit = &bundle.hash;
        let remote = self.parts.api.policy_url();
        match outcome {
            Ok(()) => {
                if let Some(record) = &mut self.record {
                    record.bundle_applied(bundle);
                }
                info!(
                    policy.head = %commit,
                    "The policy store holds commit {}",
                    commit.short()
                );
                self.parts
                    .transactions
                    .policy_succeeded(commit, remote, self.bundle_began);
                self.policy_succeeded(commit.clone());
            }
            Err(error) => {
                let text = chain(&error);
                warn!(policy.head = %commit, "The policy store did not take commit {}: {text}", commit.short());
                for problem in error.problems() {
                    warn!(policy.head = %commit, "{problem}");
                }
                self.parts
                    .transactions
                    .policy_refused(commit, remote, &error, self.bundle_began);
                self.policy_failed(&text);
            }
        }
    }

    fn policy_succeeded(&mut self, commit: CommitHash) {
        let late = self.bundle_is_complete && self.wrote_data;
        if let Some(sync) = &mut self.sync {
            sync.succeeded(commit.clone());
        }
        self.data_waits_until = None;
        if late {
            // A complete bundle writes its static data over what updates had put there.
            self.load_sources("policy store rehydration", None);
        }
        self.report_policy(Some(commit), serde_json::Map::new());
    }

    fn report_policy(
        &self,
        policy_hash: Option<CommitHash>,
        user_data: serde_json::Map<String, serde_json::Value>,
    ) {
        if let Some(reporter) = &self.parts.reporter {
            let report = DataUpdateReport {
                update_id: None,
                reports: Vec::new(),
                policy_hash,
                user_data,
            };
            reporter.report(report, UpdateCallback::default());
        }
    }
}

// Data.
impl Updater {
    fn load_sources(
        &mut self,
        reason: &'static str,
        answer: Option<oneshot::Sender<Result<(), ServerApiError>>>,
    ) {
        if !self.parts.data {
            return;
        }
        let mut waiting = self
            .load
            .take()
            .map(|load| load.waiting)
            .unwrap_or_default();
        waiting.extend(answer);
        self.load = Some(Load {
            work: self.ask_for_sources(Duration::ZERO),
            reason,
            waiting,
            attempt: 0,
        });
    }

    fn ask_for_sources(&self, pause: Duration) -> Work<Result<DataSourceConfig, ServerApiError>> {
        let api = self.parts.api.clone();
        async move {
            tokio::time::sleep(pause).await;
            sources::fetch(&api).await
        }
        .boxed()
    }

    fn on_sources(&mut self, sources: Result<DataSourceConfig, ServerApiError>) {
        let Some(mut load) = self.load.take() else {
            return;
        };
        match sources {
            Ok(config) => {
                for waiting in load.waiting {
                    // Whoever asked may have gone.
                    let _ = waiting.send(Ok(()));
                }
                let interests = &self.parts.interests;
                let ours = |entry: &DataSourceEntry| interests.concerns(&entry.topics);
                let none = !config.entries.iter().any(ours);
                self.parts.transactions.sources_named(none);
                let entries = self.polled.restart(config, Instant::now());
                self.push_update(load.reason, entries);
            }
            Err(error) => {
                let text = chain(&error);
                warn!("Could not ask the server for our data sources, trying again: {text}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.data_sources_url();
                self.parts.transactions.sources_unknown(&id, remote, &text);
                load.attempt += 1;
                let asked = error.retry_after();
                let pause = crate::data::queue::round_pause(load.attempt, asked, &mut rand::rng());
                load.work = self.ask_for_sources(pause);
                // The first to wait gets the reason; the others what it comes down to.
                let mut reason = Some(error);
                for waiting in load.waiting.drain(..) {
                    if let Some(error) = reason.take() {
                        let _ = waiting.send(Err(error));
                    }
                }
                self.load = Some(load);
            }
        }
    }

    fn push_update(&mut self, reason: &str, entries: Vec<DataSourceEntry>) {
        self.take_update(DataUpdate {
            id: None,
            entries,
            reason: Some(reason.to_owned()),
            callback: UpdateCallback::default(),
        });
    }

    fn take_update(&mut self, update: DataUpdate) {
        let id = update
            .id
            .unwrap_or_else(|| UpdateId::from_uuid(Uuid::new_v4()));
        let number = self.next_update;
        self.next_update += 1;
        let interests = &self.parts.interests;
        let entries: Vec<DataSourceEntry> = update
            .entries
            .into_iter()
            .filter(|entry| interests.concerns(&entry.topics))
            .collect();
        info!(
            update.id = %id,
            entry.count = entries.len(),
            "Taking update `{id}` ({})",
            update.reason.as_deref().unwrap_or("no reason given"),
        );
        self.updates.insert(
            number,
            UpdateProgress {
                id,
                callback: update.callback,
                outstanding: entries.len(),
                reports: Vec::new(),
                errors: Vec::new(),
            },
        );
        for entry in entries {
            self.push_entry(number, entry);
        }
        self.finish_if_complete(number);
    }

    fn push_entry(&mut self, update: u64, mut entry: DataSourceEntry) {
        match target(&entry) {
            Ok(target) => {
                if target.method == SaveMethod::Delete {
                    entry.data = Some(Document::from(&json!(null)));
                }
                let notices = self.queue.push(Job {
                    update,
                    entry,
                    path: target.path,
                    method: target.method,
                });
                self.note(notices);
            }
            Err(error) => self.settle(update, &entry, &Settled::refused(error, None), true),
        }
    }

    fn fetch_document(&self, fetch: Fetch) -> Work<(Seq, Result<Document, Failure>)> {
        let fetcher = Arc::clone(&self.parts.fetcher);
        async move {
            if let Some(document) = fetch.entry.data {
                return (fetch.seq, Ok(document));
            }
            let request = FetchRequest::from(&fetch.entry);
            let mut rng = StdRng::from_rng(&mut rand::rng());
            let fetched = fetcher.fetch_round(&request, &mut rng).await;
            (fetch.seq, fetched.map_err(|error| fetch_failure(&error)))
        }
        .boxed()
    }

    fn next_write(&mut self, now: Instant) -> Option<Work<Written>> {
        let store = Arc::clone(&self.parts.store);
        if std::mem::take(&mut self.restore) {
            match self.record.as_ref().and_then(Record::replay) {
                Some(changes) => {
                    let restored = async move { Written::Restored(store.apply(changes).await) };
                    return Some(restored.boxed());
                }
                None => self.take_everything(),
            }
        }
        let store = Arc::clone(&self.parts.store);
        if let Some(bundle) = self.ready_bundle.take() {
            return Some(
                async move {
                    let change = StoreChange::Bundle(Arc::clone(&bundle));
                    let outcome = store.apply(vec![change]).await.pop();
                    Written::Bundle(bundle, outcome.unwrap_or(Ok(())))
                }
                .boxed(),
            );
        }
        let settled = self.sync.as_ref().is_none_or(PolicySync::is_settled);
        if !settled && self.data_waits_until.is_none_or(|until| until > now) {
            return None;
        }
        let (changes, refused) = changes(self.queue.next_batch());
        if !refused.is_empty() {
            let notices = self.queue.written(refused, now, &mut rand::rng());
            self.note(notices);
        }
        if changes.is_empty() {
            return None;
        }
        self.wrote_data = true;
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

    fn on_written(&mut self, written: Written) {
        match written {
            Written::Bundle(bundle, outcome) => self.on_bundle_written(&bundle, outcome),
            Written::Restored(outcomes) => self.on_restored(&outcomes),
            Written::Data(written) => {
                let mut outcomes = Vec::with_capacity(written.len());
                for (seq, change, outcome) in written {
                    if let (Ok(()), Some(record)) = (&outcome, &mut self.record) {
                        record.data_applied(&change);
                    }
                    outcomes.push((seq, outcome.map_err(|error| store_failure(&error))));
                }
                let notices = self
                    .queue
                    .written(outcomes, Instant::now(), &mut rand::rng());
                self.note(notices);
            }
        }
    }

    fn note(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let Notice {
                job,
                outcome,
                repeated,
                ..
            } = notice;
            let hash =
                |document: Document| report_hash(&document, job.method, job.entry.data.is_some());
            let settled = match outcome {
                Outcome::Written { document } => Settled {
                    error: None,
                    refused: false,
                    hash: Some(hash(document)),
                },
                Outcome::Failing { error, document } => Settled::failing(error, document.map(hash)),
                Outcome::Refused {
                    error,
                    document,
                    unknown,
                } => {
                    if unknown {
                        self.load_sources("policy store rehydration", None);
                    }
                    Settled::refused(error, document.map(hash))
                }
                Outcome::Replaced => {
                    self.parts.transactions.entry_replaced(&job.entry);
                    let settled = Settled::refused("a newer entry took its place".into(), None);
                    if !repeated {
                        self.settle_report(job.update, &job.entry, &settled);
                    }
                    continue;
                }
            };
            self.settle(job.update, &job.entry, &settled, !repeated);
        }
    }

    /// Logs the outcome of an entry, and reports it if it is the first or a final one.
    fn settle(&mut self, update: u64, entry: &DataSourceEntry, settled: &Settled, report: bool) {
        let known = self.updates.get(&update);
        let id = known.map_or_else(|| update.to_string(), |known| known.id.to_string());
        let transactions = &self.parts.transactions;
        match &settled.error {
            None => transactions.entry_succeeded(&id, entry),
            Some(error) => {
                let url = opal_protocol::RedactedUrl::new(&entry.url);
                let path = &entry.dst_path;
                warn!(
                    update.id = id,
                    "The entry `{url}` for `{path}` failed: {error}"
                );
                match settled.refused {
                    true => transactions.entry_refused(&id, entry, error),
                    false => transactions.entry_failing(&id, entry, error),
                }
            }
        }
        if report {
            self.settle_report(update, entry, settled);
        }
    }

    fn settle_report(&mut self, update: u64, entry: &DataSourceEntry, settled: &Settled) {
        let Some(progress) = self.updates.get_mut(&update) else {
            return;
        };
        progress.outstanding = progress.outstanding.saturating_sub(1);
        progress.reports.push(DataEntryReport {
            entry: entry.clone(),
            fetched: settled.hash.is_some(),
            saved: settled.error.is_none(),
            hash: settled.hash.clone(),
        });
        progress.errors.extend(settled.error.clone());
        self.finish_if_complete(update);
    }

    fn finish_if_complete(&mut self, update: u64) {
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
            true => serde_json::Map::new(),
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

/// How an entry ended, for its report.
struct Settled {
    error: Option<String>,
    /// Whether it will not be tried again.
    refused: bool,
    hash: Option<String>,
}

impl Settled {
    fn failing(error: String, hash: Option<String>) -> Self {
        Self {
            error: Some(error),
            refused: false,
            hash,
        }
    }

    fn refused(error: String, hash: Option<String>) -> Self {
        Self {
            refused: true,
            ..Self::failing(error, hash)
        }
    }
}

fn error_data(error: &str) -> serde_json::Map<String, serde_json::Value> {
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
                    error: format!("the document is no JSON Patch: {error}"),
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
fn fetch_failure(error: &FetchError) -> Failure {
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

fn store_failure(error: &StoreError) -> Failure {
    let retry = match error {
        StoreError::OutcomeUnknown { .. } => Retry::Unknown,
        _ if error.is_transient() => Retry::After(None),
        _ => Retry::Never,
    };
    Failure {
        error: chain(error),
        retry,
    }
}

async fn pending<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn load_of(load: &mut Option<Load>) -> Result<DataSourceConfig, ServerApiError> {
    match load {
        Some(load) => (&mut load.work).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
