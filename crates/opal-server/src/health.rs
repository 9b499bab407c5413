//! Whether the server is there, and with `?verbose` how it is doing.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use opal_protocol::ScopeId;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::error::ApiError;
use crate::extract::Bearer;
use crate::server::{App, Policy};

/// `GET /` and `GET /healthcheck`. `?verbose` needs any token, as other routes that name clients and
/// repositories do.
pub(crate) async fn check(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let query = request.uri().query().unwrap_or_default();
    let mut names = form_urlencoded::parse(query.as_bytes());
    if !names.any(|(name, _)| name == "verbose") {
        return Ok(Json(json!({ "status": "ok" })).into_response());
    }
    let (mut parts, _) = request.into_parts();
    let bearer = Bearer::from_request_parts(&mut parts, &app).await?;
    Ok(Json(verbose(&app, &bearer).await?).into_response())
}

/// As the fleet view, it tells a bearer with `allowed_scopes` of those scopes only.
async fn verbose(app: &App, bearer: &Bearer) -> Result<Value, ApiError> {
    let mut clients = app.publisher.fleet().await?;
    clients.retain(|client| bearer.may_read(&client.scope));
    let mut head = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for client in &clients {
        *counts.entry(client.state.as_str()).or_default() += 1;
        head.insert(client.scope.clone(), Value::Null);
    }
    let default = ScopeId::default();
    if bearer.may_read(&default) {
        head.insert(default, Value::Null);
    }
    for (scope, position) in &mut head {
        *position = json!(app.publisher.head(scope).await?.position);
    }
    let failure = app.publications.store_failure();
    Ok(json!({
        "status": "ok",
        "feed": {
            "head": head,
            "durable": app.config.feed.directory.is_some(),
            "error": failure.as_ref().map(|failure| &failure.error),
            "error_since": time(failure.as_ref().map(|failure| failure.since)),
        },
        "policy": app.policy.as_ref().map(policy),
        "clients": counts,
    }))
}

fn policy(policy: &Policy) -> Value {
    let status = policy.watcher.status();
    let status = status.borrow();
    json!({
        "repository": policy.repo.settings().url.to_string(),
        "commit": policy.repo.head(),
        "announced": status.announced,
        "last_sync": time(status.last_sync),
        "error": status.error,
        "error_since": time(status.failing_since),
    })
}

/// RFC 3339.
fn time(time: Option<DateTime<Utc>>) -> Option<String> {
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
