//! What the updater of a client does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use opal_client::data::queue::{Failure, Retry, Seq};
use opal_client::policy_store::{MemoryStore, StoreChange};
use opal_client::replica::{LoadKind, LoadRequest};
use opal_protocol::feed::BaseSnapshot;
use opal_protocol::{
    DataSourceConfig, DataSourceEntry, Document, PolicyBundle, Position, SaveMethod,
};
use rand::Rng;

use super::Process;
use crate::bug::Bug;
use crate::env::Env;
use crate::event::{ClientEvent, Event, HttpRequest};
use crate::store;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Work {
    asks_bundle: bool,
    ready_bundle: Option<(PolicyBundle, Option<Position>)>,
    load: Option<LoadRequest>,
    sources: Option<DataSourceConfig>,
    fetching: usize,
    write: Option<Writing>,
    /// What came while the updater was stalled.
    deferred: VecDeque<ClientEvent>,
    /// The engine is empty and the replica was not told yet.
    engine_is_lost: bool,
    /// The engine went away during the write that runs.
    is_spoiled: bool,
    /// How many writes have ended.
    writes: u64,
}

#[derive(Debug)]
enum Writing {
    Bundle(Box<PolicyBundle>, Option<Position>, Fate),
    Data(Vec<(Seq, StoreChange, Fate)>),
    /// Changes that were said to be written when their write began.
    Acknowledged(Vec<StoreChange>),
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    /// It is not done, and the error says that it can be tried again.
    Fails,
    /// It is done, and the error says that it can be tried again.
    FailsAfterwards,
    /// Nobody knows whether it is done; it is.
    UnknownDone,
    /// Nobody knows whether it is done; it is not.
    UnknownNotDone,
}

impl Fate {
    fn is_done(self) -> bool {
        matches!(
            self,
            Self::Works | Self::FailsAfterwards | Self::UnknownDone
        )
    }
}

impl Work {
    /// The engine is empty: what it was about to be given may not fit.
    pub(super) fn engine_lost(&mut self) {
        self.engine_is_lost = true;
        self.is_spoiled = true;
    }

    /// Whether the replica does not know yet that the engine is empty.
    pub(super) fn engine_is_lost(&self) -> bool {
        self.engine_is_lost
    }

    /// How many writes have ended.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether no write is under way.
    pub(super) fn is_not_writing(&self) -> bool {
        self.write.is_none() && !self.engine_is_lost
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        let asks = self.asks_bundle || self.ready_bundle.is_some() || self.load.is_some();
        !asks && self.fetching == 0 && self.is_not_writing() && self.deferred.is_empty()
    }
}

impl Process {
    /// Something that was under way has ended.
    pub(super) fn on_work(&mut self, event: ClientEvent, is_cut_off: bool, env: &mut Env) {
        if self.stalled_until > env.time() {
            self.work.deferred.push_back(event);
            return;
        }
        match event {
            ClientEvent::Bundle(answer) => self.on_bundle(answer, env),
            ClientEvent::Sources(answer) => self.on_sources(answer, is_cut_off, env),
            ClientEvent::Base(answer) => self.on_base(answer, env),
            ClientEvent::Fetched(seq, result) => self.on_fetched(seq, result, env),
            ClientEvent::Written => self.on_written(env),
            _ => {}
        }
    }

    /// Whether anything was done.
    pub(super) fn drive_work(&mut self, is_cut_off: bool, env: &mut Env) -> bool {
        if let Some(event) = self.work.deferred.pop_front() {
            self.on_work(event, is_cut_off, env);
            return true;
        }
        let has_room = self.replica.has_room();
        let event = self.inbox.pop_front().filter(|_| has_room);
        let mut is_news = event.is_some();
        if let Some(event) = event {
            let name = &self.profile.name;
            env.note(format_args!("{name} hears {event:?}"));
            self.replica.on_event(event, env.now(), &mut env.rng);
        }
        is_news |= self.start_requests(is_cut_off, env);
        is_news |= self.start_write(env);
        for news in self.replica.take_news() {
            is_news = true;
            self.note_news(&news, env);
        }
        is_news
    }

    fn note_news(&self, news: &opal_client::replica::News, env: &mut Env) {
        if let opal_client::replica::News::Entry(notice) = news {
            let outcome = match &notice.outcome {
                opal_client::data::queue::Outcome::Written { .. } => "written".to_owned(),
                opal_client::data::queue::Outcome::Failing { error, .. } => error.clone(),
                opal_client::data::queue::Outcome::Refused { error, .. } => {
                    format!("refused: {error}")
                }
                opal_client::data::queue::Outcome::Replaced => "replaced".to_owned(),
            };
            let revision = notice.job.place.map(|place| place.revision.0);
            env.note(format_args!(
                "{} {} {} of {revision:?}: {outcome}",
                self.profile.name,
                notice.job.method.as_str(),
                notice.job.path,
            ));
        }
    }

    fn start_requests(&mut self, is_cut_off: bool, env: &mut Env) -> bool {
        let now = env.now();
        let mut is_news = false;
        if let Some(request) = self.replica.next_bundle(now) {
            self.work.asks_bundle = true;
            env.request(self.me, is_cut_off, HttpRequest::Bundle(request));
            is_news = true;
        }
        if let Some(request) = self.replica.next_load(now) {
            self.work.load = Some(request);
            env.request(self.me, is_cut_off, HttpRequest::Sources);
            is_news = true;
        }
        self.replica.poll(now);
        while let Some(fetch) = self.replica.next_fetch(now) {
            self.work.fetching += 1;
            self.fetch(fetch.seq, &fetch.entry, env);
            is_news = true;
        }
        is_news
    }

    fn fetch(&mut self, seq: Seq, entry: &DataSourceEntry, env: &mut Env) {
        if let Some(document) = &entry.data {
            let event = ClientEvent::Fetched(seq, Ok(document.clone()));
            env.agenda
                .after(Duration::ZERO, Event::Client(self.me, event));
            return;
        }
        let rate = env.weather.fetch;
        if env.fails(rate) {
            let hangs = env.rng.random_bool(0.3);
            let delay = env.delay(if hangs { 10_000 } else { 50 });
            let asked = env.rng.random_bool(0.2).then_some(Duration::from_secs(2));
            let failure = Failure {
                error: "the source answers 500".to_owned(),
                retry: match env.has(Bug::ForgetFailingEntry) {
                    true => Retry::Never,
                    false => Retry::After(asked),
                },
            };
            let event = ClientEvent::Fetched(seq, Err(failure));
            env.agenda.after(delay, Event::Client(self.me, event));
            return;
        }
        let delay = env.delay(60);
        let url = entry.url.clone();
        env.agenda
            .after(delay, Event::SourceAnswers(self.me, seq, url));
    }

    fn on_fetched(&mut self, seq: Seq, result: Result<Document, Failure>, env: &mut Env) {
        self.work.fetching -= 1;
        self.replica.fetched(seq, result, env.now(), &mut env.rng);
    }

    fn on_bundle(&mut self, answer: Option<Box<(PolicyBundle, Option<Position>)>>, env: &mut Env) {
        self.work.asks_bundle = false;
        match answer {
            Some(answer) => self.work.ready_bundle = Some(*answer),
            None => self
                .replica
                .bundle_failed("no answer", None, false, env.now(), &mut env.rng),
        }
    }

    fn on_sources(&mut self, answer: Option<DataSourceConfig>, is_cut_off: bool, env: &mut Env) {
        let kind = self.work.load.map(|load| load.kind);
        match (answer, kind) {
            (None, _) | (_, None) => self.load_failed(env),
            (Some(sources), Some(LoadKind::Snapshot(at_least))) => {
                self.work.sources = Some(sources);
                let topics = self.profile.interests.subscribed_data_topics();
                env.request(self.me, is_cut_off, HttpRequest::Base(topics, at_least));
            }
            (Some(sources), Some(LoadKind::Sources | LoadKind::PolledSources)) => {
                self.work.load = None;
                self.replica.loaded(sources, None, env.now());
            }
        }
    }

    fn on_base(&mut self, answer: Option<Box<BaseSnapshot>>, env: &mut Env) {
        let sources = self.work.sources.take();
        let (Some(mut base), Some(sources)) = (answer, sources) else {
            return self.load_failed(env);
        };
        self.work.load = None;
        if env.has(Bug::FoldBaseWrongly) {
            let mut seen = BTreeMap::new();
            base.entries
                .retain(|entry| seen.insert(entry.entry.dst_path.clone(), ()).is_none());
        }
        let name = &self.profile.name;
        for entry in &base.entries {
            let method = &entry.entry.save_method;
            let (revision, path) = (entry.revision, &entry.entry.dst_path);
            let text = entry.entry.data.as_ref().map_or("", Document::text);
            env.trace.note(
                env.agenda.now(),
                format_args!("{name} base at {revision}: {method} {path} {text}"),
            );
        }
        self.replica.loaded(sources, Some(*base), env.now());
    }

    fn load_failed(&mut self, env: &mut Env) {
        self.work.load = None;
        self.replica.load_failed(None, env.now(), &mut env.rng);
    }

    fn start_write(&mut self, env: &mut Env) -> bool {
        if self.work.write.is_some() {
            return false;
        }
        self.work.is_spoiled = false;
        if std::mem::take(&mut self.work.engine_is_lost) {
            self.replica.take_everything(env.now());
            return true;
        }
        let Some(writing) = self.next_write(env) else {
            return false;
        };
        self.work.write = Some(writing);
        let delay = env.delay(10);
        env.agenda
            .after(delay, Event::Client(self.me, ClientEvent::Written));
        true
    }

    fn next_write(&mut self, env: &mut Env) -> Option<Writing> {
        if let Some((bundle, position)) = self.work.ready_bundle.take() {
            let rate = env.weather.store;
            let fate = match env.fails(rate) {
                true => Fate::Fails,
                false => Fate::Works,
            };
            return Some(Writing::Bundle(Box::new(bundle), position, fate));
        }
        let batch = self.replica.next_batch(env.now());
        let (mut changes, mut refused) = (Vec::new(), Vec::new());
        for write in batch {
            let fate = fate(write.method, env);
            match store::change(write.path, write.method, write.document) {
                Some(change) => changes.push((write.seq, change, fate)),
                None => refused.push((write.seq, Err(refusal("the document is no patch")))),
            }
        }
        if !refused.is_empty() {
            self.replica.written(refused, env.now(), &mut env.rng);
        }
        if changes.is_empty() {
            return None;
        }
        if env.has(Bug::AcknowledgeBeforeApplying) {
            let outcomes = changes.iter().map(|(seq, ..)| (*seq, Ok(()))).collect();
            self.replica.written(outcomes, env.now(), &mut env.rng);
            let changes = changes.into_iter().map(|(_, change, _)| change);
            return Some(Writing::Acknowledged(changes.collect()));
        }
        Some(Writing::Data(changes))
    }

    fn on_written(&mut self, env: &mut Env) {
        self.work.writes += 1;
        match self.work.write.take() {
            Some(Writing::Bundle(bundle, position, fate)) => {
                self.on_bundle_written(*bundle, position, fate, env);
            }
            Some(Writing::Data(changes)) => {
                let is_spoiled = self.work.is_spoiled;
                let mut outcomes = Vec::with_capacity(changes.len());
                for (seq, change, fate) in changes {
                    let outcome = write(&self.store, change, fate, is_spoiled, env);
                    outcomes.push((seq, outcome));
                }
                self.replica.written(outcomes, env.now(), &mut env.rng);
            }
            Some(Writing::Acknowledged(changes)) => {
                store::apply(&self.store, changes);
            }
            None => {}
        }
    }

    fn on_bundle_written(
        &mut self,
        bundle: PolicyBundle,
        position: Option<Position>,
        fate: Fate,
        env: &mut Env,
    ) {
        let (commit, is_complete) = (bundle.hash.clone(), !bundle.is_diff());
        let name = &self.profile.name;
        let outcome = match fate.is_done() {
            true => store::apply(&self.store, vec![StoreChange::Bundle(Arc::new(bundle))]).pop(),
            false => None,
        };
        env.note(format_args!(
            "{name} bundle {} (complete: {is_complete}) at {position:?}: {outcome:?}",
            commit.short()
        ));
        match outcome {
            Some(Ok(())) => {
                self.replica
                    .bundle_applied(commit, is_complete, position, env.now());
            }
            _ => self.replica.bundle_failed(
                "the store did not take it",
                None,
                false,
                env.now(),
                &mut env.rng,
            ),
        }
    }
}

fn fate(method: SaveMethod, env: &mut Env) -> Fate {
    let rate = env.weather.store;
    if !env.fails(rate) {
        return Fate::Works;
    }
    match (method, env.rng.random_range(0..3)) {
        (SaveMethod::Patch, 0) => Fate::UnknownDone,
        (SaveMethod::Patch, 1) => Fate::UnknownNotDone,
        (SaveMethod::Put | SaveMethod::Delete, 0) => Fate::FailsAfterwards,
        _ => Fate::Fails,
    }
}

fn write(
    store: &MemoryStore,
    change: StoreChange,
    fate: Fate,
    is_spoiled: bool,
    env: &Env,
) -> Result<(), Failure> {
    let done = match fate.is_done() {
        true => store::apply(store, vec![change]).pop(),
        false => None,
    };
    let again = |error: &str| Failure {
        error: error.to_owned(),
        retry: Retry::After(None),
    };
    match (fate, done) {
        (Fate::Fails | Fate::FailsAfterwards, _) => Err(again("the store is busy")),
        (_, Some(Err(error))) if is_spoiled => Err(again(&error.to_string())),
        (_, Some(Err(error))) => Err(refusal(&error.to_string())),
        (Fate::Works, _) => Ok(()),
        (Fate::UnknownDone | Fate::UnknownNotDone, _) => Err(Failure {
            error: "the connection broke".to_owned(),
            retry: match env.has(Bug::ApplyPatchTwice) {
                true => Retry::After(None),
                false => Retry::Unknown,
            },
        }),
    }
}

fn refusal(error: &str) -> Failure {
    Failure {
        error: error.to_owned(),
        retry: Retry::Never,
    }
}
