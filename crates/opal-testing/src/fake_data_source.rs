//! A data source that answers what the test says, for better or worse, and remembers who asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::wait;

/// An HTTP server on a loopback port of its own; it ends when dropped.
#[derive(Debug)]
pub struct FakeDataSource {
    url: String,
    state: Arc<Mutex<Known>>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Known {
    answers: BTreeMap<String, Reply>,
    requests: Vec<Received>,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path with the query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What a path answers.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Content,
    delay: Duration,
    needed_header: Option<(&'static str, String)>,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Bytes),
    /// So many bytes of one JSON string, sent piece by piece.
    Huge(usize),
    /// The connection stays open and nothing comes.
    Never,
}

impl Reply {
    /// 200 with a JSON document.
    pub fn json(document: &Value) -> Self {
        Self::new(
            "application/json",
            Content::Bytes(document.to_string().into()),
        )
    }

    /// 200 with an HTML page, as a login page in front of the source answers.
    pub fn html() -> Self {
        let page = Bytes::from_static(b"<!doctype html><title>Please log in</title>");
        Self::new("text/html; charset=utf-8", Content::Bytes(page))
    }

    /// 200 with text that claims to be JSON and is not.
    pub fn broken_json() -> Self {
        Self::new(
            "application/json",
            Content::Bytes(Bytes::from_static(b"{\"alice\": ")),
        )
    }

    /// An error status with a JSON body.
    pub fn status(status: u16) -> Self {
        let reply = Self::json(&serde_json::json!({"detail": "as the test says"}));
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ..reply
        }
    }

    /// 200 with a JSON string of `size` bytes.
    pub fn huge(size: usize) -> Self {
        Self::new("application/json", Content::Huge(size))
    }

    /// The request is read and nothing is ever answered.
    pub fn never() -> Self {
        Self::new("application/json", Content::Never)
    }

    /// The same answer, `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Only for requests with this header; others get 401.
    #[must_use]
    pub fn needing(self, name: &'static str, value: &str) -> Self {
        Self {
            needed_header: Some((name, value.to_owned())),
            ..self
        }
    }

    fn new(content_type: &'static str, body: Content) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body,
            delay: Duration::ZERO,
            needed_header: None,
        }
    }

    async fn respond(self, headers: &HeaderMap) -> Response {
        tokio::time::sleep(self.delay).await;
        if let Some((name, value)) = &self.needed_header
            && headers.get(*name).and_then(|got| got.to_str().ok()) != Some(value)
        {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let body = match self.body {
            Content::Bytes(bytes) => Body::from(bytes),
            Content::Huge(size) => huge_string(size),
            Content::Never => std::future::pending().await,
        };
        (
            self.status,
            [(header::CONTENT_TYPE, self.content_type)],
            body,
        )
            .into_response()
    }
}

fn huge_string(size: usize) -> Body {
    const PIECE: usize = 64 * 1024;
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let quote = || std::iter::once(Bytes::from_static(b"\""));
    let middle = std::iter::repeat_n(piece, size.div_ceil(PIECE));
    let pieces = quote()
        .chain(middle)
        .chain(quote())
        .map(Ok::<_, Infallible>);
    Body::from_stream(futures_util::stream::iter(pieces))
}

impl FakeDataSource {
    /// Starts listening; every path answers 404 until told otherwise, and accepts any `POST`.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(Known::default()));
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ends_with_us = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            state,
            _server: server,
        })
    }

    /// The address of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// What `path` answers from now on.
    pub fn set(&self, path: &str, reply: Reply) {
        self.known().answers.insert(path.to_owned(), reply);
    }

    /// Everything that was asked for at `path` so far, in order.
    pub fn requests(&self, path: &str) -> Vec<Received> {
        let known = self.known();
        let wanted = known.requests.iter().filter(|request| request.path == path);
        wanted.cloned().collect()
    }

    /// Waits for a JSON body at `path` that `is_it` accepts, whenever it came.
    pub async fn wait_for_json(
        &self,
        path: &str,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait::until(format!("{what} at `{path}`"), async || {
            let bodies: Vec<Value> = self.requests(path).iter().map(Received::json).collect();
            let found = bodies.iter().find(|body| is_it(body)).cloned();
            found.ok_or_else(|| anyhow::anyhow!("got {}", Value::from(bodies)))
        })
        .await
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Known>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let reply = {
        let mut known = state.lock().unwrap_or_else(PoisonError::into_inner);
        known.requests.push(Received {
            method: method.clone(),
            path,
            headers: headers.clone(),
            body,
        });
        known.answers.get(uri.path()).cloned()
    };
    match reply {
        Some(reply) => reply.respond(&headers).await,
        None if method == Method::POST => "{}".into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[tokio::test]
    async fn a_path_answers_what_it_was_told_and_remembers_the_request() {
        let source = FakeDataSource::start().await.unwrap();
        let document = serde_json::json!({"alice": "admin"});
        source.set("/users", Reply::json(&document).needing("x-key", "k"));

        let refused = http::get(source.url("/users")).send().await.unwrap();
        assert_eq!(refused.status, 401);
        let given = http::get(source.url("/users"))
            .header("x-key", "k")
            .send()
            .await;
        assert_eq!(given.unwrap().json().unwrap(), document);
        assert_eq!(source.requests("/users").len(), 2);
    }

    #[tokio::test]
    async fn a_source_that_never_answers_holds_the_request() {
        let source = FakeDataSource::start().await.unwrap();
        source.set("/silent", Reply::never());
        let request = http::get(source.url("/silent")).limit(Duration::from_millis(100));
        let error = request.send().await.unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error:#}");
    }

    #[tokio::test]
    async fn a_huge_answer_has_the_size_it_was_told() {
        let source = FakeDataSource::start().await.unwrap();
        source.set("/huge", Reply::huge(1 << 20));
        let answer = http::get(source.url("/huge")).send().await.unwrap();
        assert_eq!(answer.body.len(), (1 << 20) + 2);
    }
}
