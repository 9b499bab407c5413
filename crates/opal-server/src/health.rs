//! Whether the server is there.

use axum::Json;
use serde_json::{Value, json};

/// `GET /` and `GET /healthcheck`.
pub(crate) async fn check() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
