//! A server somewhere else, for the commands that ask one.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use opal_protocol::RedactedUrl;
use opal_runtime::config::{CommandLine, Environment, Program, REDACTED, Reader, Settings};
use opal_runtime::http::HttpOptions;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// How long an answer may take beyond what was asked to be waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which server, and who asks.
#[derive(Debug, Args)]
pub(crate) struct RemoteOptions {
    /// The server [default: OPAL_SERVER_URL, or http://localhost:7002].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The token to show [default: OPAL_CLIENT_TOKEN].
    #[arg(long, value_name = "TOKEN")]
    token: Option<SecretString>,
}

/// A way to ask a server.
#[derive(Debug)]
pub(crate) struct Remote {
    url: String,
    token: Option<SecretString>,
    http: reqwest::Client,
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `null` if it was no JSON.
    pub(crate) body: Value,
    pub(crate) headers: reqwest::header::HeaderMap,
    /// The body as it came, without our token.
    pub(crate) text: String,
}

impl RemoteOptions {
    /// The server of the options, or else of the settings.
    pub(crate) fn connect(self, waiting: Duration) -> anyhow::Result<Remote> {
        let environment = Environment::of_process();
        let settings = Settings::collect(Program::Client, &CommandLine::default(), &environment);
        let mut reader = Reader::new(&settings);
        let url = self.server.unwrap_or_else(|| reader.get("SERVER_URL"));
        let token = self.token.or_else(|| reader.non_empty("CLIENT_TOKEN"));
        let http = opal_runtime::http::client(&HttpOptions {
            timeout: Some(waiting + PATIENCE),
            ..HttpOptions::default()
        })?;
        Ok(Remote {
            url: url.trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.expose_secret().is_empty()),
            http,
        })
    }
}

impl Remote {
    /// A request to a path and query of the server, with our token.
    pub(crate) fn request(&self, method: Method, target: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{target}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// The whole answer to a request, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let unreachable = || format!("could not reach `{}`", self.name());
        let answer = request.send().await;
        let answer = answer
            .map_err(reqwest::Error::without_url)
            .with_context(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await;
        let mut text = text
            .map_err(reqwest::Error::without_url)
            .with_context(unreachable)?;
        // Released servers repeat the token when they refuse it.
        if let Some(token) = &self.token {
            text = text.replace(token.expose_secret(), REDACTED);
        }
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            body,
            headers,
            text,
        })
    }

    /// The server's URL, to be shown.
    pub(crate) fn name(&self) -> RedactedUrl {
        RedactedUrl::from(self.url.as_str())
    }
}

impl Answer {
    /// Why the server refused, in its words.
    pub(crate) fn reason(&self) -> String {
        let detail = self.body.get("detail").unwrap_or(&self.body);
        let detail = detail.get("error").unwrap_or(detail);
        let text = match detail {
            Value::String(text) => text.clone(),
            Value::Array(violations) => violations
                .iter()
                .map(violation)
                .collect::<Vec<_>>()
                .join("; "),
            Value::Null => self.text.trim().to_owned(),
            other => other.to_string(),
        };
        crate::console::plain(&text)
    }
}

/// What is wrong with which member of a body.
fn violation(violation: &Value) -> String {
    let place = violation["loc"].as_array().map(Vec::as_slice);
    let place: Vec<String> = place
        .unwrap_or_default()
        .iter()
        .map(|step| {
            step.as_str()
                .map_or_else(|| step.to_string(), str::to_owned)
        })
        .collect();
    match violation["msg"].as_str() {
        Some(message) => format!("{}: {message}", place.join(".")),
        None => violation.to_string(),
    }
}
