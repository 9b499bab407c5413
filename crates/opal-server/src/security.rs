//! `POST /token` and the public key.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use opal_protocol::AccessTokenRequest;
use opal_runtime::token::{IssuedToken, jwks_json};
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::server::App;

/// `POST /token`: a token for a peer, for whoever knows the master token.
///
/// The order of the checks is upstream's: the master token, the body, whether we can sign at all.
pub(crate) async fn issue(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<JsonBody, ApiError>,
) -> Result<Json<IssuedToken>, ApiError> {
    let header = headers.get(header::AUTHORIZATION);
    let header = header.map(HeaderValue::as_bytes);
    let master = &app.config.security.master;
    master.check(header).inspect_err(|error| {
        warn!("Refused to issue a token: {error}");
    })?;
    let request = AccessTokenRequest::parse(&body?.0, Uuid::new_v4())?;
    let Some(signer) = &app.config.security.signer else {
        let text = "opal server was not configured with security, cannot generate tokens!";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(ApiError::refused(status, text));
    };
    info!(peer.id = %request.id, peer.type_ = %request.peer_type, "Issued a token");
    Ok(Json(signer.issue(&request, Utc::now()).map_err(
        |error| {
            warn!("Could not sign a token: {error}");
            ApiError::Internal
        },
    )?))
}

/// `GET /.well-known/jwks.json`: the key that verifies our tokens.
pub(crate) async fn jwks(State(app): State<App>) -> Response {
    let body = jwks_json(app.config.security.public_key.as_ref());
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
