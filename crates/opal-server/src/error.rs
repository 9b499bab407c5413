//! What a caller gets instead of an answer.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opal_protocol::Position;
use opal_protocol::validate::Violation;
use opal_runtime::token::TokenError;
use serde_json::{Value, json};

use crate::position;

/// A refusal or failure, in the form that released OPAL's callers know: `{"detail": …}`.
#[derive(Debug)]
pub enum ApiError {
    /// 401: the token is missing, wrong, or not for this.
    Unauthorized(TokenError),
    /// 422: the body is not what it should be.
    Invalid(Vec<Violation>),
    /// Any other status with its text.
    Refused {
        /// The status.
        status: StatusCode,
        /// What callers read.
        detail: Value,
        /// Seconds after which a retry is worthwhile, if that is known.
        retry_after: Option<u32>,
    },
    /// 503: what was asked for is not here yet; this is where the feed is.
    Behind(Position),
    /// 500: the reason is in the log.
    Internal,
}

impl ApiError {
    /// A refusal with a text.
    pub fn refused(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self::Refused {
            status,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// 400 with a text.
    pub fn bad_request(detail: impl Into<Value>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, detail)
    }

    /// 503 for something that passes.
    pub fn unavailable(detail: impl Into<Value>) -> Self {
        Self::Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail: detail.into(),
            retry_after: Some(1),
        }
    }

    /// 404 as for a route that does not exist.
    pub fn not_found() -> Self {
        Self::refused(StatusCode::NOT_FOUND, "Not Found")
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::Unauthorized(error)
    }
}

impl From<Vec<Violation>> for ApiError {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthorized(error) => {
                let body = Json(json!({ "detail": error.detail() }));
                let headers = [(header::WWW_AUTHENTICATE, "Bearer")];
                (StatusCode::UNAUTHORIZED, headers, body).into_response()
            }
            Self::Invalid(violations) => {
                let body = Json(json!({ "detail": violations }));
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
            Self::Refused {
                status,
                detail,
                retry_after,
            } => {
                let mut response = (status, Json(json!({ "detail": detail }))).into_response();
                if let Some(seconds) = retry_after {
                    let value = HeaderValue::from(seconds);
                    response.headers_mut().insert(header::RETRY_AFTER, value);
                }
                response
            }
            Self::Behind(head) => {
                let text = "this server has not got to the position that was asked for";
                let mut response = Self::unavailable(text).into_response();
                position::say(&mut response, Some(head));
                response
            }
            Self::Internal => {
                let body = Json(json!({ "error": "Uncaught server exception" }));
                (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
            }
        }
    }
}
