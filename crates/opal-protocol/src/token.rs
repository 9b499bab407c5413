//! What a token claims, and what is asked of `POST /token`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a token's bearer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerType {
    /// An OPAL client.
    Client,
    /// Someone who publishes data updates.
    #[serde(rename = "datasource")]
    DataSource,
    /// Someone who asks a client about itself.
    Listener,
}

impl PeerType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::DataSource => "datasource",
            Self::Listener => "listener",
        }
    }

    /// The peer type with that name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Client, Self::DataSource, Self::Listener]
            .into_iter()
            .find(|peer| peer.as_str() == name)
    }
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The claims of a verified token. No claim beyond `sub` is required for a token to be valid;
/// each route asks for what it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The peer, a UUID in any of the forms that Python's parser takes.
    #[serde(default)]
    pub sub: String,
    /// When the token ends, in seconds since 1970.
    #[serde(default)]
    pub exp: Option<i64>,
    /// Kept as text: an unknown type is an error of the route that asks, not of the token.
    #[serde(default)]
    pub peer_type: Option<Value>,
    /// Limits subscribe and publish to exactly these topics.
    #[serde(default)]
    pub permitted_topics: Option<Vec<String>>,
    /// The scopes this bearer may read.
    #[serde(default)]
    pub allowed_scopes: Option<Vec<String>>,
    /// Whatever else the token says.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The body of `POST /token`, after its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessTokenRequest {
    /// The peer's id, a new UUIDv4 by default.
    pub id: uuid::Uuid,
    /// What the bearer will be.
    pub peer_type: PeerType,
    /// How long the token holds; may be negative.
    pub ttl: chrono::TimeDelta,
    /// Merged last into the payload, so they may override any claim.
    pub claims: Map<String, Value>,
}
