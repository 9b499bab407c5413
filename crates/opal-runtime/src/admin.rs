//! What both daemons do besides running: the commands `generate-secret`, `obtain-token`,
//! `publish-data-update`, `print-config` and `version`, with upstream's options and output.
//!
//! A daemon's `main` reads its [`CommandLine`](crate::config::CommandLine), turns it into a [`Command`], does `Run` itself and
//! leaves the rest to [`Command::execute`]. Differences from upstream are on purpose: problems of
//! all options are reported together and end with exit code 2, a refused request ends with 1,
//! and no secret is printed but the one that was asked for.

mod arguments;
mod command;
mod obtain_token;
mod publish;
mod secret;
mod text;

use std::fmt;

pub use command::{COMMANDS, Command};
pub use obtain_token::ObtainToken;
pub use publish::PublishDataUpdate;
pub use secret::{GenerateSecret, SecretFormat};
pub use text::{header, help, usage};

use crate::http::HttpClientError;
use opal_protocol::RedactedUrl;

/// The version of OPAL whose behaviour this is, and which `version` prints.
pub const OPAL_VERSION: &str = "0.9.9";

/// All that is wrong with a command's options. The exit code is 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageErrors(pub Vec<String>);

impl fmt::Display for UsageErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for UsageErrors {}

/// Why a command failed. The exit code is 1. No message holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No HTTP client could be made.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// The server could not be reached.
    #[error("could not reach `{url}`")]
    Unreachable {
        /// The server.
        url: RedactedUrl,
        /// Why.
        source: reqwest::Error,
    },
    /// The server answered, but not with what was asked for.
    #[error("`{url}` answered {status}: {reason}")]
    Refused {
        /// The server.
        url: RedactedUrl,
        /// Its status.
        status: reqwest::StatusCode,
        /// What it said, without secrets.
        reason: String,
    },
    /// The options name no entry.
    #[error("nothing was published")]
    NothingToPublish,
    /// The result could not be printed.
    #[error("could not write")]
    Output(#[from] std::io::Error),
}

impl AdminError {
    fn unreachable(url: &str, error: reqwest::Error) -> Self {
        Self::Unreachable {
            url: RedactedUrl::from(url),
            source: error.without_url(),
        }
    }
}
