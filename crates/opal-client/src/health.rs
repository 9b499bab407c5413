//! `/healthy`, `/ready` and their old names.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::client::App;
use crate::transactions::{Reason, TransactionState};

/// `GET /healthy`, `GET /healthcheck`, `GET /`: 200 while the engine holds what it should, else
/// 503 with what is wrong, since when, and where.
pub(crate) async fn healthy(State(app): State<App>) -> Response {
    match app.transactions.read(TransactionState::unhealthy) {
        reasons if reasons.is_empty() => {
            Json(json!({ "status": "ok", "online": true })).into_response()
        }
        reasons => unavailable(&reasons),
    }
}

/// `GET /ready`: 200 once the engine has been filled.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    match app.transactions.read(TransactionState::unready) {
        reasons if reasons.is_empty() => Json(json!({ "status": "ok" })).into_response(),
        reasons => unavailable(&reasons),
    }
}

fn unavailable(reasons: &[Reason]) -> Response {
    let body = json!({ "status": "unavailable", "reasons": reasons });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
