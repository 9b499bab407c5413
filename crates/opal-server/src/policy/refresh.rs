//! `POST /policy/refresh`: look at the repository now, and say what came of it.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use opal_protocol::{PeerType, ScopeId};
use serde_json::json;
use tracing::info;

use super::WatcherStatus;
use crate::error::ApiError;
use crate::extract::Bearer;
use crate::position;
use crate::server::{App, Policy};
use crate::wait::{self, Wait};

/// How long a check may take before its caller is told to ask later. It goes on.
const LONGEST_CHECK: Duration = Duration::from_secs(120);

/// `POST /policy/refresh?wait=…&timeout=…`: needs a `datasource` token, since it makes clients move.
///
/// Answers once a look at the repository that began after the request has ended: with the commit that
/// is current and the change of the feed that announced it; with `?wait=` also who applied it. 502 if
/// the look failed, 503 if there is no repository or what was found could not be announced.
pub(crate) async fn refresh(
    bearer: Bearer,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    bearer.require(PeerType::DataSource)?;
    let wait = Wait::read(query.as_deref())?;
    let Some(policy) = &app.policy else {
        let text = "policy repo was not found";
        return Err(ApiError::refused(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    info!("Asked to look for new commits");
    let status = checked(&app, policy).await?;
    let scope = ScopeId::default();
    let position = match status.position {
        Some(position) => position,
        // Nothing was ever announced.
        None => app.publisher.head(&scope).await?.position,
    };
    let mut body = match wait {
        None => json!({ "status": "ok", "revision": position }),
        Some(Wait { target, timeout }) => {
            let revision = position.revision;
            let wait = app.publisher.wait(&scope, revision, target, timeout);
            wait::answer(&bearer, &scope, &position, &wait.await?)
        }
    };
    body["commit"] = json!(status.head);
    let mut response = Json(body).into_response();
    position::say_change(&mut response, &position);
    Ok(response)
}

async fn checked(app: &App, policy: &Policy) -> Result<WatcherStatus, ApiError> {
    let check = tokio::time::timeout(LONGEST_CHECK, policy.watcher.check());
    let Ok(checked) = check.await else {
        let text = "the policy repository is still being looked at";
        return Err(ApiError::unavailable(text));
    };
    let status = checked.ok_or(opal_pubsub::HubStopped)?;
    let Some(error) = &status.error else {
        return Ok(status);
    };
    let text = format!("could not follow the policy repository: {error}");
    Err(match app.publications.store_failure() {
        Some(_) => ApiError::unavailable(text),
        None => ApiError::refused(StatusCode::BAD_GATEWAY, text),
    })
}
