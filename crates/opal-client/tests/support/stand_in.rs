//! A stand-in for any HTTP service: records what it is asked and answers as the test says.

use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What is answered.
pub(crate) enum Answer {
    Hang,
    With(u16, Vec<(&'static str, String)>, Vec<u8>),
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self::With(status, Vec::new(), Vec::new())
    }

    pub(crate) fn json(text: impl Into<String>) -> Self {
        Self::text("application/json", text)
    }

    pub(crate) fn text(content_type: &str, text: impl Into<String>) -> Self {
        Self::status(200)
            .header("content-type", content_type)
            .body(text.into())
    }

    pub(crate) fn header(self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Hang => Self::Hang,
            Self::With(status, mut headers, body) => {
                headers.push((name, value.to_owned()));
                Self::With(status, headers, body)
            }
        }
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        match self {
            Self::Hang => Self::Hang,
            Self::With(status, headers, _) => Self::With(status, headers, body.into()),
        }
    }

    async fn into_response(self) -> Response {
        let Self::With(status, headers, body) = self else {
            return pending().await;
        };
        let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(Body::from(body)).unwrap()
    }
}

/// The running service; it ends with this value.
pub(crate) struct StandIn {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _server: JoinSet<()>,
}

impl StandIn {
    /// Answers each request with what `answer` says of it and of those before it.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Seen, &[Seen]) -> Answer + Send + Sync + 'static,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (answer, record) = (Arc::new(answer), Arc::clone(&seen));
        let router = Router::new().fallback(move |request: Request| {
            let (answer, record) = (Arc::clone(&answer), Arc::clone(&record));
            async move {
                let request = read(request).await;
                let answer = {
                    let mut record = record.lock().unwrap();
                    let answer = answer(&request, &record);
                    record.push(request);
                    answer
                };
                answer.into_response().await
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            seen,
            _server: server,
        }
    }

    /// Everything asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and target of everything asked so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

async fn read(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}
