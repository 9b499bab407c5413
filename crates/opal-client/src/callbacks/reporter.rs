//! Sends reports.

use std::time::Duration;

use futures_util::future::join_all;
use opal_protocol::{Callback, DataUpdateReport, HttpFetcherConfig, RedactedUrl};
use opal_runtime::ConnRetryOptions;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tracing::{debug, warn};
use url::Url;

use super::register::CallbackEntry;
use crate::fetch::FetchError;
use crate::fetch::http::{HttpRequest, check_status, parse_url, unreachable};

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

/// Sends reports to whoever wants them.
#[derive(Debug, Clone)]
pub struct Reporter {
    client: Client,
    options: ReporterOptions,
}

impl Reporter {
    /// A reporter that makes its requests with `client`.
    pub fn new(client: Client, options: ReporterOptions) -> Self {
        Self { client, options }
    }

    /// Sends `report` to the callbacks that the update names and to the registered ones, all at the
    /// same time, each as often as the retry settings say. Failures are logged, once for each target.
    ///
    /// Returns the number of targets that took it. Dropping the future is safe.
    pub async fn report(
        &self,
        report: &DataUpdateReport,
        of_update: &[Callback],
        registered: &[CallbackEntry],
    ) -> usize {
        let body = match serde_json::to_string(report) {
            Ok(body) => body,
            Err(error) => {
                warn!(%error, "Could not write a report");
                return 0;
            }
        };
        let named = of_update.iter().map(|callback| match callback {
            Callback::Url(url) => (url, &self.options.default_config),
            Callback::Configured(url, config) => (url, config),
        });
        let registered = registered.iter().map(|entry| (&entry.url, &entry.config));
        let targets = named.chain(registered);
        let sent = targets.map(|(url, config)| self.send(RedactedUrl::new(url), config, &body));
        let sent = join_all(sent).await;
        sent.into_iter().filter(|taken| *taken).count()
    }

    async fn send(&self, url: RedactedUrl, config: &HttpFetcherConfig, body: &str) -> bool {
        let Err(error) = self.round(&url, config, body).await else {
            return true;
        };
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        warn!(callback.url = %url, %error, cause, "Could not report to `{url}`");
        false
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
        let is_server = target.origin() == server.url.origin() && target.path() == server.url.path();
        let text = format!("Bearer {}", server.token.expose_secret());
        let mut value = HeaderValue::from_str(&text).ok().filter(|_| is_server)?;
        value.set_sensitive(true);
        Some(value)
    }
}
