//! The provider for HTTP and HTTPS, `HttpFetchProvider`.

use std::time::Duration;

use async_trait::async_trait;
use opal_protocol::{Document, RedactedUrl};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response, StatusCode, Url};

use super::{FetchError, FetchProvider, FetchRequest};

mod request;

pub(crate) use request::{HttpRequest, NAME};

/// The longest answer taken if nothing else is set: 100 MiB.
pub const DEFAULT_ANSWER_LIMIT: usize = 100 * 1024 * 1024;

/// Fetches over HTTP, as an entry's `HttpFetcherConfig` says. The client's token is never added.
#[derive(Debug, Clone)]
pub struct HttpFetchProvider {
    client: Client,
    /// For one attempt, the body included (`OPAL_HTTP_FETCHER_TIMEOUT`).
    timeout: Duration,
    /// Bytes, after decompression.
    answer_limit: usize,
}

impl HttpFetchProvider {
    /// A provider that makes its requests with `client`, each within `timeout`, and refuses
    /// answers that are longer than `answer_limit` bytes once decompressed.
    pub fn new(client: Client, timeout: Duration, answer_limit: usize) -> Self {
        Self {
            client,
            timeout,
            answer_limit,
        }
    }

    async fn exchange(&self, request: &FetchRequest) -> Result<Document, FetchError> {
        let url = &request.url;
        let planned = HttpRequest::parse(request.config.as_ref())?;
        if !planned.process_data {
            return Err(FetchError::InvalidConfig {
                provider: NAME,
                problem: "`process_data: false` leaves nothing to store".to_owned(),
            });
        }
        let builder = planned.build(&self.client, parse_url(url)?);
        let response = builder.send().await.map_err(|e| unreachable(url, e))?;
        check_status(url, &response)?;
        if !planned.is_json {
            return self.text(url, response).await;
        }
        if response.status() == StatusCode::NO_CONTENT {
            return Err(FetchError::Empty { url: url.clone() });
        }
        check_content_type(url, response.headers())?;
        let text = into_text(url, self.body(url, response).await?)?;
        if text.trim().is_empty() {
            return Err(FetchError::Empty { url: url.clone() });
        }
        Document::parse(text).map_err(|source| FetchError::NotJson {
            url: url.clone(),
            source,
        })
    }

    /// The answer as a JSON string.
    async fn text(&self, url: &RedactedUrl, response: Response) -> Result<Document, FetchError> {
        let text = into_text(url, self.body(url, response).await?)?;
        Ok(Document::from(&serde_json::Value::String(text)))
    }

    /// Reads the body, but never more than the limit: neither of an endless answer nor of a small
    /// one that decompresses into a large one.
    async fn body(&self, url: &RedactedUrl, mut response: Response) -> Result<Vec<u8>, FetchError> {
        let too_large = || FetchError::TooLarge {
            url: url.clone(),
            limit: self.answer_limit,
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > self.answer_limit as u64 {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(url, e))? {
            if body.len() + chunk.len() > self.answer_limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[async_trait]
impl FetchProvider for HttpFetchProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<Document, FetchError> {
        let exchange = self.exchange(request);
        tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| FetchError::TimedOut {
                url: request.url.clone(),
                limit: self.timeout,
            })?
    }
}

pub(crate) fn parse_url(url: &RedactedUrl) -> Result<Url, FetchError> {
    let invalid = |problem: String| FetchError::InvalidUrl {
        url: url.clone(),
        problem,
    };
    let parsed = Url::parse(url.expose()).map_err(|error| invalid(error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(parsed),
        other => Err(invalid(format!("expected http or https, not `{other}`"))),
    }
}

pub(crate) fn check_status(url: &RedactedUrl, response: &Response) -> Result<(), FetchError> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        return Err(FetchError::Rejected {
            url: url.clone(),
            status,
            retry_after: opal_runtime::retry_after(response.headers()),
        });
    }
    Ok(())
}

/// As upstream's HTTP library: `application/json` and `application/…+json`, nothing else.
fn check_content_type(url: &RedactedUrl, headers: &HeaderMap) -> Result<(), FetchError> {
    let value = headers.get(CONTENT_TYPE);
    let content_type = value.and_then(|v| v.to_str().ok()).unwrap_or("nothing");
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence
        .strip_prefix("application/")
        .is_some_and(|kind| kind == "json" || kind.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    Err(FetchError::WrongContentType {
        url: url.clone(),
        content_type: content_type.to_owned(),
    })
}

fn into_text(url: &RedactedUrl, body: Vec<u8>) -> Result<String, FetchError> {
    String::from_utf8(body).map_err(|_| FetchError::NotText { url: url.clone() })
}

pub(crate) fn unreachable(url: &RedactedUrl, error: reqwest::Error) -> FetchError {
    FetchError::Unreachable {
        url: url.clone(),
        // The library's error would print the URL with its secrets.
        source: error.without_url().into(),
    }
}
