//! `POST /webhook`: a git service says that something was pushed.
//!
//! The secret is verified over the raw body, in constant time; the payload must name our
//! repository; and only push events trigger the watcher. As upstream, field by field, for every
//! service that its parameters can describe.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use opal_protocol::{Position, RedactedUrl};
use regex::Regex;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tracing::{info, warn};
use url::Url;

use crate::error::ApiError;
use crate::position;
use crate::server::{App, Policy};

/// How a git service signs and describes its events: `OPAL_POLICY_REPO_WEBHOOK_PARAMS`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct WebhookParams {
    /// The header that carries the secret.
    pub secret_header_name: String,
    /// What it carries.
    pub secret_type: SecretType,
    /// Whose first group is the secret within the header.
    pub secret_parsing_regex: Pattern,
    /// The header that names the event.
    pub event_header_name: Option<String>,
    /// The member of the body that names it, if no header does.
    pub event_request_key: Option<String>,
    /// The name of the event that counts.
    pub push_event_value: String,
    /// Whether the payload must name our repository.
    pub match_sender_url: bool,
}

/// How a sender proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretType {
    /// By the secret itself.
    Token,
    /// By an HMAC-SHA256 of the body, in hexadecimal.
    Signature,
}

/// A regular expression that was checked when the settings were read.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Regex::new(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl Default for WebhookParams {
    /// GitHub.
    fn default() -> Self {
        Self {
            secret_header_name: "x-hub-signature-256".to_owned(),
            secret_type: SecretType::Signature,
            secret_parsing_regex: Pattern(
                Regex::new("sha256=(.*)").expect("the pattern is well formed"),
            ),
            event_header_name: Some("X-GitHub-Event".to_owned()),
            event_request_key: None,
            push_event_value: "push".to_owned(),
            match_sender_url: true,
        }
    }
}

/// Everything about webhooks that the settings say.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// What a sender must know; anyone may send without it.
    pub secret: Option<SecretString>,
    /// The service's ways.
    pub params: WebhookParams,
    /// The only branch whose pushes count, if it is enforced.
    pub enforced_branch: Option<String>,
}

impl WebhookConfig {
    /// Checks the sender's proof over the raw body.
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let given = headers
            .get(&self.params.secret_header_name)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| self.params.secret_parsing_regex.0.captures(value))
            .and_then(|found| found.get(1).or_else(|| found.get(0)))
            .map(|found| found.as_str())
            .filter(|given| !given.is_empty())
            .ok_or("No secret was provided!")?;
        let secret = secret.expose_secret().as_bytes();
        match self.params.secret_type {
            SecretType::Token => bool::from(secret.ct_eq(given.as_bytes()))
                .then_some(())
                .ok_or("secret-tokens didn't match!"),
            SecretType::Signature => {
                let mut mac =
                    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
                mac.update(body);
                let expected = hex::encode(mac.finalize().into_bytes());
                bool::from(expected.as_bytes().ct_eq(given.as_bytes()))
                    .then_some(())
                    .ok_or("signatures didn't match!")
            }
        }
    }

    fn event(&self, headers: &HeaderMap, body: &Value) -> String {
        let header = self.params.event_header_name.as_ref();
        let from_header = header
            .and_then(|name| headers.get(name))
            .and_then(|value| value.to_str().ok());
        let key = self.params.event_request_key.as_ref();
        let from_body = || key.and_then(|key| body.get(key)).and_then(Value::as_str);
        from_header.or_else(from_body).unwrap_or("ping").to_owned()
    }
}

/// How long a sender waits to hear where in the feed what it pushed is.
const PATIENCE: Duration = Duration::from_secs(3);

/// `POST /webhook` of a git source.
///
/// If the check that a push causes ends well within three seconds, the answer names the change of
/// the feed that announced the commit; it does not fail because the check does.
pub(crate) async fn receive(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let config = &app.config.webhook;
    config.verify(&headers, &body).map_err(|reason| {
        warn!("Refused a webhook: {reason}");
        ApiError::refused(StatusCode::UNAUTHORIZED, reason)
    })?;
    let Ok(body @ Value::Object(_)) = serde_json::from_slice(&body) else {
        warn!("Ignored a webhook whose body is not a JSON object");
        let text = "the body of a webhook must be a JSON object";
        return Err(ApiError::refused(StatusCode::BAD_REQUEST, text));
    };
    let sender = Sender::read(&body);
    if sender.urls.is_empty() && sender.names.is_empty() {
        let text = "repo url or full name not found in payload!";
        return Err(ApiError::refused(StatusCode::BAD_REQUEST, text));
    }
    if let Some(branch) = &config.enforced_branch
        && !sender.branches.contains(branch)
    {
        info!("Ignored a webhook for another branch than `{branch}`");
        return Ok(Json(Value::Null).into_response());
    }
    let event = config.event(&headers, &body);
    let ours = app.policy.as_ref();
    let url = ours.map(|policy| policy.repo.settings().url.expose());
    let matches = url.is_some_and(|url| !config.params.match_sender_url || sender.names_repo(url));
    let (Some(policy), true) = (ours, matches) else {
        return Ok(Json(json!({ "status": "ignored", "event": event })).into_response());
    };
    // Whoever sends a webhook need not know how we log in to the repository.
    let url = url.map(bare);
    let body = json!({ "status": "ok", "event": event, "repo_url": url });
    let mut response = Json(body).into_response();
    if event == config.params.push_event_value {
        info!("A webhook says that something was pushed");
        if let Some(position) = announced(policy).await {
            position::say_change(&mut response, &position);
        }
    }
    Ok(response)
}

/// Looks at the repository. Returns where its commit was announced, if that is known in time.
async fn announced(policy: &Policy) -> Option<Position> {
    let checked = tokio::time::timeout(PATIENCE, policy.watcher.check()).await;
    let status = checked.ok().flatten()?;
    status.position.filter(|_| status.error.is_none())
}

/// What a payload says about the repository that it is about.
#[derive(Debug, Default)]
struct Sender {
    branches: Vec<String>,
    urls: Vec<String>,
    names: Vec<String>,
}

impl Sender {
    fn read(body: &Value) -> Self {
        let texts = |pointers: &[&str]| -> Vec<String> {
            let found = pointers.iter().filter_map(|at| body.pointer(at)?.as_str());
            found.map(str::to_owned).collect()
        };
        let listed = |array: &str, member: &str| -> Vec<String> {
            let items = body.pointer(array).and_then(Value::as_array);
            let items = items.into_iter().flatten();
            items
                .filter_map(|item| item.pointer(member)?.as_str())
                .map(str::to_owned)
                .collect()
        };
        let mut branches = texts(&["/ref", "/refUpdates/name"]);
        // What real payloads of Azure DevOps and Bitbucket have.
        branches.extend(listed("/resource/refUpdates", "/name"));
        branches.extend(listed("/push/changes", "/new/name"));
        for branch in &mut branches {
            if let Some(name) = branch.strip_prefix("refs/heads/") {
                *branch = name.to_owned();
            }
        }
        Self {
            branches,
            urls: texts(&[
                "/repository/git_url",
                "/repository/ssh_url",
                "/repository/clone_url",
                "/repository/git_ssh_url",
                "/repository/git_http_url",
                "/repository/url",
                "/project/git_http_url",
                "/project/git_ssh_url",
                "/resource/repository/remoteUrl",
            ]),
            names: texts(&["/repository/full_name", "/project/path_with_namespace"]),
        }
    }

    /// Whether the payload is about the repository at `url`.
    fn names_repo(&self, url: &str) -> bool {
        if self.urls.is_empty() {
            let path = repo_path(url);
            return self.names.contains(&path);
        }
        let ours = bare(url);
        self.urls.iter().any(|theirs| bare(theirs) == ours)
    }
}

/// A URL without credentials, query and fragment.
fn bare(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if url.has_host() => {
            let is_ssh = url.scheme() == "ssh";
            // These fail only for URLs that cannot carry credentials.
            let _ = url.set_password(None);
            if !is_ssh {
                let _ = url.set_username("");
            }
            url.set_query(None);
            url.set_fragment(None);
            url.into()
        }
        // Not a URL to us, and maybe one to git: a password of odd characters, say.
        Err(_) if url.contains("://") => RedactedUrl::from(url).to_string(),
        _ => url.to_owned(),
    }
}

/// `owner/name`, from a URL in any form.
fn repo_path(url: &str) -> String {
    let path = match Url::parse(url) {
        Ok(url) if url.has_host() => url.path().to_owned(),
        _ => match url.split_once(':') {
            Some((_, path)) if !path.starts_with("//") => path.to_owned(),
            _ => url.to_owned(),
        },
    };
    let path = path.trim_start_matches('/');
    path.strip_suffix(".git").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(secret_type: SecretType) -> WebhookConfig {
        WebhookConfig {
            secret: Some("s3cret".into()),
            params: WebhookParams {
                secret_type,
                ..WebhookParams::default()
            },
            enforced_branch: None,
        }
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-hub-signature-256", value.parse().unwrap());
        headers
    }

    #[test]
    fn a_signature_is_over_the_raw_body() {
        let config = config(SecretType::Signature);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(b"{}");
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(config.verify(&headers(&signature), b"{}"), Ok(()));
        assert_eq!(
            config.verify(&headers(&signature), b"{ }"),
            Err("signatures didn't match!")
        );
        assert_eq!(
            config.verify(&HeaderMap::new(), b"{}"),
            Err("No secret was provided!")
        );
    }

    #[test]
    fn a_token_is_compared_whole() {
        let config = config(SecretType::Token);
        assert_eq!(config.verify(&headers("sha256=s3cret"), b""), Ok(()));
        assert_eq!(
            config.verify(&headers("sha256=s3cre"), b""),
            Err("secret-tokens didn't match!")
        );
    }

    #[test]
    fn a_repository_is_known_by_its_url_or_by_its_name_if_no_url_is_given() {
        let sender = |body: Value| Sender::read(&body);
        let by_url = sender(
            json!({"repository": {"clone_url": "https://git.example.com/a/b.git", "full_name": "x/y"}}),
        );
        assert!(by_url.names_repo("https://bob:pw@git.example.com/a/b.git?x=1"));
        assert!(!by_url.names_repo("https://git.example.com/x/y.git"));
        let by_name = sender(json!({"project": {"path_with_namespace": "a/b"}}));
        assert!(by_name.names_repo("git@git.example.com:a/b.git"));
        assert!(by_name.names_repo("https://git.example.com/a/b"));
        assert!(!by_name.names_repo("https://git.example.com/a/c"));
    }

    #[test]
    fn a_bare_url_logs_nobody_in() {
        for (url, shown) in [
            (
                "https://bob:pw@git.example.com/a.git?token=pw#pw",
                "https://git.example.com/a.git",
            ),
            (
                "https://pw@git.example.com/a.git",
                "https://git.example.com/a.git",
            ),
            ("https://bob:p#w@git.example.com/a.git", "https://bob:p"),
            (
                "ssh://git:pw@git.example.com/a.git",
                "ssh://git@git.example.com/a.git",
            ),
            ("git@git.example.com:a.git", "git@git.example.com:a.git"),
            ("file:///srv/a.git", "file:///srv/a.git"),
        ] {
            assert_eq!(bare(url), shown);
        }
    }

    #[test]
    fn the_branch_is_found_where_each_service_puts_it() {
        for body in [
            json!({"ref": "refs/heads/main"}),
            json!({"refUpdates": {"name": "main"}}),
            json!({"resource": {"refUpdates": [{"name": "refs/heads/main"}]}}),
            json!({"push": {"changes": [{"new": {"name": "main"}}]}}),
        ] {
            assert_eq!(Sender::read(&body).branches, ["main"]);
        }
    }
}
