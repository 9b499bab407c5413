//! The updater's part for data: loads sources and the feed's base, fetches documents.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use opal_protocol::feed::BaseSnapshot;
use opal_protocol::{DataSourceConfig, DataSourceEntry, Document, UpdateCallback, UpdateId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::warn;
use uuid::Uuid;

use super::writes::{Fetched, Settled, fetch_failure};
use super::{UpdateProgress, Updater, Work};
use crate::data::queue::{Failure, Fetch, Seq};
use crate::data::sources;
use crate::fetch::FetchRequest;
use crate::replica::{LoadKind, LoadRequest};
use crate::server_api::ServerApiError;
use opal_runtime::chain;

/// What the server says of our data.
pub(super) struct Loaded {
    kind: LoadKind,
    sources: DataSourceConfig,
    base: Option<BaseSnapshot>,
}

impl Updater {
    pub(super) fn load(&self, request: LoadRequest) -> Work<Result<Loaded, ServerApiError>> {
        let api = self.parts.api.clone();
        let topics = self.parts.data_topics.clone();
        async move {
            let sources = sources::fetch(&api).await?;
            let base = match request.kind {
                LoadKind::Snapshot(at_least) => Some(api.base(&topics, at_least).await?),
                LoadKind::Sources | LoadKind::PolledSources => None,
            };
            Ok(Loaded {
                kind: request.kind,
                sources,
                base,
            })
        }
        .boxed()
    }

    pub(super) fn on_loaded(&mut self, loaded: Result<Loaded, ServerApiError>) {
        let now = Instant::now();
        match loaded {
            Ok(Loaded {
                kind,
                sources,
                base,
            }) => {
                for waiting in self.waiting.drain(..) {
                    // Whoever asked may have gone.
                    let _ = waiting.send(Ok(()));
                }
                self.note_sources(kind, &sources);
                self.replica.loaded(sources, base, now);
            }
            Err(error) => {
                let text = chain(&error);
                warn!("Could not ask the server for our data, trying again: {text}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.data_sources_url();
                self.parts.transactions.sources_unknown(&id, remote, &text);
                let asked = error.retry_after();
                self.replica.load_failed(asked, now, &mut rand::rng());
                // The first to wait gets the reason; the others what it comes down to.
                let mut reason = Some(error);
                for waiting in self.waiting.drain(..) {
                    if let Some(error) = reason.take() {
                        let _ = waiting.send(Err(error));
                    }
                }
            }
        }
    }

    fn note_sources(&self, kind: LoadKind, sources: &DataSourceConfig) {
        let interests = &self.parts.interests;
        let entries = sources.entries.iter();
        let ours = entries.filter(|entry| interests.concerns(&entry.topics));
        let are_stored = kind == LoadKind::PolledSources;
        self.parts.transactions.sources_are(ours, are_stored);
    }

    pub(super) fn on_update(
        &mut self,
        number: u64,
        id: UpdateId,
        callback: UpdateCallback,
        entries: usize,
    ) {
        let progress = UpdateProgress {
            id,
            callback,
            outstanding: entries,
            reports: Vec::new(),
            errors: Vec::new(),
        };
        self.updates.insert(number, progress);
        self.finish_if_complete(number);
    }

    pub(super) fn on_invalid(
        &mut self,
        update: u64,
        id: &UpdateId,
        entry: &DataSourceEntry,
        error: String,
    ) {
        let settled = Settled::refused(error, Fetched::No);
        self.settle(update, id, entry, &settled, true);
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
