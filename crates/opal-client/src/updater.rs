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
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use opal_protocol::{
    DataEntryReport, DataSourceConfig, DataUpdate, Document, PolicyBundle, PolicyUpdateMessage,
    UpdateCallback, UpdateId,
};
use opal_pubsub::subscriber::Event;
use opal_runtime::ConnRetryOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::callbacks::Reporter;
use crate::data::intake::{Bursts, Interests, Subject};
use crate::data::queue::{Failure, Queue, Seq};
use crate::data::sources::Polled;
use crate::fetch::Fetcher;
use crate::policy::sync::PolicySync;
use crate::policy_store::{PolicyStore, StoreChange, StoreError};
use crate::record::Record;
use crate::server_api::{ServerApi, ServerApiError};
use crate::transactions::TransactionLog;
use opal_runtime::chain;

mod data;
mod policy;
mod writes;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// While so many entries are on their way, no more events are taken: the server notices, and we
/// start anew when there is room.
const MOST_ENTRIES: usize = 10_000;

/// How long data waits for the first bundle.
const BUNDLE_FIRST: Duration = Duration::from_secs(5);

/// What is asked of the updater from inside this process.
#[derive(Debug)]
pub(crate) enum Command {
    /// Fetch a complete bundle.
    TriggerPolicy,
    /// Load the data sources again. Answered once the server has named them.
    TriggerData(oneshot::Sender<Result<(), ServerApiError>>),
    /// The engine can be written to. Whether it has lost what it held.
    EngineUp {
        /// It is empty, though it had been filled.
        lost: bool,
    },
    /// The engine is gone and is being started again: nothing is written meanwhile.
    EngineDown {
        /// Why, for people.
        reason: String,
    },
}

/// What an updater works with.
pub(crate) struct UpdaterParts {
    /// What the client subscribed to.
    pub(crate) interests: Interests,
    /// Whether it follows policy.
    pub(crate) policy: bool,
    /// Whether it follows data.
    pub(crate) data: bool,
    /// The server.
    pub(crate) api: ServerApi,
    /// How a bundle is asked for within one round.
    pub(crate) policy_retry: ConnRetryOptions,
    /// Documents.
    pub(crate) fetcher: Arc<Fetcher>,
    /// How many are fetched at once.
    pub(crate) workers: usize,
    /// The engine.
    pub(crate) store: Arc<dyn PolicyStore>,
    /// Whether the engine can lose what it holds while we live.
    pub(crate) store_is_elsewhere: bool,
    /// Where the probe finds a policy that the engine must have.
    pub(crate) landmark: watch::Sender<Option<String>>,
    /// Whether it is there from the start, or announced by [`Command::EngineUp`].
    pub(crate) engine_is_up: bool,
    /// What succeeded and what fails.
    pub(crate) transactions: TransactionLog,
    /// Who is told; nobody if `None`.
    pub(crate) reporter: Option<Reporter>,
}

impl std::fmt::Debug for UpdaterParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdaterParts")
            .field("interests", &self.interests)
            .finish_non_exhaustive()
    }
}

/// The task. See the module.
pub(crate) struct Updater {
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
    /// Whether data has been written.
    wrote_data: bool,
    /// What to write again into an engine that lost it.
    record: Option<Record>,
    /// Whether the engine has lost it.
    restore: bool,
    engine_is_up: bool,
    /// Whether the engine went away while the write that runs was under way.
    write_is_spoiled: bool,
    /// Whether the failure of policy that lasts has been reported.
    policy_failure_is_told: bool,
    bundle: Option<Work<Result<PolicyBundle, ServerApiError>>>,
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
    /// Whether it was asked for again while the question was on its way.
    again: bool,
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
    pub(crate) fn new(
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
            engine_is_up: parts.engine_is_up,
            write_is_spoiled: false,
            policy_failure_is_told: false,
            bundle: None,
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
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            // One reading of the clock for both, so that nothing falls due between them.
            let now = Instant::now();
            self.start_work(now);
            let wake = self.next_wake(now);
            self.step(wake, &shutdown).await;
        }
        if let Some(write) = self.write.take() {
            write.await;
        }
    }

    /// Starts everything that may run now.
    fn start_work(&mut self, now: Instant) {
        if let Some(request) = self.sync.as_mut().and_then(|sync| sync.next_request(now)) {
            self.bundle_began = Utc::now();
            self.bundle = Some(self.fetch_bundle(request));
        }
        for entry in self.polled.due(now) {
            self.poll(entry);
        }
        while let Some(fetch) = self.queue.next_fetch(now) {
            let work = self.fetch_document(fetch);
            self.fetches.push(work);
        }
        if self.write.is_none() {
            self.write_is_spoiled = false;
            self.write = self.next_write(now);
        }
    }

    /// Waits for one thing to happen and handles it.
    async fn step(&mut self, wake: Option<Instant>, shutdown: &CancellationToken) {
        let has_room = self.queue.on_their_way() < MOST_ENTRIES;
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

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        [
            self.data_waits_until.filter(|at| *at > now),
            self.queue.next_wake(now),
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
            // The feed is not asked for yet.
            Event::Change(_) | Event::Position(_) | Event::Drifted | Event::Disconnected => {}
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
            Command::EngineUp { lost } => {
                self.engine_is_up = true;
                self.parts.transactions.engine_up();
                if lost {
                    self.parts.transactions.engine_restarted();
                    self.restore = true;
                    self.write_is_spoiled = true;
                }
                self.queue.retry_now(Instant::now());
                if let Some(sync) = &mut self.sync {
                    sync.retry_now();
                }
            }
            Command::EngineDown { reason } => {
                self.engine_is_up = false;
                self.write_is_spoiled = true;
                self.parts.transactions.engine_down(reason);
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
        } else if self.record.as_ref().is_some_and(Record::is_incomplete) {
            warn!("Too many patches to keep were written, taking everything anew");
            self.take_everything();
        } else {
            info!("The policy engine holds again what it held");
            self.parts.transactions.engine_refilled();
        }
        self.queue.retry_now(Instant::now());
        if let Some(sync) = &mut self.sync {
            sync.retry_now();
        }
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
