//! `?wait=…&timeout=…`: whom a publisher waits for, and what became of it.

use std::time::Duration;

use opal_protocol::{Position, ScopeId};
use opal_pubsub::hub::{WaitOutcome, WaitTarget};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::error::ApiError;
use crate::extract::Bearer;

/// How long is waited if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that anybody waits.
const LONGEST_TIMEOUT: f64 = 300.0;

/// Whom to wait for, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who has to have applied the change.
    pub target: WaitTarget,
    /// How long at most.
    pub timeout: Duration,
}

impl Wait {
    /// What the query of a request says; `None` if it does not ask to wait.
    ///
    /// # Errors
    ///
    /// 400 for a target or time that is none.
    pub(crate) fn read(query: Option<&str>) -> Result<Option<Self>, ApiError> {
        let mut target = None;
        let mut timeout = DEFAULT_TIMEOUT;
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "wait" => target = Some(parse_target(&value)?),
                "timeout" => timeout = parse_timeout(&value)?,
                _ => {}
            }
        }
        Ok(target.map(|target| Self { target, timeout }))
    }
}

fn parse_target(text: &str) -> Result<WaitTarget, ApiError> {
    text.parse().map_err(|_| {
        let text = "`wait` must be `all`, a percentage such as `50%`, or `client=ID`";
        ApiError::bad_request(text)
    })
}

fn parse_timeout(text: &str) -> Result<Duration, ApiError> {
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| (0.0..=LONGEST_TIMEOUT).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        let text = "`timeout` must be a number of seconds from 0 to 300";
        ApiError::bad_request(text)
    })
}

/// The answer to a publish that was waited for, as far as it is about that. A bearer who may not read
/// `scope` learns whether the wait was met, and nothing about its clients.
pub(crate) fn answer(
    bearer: &Bearer,
    scope: &ScopeId,
    position: &Position,
    outcome: &WaitOutcome,
) -> Value {
    if !bearer.may_read(scope) {
        return json!({ "status": "ok", "revision": position, "met": outcome.met });
    }
    json!({
        "status": "ok",
        "revision": position,
        "met": outcome.met,
        "applied": outcome.applied,
        "missing": outcome.missing,
        "disconnected": outcome.disconnected,
        "unconfirmed": outcome.unconfirmed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_with_its_time() {
        let read = |query| Wait::read(Some(query)).unwrap();
        let wait = |target, seconds| {
            let timeout = Duration::from_secs_f64(seconds);
            Some(Wait { target, timeout })
        };
        assert_eq!(read("wait=all"), wait(WaitTarget::All, 10.0));
        assert_eq!(
            read("timeout=0.5&wait=50%25"),
            wait(WaitTarget::Percent(50), 0.5)
        );
        let edge = WaitTarget::Client("edge-1".to_owned());
        assert_eq!(read("wait=client%3Dedge-1&timeout=300"), wait(edge, 300.0));
        assert_eq!(read("x=1&timeout=5"), None);
        assert_eq!(Wait::read(None).unwrap(), None);
    }

    #[test]
    fn what_is_no_wait_is_refused() {
        for query in [
            "wait=",
            "wait=some",
            "wait=-1%25",
            "wait=101%25",
            "wait=client=",
            "wait=all&timeout=",
            "wait=all&timeout=-1",
            "wait=all&timeout=301",
            "wait=all&timeout=nan",
            "wait=all&timeout=inf",
            "wait=all&timeout=soon",
            "wait=0%25",
        ] {
            assert!(Wait::read(Some(query)).is_err(), "{query}");
        }
    }
}
