//! `/healthy`, `/ready` and their old names.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::client::App;

/// `GET /healthy`, `GET /healthcheck`, `GET /`: 200 while the engine holds what it should; else
/// 503, with what is wrong, since when, and where.
pub(crate) async fn healthy(State(app): State<App>) -> Response {
    let failing = app.transactions.failing();
    if app.transactions.healthy() {
        return Json(json!({ "status": "ok", "online": true })).into_response();
    }
    let body = json!({ "status": "unavailable", "failing": failing });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// `GET /ready`: 200 once the engine has been filled.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    if app.transactions.ready() {
        return Json(json!({ "status": "ok" })).into_response();
    }
    let body = json!({ "status": "unavailable" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
