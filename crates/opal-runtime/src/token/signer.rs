//! Issuing tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Timelike, Utc};
use jsonwebtoken::EncodingKey;
use opal_protocol::{AccessTokenRequest, PeerType};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::algorithm::Algorithm;
use super::keys::{KeyError, PrivateKey, PublicKey};
use super::verifier::TokenVerifier;

/// Why keys cannot sign tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The algorithm asks for another kind of key.
    #[error("{0} does not work with this kind of key")]
    WrongKind(Algorithm),
    /// The library refuses the private key.
    #[error("the private key cannot sign with {0}; RSA keys need 2048 bits at least")]
    Unusable(Algorithm),
    /// The keys are not of one pair.
    #[error("private key and public key do not match")]
    Mismatch,
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why a token cannot be issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The end lies beyond the year 9999.
    #[error("the token would never end")]
    TooLong,
    /// The library failed.
    #[error("could not sign the token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Signs tokens with one key, audience and issuer.
#[derive(Clone)]
pub struct TokenSigner {
    key: EncodingKey,
    algorithm: Algorithm,
    audience: String,
    issuer: String,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The answer to `POST /token`, in upstream's order.
#[derive(Clone, Serialize)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// Always `bearer`.
    #[serde(rename = "type")]
    pub scheme: &'static str,
    /// What it is for.
    pub details: TokenDetails,
}

/// What an issued token is for.
#[derive(Debug, Clone, Serialize)]
pub struct TokenDetails {
    /// Its `sub`, with dashes.
    #[serde(serialize_with = "dashed")]
    pub id: Uuid,
    /// What was asked for; `claims` may say something else.
    #[serde(rename = "type")]
    pub peer_type: PeerType,
    /// Its end, without time zone (it is UTC), with microseconds unless they are zero.
    pub expired: String,
    /// The claims beyond the standard ones.
    pub claims: Map<String, Value>,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("details", &self.details)
            .finish_non_exhaustive()
    }
}

impl TokenSigner {
    /// A signer and the verifier of what it signs, if the keys are a pair.
    ///
    /// # Errors
    ///
    /// If the keys do not fit the algorithm or each other.
    pub fn new(
        private: &PrivateKey,
        public: &PublicKey,
        algorithm: Algorithm,
        audience: String,
        issuer: String,
    ) -> Result<(Self, TokenVerifier), SignerError> {
        let verifier = TokenVerifier::new(public, algorithm, audience.clone(), issuer.clone())
            .ok_or(SignerError::WrongKind(algorithm))?;
        let (private_key, public_key) = (private.encoding_key(), public.decoding_key());
        let probe = b"do these keys match?";
        let signature = jsonwebtoken::crypto::sign(probe, &private_key, algorithm.inner())
            .map_err(|_| SignerError::Unusable(algorithm))?;
        match jsonwebtoken::crypto::verify(&signature, probe, &public_key, algorithm.inner()) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(SignerError::Mismatch),
        }
        let signer = Self {
            key: private_key,
            algorithm,
            audience,
            issuer,
        };
        Ok((signer, verifier))
    }

    /// Issues the token that `request` asks for.
    ///
    /// As upstream, the request's claims are merged last and may override any other.
    ///
    /// # Errors
    ///
    /// If its end cannot be written down.
    pub fn issue(
        &self,
        request: &AccessTokenRequest,
        now: DateTime<Utc>,
    ) -> Result<IssuedToken, IssueError> {
        let expired = now
            .checked_add_signed(request.ttl)
            .filter(|end| (1..=9999).contains(&chrono::Datelike::year(end)))
            .ok_or(IssueError::TooLong)?;
        let mut claims = Map::new();
        claims.insert("peer_type".into(), request.peer_type.as_str().into());
        claims.extend(request.claims.clone());

        let mut payload = Map::new();
        payload.insert("iat".into(), now.timestamp().into());
        payload.insert("exp".into(), expired.timestamp().into());
        payload.insert("aud".into(), self.audience.as_str().into());
        payload.insert("iss".into(), self.issuer.as_str().into());
        payload.insert("sub".into(), request.id.simple().to_string().into());
        payload.extend(claims.clone());
        Ok(IssuedToken {
            token: self.sign(&Value::Object(payload))?,
            scheme: "bearer",
            details: TokenDetails {
                id: request.id,
                peer_type: request.peer_type,
                expired: naive(expired),
                claims,
            },
        })
    }

    fn sign(&self, payload: &Value) -> Result<String, IssueError> {
        let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.algorithm);
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload.to_string())
        );
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm.inner())
                .map_err(IssueError::Sign)?;
        Ok(format!("{signed}.{signature}"))
    }
}

fn dashed<S: serde::Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&id.hyphenated())
}

/// Python's `isoformat()` of a time without zone.
fn naive(time: DateTime<Utc>) -> String {
    let format = match time.nanosecond() / 1000 {
        0 => "%Y-%m-%dT%H:%M:%S",
        _ => "%Y-%m-%dT%H:%M:%S%.6f",
    };
    time.format(format).to_string()
}
