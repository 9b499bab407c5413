//! What a client does to stay in step with its server: everything that is decided, and nothing that
//! is done. No I/O, no clock, no randomness of its own.
//!
//! [`Replica`] is told what happens (events of the subscription, answers of the server, documents,
//! outcomes of writes) and asked what to do next: which bundle to fetch, what to load, which documents
//! to fetch, what to write. It joins [`PolicySync`], the [`Queue`] and a ledger of which changes the
//! store holds, so that a position is claimed only for what was written.
//!
//! **A snapshot** is a complete bundle, the data sources, and the feed's base, written in this order.
//! While its data is on the way, changes of data are kept aside: the base says which of them it
//! contains already, and a patch must not be applied on top of itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use opal_protocol::feed::{BaseEntry, BaseSnapshot, FailingEntry};
use opal_protocol::{
    CommitHash, DataPath, DataSourceConfig, DataSourceEntry, DataUpdate, Document, Epoch,
    PolicyUpdateMessage, Position, RedactedUrl, Revision, SaveMethod, UpdateCallback, UpdateId,
};
use opal_pubsub::{Event, FeedChange, Start};
use rand::Rng;
use serde_json::json;
use tracing::{info, warn};

use crate::data::intake::{Bursts, Interests, Subject, target};
use crate::data::queue::{Failure, Fetch, Job, Notice, Outcome, Queue, Seq, Write};
use crate::data::sources::Polled;
use crate::policy::sync::{BundleRequest, PolicySync};

mod ledger;
mod loads;

use ledger::{Ledger, Trouble};
pub use ledger::{Place, Report};
use loads::Loads;
pub use loads::{LoadKind, LoadRequest};

/// What a replica follows.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// What the client subscribed to.
    pub interests: Interests,
    /// Whether it follows policy.
    pub policy: bool,
    /// Whether it follows data.
    pub data: bool,
    /// How many documents are fetched at once.
    pub workers: usize,
    /// Where ids for updates that have none come from: random, another for each process.
    pub id_seed: u128,
    /// One moment by both clocks, to say when by the calendar something happened.
    pub started: (Instant, DateTime<Utc>),
}

/// What the caller may want to tell others.
#[derive(Debug)]
pub enum News {
    /// An update was taken; its entries' outcomes follow.
    Update {
        /// A number of its own, which is in each [`Job`].
        number: u64,
        /// Its id, for people.
        id: UpdateId,
        /// Whom to tell.
        callback: UpdateCallback,
        /// How many of its entries concern us.
        entries: usize,
    },
    /// One of its entries is none that can be taken.
    Invalid {
        /// The update's number.
        update: u64,
        /// The update's id.
        id: UpdateId,
        /// The entry.
        entry: Box<DataSourceEntry>,
        /// What is wrong with it.
        error: String,
    },
    /// An outcome of one of its entries.
    Entry(Box<Notice>),
    /// The server named our data sources.
    SourcesNamed {
        /// Whether there are none for us.
        none: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    options: ReplicaOptions,
    policy: Option<PolicySync>,
    queue: Queue,
    bursts: Bursts,
    polled: Polled,
    ledger: Ledger,
    loads: Loads,
    /// Changes of data that arrived while a snapshot's data is on the way.
    aside: Vec<FeedChange>,
    data_waits_until: Option<Instant>,
    /// Whether the complete bundle of the last snapshot is still to come.
    bundle_is_due: bool,
    /// The last moment that we were told.
    now: Instant,
    /// Whether data has been written over what the last complete bundle left.
    wrote_data: bool,
    /// Whether there is a connection.
    is_connected: bool,
    next_update: u64,
    next_part: u64,
    news: Vec<News>,
}

/// How long data waits for the bundle that belongs below it.
const BUNDLE_FIRST: Duration = Duration::from_secs(5);

/// So many entries are on their way at most. With a feed everything is then taken anew, since the
/// base holds what they come down to. Without one no more events are to be told: the server notices,
/// and everything is loaded when there is room.
const MOST_ENTRIES: usize = 10_000;

/// The pause before a bundle is asked for that is to be of a commit which the last one was not.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Replica {
    /// A replica of nothing yet.
    pub fn new(options: ReplicaOptions) -> Self {
        let directories = options.interests.directories().to_vec();
        Self {
            policy: options.policy.then(|| PolicySync::new(directories)),
            queue: Queue::new(options.workers),
            bursts: Bursts::default(),
            polled: Polled::default(),
            ledger: Ledger::default(),
            loads: Loads::default(),
            aside: Vec::new(),
            data_waits_until: None,
            bundle_is_due: false,
            now: options.started.0,
            wrote_data: false,
            is_connected: false,
            next_update: 1,
            next_part: 1,
            news: Vec::new(),
            options,
        }
    }

    /// The store holds everything up to `position`, policies of `commit` included, from before we
    /// started. Returns whether that can be built on: not if policy is followed and there is no
    /// commit.
    pub fn restored(&mut self, position: Position, commit: Option<CommitHash>) -> bool {
        match (&mut self.policy, commit) {
            (Some(policy), Some(commit)) => policy.restored(commit),
            (Some(_), None) => return false,
            (None, _) => {}
        }
        self.ledger.restored(position);
        self.wrote_data = true;
        self.want_load(LoadKind::PolledSources, "Periodic Update", None);
        true
    }

    /// What there is to tell since the last call, in order.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Whether another event may be told: not while too many entries are on their way and there is
    /// no feed to take them from again.
    pub fn has_room(&self) -> bool {
        self.ledger.received().is_some() || self.queue.on_their_way() < MOST_ENTRIES
    }

    /// The subscription tells something.
    pub fn on_event(&mut self, event: Event, now: Instant, rng: &mut impl Rng) {
        self.now = now;
        match event {
            Event::Subscribed(Start::Released) => self.follow_without_feed(now),
            Event::Subscribed(Start::Snapshot { head, spread }) => {
                self.is_connected = true;
                let spread = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
                let pause = Duration::from_millis(rng.random_range(0..=spread));
                self.aside.clear();
                self.ledger.forget_history();
                self.begin_snapshot(head, now + pause, now);
            }
            Event::Subscribed(Start::Resumed { .. }) => {
                self.is_connected = true;
                self.loads.retry_now();
                if let Some(policy) = &mut self.policy {
                    policy.retry_now();
                }
            }
            Event::Message { topic, data } => match self.options.interests.subject(&topic) {
                Subject::Policy => self.on_announcement(&data, None),
                Subject::Data if self.bursts.is_new(&topic, &data, now) => {
                    self.on_update(&data, None, |_| {});
                }
                Subject::Data => {}
            },
            Event::Change(change) => self.on_change(change),
            Event::Position(position) => self.ledger.receive(position, false),
            Event::Drifted => {
                warn!("Our policies are not those of their commit: taking everything anew");
                self.take_everything(now);
            }
            Event::Disconnected => self.is_connected = false,
        }
    }

    fn follow_without_feed(&mut self, now: Instant) {
        self.is_connected = true;
        // What was put aside would be asked for again by nobody: it is part of what is loaded now.
        self.aside.clear();
        self.ledger.void();
        if let Some(policy) = &mut self.policy {
            policy.needs(None);
            policy.subscribed();
        }
        self.load_sources("Initial load", now);
    }

    fn begin_snapshot(&mut self, head: Position, at: Instant, now: Instant) {
        self.bundle_is_due = self.policy.is_some();
        self.ledger.begin_snapshot(head, self.policy.is_some());
        let forgotten = self.queue.forget_all();
        self.note(forgotten);
        self.wrote_data = false;
        if let Some(policy) = &mut self.policy {
            policy.needs(Some(head.at_least()));
            policy.begin_snapshot(at);
        }
        if self.options.data {
            self.want_load(
                LoadKind::Snapshot(head.at_least()),
                "Initial load",
                Some(at),
            );
            self.data_waits_until = self.policy.is_some().then(|| at.max(now) + BUNDLE_FIRST);
        } else {
            self.ledger.snapshot_taken(head);
        }
    }

    /// The store cannot be trusted any more, or was emptied: everything is to be written again.
    pub fn take_everything(&mut self, now: Instant) {
        match self.ledger.furthest() {
            Some(head) => self.begin_snapshot(head, now, now),
            None => {
                if let Some(policy) = &mut self.policy {
                    policy.store_lost();
                }
                self.load_sources("policy store rehydration", now);
            }
        }
    }

    /// Someone asks for a complete bundle.
    pub fn trigger_policy(&mut self) {
        if let Some(policy) = &mut self.policy {
            policy.triggered();
        }
    }

    /// Someone asks for all data.
    pub fn trigger_data(&mut self, now: Instant) {
        match self.ledger.furthest() {
            // The feed's patches may stand on static data of the bundle.
            Some(head) => self.begin_snapshot(head, now, now),
            None => self.load_sources("request from sdk", now),
        }
    }

    /// Loads data that lies over a complete bundle, which was just written.
    fn reload_data(&mut self, reason: &'static str, now: Instant) {
        let Some(received) = self.ledger.furthest() else {
            return self.load_sources(reason, now);
        };
        if !self.options.data || self.ledger.awaits_snapshot() {
            return;
        }
        let forgotten = self.queue.forget_all();
        self.note(forgotten);
        self.ledger.reload_data();
        self.wrote_data = false;
        self.want_load(LoadKind::Snapshot(received.at_least()), reason, None);
    }

    fn load_sources(&mut self, reason: &'static str, now: Instant) {
        if !self.options.data {
            return;
        }
        if self.policy.is_some() {
            self.data_waits_until.get_or_insert(now + BUNDLE_FIRST);
        }
        self.want_load(LoadKind::Sources, reason, None);
    }

    fn want_load(&mut self, kind: LoadKind, reason: &'static str, at: Option<Instant>) {
        if self.options.data {
            self.loads.want(LoadRequest { kind, reason }, at);
        }
    }

    fn on_change(&mut self, change: FeedChange) {
        self.ledger.receive(change.position, change.confirm);
        let interests = &self.options.interests;
        let about = |topic| interests.subject(topic) == Subject::Policy;
        if change.topics.iter().any(about) {
            self.on_announcement(&change.payload, Some(change.position));
        } else if self.ledger.open_beyond_base() + self.aside.len() >= MOST_ENTRIES {
            warn!("More than {MOST_ENTRIES} entries wait to be applied: taking everything anew");
            self.aside.clear();
            self.take_everything(self.now);
        } else if self.ledger.awaits_snapshot() {
            self.aside.push(change);
        } else if !self.ledger.is_in_base(change.position.revision) {
            self.on_data(&change);
        }
    }

    fn on_data(&mut self, change: &FeedChange) {
        let revision = Some(change.position.revision);
        self.on_update(&change.payload, revision, |update| {
            update.restrict_to(&change.topics);
        });
    }

    fn on_announcement(&mut self, data: &Document, position: Option<Position>) {
        let Some(policy) = &mut self.policy else {
            return;
        };
        if let Some(position) = position {
            policy.needs(Some(position.at_least()));
        }
        let is_needed = match serde_json::from_str::<PolicyUpdateMessage>(data.text()) {
            Ok(message) => {
                let commit = message.new_policy_hash.short();
                info!(policy.head = commit, "The server announces commit {commit}");
                policy.announced(&message)
            }
            // Whoever published it, something about the policy is new.
            Err(error) => {
                warn!("An announcement of policy cannot be read, asking for it all: {error}");
                policy.triggered();
                true
            }
        };
        if let Some(position) = position.filter(|_| is_needed) {
            self.ledger.open_policy(position.revision);
        }
    }

    fn on_update(
        &mut self,
        data: &Document,
        revision: Option<Revision>,
        restrict: impl FnOnce(&mut DataUpdate),
    ) {
        if !self.options.data {
            return;
        }
        match serde_json::from_str::<DataUpdate>(data.text()) {
            Ok(mut update) => {
                restrict(&mut update);
                self.take(update, revision, false);
            }
            Err(error) => {
                warn!("Ignored an update that cannot be read: {error}");
                if let Some(revision) = revision {
                    self.refuse(
                        revision,
                        "an update that cannot be read",
                        &error.to_string(),
                    );
                }
            }
        }
    }

    fn take(&mut self, update: DataUpdate, revision: Option<Revision>, is_source: bool) {
        let (number, own_id) = self.number_update();
        let id = update.id.unwrap_or(own_id);
        let interests = &self.options.interests;
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
        self.news.push(News::Update {
            number,
            id: id.clone(),
            callback: update.callback,
            entries: entries.len(),
        });
        for entry in entries {
            let part_of = match (revision, is_source) {
                (Some(_), true) => Part::Source,
                (Some(revision), false) => Part::Change(revision),
                (None, _) => Part::Nothing,
            };
            self.push(number, id.clone(), part_of, is_source, entry);
        }
    }

    /// A number for an update, and an id in case that it has none.
    fn number_update(&mut self) -> (u64, UpdateId) {
        let number = self.next_update;
        self.next_update += 1;
        // An odd factor spreads the numbers over all bits, and no two over the same.
        let random = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let bytes = self.options.id_seed.wrapping_add(random).to_be_bytes();
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        (number, UpdateId::from_uuid(uuid))
    }

    fn push(
        &mut self,
        update: u64,
        id: UpdateId,
        part_of: Part,
        is_source: bool,
        mut entry: DataSourceEntry,
    ) {
        let target = match target(&entry) {
            Ok(target) => target,
            Err(error) => {
                if let Some(revision) = part_of.revision() {
                    self.refuse(revision, &described(&entry), &error);
                }
                let entry = Box::new(entry);
                self.news.push(News::Invalid {
                    update,
                    id,
                    entry,
                    error,
                });
                return;
            }
        };
        if target.method == SaveMethod::Delete {
            entry.data = Some(Document::from(&json!(null)));
        }
        let place = part_of.revision().map(|revision| self.place(revision));
        if let (Some(place), Part::Base { .. }) = (place, part_of) {
            self.ledger.open_base(place);
        }
        let notices = self.queue.push(Job {
            update,
            update_id: id,
            is_source,
            needs_bundle: matches!(
                part_of,
                Part::Base {
                    stands_alone: true,
                    ..
                }
            ),
            place,
            entry,
            path: target.path,
            method: target.method,
        });
        // What waits to fetch the same is not in the store before this one is.
        let (mut replaced, mut others) = (Vec::new(), Vec::new());
        for notice in notices {
            let inherits = matches!(notice.outcome, Outcome::Replaced) && place.is_some();
            let group = if inherits { &mut replaced } else { &mut others };
            group.push(notice);
        }
        for notice in replaced {
            if let Some((heir, old)) = place.zip(notice.job.place) {
                self.ledger.inherit(heir, old);
            }
            self.news.push(News::Entry(Box::new(notice)));
        }
        self.note(others);
    }

    fn place(&mut self, revision: Revision) -> Place {
        let part = self.next_part;
        self.next_part += 1;
        let place = Place { revision, part };
        self.ledger.open_data(place);
        place
    }

    fn refuse(&mut self, revision: Revision, entry: &str, error: &str) {
        let place = self.place(revision);
        let trouble = Trouble {
            entry: entry.to_owned(),
            error: error.to_owned(),
            since: self.by_calendar(self.now),
        };
        self.ledger.data_refused(place, None, trouble);
    }

    /// The load to run now, if any. One at a time.
    pub fn next_load(&mut self, now: Instant) -> Option<LoadRequest> {
        self.loads.next(now)
    }

    /// The server named our data sources and, for a snapshot, what the feed comes down to.
    pub fn loaded(&mut self, sources: DataSourceConfig, base: Option<BaseSnapshot>, now: Instant) {
        self.now = now;
        let in_feed = self.ledger.received();
        let epoch = in_feed.map(|held| held.epoch);
        if base
            .as_ref()
            .is_some_and(|base| Some(base.position.epoch) != epoch)
        {
            // Another feed than the one that we follow: its first event will say where it is.
            self.loads.succeeded();
            return;
        }
        let Some(request) = self.loads.succeeded() else {
            return;
        };
        let interests = &self.options.interests;
        let ours = |entry: &DataSourceEntry| interests.concerns(&entry.topics);
        let none = !sources.entries.iter().any(ours);
        let once = self.polled.restart(sources, now);
        if request.kind == LoadKind::PolledSources {
            return;
        }
        self.news.push(News::SourcesNamed { none });
        let forgotten = self.queue.forget_sources();
        self.note(forgotten);
        let source = in_feed.map(|_| Revision(0));
        self.push_update(request.reason, once, source);
        if let Some(base) = base {
            self.take_base(base, request.reason);
        }
    }

    fn take_base(&mut self, base: BaseSnapshot, reason: &str) {
        let position = base.position;
        self.ledger.snapshot_taken(position);
        if !base.entries.is_empty() {
            let (number, id) = self.number_update();
            let entries = base.entries.len();
            info!(
                entry.count = entries,
                "Taking the base at {position} ({reason})"
            );
            self.news.push(News::Update {
                number,
                id: id.clone(),
                callback: UpdateCallback::default(),
                entries,
            });
            let mut documents: BTreeSet<DataPath> = BTreeSet::new();
            for BaseEntry { revision, entry } in base.entries {
                let path = entry.destination().unwrap_or_default();
                let is_patch = entry.method() == Some(SaveMethod::Patch);
                let stands_alone = is_patch && !is_at_or_below(&path, &documents);
                if !is_patch {
                    documents.insert(path);
                }
                let part_of = Part::Base {
                    revision,
                    stands_alone,
                };
                self.push(number, id.clone(), part_of, false, entry);
            }
        }
        for change in std::mem::take(&mut self.aside) {
            if change.position.revision > position.revision {
                self.on_data(&change);
            }
        }
    }

    /// The load that ran has no answer.
    pub fn load_failed(&mut self, asked: Option<Duration>, now: Instant, rng: &mut impl Rng) {
        self.loads.failed(asked, now, rng);
    }

    /// Fetches the polled sources that are due, except those that are being fetched.
    pub fn poll(&mut self, now: Instant) {
        for entry in self.polled.due(now) {
            let path = entry.destination().unwrap_or_default();
            if !self.queue.is_busy_with(&entry, &path) && !self.ledger.awaits_snapshot() {
                let source = self.ledger.received().map(|_| Revision(0));
                self.push_update("Periodic Update", vec![entry], source);
            }
        }
    }

    fn push_update(
        &mut self,
        reason: &str,
        entries: Vec<DataSourceEntry>,
        revision: Option<Revision>,
    ) {
        let update = DataUpdate {
            id: None,
            entries,
            reason: Some(reason.to_owned()),
            callback: UpdateCallback::default(),
        };
        self.take(update, revision, true);
    }

    /// The bundle to fetch now, if any. One at a time.
    pub fn next_bundle(&mut self, now: Instant) -> Option<BundleRequest> {
        self.policy.as_mut()?.next_request(now)
    }

    /// A bundle could not be fetched, or the store did not take it (whole).
    pub fn bundle_failed(
        &mut self,
        error: &str,
        asked: Option<Duration>,
        applied_in_part: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let since = self.by_calendar(now);
        if let Some(policy) = &mut self.policy {
            if applied_in_part {
                policy.applied_in_part();
            }
            policy.failed(asked, now, rng);
        }
        self.ledger.policy_failing(Trouble {
            entry: "policy".to_owned(),
            error: error.to_owned(),
            since,
        });
    }

    /// The store holds the bundle that leads to `commit`, which the server made when its feed was at
    /// `position` or later.
    pub fn bundle_applied(
        &mut self,
        commit: CommitHash,
        is_complete: bool,
        position: Option<Position>,
        now: Instant,
    ) {
        let late = is_complete && self.wrote_data;
        if let Some(policy) = &mut self.policy
            && !policy.succeeded(commit, is_complete)
        {
            return;
        }
        let epoch = self.ledger.received().map(|held| held.epoch);
        if let Some(position) = position.filter(|position| Some(position.epoch) == epoch) {
            self.ledger.policy_applied(position.revision);
        }
        self.data_waits_until = None;
        self.bundle_is_due &= !is_complete;
        if self.ledger.needed_policy().is_some()
            && let Some(policy) = &mut self.policy
        {
            policy.ask_again(now + ASK_AGAIN);
        }
        if late {
            // A complete bundle writes its static data over what updates had put there.
            self.reload_data("policy store rehydration", now);
        }
    }

    /// What the engine's policies are after it took `commit`.
    pub fn policies_are(&mut self, commit: CommitHash, digest: String) {
        self.ledger.policies_are(commit, digest);
    }

    /// The document to fetch next, if a worker is free for it.
    pub fn next_fetch(&mut self, now: Instant) -> Option<Fetch> {
        self.queue.next_fetch(now)
    }

    /// A fetch ended.
    pub fn fetched(
        &mut self,
        seq: Seq,
        result: Result<Document, Failure>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let notices = self.queue.fetched(seq, result, now, rng);
        self.note_at(notices, now);
    }

    /// What to write now, in order; nothing while the bundle that belongs below it is awaited. The
    /// outcome of each is to be given to [`Replica::written`] before this is called again.
    pub fn next_batch(&mut self, now: Instant) -> Vec<Write> {
        let settled = self.policy.as_ref().is_none_or(PolicySync::is_settled);
        if !settled && self.data_waits_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        if self.ledger.received().is_some() {
            // Without a feed there is nowhere to take it anew from.
            let overtaken = self.queue.take_overtaken_patches(self.bundle_is_due);
            let is_any = !overtaken.is_empty();
            self.note_at(overtaken, now);
            if is_any {
                return Vec::new();
            }
        }
        let batch = self.queue.next_batch(self.bundle_is_due);
        self.wrote_data |= !batch.is_empty();
        batch
    }

    /// A batch was written.
    pub fn written(
        &mut self,
        outcomes: Vec<(Seq, Result<(), Failure>)>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let notices = self.queue.written(outcomes, now, rng);
        self.note_at(notices, now);
    }

    fn note(&mut self, notices: Vec<Notice>) {
        // Entries that are replaced or forgotten have no error, so no moment is asked for.
        let now = self.options.started.0;
        self.note_at(notices, now);
    }

    fn note_at(&mut self, notices: Vec<Notice>, now: Instant) {
        for notice in notices {
            self.account(&notice, now);
            let is_unknown = matches!(notice.outcome, Outcome::Refused { unknown: true, .. });
            self.news.push(News::Entry(Box::new(notice)));
            if is_unknown {
                // A patch that may have been applied is not sent again: its base is taken anew.
                match self.ledger.received() {
                    Some(_) => self.take_everything(now),
                    None => self.load_sources("policy store rehydration", now),
                }
            }
        }
    }

    fn account(&mut self, notice: &Notice, now: Instant) {
        let Some(place) = notice.job.place else {
            return;
        };
        let trouble = |error: &str| Trouble {
            entry: described(&notice.job.entry),
            error: error.to_owned(),
            since: self.by_calendar(now),
        };
        match &notice.outcome {
            Outcome::Written { .. } => {
                self.ledger.data_done(place);
                if notice.job.method != SaveMethod::Patch {
                    self.ledger.written_over(&notice.job.path);
                }
            }
            Outcome::Replaced => self.ledger.data_done(place),
            Outcome::Failing { error, .. } => {
                let trouble = trouble(error);
                self.ledger.data_failing(place, trouble);
            }
            Outcome::Refused { error, .. } => {
                let trouble = trouble(error);
                let path = Some(notice.job.path.clone());
                self.ledger.data_refused(place, path, trouble);
            }
        }
    }

    fn by_calendar(&self, now: Instant) -> String {
        let (began, then) = self.options.started;
        let at = then + now.duration_since(began);
        at.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    /// What failed on an engine that was away may be tried at once.
    pub fn retry_now(&mut self, now: Instant) {
        self.queue.retry_now(now);
        if let Some(policy) = &mut self.policy {
            policy.retry_now();
        }
    }

    /// When something falls due without anything else happening.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        [
            self.data_waits_until.filter(|at| *at > now),
            self.queue.next_wake(now),
            self.polled.next_wake(),
            self.loads.next_wake(),
            self.policy.as_ref().and_then(PolicySync::next_wake),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What to tell the server, if there is news.
    pub fn take_report(&mut self) -> Option<Report> {
        self.ledger.take_report()
    }

    /// The revision up to which the store holds everything; none without a feed, or while a snapshot
    /// is on its way.
    pub fn held(&self) -> Option<(Epoch, Revision)> {
        self.ledger.held()
    }

    /// The position that the store as it is now stands for, and that a later start may resume from;
    /// none while anything of it is outstanding.
    pub fn clean_position(&self) -> Option<Position> {
        let policy_is_idle = self.policy.as_ref().is_none_or(PolicySync::is_idle);
        let is_idle = policy_is_idle && !self.loads.is_pending() && self.ledger.is_clean();
        self.ledger.low().filter(|_| is_idle)
    }

    /// The commit that the store holds.
    pub fn commit(&self) -> Option<&CommitHash> {
        self.policy.as_ref()?.applied()
    }

    /// Where the client is, for people.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            is_connected: self.is_connected,
            received: self.ledger.received(),
            held: self.ledger.held(),
            awaits_snapshot: self.ledger.awaits_snapshot(),
            outstanding: self.ledger.open_count() + self.aside.len(),
            failing: self.ledger.troubles(),
            policy_needed: self.ledger.needed_policy(),
            commit: self.commit().cloned(),
        }
    }
}

/// What an entry is part of.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Nothing that anybody counts on: there is no feed.
    Nothing,
    /// The data sources.
    Source,
    /// A change of the feed.
    Change(Revision),
    /// A base.
    Base {
        revision: Revision,
        /// Whether it is a patch of something that the base does not bring.
        stands_alone: bool,
    },
}

impl Part {
    fn revision(self) -> Option<Revision> {
        match self {
            Self::Nothing => None,
            Self::Source => Some(Revision(0)),
            Self::Change(revision) | Self::Base { revision, .. } => Some(revision),
        }
    }
}

/// Where a client is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Whether there is a connection to the server.
    pub is_connected: bool,
    /// The last change that is in the client's hands; none without a feed.
    pub received: Option<Position>,
    /// The revision up to which the store holds everything.
    pub held: Option<(Epoch, Revision)>,
    /// Whether everything is being taken anew.
    pub awaits_snapshot: bool,
    /// How many changes are in our hands and not yet in the store.
    pub outstanding: usize,
    /// What fails.
    pub failing: Vec<FailingEntry>,
    /// The newest policy change that the store lacks.
    pub policy_needed: Option<Revision>,
    /// The commit that the store holds.
    pub commit: Option<CommitHash>,
}

/// Whether `path` is one of `places` or lies below one.
fn is_at_or_below(path: &DataPath, places: &BTreeSet<DataPath>) -> bool {
    let mut at = path.clone();
    loop {
        if places.contains(&at) {
            return true;
        }
        match at.split_last().map(|(above, _)| above) {
            Some(above) => at = above,
            None => return false,
        }
    }
}

/// An entry, for people, without secrets.
fn described(entry: &DataSourceEntry) -> String {
    let path = match entry.dst_path.as_str() {
        "" => "/",
        path => path,
    };
    match entry.url.is_empty() || entry.data.is_some() {
        true => path.to_owned(),
        false => format!("{path} from {}", RedactedUrl::new(&entry.url)),
    }
}

#[cfg(test)]
mod tests;
