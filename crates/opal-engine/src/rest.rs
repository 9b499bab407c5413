//! OPA's REST API, as applications use it, over an [`Engine`].
//!
//! Paths, statuses and bodies are OPA's. What differs on purpose: extra slashes in a path are
//! ignored instead of redirected, `/v1/policies` answers without the syntax tree, and the parameters
//! `metrics`, `instrument`, `provenance` and `explain` are ignored.

mod answer;
mod data;
mod page;
mod policies;
mod query;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use crate::Engine;
use answer::Answer;

/// The API over `engine`.
pub(crate) fn router(engine: Engine) -> Router {
    let policy = get(policies::get)
        .put(policies::put)
        .delete(policies::delete);
    Router::new()
        .route("/", get(page::page).post(data::default_decision))
        .route("/health", get(health))
        .route("/v0/data", post(data::post_v0))
        .route("/v0/data/{*path}", post(data::post_v0))
        .route("/v1/data", documents())
        .route("/v1/data/", documents())
        .route("/v1/data/{*path}", documents().delete(data::delete))
        .route("/v1/policies", get(policies::list))
        .route("/v1/policies/{*id}", policy)
        .route("/v1/query", get(query::get).post(query::post))
        .fallback(no_such_page)
        .with_state(engine)
}

fn documents() -> MethodRouter<Engine> {
    get(data::get)
        .post(data::post)
        .put(data::put)
        .patch(data::patch)
}

/// `GET /health`: the engine has no bundles or plugins of its own to wait for.
async fn health() -> Answer {
    Answer::empty()
}

async fn no_such_page() -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::NOT_FOUND, plain, "404 page not found\n").into_response()
}
