//! How tokens are signed.

use std::fmt;

use super::keys::{Curve, PublicKey};

/// An algorithm that tokens can be signed with here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(jsonwebtoken::Algorithm);

const NAMES: [(&str, jsonwebtoken::Algorithm); 9] = [
    ("RS256", jsonwebtoken::Algorithm::RS256),
    ("RS384", jsonwebtoken::Algorithm::RS384),
    ("RS512", jsonwebtoken::Algorithm::RS512),
    ("PS256", jsonwebtoken::Algorithm::PS256),
    ("PS384", jsonwebtoken::Algorithm::PS384),
    ("PS512", jsonwebtoken::Algorithm::PS512),
    ("ES256", jsonwebtoken::Algorithm::ES256),
    ("ES384", jsonwebtoken::Algorithm::ES384),
    ("EdDSA", jsonwebtoken::Algorithm::EdDSA),
];

impl Algorithm {
    /// The algorithm with that name.
    ///
    /// Not among them: `none`, which signs nothing; HS256 and its kin, which have one secret where
    /// OPAL publishes a public key (they fail at the start of released OPAL too); ES512, ES521 and
    /// ES256K.
    pub fn parse(name: &str) -> Option<Self> {
        let (_, algorithm) = NAMES.iter().find(|(known, _)| *known == name)?;
        Some(Self(*algorithm))
    }

    /// The names of all algorithms.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, algorithm)| *algorithm == self.0);
        found.map_or("none", |(name, _)| name)
    }

    /// Whether keys of this kind work with it.
    pub(super) fn fits(self, key: &PublicKey) -> bool {
        use jsonwebtoken::Algorithm as A;
        match key {
            PublicKey::Rsa { .. } => matches!(
                self.0,
                A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512
            ),
            PublicKey::Ec(Curve::P256, _) => self.0 == A::ES256,
            PublicKey::Ec(Curve::P384, _) => self.0 == A::ES384,
            PublicKey::Ed25519(_) => self.0 == A::EdDSA,
        }
    }

    pub(super) fn inner(self) -> jsonwebtoken::Algorithm {
        self.0
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
