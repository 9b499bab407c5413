//! What the client adds to the REST API of the engine in this process: where the engine is, and
//! waiting until it is somewhere.
//!
//! Every answer names the position that the engine holds ([`POSITION_HEADER`]), as long as a feed is
//! followed and no snapshot is on its way. It is read before the request is handled, so the answer
//! is from there or later. A request may name a position that it needs ([`AT_LEAST_HEADER`]): it
//! waits for it, or is answered 503. That is how whoever published something asks for a decision
//! that knows of it.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use opal_protocol::feed::{AT_LEAST_HEADER, POSITION_HEADER, TIMEOUT_HEADER};
use opal_protocol::{AtLeast, Epoch, Revision};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

/// Where the engine is; `None` without a feed, and while a snapshot is on its way.
pub(crate) type Held = watch::Receiver<Option<(Epoch, Revision)>>;

/// How long a request waits if it does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// The longest that a request may wait, in seconds.
const MOST_SECONDS: f64 = 60.0;

/// `router` with positions on its answers, and with requests that wait for theirs.
pub(crate) fn with_positions(router: Router, held: Held) -> Router {
    router.layer(from_fn_with_state(held, at_position))
}

async fn at_position(State(mut held): State<Held>, request: Request, next: Next) -> Response {
    if request.headers().contains_key(AT_LEAST_HEADER)
        && let Err(refusal) = wait(request.headers(), &mut held).await
    {
        return refusal.into_response();
    }
    let position = *held.borrow();
    let mut response = next.run(request).await;
    mark(&mut response, position);
    response
}

/// Returns once the engine is where the request wants it.
async fn wait(headers: &HeaderMap, held: &mut Held) -> Result<(), Refusal> {
    let at_least = at_least(headers)?;
    let limit = limit(headers)?;
    // A position of another epoch is waited for as well: a server that has just restarted may be
    // about to tell us of it.
    let reached = held.wait_for(|held| is_met(at_least, *held));
    if let Ok(Ok(_)) = timeout(limit, reached).await {
        return Ok(());
    }
    // The time is up, or the client is stopping.
    let held = *held.borrow();
    Err(Refusal::Behind { at_least, held })
}

fn is_met(at_least: AtLeast, held: Option<(Epoch, Revision)>) -> bool {
    held.is_some_and(|(epoch, revision)| at_least.epoch == epoch && at_least.revision <= revision)
}

fn at_least(headers: &HeaderMap) -> Result<AtLeast, Refusal> {
    let text = text(headers, AT_LEAST_HEADER).unwrap_or_default();
    text.trim().parse().map_err(|_| Refusal::Malformed {
        header: AT_LEAST_HEADER,
        expected: "`epoch:revision`",
    })
}

fn limit(headers: &HeaderMap) -> Result<Duration, Refusal> {
    let Some(text) = text(headers, TIMEOUT_HEADER) else {
        return Ok(DEFAULT_WAIT);
    };
    let text = text.trim();
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse::<f64>().ok().filter(|_| is_plain);
    match seconds.filter(|seconds| *seconds <= MOST_SECONDS) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err(Refusal::Malformed {
            header: TIMEOUT_HEADER,
            expected: "a number of seconds from 0 to 60",
        }),
    }
}

/// The header's value; empty if it is not text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get(name)?;
    Some(value.to_str().unwrap_or_default())
}

fn mark(response: &mut Response, position: Option<(Epoch, Revision)>) {
    let shown = position.map(|held| shown(held).try_into());
    if let Some(Ok::<HeaderValue, _>(value)) = shown {
        response.headers_mut().insert(POSITION_HEADER, value);
    }
}

fn shown((epoch, revision): (Epoch, Revision)) -> String {
    format!("{epoch}:{revision}")
}

/// Why a request was not handled.
#[derive(Debug)]
enum Refusal {
    Malformed {
        header: &'static str,
        expected: &'static str,
    },
    Behind {
        at_least: AtLeast,
        held: Option<(Epoch, Revision)>,
    },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed { header, expected } => {
                let message = format!("invalid {header}: expected {expected}");
                answer(StatusCode::BAD_REQUEST, "invalid_parameter", &message)
            }
            Self::Behind { at_least, held } => {
                let is_at = held.map_or_else(
                    || "at no position".to_owned(),
                    |held| format!("at {}", shown(held)),
                );
                let message = format!("{at_least} was asked for and the engine is {is_at}");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let mut response = answer(status, "position_not_reached", &message);
                let soon = HeaderValue::from_static("1");
                response.headers_mut().insert(header::RETRY_AFTER, soon);
                mark(&mut response, held);
                response
            }
        }
    }
}

/// An error as the engine's own.
fn answer(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "message": message });
    let body = format!("{body:#}\n");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests;
