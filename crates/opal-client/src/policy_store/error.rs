//! Why a change was not applied.

use std::fmt;
use std::time::Duration;

use opal_protocol::{DataPath, PatchError, RedactedUrl};
use opal_runtime::BoxError;
use reqwest::StatusCode;

/// Why a change was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine could not be asked, or its answer broke off before anything was changed.
    #[error("could not reach the policy store at `{url}`")]
    Unreachable {
        /// The request.
        url: RedactedUrl,
        /// Why.
        source: BoxError,
    },
    /// The engine did not answer in time.
    #[error("no answer from the policy store at `{url}` within {limit:?}")]
    TimedOut {
        /// The request.
        url: RedactedUrl,
        /// The time it had.
        limit: Duration,
    },
    /// The answer is no verdict of the engine on the change, or none that the request allows for.
    #[error("the policy store answered {status} to {method} `{url}`: {message}")]
    Rejected {
        /// The request's method.
        method: &'static str,
        /// The request.
        url: RedactedUrl,
        /// The answer.
        status: StatusCode,
        /// What the answer says.
        message: String,
    },
    /// There was no access token for the engine.
    #[error("could not get an access token from `{url}`")]
    NotAuthorized {
        /// The token server.
        url: RedactedUrl,
        /// Why.
        source: BoxError,
    },
    /// Some files of a bundle were refused; the list is never empty.
    #[error("bundle refused for {}: {}", count(problems), problems.first().map(ToString::to_string).unwrap_or_default())]
    Refused {
        /// What is wrong, file by file.
        problems: Vec<PolicyProblem>,
    },
    /// The patch cannot be applied to what is there.
    #[error("the patch for `{path}` does not apply: {problem}")]
    PatchFailed {
        /// Where the patch was to be applied.
        path: DataPath,
        /// The operation and what is wrong with it.
        problem: String,
    },
    /// The connection broke after a patch was sent: it may or may not have been applied, and must
    /// not be sent again. Whatever it was based on has to be taken anew.
    #[error("it is not known whether the patch for `{path}` was applied")]
    OutcomeUnknown {
        /// Where the patch was to be applied.
        path: DataPath,
        /// Why.
        source: Box<Self>,
    },
    /// The document cannot be stored at this place.
    #[error("the document for `{path}` cannot be stored: {problem}")]
    InvalidDocument {
        /// Where it was to go.
        path: DataPath,
        /// What is wrong with it.
        problem: String,
    },
    /// A bug in the embedded engine; only this change is affected.
    #[error("the policy engine failed: {0}")]
    EngineFailed(String),
    /// The engine's answer makes no sense.
    #[error("the policy store at `{url}` gave an answer that is not OPA's")]
    InvalidAnswer {
        /// The request.
        url: RedactedUrl,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
}

impl From<PatchError> for StoreError {
    fn from(PatchError { path, problem }: PatchError) -> Self {
        Self::PatchFailed { path, problem }
    }
}

impl StoreError {
    /// Whether the same change may succeed later. Only a verdict on what it says is final: that a
    /// token was rotated, that a proxy answers in the engine's place, or that the engine failed is
    /// nothing that the change could help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::NotAuthorized { .. }
            | Self::EngineFailed(_)
            | Self::InvalidAnswer { .. } => true,
            Self::Rejected { status, .. } => *status != StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused { .. }
            | Self::PatchFailed { .. }
            | Self::OutcomeUnknown { .. }
            | Self::InvalidDocument { .. } => false,
        }
    }

    /// What is wrong with the files of a bundle; empty for any other failure.
    pub fn problems(&self) -> &[PolicyProblem] {
        match self {
            Self::Refused { problems } => problems,
            _ => &[],
        }
    }
}

/// What is wrong with one file of a bundle, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PolicyProblem {
    /// The file's path in the repository.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub row: u32,
    /// Column, from 1; 0 if unknown.
    pub col: u32,
    /// The engine's name for this kind of problem, such as `rego_parse_error`.
    pub code: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            row,
            col,
            code,
            message,
        } = self;
        f.write_str(file)?;
        if *row > 0 {
            write!(f, ":{row}:{col}")?;
        }
        write!(f, ": {code}: {message}")
    }
}

fn count(problems: &[PolicyProblem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    }
}
