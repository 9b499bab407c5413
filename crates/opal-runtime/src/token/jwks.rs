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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keys::KeyFormat;

    /// Pairs of a key and what upstream makes of it.
    const RECORDED: [(&str, &str); 3] = [
        (
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBD7Xoo7GSO3OXVt+JS9rKq+7RINRFKJLPKqPcQ9kmTvCVxGjTNySKQgLY58Jl3/rfKkezOFkm/6orYXHKyBq3n4=",
            r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "PteijsZI7c5dW34lL2sqr7tEg1EUoks8qo9xD2SZO8I", "y": "VxGjTNySKQgLY58Jl3_rfKkezOFkm_6orYXHKyBq3n4"}]}"#,
        ),
        (
            "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBNihflW44vR7w2n9lhZpXOJz3OTjB4MKZfWkqaqJZ8mHrup602VnehO/1lw/5aZpOb3FNULFITpRNF26giCrsjxxZZpNhQs7uv+NA1vQilnrMgmclqkEnk19Q1z2dXE7yA==",
            r#"{"keys": [{"kty": "EC", "crv": "P-384", "x": "2KF-Vbji9HvDaf2WFmlc4nPc5OMHgwpl9aSpqolnyYeu6nrTZWd6E7_WXD_lpmk5", "y": "vcU1QsUhOlE0XbqCIKuyPHFlmk2FCzu6_40DW9CKWesyCZyWqQSeTX1DXPZ1cTvI"}]}"#,
        ),
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
            r#"{"keys": [{"x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg", "kty": "OKP", "crv": "Ed25519"}]}"#,
        ),
    ];

    #[test]
    fn elliptic_keys_are_shown_as_upstream_shows_them() {
        for (key, recorded) in RECORDED {
            let key = PublicKey::read(key, KeyFormat::Ssh).unwrap();
            assert_eq!(jwks_json(Some(&key)), recorded);
        }
    }
}
