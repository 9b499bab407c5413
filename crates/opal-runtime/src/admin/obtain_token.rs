//! `obtain-token`.

use opal_protocol::{PeerType, RedactedUrl};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::AdminError;
use super::arguments::{Arguments, Flag};
use super::text::{DEFAULT_SERVER_URL, REQUEST_TIMEOUT};
use crate::config::Environment;
use crate::http::{self, HttpOptions};
use crate::python;

const YES: &str = "--just-the-token";
const NO: &str = "--no-just-the-token";

const FLAGS: &[Flag] = &[
    Flag {
        names: &["--server-url"],
        values: 1,
    },
    Flag {
        names: &["--type"],
        values: 1,
    },
    Flag {
        names: &["--ttl"],
        values: 2,
    },
    Flag {
        names: &["--claims"],
        values: 1,
    },
    Flag {
        names: &[YES],
        values: 0,
    },
    Flag {
        names: &[NO],
        values: 0,
    },
];

/// In microseconds, by the names of Python's `timedelta`.
const UNITS: [(&str, i64); 7] = [
    ("weeks", 604_800_000_000),
    ("days", 86_400_000_000),
    ("hours", 3_600_000_000),
    ("minutes", 60_000_000),
    ("seconds", 1_000_000),
    ("milliseconds", 1_000),
    ("microseconds", 1),
];

const DEFAULT_TTL: i64 = 365 * 86_400_000_000;

/// Asks a server for a token.
#[derive(Debug)]
pub struct ObtainToken {
    /// What the server is guarded with.
    pub master_token: SecretString,
    /// The server.
    pub server_url: String,
    /// What the bearer will be.
    pub peer_type: PeerType,
    /// How long the token holds, in microseconds.
    pub ttl: i64,
    /// Claims beyond the standard ones.
    pub claims: Map<String, Value>,
    /// Print the token alone, else the whole answer as Python prints it.
    pub just_the_token: bool,
}

impl ObtainToken {
    pub(super) fn parse(given: &[String], environment: &Environment) -> (Arguments, Self) {
        let mut arguments = Arguments::parse(FLAGS, 1, given);
        let master = arguments
            .word()
            .or_else(|| environment.variable("OPAL_MASTER_TOKEN"));
        let master_token = SecretString::from(master.unwrap_or_default());
        if master.is_none() {
            arguments.problem("the master token is missing (or set OPAL_MASTER_TOKEN)".to_owned());
        }
        let types = "one of client, datasource, listener";
        let peer_type = arguments.parsed("--type", PeerType::Client, types, PeerType::parse);
        let claims = arguments.parsed("--claims", Map::new(), "a JSON object", |text| {
            serde_json::from_str(text).ok()
        });
        let ttl = match arguments.values("--ttl") {
            None => Some(DEFAULT_TTL),
            Some(words) => ttl(words),
        };
        if ttl.is_none() {
            let units = UNITS.map(|(name, _)| name).join(", ");
            let problem = format!("--ttl: expected a whole number and one of {units}");
            arguments.problem(problem);
        }
        // As upstream, the last of the two counts; here the negative one wins.
        let just_the_token = !arguments.has(NO);
        let command = Self {
            master_token,
            server_url: arguments.text("--server-url", DEFAULT_SERVER_URL),
            peer_type,
            ttl: ttl.unwrap_or(DEFAULT_TTL),
            claims,
            just_the_token,
        };
        (arguments, command)
    }

    /// Asks, and returns what is to be printed.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or does not answer with a token.
    pub async fn send(&self) -> Result<String, AdminError> {
        let url = format!("{}/token", self.server_url);
        let client = http::client(&HttpOptions {
            timeout: Some(REQUEST_TIMEOUT),
            ..HttpOptions::default()
        })?;
        let answer = client
            .post(&url)
            .header(
                AUTHORIZATION,
                format!("bearer {}", self.master_token.expose_secret()),
            )
            .json(&self.body())
            .send()
            .await
            .map_err(|error| AdminError::unreachable(&url, error))?;
        let status = answer.status();
        let body = answer.text().await;
        let body = body.map_err(|error| AdminError::unreachable(&url, error))?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let token = answer.get("token").and_then(Value::as_str);
        match token {
            Some(token) if status.is_success() && self.just_the_token => Ok(token.to_owned()),
            Some(_) if status.is_success() => Ok(python::value(&answer)),
            _ => Err(refused(&url, status, &answer)),
        }
    }

    fn body(&self) -> Value {
        json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "type": self.peer_type.as_str(),
            "ttl": self.ttl as f64 / 1e6,
            "claims": self.claims,
        })
    }
}

fn ttl(words: &[String]) -> Option<i64> {
    let [number, unit] = words else {
        return None;
    };
    let number: i64 = number.trim().parse().ok()?;
    let (_, size) = UNITS.iter().find(|(name, _)| name == unit)?;
    number.checked_mul(*size)
}

/// The error of a refusal. Of the body only the reason is shown: released servers repeat the
/// master token in it.
fn refused(url: &str, status: StatusCode, answer: &Value) -> AdminError {
    let detail = answer.get("detail");
    let reason = detail.and_then(|detail| {
        let inner = detail.get("error").or(Some(detail));
        inner.and_then(Value::as_str).map(str::to_owned)
    });
    AdminError::Refused {
        url: RedactedUrl::from(url),
        status,
        reason: reason.unwrap_or_else(|| "the answer holds no token".to_owned()),
    }
}
