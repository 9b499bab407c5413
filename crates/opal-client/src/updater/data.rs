//! The updater's part for data: loads sources, takes updates, fetches documents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use opal_protocol::{
    DataSourceConfig, DataSourceEntry, DataUpdate, Document, SaveMethod, UpdateCallback, UpdateId,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::oneshot;
use tracing::{info, warn};
use uuid::Uuid;

use super::writes::{Fetched, Settled, fetch_failure};
use super::{BUNDLE_FIRST, Load, UpdateProgress, Updater, Work};
use crate::data::intake::target;
use crate::data::queue::{Failure, Fetch, Job, Seq, round_pause};
use crate::data::sources;
use crate::fetch::FetchRequest;
use crate::server_api::ServerApiError;
use opal_runtime::chain;

impl Updater {
    pub(super) fn load_sources(
        &mut self,
        reason: &'static str,
        answer: Option<oneshot::Sender<Result<(), ServerApiError>>>,
    ) {
        if !self.parts.data {
            return;
        }
        if self.sync.is_some() {
            self.data_waits_until
                .get_or_insert_with(|| Instant::now() + BUNDLE_FIRST);
        }
        // A question that is on its way is not asked again before it is answered: whoever asks
        // faster than the server answers would never get there.
        if let Some(load) = self.load.as_mut().filter(|load| load.attempt == 0) {
            load.again = true;
            load.waiting.extend(answer);
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
            again: false,
        });
    }

    pub(super) fn ask_for_sources(
        &self,
        pause: Duration,
    ) -> Work<Result<DataSourceConfig, ServerApiError>> {
        let api = self.parts.api.clone();
        async move {
            tokio::time::sleep(pause).await;
            sources::fetch(&api).await
        }
        .boxed()
    }

    pub(super) fn on_sources(&mut self, sources: Result<DataSourceConfig, ServerApiError>) {
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
                let forgotten = self.queue.forget_sources();
                self.note(forgotten);
                self.push_update(load.reason, entries);
                if load.again {
                    self.load_sources(load.reason, None);
                }
            }
            Err(error) => {
                let text = chain(&error);
                warn!("Could not ask the server for our data sources, trying again: {text}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.data_sources_url();
                self.parts.transactions.sources_unknown(&id, remote, &text);
                load.attempt += 1;
                let asked = error.retry_after();
                let pause = round_pause(load.attempt, asked, &mut rand::rng());
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

    /// Fetches a polled source again, unless that is just being done.
    pub(super) fn poll(&mut self, entry: DataSourceEntry) {
        let path = entry.destination().unwrap_or_default();
        if !self.queue.is_busy_with(&entry, &path) {
            self.push_update("Periodic Update", vec![entry]);
        }
    }

    fn push_update(&mut self, reason: &str, entries: Vec<DataSourceEntry>) {
        let update = DataUpdate {
            id: None,
            entries,
            reason: Some(reason.to_owned()),
            callback: UpdateCallback::default(),
        };
        self.take(update, true);
    }

    /// Takes an update that was published.
    pub(super) fn take_update(&mut self, update: DataUpdate) {
        self.take(update, false);
    }

    fn take(&mut self, update: DataUpdate, is_source: bool) {
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
                id: id.clone(),
                callback: update.callback,
                outstanding: entries.len(),
                reports: Vec::new(),
                errors: Vec::new(),
            },
        );
        for entry in entries {
            self.push_entry(number, id.clone(), is_source, entry);
        }
        self.finish_if_complete(number);
    }

    fn push_entry(
        &mut self,
        update: u64,
        id: UpdateId,
        is_source: bool,
        mut entry: DataSourceEntry,
    ) {
        match target(&entry) {
            Ok(target) => {
                if target.method == SaveMethod::Delete {
                    entry.data = Some(Document::from(&json!(null)));
                }
                let notices = self.queue.push(Job {
                    update,
                    update_id: id,
                    is_source,
                    entry,
                    path: target.path,
                    method: target.method,
                });
                self.note(notices);
            }
            Err(error) => {
                let settled = Settled::refused(error, Fetched::No);
                self.settle(update, &id, &entry, &settled, true);
            }
        }
    }

    pub(super) fn fetch_document(&self, fetch: Fetch) -> Work<(Seq, Result<Document, Failure>)> {
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
}
