//! `GET /policy`: bundles.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opal_protocol::{RepoPath, ScopeId};
use tracing::error;
use url::form_urlencoded;

use super::BundleError;
use crate::error::ApiError;
use crate::extract::Bearer;
use crate::position::{self, Made, begin_read};
use crate::server::App;

/// `GET /policy?path=…&base_hash=…`: the bundle of the current commit, complete or since a commit.
/// Needs any token.
///
/// With `X-Opal-At-Least` it is of that position or later, or 503. `X-Opal-Position` says up to where
/// the answer holds everything.
pub(crate) async fn bundle(
    _bearer: Bearer,
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut directories = Vec::new();
    let mut base = None;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "path" => directories.push(RepoPath::normalized(&value)),
            "base_hash" => base = Some(value.into_owned()),
            _ => {}
        }
    }
    let scope = ScopeId::default();
    let position = begin_read(&app, &scope, &headers, Made::FromPolicy).await?;
    let repo = app.policy.as_ref().map(|policy| &policy.repo);
    let bundle = match repo {
        Some(repo) => repo.bundle(&directories, base.as_deref()).await,
        None => Err(BundleError::NotCloned),
    };
    match bundle {
        Ok(json) => {
            let headers = [(header::CONTENT_TYPE, "application/json")];
            let mut response = (headers, json).into_response();
            position::say(&mut response, position);
            Ok(response)
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &BundleError) -> ApiError {
    let Some(detail) = error.detail() else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        error!(cause, "Could not make a bundle: {error}");
        return ApiError::Internal;
    };
    match error {
        BundleError::NotCloned | BundleError::NotReady => ApiError::unavailable(detail),
        _ => ApiError::refused(StatusCode::NOT_FOUND, detail),
    }
}
