//! Every route, one line each.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::ApiError;
use crate::extract::MAX_BODY;
use crate::server::App;
use crate::{data, health, policy, security, websocket};

/// The server's HTTP interface.
pub fn router(app: App) -> Router {
    let config = Arc::clone(&app.config);
    Router::new()
        .route("/", get(health::check))
        .route("/healthcheck", get(health::check))
        .route("/policy", get(policy::api::bundle))
        .route("/webhook", post(policy::webhook::receive))
        .route(&config.data.default_source_route, get(data::empty))
        .route(
            &config.data.config_route,
            get(data::sources).post(data::publish),
        )
        .route(&config.data.report_route, post(data::report))
        .route("/token", post(security::issue))
        .route(&config.jwks_route, get(security::jwks))
        .route("/ws", any(websocket::connect))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(cors(&config.allowed_origins))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal.into_response()
        }))
        .with_state(app)
}

async fn method_not_allowed() -> Response {
    use axum::http::StatusCode;
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response()
}

fn cors(origins: &[String]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let listed = origins.iter().filter_map(|origin| origin.parse().ok());
    let origins = if any {
        AllowOrigin::mirror_request()
    } else {
        AllowOrigin::list(listed)
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods([
            Method::DELETE,
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PATCH,
            Method::POST,
            Method::PUT,
        ])
        .vary([HeaderName::from_static("origin")])
        .max_age(Duration::from_secs(600))
}
