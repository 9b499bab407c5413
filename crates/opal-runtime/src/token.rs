//! Keys and tokens: who signs, who verifies, who may do what.
//!
//! From settings to decisions: [`keys`] are read in any form that upstream takes; a [`TokenSigner`]
//! is made only of two that match; [`Access`] is open without keys and otherwise verifies; the
//! checks on [`Claims`] are what routes ask for. [`MasterToken`] guards the issuing.

mod algorithm;
mod error;
mod generate;
mod jwks;
pub mod keys;
mod pem;
mod settings;
mod signer;
mod verifier;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use opal_protocol::{Claims, PeerType};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use subtle::ConstantTimeEq;

pub use algorithm::Algorithm;
pub use error::TokenError;
pub use generate::{GenerateError, GeneratedKey, generate};
pub use jwks::jwks_json;
pub use settings::ServerSecurity;
pub use signer::{IssueError, IssuedToken, SignerError, TokenDetails, TokenSigner};
pub use verifier::{TokenVerifier, bearer};

use crate::python;

/// Whether requests need a token. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// No keys are configured: tokens are not looked at.
    #[default]
    Open,
    /// Every token is verified.
    Secured(Arc<TokenVerifier>),
}

impl Access {
    /// The claims of the bearer, or `None` if access is open.
    ///
    /// # Errors
    ///
    /// As [`TokenVerifier::verify`].
    pub fn verify(
        &self,
        authorization: Option<&[u8]>,
        now: DateTime<Utc>,
    ) -> Result<Option<Claims>, TokenError> {
        match self {
            Self::Open => Ok(None),
            Self::Secured(verifier) => verifier.verify(authorization, now).map(Some),
        }
    }

    /// Whether tokens are verified.
    pub fn is_secured(&self) -> bool {
        matches!(self, Self::Secured(_))
    }
}

/// Passes if the bearer is an `expected` peer.
///
/// # Errors
///
/// As upstream; the status is 401.
pub fn require_peer_type(claims: &Claims, expected: PeerType) -> Result<(), TokenError> {
    let actual = match &claims.peer_type {
        None | Some(Value::Null) => return Err(TokenError::MissingPeerType),
        Some(Value::String(name)) => {
            PeerType::parse(name).ok_or_else(|| TokenError::UnknownPeerType(name.clone()))?
        }
        Some(other) => return Err(TokenError::UnknownPeerType(python::value(other))),
    };
    match actual == expected {
        true => Ok(()),
        false => Err(TokenError::WrongPeerType { actual, expected }),
    }
}

/// Passes if the bearer may publish to all of `topics`, compared as they are written.
///
/// # Errors
///
/// Names the topics that are not permitted, each once.
pub fn require_topics<'a>(
    claims: &Claims,
    topics: impl IntoIterator<Item = &'a str>,
) -> Result<(), TokenError> {
    let Some(permitted) = &claims.permitted_topics else {
        return Ok(());
    };
    let mut forbidden: Vec<String> = Vec::new();
    for topic in topics {
        let known = |list: &[String]| list.iter().any(|item| item == topic);
        if !known(permitted) && !known(&forbidden) {
            forbidden.push(topic.to_owned());
        }
    }
    match forbidden.is_empty() {
        true => Ok(()),
        false => Err(TokenError::ForbiddenTopics(forbidden)),
    }
}

/// The secret that guards `POST /token`. Without one, everybody may ask.
#[derive(Debug, Clone, Default)]
pub struct MasterToken(Option<SecretString>);

impl MasterToken {
    /// Guards with `secret`, if there is one.
    pub fn new(secret: Option<SecretString>) -> Self {
        Self(secret)
    }

    /// Passes if the header carries the secret. The time it takes does not depend on how much of
    /// it is right.
    ///
    /// # Errors
    ///
    /// If there is no header, or not the secret in it.
    pub fn check(&self, authorization: Option<&[u8]>) -> Result<(), TokenError> {
        let Some(secret) = &self.0 else {
            return Ok(());
        };
        let authorization = authorization.ok_or(TokenError::HeaderRequired)?;
        let given = bearer(authorization).ok_or(TokenError::WrongMasterToken)?;
        let equal = secret.expose_secret().as_bytes().ct_eq(given);
        match bool::from(equal) {
            true => Ok(()),
            false => Err(TokenError::WrongMasterToken),
        }
    }
}
