//! The task that keeps the store in step: events in, fetches and writes out, outcomes noted.
//!
//! It decides nothing by itself. [`Replica`] says which bundle, sources and documents to fetch and
//! what to write; this task does it and says what came of it. The store is written by one batch at a
//! time, bundles before data.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use opal_protocol::feed::{AppliedArguments, FailingEntry};
use opal_protocol::{DataEntryReport, Document, Epoch, Revision, Topic, UpdateCallback, UpdateId};
use opal_pubsub::{AppliedSender, Event};
use opal_runtime::ConnRetryOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::callbacks::Reporter;
use crate::data::intake::Interests;
use crate::data::queue::{Failure, Seq};
use crate::fetch::Fetcher;
use crate::offline::{OfflineConfig, OfflineFile, OfflineStatus};
use crate::policy_store::{PolicyStore, StoreChange, StoreError};
use crate::record::Record;
use crate::replica::{News, Replica, ReplicaOptions};
use crate::server_api::{BundleAt, ServerApi, ServerApiError};
use crate::standing::{Moment, Standing};
use crate::transactions::TransactionLog;
use data::Loaded;
use filling::{Filled, Filling};
use offline::Saver;
use renewal::Renewal;

mod data;
mod engine;
mod filling;
mod offline;
mod policy;
mod renewal;
mod writes;

pub(crate) use filling::Opening;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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
    /// The topics of data, as subscribed to.
    pub(crate) data_topics: Vec<Topic>,
    /// The file that the engine is filled from and saved to; none without offline mode.
    pub(crate) offline: Option<(OfflineConfig, Arc<OfflineFile>)>,
    /// Tells this process what we hold.
    pub(crate) progress: Progress,
}

/// Where the store is, for the rest of this process.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The revision up to which the store holds everything.
    pub(crate) held: watch::Sender<Option<(Epoch, Revision)>>,
    /// The same and more, for health.
    pub(crate) standing: watch::Sender<Standing>,
    /// How the offline file is; none without offline mode.
    pub(crate) offline: watch::Sender<Option<OfflineStatus>>,
}

impl Progress {
    /// Nowhere yet.
    pub(crate) fn new() -> Self {
        Self {
            held: watch::Sender::new(None),
            standing: watch::Sender::new(Standing::new(Moment::now())),
            offline: watch::Sender::new(None),
        }
    }
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
    /// The subscription, until it begins.
    opening: Option<Opening>,
    /// Tells the server what we hold, once there is a subscription.
    applied: Option<AppliedSender>,
    replica: Replica,
    updates: HashMap<u64, UpdateProgress>,
    /// What to write again into an engine that lost it.
    record: Option<Record>,
    /// Whether the engine has lost it.
    restore: bool,
    engine_is_up: bool,
    /// Why the engine holds nothing, though it had been filled.
    engine_lost: Option<FailingEntry>,
    /// What the server was told last that the engine holds.
    reported: Option<(Epoch, AppliedArguments)>,
    /// What it was told since of the engine's loss.
    loss_reported: Option<FailingEntry>,
    /// What is taken anew for the record.
    renewal: Option<Renewal>,
    /// Whether the engine went away while the write that runs was under way.
    write_is_spoiled: bool,
    /// Whether the failure of policy that lasts has been reported.
    policy_failure_is_told: bool,
    bundle: Option<Work<Result<BundleAt, ServerApiError>>>,
    bundle_began: DateTime<Utc>,
    ready_bundle: Option<BundleAt>,
    fetches: FuturesUnordered<Work<(Seq, Result<Document, Failure>)>>,
    write: Option<Work<Written>>,
    load: Option<Work<Result<Loaded, ServerApiError>>>,
    saver: Option<Saver>,
    /// What the engine is to be filled with before anything else.
    filling: Option<Filling>,
    save: Option<Work<Result<(), String>>>,
    /// Who waits for the server to name our data sources.
    waiting: Vec<oneshot::Sender<Result<(), ServerApiError>>>,
}

/// What a finished write was.
enum Written {
    Bundle(Box<BundleAt>, Result<Option<String>, StoreError>),
    Data(Vec<(Seq, StoreChange, Result<(), StoreError>)>),
    Restored(Vec<Result<(), StoreError>>),
    Filled(Filled),
    /// Nothing, while the engine was asked for its policies.
    Policies(Result<BTreeMap<String, String>, StoreError>),
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
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl Updater {
    /// An updater that follows `events`, which begin when it says so, and `commands`.
    pub(crate) fn new(
        parts: UpdaterParts,
        opening: Opening,
        events: mpsc::Receiver<Event>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let replica = Replica::new(ReplicaOptions {
            interests: parts.interests.clone(),
            policy: parts.policy,
            data: parts.data,
            workers: parts.workers,
            id_seed: rand::random(),
            started: (Instant::now(), Utc::now()),
        });
        let keeps_record = parts.store_is_elsewhere || parts.offline.is_some();
        let saver = parts.offline.as_ref().map(|(config, file)| {
            let file = Arc::clone(file);
            Saver::new(config, file, Instant::now())
        });
        Self {
            opening: Some(opening),
            applied: None,
            saver,
            filling: None,
            save: None,
            replica,
            updates: HashMap::new(),
            record: keeps_record.then(Record::default),
            restore: false,
            engine_is_up: parts.engine_is_up,
            engine_lost: None,
            reported: None,
            loss_reported: None,
            renewal: None,
            write_is_spoiled: false,
            policy_failure_is_told: false,
            bundle: None,
            bundle_began: Utc::now(),
            ready_bundle: None,
            fetches: FuturesUnordered::new(),
            write: None,
            load: None,
            waiting: Vec::new(),
            parts,
            events,
            commands,
        }
    }

    /// Runs until `shutdown`; a write that is under way is finished first, and then the offline file
    /// written.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.read_file()).await;
        while !shutdown.is_cancelled() {
            // One reading of the clock for both, so that nothing falls due between them.
            let now = Instant::now();
            self.start_work(now);
            let save = self.save_wake(now);
            let wakes = [self.replica.next_wake(now), save, self.filling_wake(now)];
            let wake = wakes.into_iter().flatten().min();
            self.step(wake, &shutdown).await;
        }
        if let Some(write) = self.write.take() {
            let written = write.await;
            self.on_written(written);
        }
        self.save_last().await;
    }

    /// Starts everything that may run now.
    fn start_work(&mut self, now: Instant) {
        self.renew_record(now);
        if let Some(request) = self.replica.next_bundle(now) {
            self.bundle_began = Utc::now();
            self.bundle = Some(self.fetch_bundle(request));
        }
        if let Some(request) = self.replica.next_load(now) {
            self.load = Some(self.load(request));
        }
        self.replica.poll(now);
        while let Some(fetch) = self.replica.next_fetch(now) {
            let work = self.fetch_document(fetch);
            self.fetches.push(work);
        }
        if self.write.is_none() {
            self.write_is_spoiled = false;
            self.write = self.next_write(now);
        }
        self.tell();
    }

    /// Tells everyone what is news.
    fn tell(&mut self) {
        for news in self.replica.take_news() {
            self.on_news(news);
        }
        self.end_renewal();
        self.report();
        let status = self.status();
        let held = status.held;
        self.parts.progress.held.send_if_modified(|known| {
            let is_news = *known != held;
            *known = held;
            is_news
        });
        let standing = &self.parts.progress.standing;
        standing.send_if_modified(|standing| standing.update(status, Moment::now()));
        self.note_whole();
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Update {
                number,
                id,
                callback,
                entries,
            } => self.on_update(number, id, callback, entries),
            News::Invalid {
                update,
                id,
                entry,
                error,
            } => self.on_invalid(update, &id, &entry, error),
            News::Entry(notice) => self.note(*notice),
            News::SourcesNamed { none } => {
                if let Some(renewal) = &mut self.renewal {
                    renewal.lacks_sources = false;
                }
                self.parts.transactions.sources_named(none);
            }
        }
    }

    /// Waits for one thing to happen and handles it.
    async fn step(&mut self, wake: Option<Instant>, shutdown: &CancellationToken) {
        let has_room = self.replica.has_room();
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
            loaded = pending(&mut self.load) => {
                self.load = None;
                self.on_loaded(loaded);
            }
            saved = pending(&mut self.save) => {
                self.save = None;
                self.on_saved(saved);
            }
            Some((seq, result)) = self.fetches.next() => {
                self.replica.fetched(seq, result, Instant::now(), &mut rand::rng());
            }
            Some(command) = self.commands.recv() => self.on_command(command),
            Some(event) = self.events.recv(), if has_room => {
                self.replica.on_event(event, Instant::now(), &mut rand::rng());
            }
            () = sleep_until(wake) => {}
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::TriggerPolicy => self.replica.trigger_policy(),
            Command::TriggerData(answer) => {
                if self.parts.data {
                    self.waiting.push(answer);
                }
                self.replica.trigger_data(Instant::now());
            }
            Command::EngineUp { lost } => self.on_engine_up(lost),
            Command::EngineDown { reason } => self.on_engine_down(reason),
        }
    }
}

async fn pending<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
