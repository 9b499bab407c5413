//! Sends reports.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use opal_protocol::{Callback, DataUpdateReport, HttpFetcherConfig, RedactedUrl, UpdateCallback};
use opal_runtime::{ConnRetryOptions, TaskSpawner};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tracing::{debug, warn};
use url::Url;

use super::register::{CallbackEntry, Callbacks};
use crate::fetch::FetchError;
use crate::fetch::http::{HttpRequest, check_status, parse_url, unreachable};
use opal_runtime::chain;

/// Beyond so many, reports are dropped: their targets do not keep up.
const MOST_REPORTS: u32 = 256;

/// How reports are sent.
#[derive(Debug, Clone)]
pub struct ReporterOptions {
    /// For callbacks of an update that are plain URLs (`OPAL_DEFAULT_UPDATE_CALLBACK_CONFIG`).
    pub default_config: HttpFetcherConfig,
    /// Attempts for one target (`OPAL_DATA_UPDATER_CONN_RETRY`).
    pub retry: ConnRetryOptions,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// The server's own route for reports, which needs our token.
    pub server: Option<ServerReports>,
}

/// The server's own route for reports.
#[derive(Debug, Clone)]
pub struct ServerReports {
    /// `<SERVER_URL>/data/callback_report`, or where the settings say.
    pub url: Url,
    /// Our token, added for this URL and no other.
    pub token: SecretString,
}

/// Sends reports to whoever wants them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: Sender,
    callbacks: Callbacks,
    tasks: TaskSpawner,
    /// Reports that may be on their way at the same time.
    places: Arc<Semaphore>,
}

impl Reporter {
    /// A reporter that makes its requests with `client`, in tasks of `tasks`.
    pub fn new(
        client: Client,
        options: ReporterOptions,
        callbacks: Callbacks,
        tasks: TaskSpawner,
    ) -> Self {
        Self {
            sender: Sender { client, options },
            callbacks,
            tasks,
            places: Arc::new(Semaphore::new(MOST_REPORTS as usize)),
        }
    }

    /// Sends `report` to the callbacks that the update names and to the registered ones, all at the
    /// same time, each as often as the retry settings say. Returns at once; failures are logged, once
    /// for each target. While too many reports are on their way, further ones are dropped and logged.
    pub fn report(&self, report: DataUpdateReport, of_update: UpdateCallback) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!("Dropped a report: {MOST_REPORTS} others are still waiting for their targets");
            return;
        };
        let registered = self.callbacks.lock().entries().to_vec();
        let sender = self.sender.clone();
        let shutdown = self.tasks.shutdown().clone();
        self.tasks.spawn("report", async move {
            let send = sender.report(&report, &of_update.callbacks, &registered);
            // Nobody is told of an update that ends with the client.
            shutdown.run_until_cancelled(send).await;
            drop(place);
        });
    }

    /// Waits until no report is on its way.
    pub async fn idle(&self) {
        // Fails only if the semaphore is closed, which it never is.
        let _ = self.places.acquire_many(MOST_REPORTS).await;
    }
}

/// Makes the requests.
#[derive(Debug, Clone)]
struct Sender {
    client: Client,
    options: ReporterOptions,
}

impl Sender {
    async fn report(
        &self,
        report: &DataUpdateReport,
        of_update: &[Callback],
        registered: &[CallbackEntry],
    ) {
        let body = match serde_json::to_string(report) {
            Ok(body) => body,
            Err(error) => return warn!(%error, "Could not write a report"),
        };
        let named = of_update.iter().map(|callback| match callback {
            Callback::Url(url) => (url, &self.options.default_config),
            Callback::Configured(url, config) => (url, config),
        });
        let registered = registered.iter().map(|entry| (&entry.url, &entry.config));
        let targets = named.chain(registered);
        join_all(targets.map(|(url, config)| self.send(RedactedUrl::new(url), config, &body)))
            .await;
    }

    async fn send(&self, url: RedactedUrl, config: &HttpFetcherConfig, body: &str) {
        if let Err(error) = self.round(&url, config, body).await {
            warn!(callback.url = %url, "Could not report to `{url}`: {}", chain(&error));
        }
    }

    async fn round(
        &self,
        url: &RedactedUrl,
        config: &HttpFetcherConfig,
        body: &str,
    ) -> Result<(), FetchError> {
        let target = parse_url(url)?;
        let mut request = HttpRequest::from_config(config)?.with_text(body.to_owned());
        if let Some(authorization) = self.authorization(&target) {
            request = request.with_default_header(AUTHORIZATION, authorization);
        }
        for attempt in 1.. {
            let Err(error) = self.attempt(url, &target, &request).await else {
                return Ok(());
            };
            let planned = self.options.retry.delay(attempt, &mut rand::rng());
            let Some(pause) = planned.filter(|_| error.is_transient()) else {
                return Err(error);
            };
            let pause = pause.max(error.retry_after().unwrap_or_default());
            debug!(attempt, %error, "Reporting to `{url}` again in {pause:?}");
            tokio::time::sleep(pause).await;
        }
        unreachable!("attempts are counted without end")
    }

    async fn attempt(
        &self,
        url: &RedactedUrl,
        target: &Url,
        request: &HttpRequest,
    ) -> Result<(), FetchError> {
        let limit = self.options.timeout;
        let exchange = request.build(&self.client, target.clone()).send();
        let response = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| FetchError::TimedOut {
                url: url.clone(),
                limit,
            })?
            .map_err(|error| unreachable(url, error))?;
        check_status(url, &response)
    }

    /// Our token, if `target` is the server's own route for reports.
    fn authorization(&self, target: &Url) -> Option<HeaderValue> {
        let server = self.options.server.as_ref()?;
        let is_server =
            target.origin() == server.url.origin() && target.path() == server.url.path();
        let text = format!("Bearer {}", server.token.expose_secret());
        let mut value = HeaderValue::from_str(&text).ok().filter(|_| is_server)?;
        value.set_sensitive(true);
        Some(value)
    }
}
