//! What browsers on other origins may do: answered exactly as by the released server, preflight
//! bodies included.
//!
//! Both daemons put [`cors()`] around all of their routes, by axum's `from_fn_with_state`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// The origins that browsers may call from: `OPAL_ALLOWED_ORIGINS`.
#[derive(Debug, Clone)]
pub enum Origins {
    /// `*`.
    Any,
    /// These, compared exactly.
    Listed(Arc<[String]>),
}

impl Origins {
    /// Origins as they are listed in the setting.
    pub fn new(origins: &[String]) -> Self {
        match origins.iter().any(|origin| origin == "*") {
            true => Self::Any,
            false => Self::Listed(origins.into()),
        }
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|one| origin == one.as_str()),
        }
    }
}

/// Answers preflights, and marks the answers to other requests from a browser.
pub async fn cors(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if request.method() == Method::OPTIONS
        && let Some(method) = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        return preflight(&origins, origin, method, asked);
    }
    let has_cookie = headers.contains_key(header::COOKIE);
    let mut response = next.run(request).await;
    mark(response.headers_mut(), &origins, origin, has_cookie);
    response
}

fn preflight(
    origins: &Origins,
    origin: HeaderValue,
    method: &HeaderValue,
    asked: Option<&HeaderValue>,
) -> Response {
    let mut refused = Vec::new();
    let mut headers = HeaderMap::new();
    headers.insert(header::VARY, ORIGIN);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    match origins.allow(&origin) {
        true => drop(headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)),
        false => refused.push("origin"),
    }
    if !METHODS.split(", ").any(|known| method == known) {
        refused.push("method");
    }
    if let Some(asked) = asked {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    if refused.is_empty() {
        return (headers, "OK").into_response();
    }
    let text = format!("Disallowed CORS {}", refused.join(", "));
    (StatusCode::BAD_REQUEST, headers, text).into_response()
}

fn mark(headers: &mut HeaderMap, origins: &Origins, origin: HeaderValue, has_cookie: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    match origins {
        Origins::Any if !has_cookie => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        }
        // Browsers refuse `*` for a request that carries a cookie.
        _ if origins.allow(&origin) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.append(header::VARY, ORIGIN);
        }
        _ => {}
    }
}
