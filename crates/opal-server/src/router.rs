//! Every route, one line each.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use opal_runtime::cors::{Origins, cors};
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::extract::MAX_BODY;
use crate::server::App;
use crate::{base, data, fleet, health, policy, security, websocket};

/// The largest payload that GitHub sends; anyone may post one, and is judged once it is read.
const MAX_WEBHOOK: usize = 25 * 1024 * 1024;
/// Room for a few claims.
const MAX_TOKEN_REQUEST: usize = 64 * 1024;

/// The server's HTTP interface.
pub fn router(app: App) -> Router {
    let config = Arc::clone(&app.config);
    let origins = Origins::new(&config.allowed_origins);
    let (webhook_limit, token_limit) = (
        DefaultBodyLimit::max(MAX_WEBHOOK),
        DefaultBodyLimit::max(MAX_TOKEN_REQUEST),
    );
    let routes = Router::new()
        .route("/", get(health::check))
        .route("/healthcheck", get(health::check))
        .route("/policy", get(policy::api::bundle))
        .route("/policy/refresh", post(policy::refresh::refresh))
        .route("/v1/feed/base", get(base::base))
        .route("/v1/fleet", get(fleet::fleet))
        .route(
            "/webhook",
            post(policy::webhook::receive).layer(webhook_limit),
        )
        .route(&config.data.default_source_route, get(data::empty))
        .route(
            &config.data.config_route,
            get(data::sources).post(data::publish),
        )
        .route(&config.data.report_route, post(data::report))
        .route("/token", post(security::issue).layer(token_limit))
        .route(&config.jwks_route, get(security::jwks))
        .route("/ws", any(websocket::connect))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal.into_response()
        }))
        .with_state(app);
    // `Allow` is written outside of a route's own layers, so these stand around all routes.
    Router::new()
        .fallback_service(routes)
        .layer(map_response(allow_as_upstream))
        .layer(from_fn_with_state(origins, cors))
}

async fn method_not_allowed() -> Response {
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response()
}

/// As upstream, `Allow` does not name HEAD, although we answer it wherever we answer GET.
async fn allow_as_upstream(mut response: Response) -> Response {
    let Some(allow) = response.headers().get(header::ALLOW) else {
        return response;
    };
    let methods = allow.to_str().unwrap_or_default().split(',');
    let named: Vec<&str> = methods.filter(|method| *method != "HEAD").collect();
    if let Ok(value) = HeaderValue::from_str(&named.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
