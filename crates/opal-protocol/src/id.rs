//! Identifiers: small types so that one cannot be passed for another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The full, lower-case hexadecimal id of a git commit (SHA-1 or SHA-256).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitHash(String);

impl CommitHash {
    /// Takes `text` if it is 40 or 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let long_enough = matches!(text.len(), 40 | 64);
        (long_enough && text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| Self(text.to_ascii_lowercase()))
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, enough for people.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant of the deployment. Everything that is kept or published belongs to one. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(Arc<str>);

impl ScopeId {
    /// The scope of those who name none.
    pub const DEFAULT: &'static str = "default";

    /// The id as it appears in routes and topics.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the scope of those who name none.
    pub fn is_default(&self) -> bool {
        *self.0 == *Self::DEFAULT
    }
}

impl Default for ScopeId {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl From<&str> for ScopeId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one publish, given by the publisher or made by the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateId(Box<str>);

impl UpdateId {
    /// A new id in the form that Python OPAL makes: 32 hexadecimal digits of a UUIDv4.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.simple().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for UpdateId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_hash_is_forty_or_sixty_four_hex_digits() {
        assert!(CommitHash::parse(&"a1".repeat(20)).is_some());
        assert!(CommitHash::parse(&"a1".repeat(32)).is_some());
        assert_eq!(CommitHash::parse("main"), None);
        assert_eq!(CommitHash::parse(&"g1".repeat(20)), None);
    }
}
