//! Bodies in and out: what all routes share.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use regorus::Value;
use serde_json::json;

use crate::{EngineError, PolicyProblem, ProblemCode, path};

/// A document or a policy may be this long.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 << 20;
/// A query with its input may be this long.
pub(super) const MAX_QUERY_BYTES: usize = 32 << 20;

/// What a route answers.
pub(super) type Outcome = Result<Answer, Failure>;

/// A success.
#[derive(Debug)]
pub(super) enum Answer {
    /// 200 with JSON text.
    Json(String),
    /// 204.
    Done,
    /// 304.
    NotModified,
}

impl Answer {
    /// `{}`
    pub(super) fn empty() -> Self {
        Self::Json("{}".to_owned())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Json(text) => json_response(StatusCode::OK, text),
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            Self::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        }
    }
}

fn json_response(status: StatusCode, mut text: String) -> Response {
    // As OPA, for people who read it in a terminal.
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// An error, with OPA's body.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    problems: Vec<PolicyProblem>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            problems: Vec::new(),
        }
    }

    /// 400 `invalid_parameter`.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
    }

    /// 404 `undefined_document`.
    pub(super) fn undefined(reference: &str) -> Self {
        let message = format!("document missing: {reference}");
        Self::new(StatusCode::NOT_FOUND, "undefined_document", message)
    }

    /// As OPA when it is not the request's text that is wrong, but what would be left.
    pub(super) fn of_operation(mut self) -> Self {
        if self.code == "invalid_parameter" {
            self.code = "invalid_operation";
        }
        self
    }

    fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    fn with(mut self, problems: Vec<PolicyProblem>) -> Self {
        self.problems = problems;
        self
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Policies(problems) => {
                Self::invalid("error(s) occurred while compiling module(s)").with(problems)
            }
            EngineError::Query(problems) => {
                let is_unreadable = problems.iter().any(|p| p.code == ProblemCode::Parse);
                let step = if is_unreadable {
                    "parsing"
                } else {
                    "compiling"
                };
                Self::invalid(format!("error(s) occurred while {step} query")).with(problems)
            }
            EngineError::Evaluation(problems) => {
                Self::internal("error(s) occurred while evaluating query").with(problems)
            }
            EngineError::PolicyNotFound(_) | EngineError::DocumentNotFound { .. } => {
                Self::new(StatusCode::NOT_FOUND, "resource_not_found", message)
            }
            // Answered as not modified where it can happen.
            EngineError::DocumentExists => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "resource_conflict",
                message,
            ),
            EngineError::WriteConflict(_) => {
                Self::new(StatusCode::NOT_FOUND, "resource_conflict", message)
            }
            EngineError::PolicyDataConflict(_)
            | EngineError::InvalidPatch(_)
            | EngineError::InvalidJson(_) => Self::invalid(message),
            EngineError::DeadlineExceeded | EngineError::Panicked(_) => Self::internal(message),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({ "code": self.code, "message": self.message });
        if !self.problems.is_empty() {
            body["errors"] = self.problems.iter().map(problem_body).collect();
        }
        json_response(self.status, format!("{body:#}"))
    }
}

fn problem_body(problem: &PolicyProblem) -> serde_json::Value {
    json!({
        "code": problem.code.as_str(),
        "message": problem.message,
        "location": { "file": problem.file, "row": problem.row, "col": problem.col },
    })
}

/// An object of these members.
pub(super) fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let members = members.into_iter();
    let members: BTreeMap<_, _> = members
        .map(|(name, value)| (Value::from(name), value))
        .collect();
    Value::from(members)
}

/// Reads a request's body, up to `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, limit).await.map_err(|_| {
        let message = format!("request body is broken or longer than {limit} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_parameter", message)
    })
}

/// The decoded segments of the request's path below `prefix`.
pub(super) fn segments(uri: &Uri, prefix: &str) -> Result<Vec<String>, Failure> {
    let below = uri.path().strip_prefix(prefix).unwrap_or_default();
    path::decode(below).ok_or_else(|| Failure::invalid("invalid path: broken escape"))
}

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters(pub(super) Vec<(String, String)>);

impl Parameters {
    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// Whether `pretty` is asked for, as OPA reads it: without a value, or `true`.
    pub(super) fn is_pretty(&self) -> bool {
        let mut values = self.0.iter().filter(|(key, _)| key == "pretty");
        values.any(|(_, value)| value.is_empty() || value.eq_ignore_ascii_case("true"))
    }
}

/// Whether the request wants to create only what is not there.
pub(super) fn is_create_only(headers: &HeaderMap) -> bool {
    headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value == "*")
}
