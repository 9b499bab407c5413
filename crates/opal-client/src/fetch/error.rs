//! Why a document could not be fetched.

use std::time::Duration;

use opal_protocol::RedactedUrl;
use opal_runtime::BoxError;
use reqwest::StatusCode;

/// Why a document could not be fetched. Names the URL without its secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// `config.fetcher` names a provider that does not exist.
    #[error("unknown fetch provider `{name}`, expected one of: {}", known.join(", "))]
    UnknownProvider {
        /// What the entry asks for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The entry's `config` cannot be followed.
    #[error("invalid `config` for fetch provider `{provider}`: {problem}")]
    InvalidConfig {
        /// The provider.
        provider: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The entry's `url` is no URL that the provider can fetch.
    #[error("cannot fetch `{url}`: {problem}")]
    InvalidUrl {
        /// What was given.
        url: RedactedUrl,
        /// What is wrong with it.
        problem: String,
    },
    /// There was no answer, or it broke off.
    #[error("could not reach `{url}`")]
    Unreachable {
        /// What was asked.
        url: RedactedUrl,
        /// Why.
        source: BoxError,
    },
    /// The source answered, with a failure.
    #[error("`{url}` answered {status}")]
    Rejected {
        /// What was asked.
        url: RedactedUrl,
        /// The answer.
        status: StatusCode,
        /// When the source wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer did not arrive in time.
    #[error("no complete answer from `{url}` within {limit:?}")]
    TimedOut {
        /// What was asked.
        url: RedactedUrl,
        /// The time it had.
        limit: Duration,
    },
    /// The answer is longer than allowed, counted after decompression.
    #[error("the answer from `{url}` is longer than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: RedactedUrl,
        /// The longest answer taken.
        limit: usize,
    },
    /// The answer does not claim to be JSON.
    #[error("`{url}` answered with `{content_type}`, expected JSON")]
    WrongContentType {
        /// What was asked.
        url: RedactedUrl,
        /// What the answer claims to be.
        content_type: String,
    },
    /// The answer claims to be JSON and is not.
    #[error("the answer from `{url}` is not JSON")]
    NotJson {
        /// What was asked.
        url: RedactedUrl,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// The answer is not text.
    #[error("the answer from `{url}` is not UTF-8 text")]
    NotText {
        /// What was asked.
        url: RedactedUrl,
    },
    /// There is no document: 204, an empty body or `null`.
    #[error("the answer from `{url}` is empty")]
    Empty {
        /// What was asked.
        url: RedactedUrl,
    },
}

impl FetchError {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Rejected { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::UnknownProvider { .. }
            | Self::InvalidConfig { .. }
            | Self::InvalidUrl { .. }
            | Self::TooLarge { .. }
            | Self::WrongContentType { .. }
            | Self::NotJson { .. }
            | Self::NotText { .. }
            | Self::Empty { .. } => false,
        }
    }

    /// How long the source asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
