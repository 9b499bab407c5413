//! Who calls, and what they sent: checked before a handler runs.
//!
//! The order is upstream's: the token's signature, then the body, then whether this kind of
//! bearer may do this. So a handler takes [`Bearer`] first, [`JsonBody`] next, and asks
//! [`Bearer::require`] itself.

use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use bytes::Bytes;
use chrono::Utc;
use opal_protocol::validate::Violation;
use opal_protocol::{Claims, PeerType, ScopeId, Topic};
use opal_runtime::token::{Access, TokenError};
use tracing::warn;

use crate::error::ApiError;

/// The largest body that is read, where a route sets no limit of its own.
pub const MAX_BODY: usize = 32 * 1024 * 1024;

/// The bearer of a valid token, or anyone if the server has no keys.
#[derive(Debug)]
pub struct Bearer {
    /// What the token says; `None` if nobody is asked for one.
    pub claims: Option<Claims>,
}

impl Bearer {
    /// Checks what `parts` carry against `access`.
    pub fn verify(access: &Access, parts: &Parts) -> Result<Self, TokenError> {
        let header = parts.headers.get(header::AUTHORIZATION);
        let header = header.map(HeaderValue::as_bytes);
        let claims = access.verify(header, Utc::now()).inspect_err(|error| {
            let path = parts.uri.path();
            warn!(http.path = path, "Refused a request to `{path}`: {error}");
        })?;
        Ok(Self { claims })
    }

    /// Refuses a bearer that is not of this type.
    pub fn require(&self, expected: PeerType) -> Result<(), TokenError> {
        match &self.claims {
            Some(claims) => opal_runtime::token::require_peer_type(claims, expected),
            None => Ok(()),
        }
    }

    /// Whether the bearer may read this scope: any, if the token lists none.
    pub fn may_read(&self, scope: &ScopeId) -> bool {
        let claims = self.claims.as_ref();
        let allowed = claims.and_then(|claims| claims.allowed_scopes.as_ref());
        allowed.is_none_or(|allowed| allowed.iter().any(|allowed| allowed == scope.as_str()))
    }

    /// Refuses (403) a bearer that may not read this scope.
    pub fn require_scope(&self, scope: &ScopeId) -> Result<(), ApiError> {
        match self.may_read(scope) {
            true => Ok(()),
            false => {
                let text = format!("this token is not for scope `{scope}`");
                Err(ApiError::refused(StatusCode::FORBIDDEN, text))
            }
        }
    }

    /// Refuses a bearer that may not publish to all of these topics, compared exactly.
    pub fn require_topics<'t>(
        &self,
        topics: impl Iterator<Item = &'t Topic>,
    ) -> Result<(), TokenError> {
        match &self.claims {
            Some(claims) => opal_runtime::token::require_topics(claims, topics.map(Topic::as_str)),
            None => Ok(()),
        }
    }
}

impl<S> FromRequestParts<S> for Bearer
where
    S: Send + Sync,
    Access: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self::verify(&Access::from_ref(state), parts)?)
    }
}

/// The bytes of a JSON body, not read yet: each type names its own violations.
#[derive(Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_json = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(is_json);
        let body = Bytes::from_request(request, state).await.map_err(|_| {
            let text = "the body is larger than this route takes, or broke off";
            ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, text)
        })?;
        let at_body = |msg: &str, kind: &str| {
            let violation = Violation::new(vec!["body".into()], msg, kind);
            Err(ApiError::Invalid(vec![violation]))
        };
        if body.is_empty() {
            return at_body("field required", "value_error.missing");
        }
        if !is_json {
            return at_body("value is not a valid dict", "type_error.dict");
        }
        Ok(Self(body))
    }
}

/// `application/json`, or a type that ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}
