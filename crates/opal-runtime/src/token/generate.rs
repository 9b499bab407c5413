//! New keys, for those who have none yet.

use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};

/// A new RSA key in the forms in which settings take it.
pub struct GeneratedKey {
    /// The private key, PKCS#8 PEM. A secret.
    pub private_pem: String,
    /// The public key, SPKI PEM.
    pub public_pem: String,
}

impl std::fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GeneratedKey")
            .field("public_pem", &self.public_pem)
            .finish_non_exhaustive()
    }
}

/// No key could be made: the system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("could not make a key")]
pub struct GenerateError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Makes an RSA key of 2048 bits, for RS256. Takes some tenths of a second.
///
/// # Errors
///
/// If the system gives no randomness.
pub fn generate() -> Result<GeneratedKey, GenerateError> {
    let mut rng = rsa::rand_core::OsRng;
    let key = RsaPrivateKey::new(&mut rng, 2048).map_err(|e| GenerateError(e.into()))?;
    let private = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|e| GenerateError(e.into()))?;
    let public = key
        .to_public_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|e| GenerateError(e.into()))?;
    Ok(GeneratedKey {
        private_pem: private.to_string(),
        public_pem: public,
    })
}
