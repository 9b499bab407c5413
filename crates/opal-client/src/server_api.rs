//! What the client asks its server over HTTP.

use std::time::Duration;

use opal_protocol::feed::{AT_LEAST_HEADER, BaseSnapshot, POSITION_HEADER};
use opal_protocol::{AtLeast, PolicyBundle, Position, RedactedUrl, ScopeId, Topic};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use url::Url;

use crate::policy::sync::BundleRequest;

/// The server's REST API, as one client uses it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ServerApi {
    client: Client,
    token: Option<SecretString>,
    policy_url: Url,
    data_sources_url: Url,
    base_url: Url,
    scoped: bool,
}

/// A bundle, and where the server's feed was when it was made.
#[derive(Debug, Clone)]
pub(crate) struct BundleAt {
    pub(crate) bundle: PolicyBundle,
    pub(crate) position: Option<Position>,
}

/// Why the server's answer is missing or useless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerApiError {
    /// No answer.
    #[error("could not reach the server at `{url}`")]
    Unreachable {
        /// What was asked.
        url: RedactedUrl,
        /// Why there was none.
        source: reqwest::Error,
    },
    /// An answer that is none.
    #[error("the server answered {status} to `{url}`{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
    Rejected {
        /// What was asked.
        url: RedactedUrl,
        /// The status.
        status: StatusCode,
        /// What the body says.
        detail: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that cannot be read.
    #[error("the server's answer to `{url}` cannot be read")]
    Unreadable {
        /// What was asked.
        url: RedactedUrl,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ServerApi {
    /// The API of the server at `server_url`. How long an answer may take is up to `client`.
    pub(crate) fn new(
        client: Client,
        server_url: &Url,
        data_sources_url: Url,
        scope: &ScopeId,
        token: Option<SecretString>,
    ) -> Self {
        let at = |segments: &[&str]| {
            let mut url = server_url.clone();
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().extend(segments);
            }
            url
        };
        let scoped = !scope.is_default();
        let mut base_url = at(&["v1", "feed", "base"]);
        base_url
            .query_pairs_mut()
            .append_pair("scope", scope.as_str());
        let (policy_url, data_sources_url) = if scoped {
            (
                at(&["scopes", scope.as_str(), "policy"]),
                at(&["scopes", scope.as_str(), "data"]),
            )
        } else {
            (at(&["policy"]), data_sources_url)
        };
        Self {
            client,
            token,
            policy_url,
            data_sources_url,
            base_url,
            scoped,
        }
    }

    /// Where bundles come from.
    pub(crate) fn policy_url(&self) -> &Url {
        &self.policy_url
    }

    /// Where the data sources are asked for.
    pub(crate) fn data_sources_url(&self) -> &Url {
        &self.data_sources_url
    }

    /// Fetches a bundle.
    pub(crate) async fn bundle(&self, request: &BundleRequest) -> Result<BundleAt, ServerApiError> {
        let mut url = self.policy_url.clone();
        if !self.scoped || request.base.is_some() {
            let mut query = url.query_pairs_mut();
            if !self.scoped {
                for directory in &request.directories {
                    query.append_pair("path", directory.as_str());
                }
            }
            if let Some(base) = &request.base {
                query.append_pair("base_hash", base.as_str());
            }
        }
        let (bundle, position) = self.get(&url, true, request.at_least).await?;
        Ok(BundleAt { bundle, position })
    }

    /// Fetches what the changes of the feed come down to for these topics.
    pub(crate) async fn base(
        &self,
        topics: &[Topic],
        at_least: AtLeast,
    ) -> Result<BaseSnapshot, ServerApiError> {
        let mut url = self.base_url.clone();
        for topic in topics {
            url.query_pairs_mut().append_pair("topic", topic.as_str());
        }
        let (base, _) = self.get(&url, false, Some(at_least)).await?;
        Ok(base)
    }

    /// Fetches JSON.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        url: &Url,
    ) -> Result<T, ServerApiError> {
        let (value, _) = self.get(url, false, None).await?;
        Ok(value)
    }

    /// Fetches JSON, and the position that it is of, if the server says so.
    async fn get<T: DeserializeOwned>(
        &self,
        url: &Url,
        as_upstream: bool,
        at_least: Option<AtLeast>,
    ) -> Result<(T, Option<Position>), ServerApiError> {
        let shown = RedactedUrl::new(url.as_str());
        let unreachable = |source: reqwest::Error| ServerApiError::Unreachable {
            url: shown.clone(),
            source: source.without_url(),
        };
        let mut request = self.client.get(url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if as_upstream {
            request = request.header("content-type", "text/plain");
        }
        if let Some(at_least) = at_least {
            request = request.header(AT_LEAST_HEADER, at_least.to_string());
        }
        let response = request.send().await.map_err(unreachable)?;
        let position = response.headers().get(POSITION_HEADER);
        let position = position.and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status();
        let retry_after = opal_runtime::retry_after(response.headers());
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(ServerApiError::Rejected {
                url: shown,
                status,
                detail: detail(&body),
                retry_after,
            });
        }
        let value = serde_json::from_slice(&body)
            .map_err(|source| ServerApiError::Unreadable { url: shown, source })?;
        Ok((value, position))
    }
}

impl ServerApiError {
    /// How long the server asks us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Unreadable { .. } => None,
        }
    }
}

/// The reason in an error body, without what it may echo of our token.
fn detail(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = &body["detail"];
    let text = detail.as_str().or_else(|| detail["error"].as_str());
    text.unwrap_or_default().chars().take(200).collect()
}
