//! The public key as `GET /.well-known/jwks.json` shows it, byte for byte as upstream.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::{Curve, PublicKey};

/// The key set: one key, or `{}` for a server without keys.
pub fn jwks_json(key: Option<&PublicKey>) -> String {
    match key {
        None => "{}".to_owned(),
        Some(key) => format!(r#"{{"keys": [{}]}}"#, jwk(key)),
    }
}

// The order of the members is upstream's.
fn jwk(key: &PublicKey) -> String {
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match key {
        PublicKey::Rsa { n, e } => format!(
            r#"{{"kty": "RSA", "key_ops": ["verify"], "n": "{}", "e": "{}"}}"#,
            encoded(n),
            encoded(e)
        ),
        PublicKey::Ec(curve, point) => {
            let name = match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
            };
            let (x, y) = point[1..].split_at(curve.size());
            format!(
                r#"{{"kty": "EC", "crv": "{name}", "x": "{}", "y": "{}"}}"#,
                encoded(x),
                encoded(y)
            )
        }
        PublicKey::Ed25519(bytes) => format!(
            r#"{{"x": "{}", "kty": "OKP", "crv": "Ed25519"}}"#,
            encoded(bytes)
        ),
    }
}
