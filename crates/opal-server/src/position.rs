//! Reads that must not be older than their caller: `X-Opal-At-Least`, and `X-Opal-Position`.
//!
//! A client that was told of a change asks for what it stands for with the change's position. We
//! answer from there or further, or say 503: never from before. Each answer says where the feed was
//! before the answer was made, which then holds everything up to there, since a commit is announced
//! only after it was fetched.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use opal_protocol::feed::{AT_LEAST_HEADER, POSITION_HEADER, REVISION_HEADER};
use opal_protocol::{AtLeast, CommitHash, Position, ScopeId};
use opal_pubsub::HubStopped;
use tokio::time::{Instant, sleep};

use crate::error::ApiError;
use crate::server::{App, Policy};

/// How long a request waits for the feed to get to where it has to be.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What an answer is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// The feed alone.
    FromFeed,
    /// The clone, which follows the feed's commit.
    FromPolicy,
}

/// Returns where the feed of `scope` is once that is at least where the request asks for; at once if
/// it asks for nothing. `None`: nobody can say what the answer will hold, since the clone may be
/// older than the feed's commit.
///
/// # Errors
///
/// 400 for a header that is no position, 503 if the feed is not there within two seconds.
pub(crate) async fn begin_read(
    app: &App,
    scope: &ScopeId,
    headers: &HeaderMap,
    made: Made,
) -> Result<Option<Position>, ApiError> {
    let wanted = at_least(headers)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let head = app.publisher.head(scope).await?;
        let commit = head.policy.map(|policy| policy.commit);
        let head = head.position;
        let current = made == Made::FromFeed || is_current(app.policy.as_ref(), commit.as_ref());
        match wanted {
            None => return Ok(current.then_some(head)),
            Some(wanted) if current && wanted.is_met_by(&head) => return Ok(Some(head)),
            Some(wanted) if wanted.epoch != head.epoch || Instant::now() >= deadline => {
                return Err(ApiError::Behind(head));
            }
            Some(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether the clone holds `commit`, the feed's, or something newer. A kept clone that was not
/// compared with its remote since the start may be of any age, and while the feed knows no commit, the
/// first one that it will be told of need not concern whoever holds this one.
fn is_current(policy: Option<&Policy>, commit: Option<&CommitHash>) -> bool {
    let Some(policy) = policy else {
        return true;
    };
    let Some(commit) = commit else {
        return false;
    };
    let was_synced = policy.watcher.status().borrow().last_sync.is_some();
    was_synced || policy.repo.head().as_ref() == Some(commit)
}

fn at_least(headers: &HeaderMap) -> Result<Option<AtLeast>, ApiError> {
    let Some(value) = headers.get(AT_LEAST_HEADER) else {
        return Ok(None);
    };
    let wanted = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    wanted.map(Some).ok_or_else(|| {
        let text = "`X-Opal-At-Least` is not a position; expected `epoch:revision`";
        ApiError::bad_request(text)
    })
}

/// Says on `response` where the feed was.
pub(crate) fn say(response: &mut Response, position: Option<Position>) {
    let value = position.map(|position| HeaderValue::from_str(&position.to_string()));
    if let Some(Ok(value)) = value {
        response.headers_mut().insert(POSITION_HEADER, value);
    }
}

/// Says on `response` which change a request led to.
pub(crate) fn say_change(response: &mut Response, position: &Position) {
    if let Ok(value) = HeaderValue::from_str(&position.to_string()) {
        response.headers_mut().insert(REVISION_HEADER, value);
    }
}

impl From<HubStopped> for ApiError {
    fn from(error: HubStopped) -> Self {
        Self::unavailable(error.to_string())
    }
}
