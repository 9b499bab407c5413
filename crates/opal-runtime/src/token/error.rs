//! Why a bearer is refused: upstream's texts, without the token.

use opal_protocol::PeerType;
use serde_json::{Value, json};

use crate::python;

/// Why a request is not authorised. The text is what upstream's peers see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// No header, or another scheme.
    #[error("access token was not provided")]
    NotProvided,
    /// Malformed, or not signed by our key.
    #[error("Could not decode access token")]
    Undecodable,
    /// Its time is over.
    #[error("Access token is expired")]
    Expired,
    /// Made for someone else.
    #[error("Invalid access token: invalid audience claim")]
    InvalidAudience,
    /// Made by someone else.
    #[error("Invalid access token: invalid issuer claim")]
    InvalidIssuer,
    /// A claim or header that cannot be.
    #[error("Unknown JWT error")]
    Unknown,
    /// `sub` is missing or no UUID.
    #[error("invalid sub claim")]
    InvalidSubject,
    /// The route asks for a peer type, the token has none.
    #[error("Missing 'peer_type' claim for OPAL jwt token")]
    MissingPeerType,
    /// The peer type is none we know.
    #[error("Invalid 'peer_type' claim for OPAL jwt token: {0}")]
    UnknownPeerType(String),
    /// The route asks for another peer type.
    #[error(
        "Incorrect 'peer_type' claim for OPAL jwt token: PeerType.{actual}, expected: PeerType.{expected}"
    )]
    WrongPeerType {
        /// The token's.
        actual: PeerType,
        /// The route's.
        expected: PeerType,
    },
    /// Topics beyond those that the token permits.
    #[error("Invalid 'topics' to publish {{{}}}", quoted(.0))]
    ForbiddenTopics(Vec<String>),
    /// `POST /token` without a header.
    #[error("Authorization header is required!")]
    HeaderRequired,
    /// `POST /token` with another master token.
    #[error("unauthorized to access this endpoint!")]
    WrongMasterToken,
}

impl TokenError {
    /// The value of `detail` in the body of the 401 answer.
    pub fn detail(&self) -> Value {
        json!({"error": self.to_string()})
    }
}

fn quoted(topics: &[String]) -> String {
    let topics: Vec<String> = topics.iter().map(|topic| python::text(topic)).collect();
    topics.join(", ")
}
