//! `GET /`: a page to try queries with.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

/// The page; it needs nothing from elsewhere.
pub(super) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy)];
    (headers, Html(include_str!("page.html"))).into_response()
}
