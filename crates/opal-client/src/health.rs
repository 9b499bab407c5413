//! `/healthy`, `/ready` and their old names.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::client::App;
use crate::offline::OfflineStatus;
use crate::standing::{Moment, Standing};
use crate::transactions::{Reason, Subject, TransactionState};

/// `GET /healthy`, `GET /healthcheck`, `GET /`: 200 while the engine holds what it should, else
/// 503 with what is wrong, since when, and where. `online` says whether there is a connection to the
/// server: an outage of the server is none of the client's.
pub(crate) async fn healthy(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let standing = app.standing.borrow().clone();
    let reasons = app.transactions.read(|log| unhealthy(log, &standing));
    let ok = json!({ "status": "ok", "online": standing.is_connected() });
    app.answer(&standing, &reasons, ok, query.as_deref())
}

/// `GET /ready`: 200 once the engine has been filled.
pub(crate) async fn ready(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let standing = app.standing.borrow().clone();
    let reasons = app.transactions.read(|log| unready(log, &standing));
    app.answer(
        &standing,
        &reasons,
        json!({ "status": "ok" }),
        query.as_deref(),
    )
}

fn unready(log: &TransactionState, standing: &Standing) -> Vec<Reason> {
    let mut reasons = log.unready();
    reasons.extend(standing.unready());
    reasons
}

fn unhealthy(log: &TransactionState, standing: &Standing) -> Vec<Reason> {
    let mut reasons = log.unhealthy();
    reasons.extend(standing.unready());
    reasons.extend(standing.unhealthy(Moment::now().instant));
    reasons
}

impl App {
    fn answer(
        &self,
        standing: &Standing,
        reasons: &[Reason],
        ok: Value,
        query: Option<&str>,
    ) -> Response {
        let (status, mut body) = match reasons {
            [] => (StatusCode::OK, ok),
            reasons => {
                let body = json!({ "status": "unavailable", "reasons": reasons });
                (StatusCode::SERVICE_UNAVAILABLE, body)
            }
        };
        if is_verbose(query) {
            body["reasons"] = json!(reasons);
            let offline = self.offline.borrow().clone();
            self.transactions
                .read(|log| describe(&mut body, log, standing, offline.as_ref()));
        }
        (status, Json(body)).into_response()
    }
}

/// Whether `verbose` is asked for: without a value, or any but `false` and `0`.
fn is_verbose(query: Option<&str>) -> bool {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(name, _)| name == "verbose");
    values.any(|(_, value)| value != "false" && value != "0")
}

/// Everything that is known of where the client is, and of what keeps it from being further.
fn describe(
    body: &mut Value,
    log: &TransactionState,
    standing: &Standing,
    offline: Option<&OfflineStatus>,
) {
    body["online"] = json!(standing.is_connected());
    body["server"] = json!({
        "connected": standing.is_connected(),
        "since": shown(standing.connection_since()),
        "mode": standing.mode(),
    });
    let status = standing.status();
    let held = status.and_then(|status| status.held);
    let received = status.and_then(|status| status.received);
    body["position"] = json!({
        "held": held.map(|(epoch, revision)| format!("{epoch}:{revision}")),
        "received": received.map(|received| received.at_least()),
    });
    body["behind"] = json!({
        "changes": status.map_or(0, |status| status.outstanding),
        "since": standing.behind_since().map(shown),
    });
    body["snapshot_pending"] = json!(status.is_some_and(|status| status.awaits_snapshot));
    body["policy"] = policy(log, standing);
    body["sources"] = json!(log.sources());
    body["engine"] = json!({
        "reachable": log.is_reachable(),
        "since": log.reachable_since().map(shown),
    });
    body["offline"] = json!(offline);
}

fn policy(log: &TransactionState, standing: &Standing) -> Value {
    let status = standing.status();
    let failing = log.failing().find(|each| each.subject == Subject::Policies);
    let mut policy = match failing {
        Some(failing) => json!(failing),
        None => json!({}),
    };
    if let Some(members) = policy.as_object_mut() {
        members.remove("subject");
    }
    policy["commit"] = json!(status.and_then(|status| status.commit.as_ref()));
    policy["needed_revision"] = json!(status.and_then(|status| status.policy_needed));
    policy
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests;
