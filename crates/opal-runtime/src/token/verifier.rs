//! Verifying tokens, with the outcomes of the library that upstream uses.
//!
//! The checks and their order are PyJWT's, because they decide which of the error texts a peer
//! sees; the cryptography is not ours. The algorithm is the configured one: what a token says
//! about itself selects nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::DecodingKey;
use opal_protocol::Claims;
use opal_protocol::token::parse_uuid;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::error::TokenError;
use super::keys::PublicKey;
use crate::python;

/// Verifies the tokens of one key, audience and issuer.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    algorithm: Algorithm,
    audience: String,
    issuer: String,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("algorithm", &self.algorithm)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// A verifier, if keys of this kind work with `algorithm`.
    pub fn new(
        key: &PublicKey,
        algorithm: Algorithm,
        audience: String,
        issuer: String,
    ) -> Option<Self> {
        algorithm.fits(key).then(|| Self {
            key: key.decoding_key(),
            algorithm,
            audience,
            issuer,
        })
    }

    /// The claims of the bearer token in an `Authorization` header.
    ///
    /// # Errors
    ///
    /// As upstream, none of which holds the token.
    pub fn verify(
        &self,
        authorization: Option<&[u8]>,
        now: DateTime<Utc>,
    ) -> Result<Claims, TokenError> {
        let token = authorization
            .and_then(bearer)
            .ok_or(TokenError::NotProvided)?;
        self.verify_token(token, now)
    }

    /// The claims of a token.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_token(&self, token: &[u8], now: DateTime<Utc>) -> Result<Claims, TokenError> {
        let mut payload = self.verified_payload(token)?;
        self.check(&payload, now)?;
        match payload.get("sub").and_then(Value::as_str) {
            Some(sub) if parse_uuid(sub).is_some() => {}
            _ => return Err(TokenError::InvalidSubject),
        }
        if let Some(exp) = payload.get("exp").and_then(python_int) {
            let exp = i64::try_from(exp).unwrap_or(i64::MAX);
            payload.insert("exp".to_owned(), exp.into());
        }
        serde_json::from_value(Value::Object(payload)).map_err(|_| TokenError::Unknown)
    }

    fn verified_payload(&self, token: &[u8]) -> Result<Map<String, Value>, TokenError> {
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Undecodable)?;
        let undecodable = || TokenError::Undecodable;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(undecodable)?;
        let (header, payload) = signed.split_once('.').ok_or_else(undecodable)?;
        let header: Value = json(&segment(header)?)?;
        let payload = segment(payload)?;
        let signature = URL_SAFE_NO_PAD.encode(segment(signature)?);
        self.check_header(header.as_object().ok_or_else(undecodable)?)?;
        let algorithm = self.algorithm.inner();
        match jsonwebtoken::crypto::verify(&signature, signed.as_bytes(), &self.key, algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Undecodable),
        }
        match json(&payload)? {
            Value::Object(payload) => Ok(payload),
            _ => Err(TokenError::Undecodable),
        }
    }

    fn check_header(&self, header: &Map<String, Value>) -> Result<(), TokenError> {
        let kid_is_text = header.get("kid").is_none_or(Value::is_string);
        // We know no extension, so whatever is critical is unknown.
        let nothing_critical = !header.contains_key("crit");
        let algorithm = header.get("alg").and_then(Value::as_str);
        if header.get("b64") == Some(&Value::Bool(false)) {
            return Err(TokenError::Undecodable);
        }
        if kid_is_text && nothing_critical && algorithm == Some(self.algorithm.name()) {
            Ok(())
        } else {
            Err(TokenError::Unknown)
        }
    }

    fn check(&self, payload: &Map<String, Value>, now: DateTime<Utc>) -> Result<(), TokenError> {
        let now = now.timestamp_micros() as f64 / 1e6;
        if let Some(iat) = payload.get("iat") {
            let iat = python_int(iat).ok_or(TokenError::Unknown)?;
            if iat as f64 > now {
                return Err(TokenError::Unknown);
            }
        }
        if let Some(nbf) = payload.get("nbf") {
            let nbf = python_int(nbf).ok_or(TokenError::Undecodable)?;
            if nbf as f64 > now {
                return Err(TokenError::Unknown);
            }
        }
        if let Some(exp) = payload.get("exp") {
            let exp = python_int(exp).ok_or(TokenError::Undecodable)?;
            if exp as f64 <= now {
                return Err(TokenError::Expired);
            }
        }
        self.check_issuer(payload.get("iss"))?;
        self.check_audience(payload.get("aud"))?;
        let is_text = |claim: &str| payload.get(claim).is_none_or(Value::is_string);
        if is_text("sub") && is_text("jti") {
            Ok(())
        } else {
            Err(TokenError::Unknown)
        }
    }

    fn check_issuer(&self, issuer: Option<&Value>) -> Result<(), TokenError> {
        match issuer {
            None => Err(TokenError::Unknown),
            Some(Value::String(issuer)) if *issuer == self.issuer => Ok(()),
            Some(_) => Err(TokenError::InvalidIssuer),
        }
    }

    fn check_audience(&self, audience: Option<&Value>) -> Result<(), TokenError> {
        let matches = match audience {
            None => return Err(TokenError::Unknown),
            Some(audience) if python::is_falsy(audience) => return Err(TokenError::Unknown),
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(audiences)) => {
                audiences.iter().all(Value::is_string)
                    && audiences.iter().any(|a| a == self.audience.as_str())
            }
            Some(_) => false,
        };
        matches.then_some(()).ok_or(TokenError::InvalidAudience)
    }
}

/// The token of a header `Bearer <token>`, whatever the case of its first word.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = authorization.split_at(space);
    let token = &token[1..];
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

/// Base64 without padding; as upstream, correct padding is no error.
fn segment(text: &str) -> Result<Vec<u8>, TokenError> {
    let stripped = text.trim_end_matches('=');
    let padding = text.len() - stripped.len();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return Err(TokenError::Undecodable);
    }
    URL_SAFE_NO_PAD
        .decode(stripped)
        .map_err(|_| TokenError::Undecodable)
}

fn json(bytes: &[u8]) -> Result<Value, TokenError> {
    serde_json::from_slice(bytes).map_err(|_| TokenError::Undecodable)
}

/// Python's `int()` of a JSON value.
fn python_int(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(value) => Some(i128::from(*value)),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => Some(whole),
            (None, Some(float)) if float.is_finite() => Some(float as i128),
            _ => None,
        },
        Value::String(text) => crate::config::parse_int(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
