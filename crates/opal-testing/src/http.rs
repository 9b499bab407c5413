//! The least HTTP client a test needs: plain `http`, usually a connection for each request.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::Bytes;
pub use axum::http::Method;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::{Position, Url};

const LIMIT: Duration = Duration::from_secs(20);

/// A request being put together; [`Request::send`] sends it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    limit: Duration,
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status line's code.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A `GET` of `url`.
pub fn get(url: impl Into<String>) -> Request {
    request(Method::GET, url)
}

/// A `POST` to `url`.
pub fn post(url: impl Into<String>) -> Request {
    request(Method::POST, url)
}

/// A request with any method.
pub fn request(method: Method, url: impl Into<String>) -> Request {
    Request {
        method,
        url: url.into(),
        headers: Vec::new(),
        body: Bytes::new(),
        limit: LIMIT,
    }
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sets a JSON body and its content type.
    pub fn json(self, body: &impl Serialize) -> anyhow::Result<Self> {
        let body = serde_json::to_vec(body)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sets the body as it is.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// How long the whole exchange may take; 20 s unless said otherwise.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends the request and reads the whole answer. Redirects are not followed.
    pub async fn send(self) -> anyhow::Result<Answer> {
        let name = format!("{} {}", self.method, self.url);
        let limit = self.limit;
        let exchange = tokio::time::timeout(limit, self.exchange()).await;
        exchange
            .with_context(|| format!("no answer to `{name}` within {limit:?}"))?
            .with_context(|| format!("`{name}` failed"))
    }

    async fn exchange(self) -> anyhow::Result<Answer> {
        Connection::open(&self.url).await?.send(self).await
    }
}

/// One connection that serves request after request.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects to the host of `url`.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url)?;
        ensure!(url.scheme() == "http", "only plain http is supported here");
        let stream = TcpStream::connect(url.socket_addrs(|| None)?.as_slice()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // A failure shows as the error of the request it hit.
            let _seen_by_the_request = connection.await;
        });
        Ok(Self {
            sender,
            host: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            _driver: driver,
        })
    }

    /// Sends a request, without the time limit of [`Request::send`], and reads the whole answer.
    pub async fn send(&mut self, request: Request) -> anyhow::Result<Answer> {
        let url = Url::parse(&request.url)?;
        let mut built = hyper::Request::builder()
            .method(request.method)
            .uri(&url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, &self.host);
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        self.sender.ready().await?;
        let response = self
            .sender
            .send_request(built.body(Full::new(request.body))?)
            .await?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}

impl Answer {
    /// This answer, if its status is `status`; else an error that quotes the body.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        ensure!(
            self.status.as_u16() == status,
            "expected {status}, got {} with body `{}`",
            self.status,
            self.text()
        );
        Ok(self)
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("answered {}, not JSON: `{}`", self.status, self.text()))
    }

    /// The start of the body as text, for messages and plain comparisons.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .chars()
            .take(4_000)
            .collect()
    }
}
