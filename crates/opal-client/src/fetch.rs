//! Fetches documents from wherever data source entries point.
//!
//! A [`FetchProvider`] makes one attempt of one kind (HTTP, …). [`Fetcher`] chooses the provider
//! by `config.fetcher` and adds what all of them need alike: the limit on concurrent fetches, the
//! deadline, and the attempts of one *round*. What happens after a failed round is decided by the
//! queue that asked: it knows whether a newer change has replaced this one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opal_protocol::{DataSourceEntry, Document, RedactedUrl};
use opal_runtime::ConnRetryOptions;
use rand::Rng;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

mod error;
pub(crate) mod http;

pub use error::FetchError;
pub use http::{DEFAULT_ANSWER_LIMIT, HttpFetchProvider};

/// One document to fetch: what a provider needs to know of a [`DataSourceEntry`].
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// From where.
    pub url: RedactedUrl,
    /// How: the entry's `config`, which only the provider understands.
    pub config: Option<Document>,
}

impl FetchRequest {
    /// The value of `config.fetcher`, if the entry names a provider.
    fn provider_name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Chosen {
            fetcher: Option<String>,
        }
        let config = self.config.as_ref()?;
        let chosen: Chosen = serde_json::from_str(config.text()).ok()?;
        chosen.fetcher
    }
}

impl From<&DataSourceEntry> for FetchRequest {
    fn from(entry: &DataSourceEntry) -> Self {
        Self {
            url: RedactedUrl::new(&entry.url),
            config: entry.config.clone(),
        }
    }
}

/// Fetches one document from wherever a data source entry points.
///
/// Implementations make one attempt. Retries, the deadline and the limit on concurrent fetches
/// belong to [`Fetcher`], which wraps every provider alike.
#[async_trait]
pub trait FetchProvider: Send + Sync + 'static {
    /// The value of an entry's `config.fetcher` that selects this provider.
    fn name(&self) -> &'static str;

    /// Fetches the document that `request` describes; never `null`, which counts as a failure.
    ///
    /// Must be cancel-safe: the future is dropped when the client shuts down or the time is up.
    async fn fetch(&self, request: &FetchRequest) -> Result<Document, FetchError>;
}

/// What bounds a round of attempts.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Attempts of a round and the pauses between them (`OPAL_DATA_UPDATER_CONN_RETRY`).
    pub retry: ConnRetryOptions,
    /// The longest a round may take, pauses included but without waiting for a free worker
    /// (`OPAL_FETCHING_CALLBACK_TIMEOUT`). An attempt still running then is dropped.
    pub deadline: Duration,
    /// Attempts that may run at the same time (`OPAL_FETCHING_WORKER_COUNT`).
    pub workers: usize,
}

/// All providers, behind one call.
pub struct Fetcher {
    providers: Vec<Arc<dyn FetchProvider>>,
    limits: FetchLimits,
    workers: Semaphore,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("providers", &self.names())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher with these providers; the first one serves entries that name none.
    pub fn new(providers: Vec<Arc<dyn FetchProvider>>, limits: FetchLimits) -> Self {
        let workers = Semaphore::new(limits.workers.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            providers,
            limits,
            workers,
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.providers.iter().map(|each| each.name()).collect()
    }

    fn provider(&self, request: &FetchRequest) -> Result<&dyn FetchProvider, FetchError> {
        let name = request.provider_name();
        let chosen = match &name {
            Some(name) => self.providers.iter().find(|each| each.name() == name),
            None => self.providers.first(),
        };
        chosen
            .map(Arc::as_ref)
            .ok_or_else(|| FetchError::UnknownProvider {
                name: name.unwrap_or_default(),
                known: self.names(),
            })
    }

    /// Fetches the document of `request` in one round: attempts as the retry settings say, within
    /// the deadline. A pause is at least what the source asked for with `Retry-After`; when the
    /// next attempt could only start after the deadline, the round ends at once.
    ///
    /// Dropping the future is safe and stops everything it started.
    ///
    /// # Errors
    ///
    /// The last attempt's error. Errors that no repetition cures end the round at once.
    pub async fn fetch_round<R: Rng + Send>(
        &self,
        request: &FetchRequest,
        rng: &mut R,
    ) -> Result<Document, FetchError> {
        let provider = self.provider(request)?;
        let mut deadline = Instant::now() + self.limits.deadline;
        for attempt in 1.. {
            let error = match self.attempt(provider, request, &mut deadline).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            let planned = self.limits.retry.delay(attempt, rng);
            let Some(pause) = planned.filter(|_| error.is_transient()) else {
                return Err(error);
            };
            let pause = pause.max(error.retry_after().unwrap_or_default());
            let Some(next) = Instant::now().checked_add(pause) else {
                return Err(error);
            };
            if next >= deadline {
                return Err(error);
            }
            debug!(url = %request.url, attempt, %error, "Fetching `{}` again in {pause:?}", request.url);
            tokio::time::sleep_until(next).await;
        }
        unreachable!("attempts are counted without end")
    }

    /// One attempt. Time spent waiting for a worker does not count towards `deadline`.
    async fn attempt(
        &self,
        provider: &dyn FetchProvider,
        request: &FetchRequest,
        deadline: &mut Instant,
    ) -> Result<Document, FetchError> {
        let asked = Instant::now();
        // The semaphore is never closed; without a permit we would only exceed the limit.
        let _worker = self.workers.acquire().await.ok();
        *deadline += asked.elapsed();
        let document = timeout_at(*deadline, provider.fetch(request))
            .await
            .map_err(|_| FetchError::TimedOut {
                url: request.url.clone(),
                limit: self.limits.deadline,
            })??;
        if document.is_null() {
            return Err(FetchError::Empty {
                url: request.url.clone(),
            });
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests;
