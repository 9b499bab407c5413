//! How OPA knows us.

use std::fmt;
use std::time::Duration;

use opal_protocol::RedactedUrl;
use opal_runtime::BoxError;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::policy_store::StoreError;

/// A token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// For one request to the token server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How OPA knows us (`OPAL_POLICY_STORE_AUTH_TYPE`).
#[derive(Debug, Clone)]
pub enum OpaAuth {
    /// Not at all, or by the client certificate of the HTTP client (`none`, `tls`).
    None,
    /// By a bearer token.
    Token(SecretString),
    /// By a bearer token that a server gives us for our credentials.
    OAuth {
        /// The token server.
        server: Url,
        /// Our name there.
        client_id: String,
        /// Our secret there.
        client_secret: SecretString,
    },
}

/// Adds credentials to requests; keeps the token of an OAuth server until shortly before its end.
pub(super) struct Authorizer {
    client: Client,
    auth: OpaAuth,
    token: Mutex<Option<Token>>,
}

struct Token {
    text: SecretString,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.auth.fmt(f)
    }
}

impl Authorizer {
    pub(super) fn new(client: Client, auth: OpaAuth) -> Self {
        Self {
            client,
            auth,
            token: Mutex::new(None),
        }
    }

    /// `request` with our credentials.
    pub(super) async fn authorize(
        &self,
        request: RequestBuilder,
    ) -> Result<RequestBuilder, StoreError> {
        match &self.auth {
            OpaAuth::None => Ok(request),
            OpaAuth::Token(token) => Ok(request.bearer_auth(token.expose_secret())),
            OpaAuth::OAuth {
                server,
                client_id,
                client_secret,
            } => {
                // Held while a token is fetched: the others wait for the same one.
                let mut held = self.token.lock().await;
                let token =
                    match held.take().filter(|token| Instant::now() < token.renew_at) {
                        Some(token) => token,
                        None => self.fetch(server, client_id, client_secret).await.map_err(
                            |source| StoreError::NotAuthorized {
                                url: RedactedUrl::new(server.as_str()),
                                source,
                            },
                        )?,
                    };
                let request = request.bearer_auth(token.text.expose_secret());
                *held = Some(token);
                Ok(request)
            }
        }
    }

    /// Forgets the token, because OPA refused it. False if there is nothing to be had instead.
    pub(super) async fn renew(&self) -> bool {
        self.token.lock().await.take().is_some()
    }

    async fn fetch(
        &self,
        server: &Url,
        id: &str,
        secret: &SecretString,
    ) -> Result<Token, BoxError> {
        let asked = Instant::now();
        let request = self
            .client
            .post(server.clone())
            .timeout(TIMEOUT)
            .basic_auth(id, Some(secret.expose_secret()))
            .header(ACCEPT, "application/json")
            .header(
                CONTENT_TYPE,
                "application/x-www-form-urlencoded;charset=UTF-8",
            )
            .body("grant_type=client_credentials");
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        let response = response
            .error_for_status()
            .map_err(reqwest::Error::without_url)?;
        let answer: TokenAnswer = response.json().await.map_err(reqwest::Error::without_url)?;
        let lifetime = Duration::from_secs(answer.expires_in.min(u64::from(u32::MAX)));
        Ok(Token {
            text: answer.access_token.into(),
            renew_at: asked + lifetime.saturating_sub(RENEW_BEFORE),
        })
    }
}
