//! Keys in DER: PKCS#1, PKCS#8 (encrypted too), SEC1, and public keys.

use pkcs8::der::{Decode, Encode};
use pkcs8::{EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo, SubjectPublicKeyInfoRef};
use rsa::pkcs1;

use super::keys::{Curve, KeyError, PrivateKey, PublicKey};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

impl PrivateKey {
    pub(super) fn from_der(der: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        if let Ok(encrypted) = EncryptedPrivateKeyInfo::from_der(der) {
            let passphrase = passphrase.ok_or(KeyError::NeedsPassphrase)?;
            let opened = encrypted
                .decrypt(passphrase)
                .map_err(|_| KeyError::WrongPassphrase)?;
            return Self::from_pkcs8(opened.as_bytes());
        }
        if pkcs1::RsaPrivateKey::from_der(der).is_ok() {
            return Ok(Self::Rsa(der.to_vec()));
        }
        if let Some(curve) = sec1_curve(der) {
            return Self::from_sec1(curve?, der);
        }
        Self::from_pkcs8(der)
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfo::from_der(der).map_err(|_| KeyError::NotA("private key"))?;
        match info.algorithm.oid {
            RSA => Ok(Self::Rsa(info.private_key.to_vec())),
            EC => {
                let curve = info.algorithm.parameters_oid();
                let curve = curve.map_err(|_| KeyError::NotA("private key"))?;
                Ok(Self::Ec(Curve::of(curve)?, der.to_vec()))
            }
            ED25519 => Ok(Self::Ed25519(ed25519_pkcs8(info.private_key))),
            _ => Err(KeyError::Unsupported("this kind of key")),
        }
    }

    pub(super) fn from_sec1(curve: Curve, der: &[u8]) -> Result<Self, KeyError> {
        let parameters = pkcs8::der::asn1::AnyRef::from(curve.oid_ref());
        let algorithm = pkcs8::AlgorithmIdentifierRef {
            oid: EC,
            parameters: Some(parameters),
        };
        let pkcs8 = PrivateKeyInfo::new(algorithm, der).to_der();
        let pkcs8 = pkcs8.map_err(|_| KeyError::NotA("private key"))?;
        Ok(Self::Ec(curve, pkcs8))
    }
}

impl PublicKey {
    pub(super) fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = pkcs1::RsaPublicKey::from_der(der) {
            return Ok(Self::rsa(&key));
        }
        let not_a_key = || KeyError::NotA("public key");
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| not_a_key())?;
        let bits = info.subject_public_key.as_bytes().ok_or_else(not_a_key)?;
        match info.algorithm.oid {
            RSA => {
                let key = pkcs1::RsaPublicKey::from_der(bits).map_err(|_| not_a_key())?;
                Ok(Self::rsa(&key))
            }
            EC => {
                let curve = info.algorithm.parameters_oid();
                let curve = Curve::of(curve.map_err(|_| not_a_key())?)?;
                Self::point(curve, bits)
            }
            ED25519 if bits.len() == 32 => Ok(Self::Ed25519(bits.to_vec())),
            _ => Err(KeyError::Unsupported("this kind of key")),
        }
    }

    fn rsa(key: &pkcs1::RsaPublicKey<'_>) -> Self {
        Self::Rsa {
            n: key.modulus.as_bytes().to_vec(),
            e: key.public_exponent.as_bytes().to_vec(),
        }
    }
}

impl Curve {
    fn of(oid: ObjectIdentifier) -> Result<Self, KeyError> {
        match oid {
            P256 => Ok(Self::P256),
            P384 => Ok(Self::P384),
            _ => Err(KeyError::Unsupported("a curve other than P-256 and P-384")),
        }
    }

    fn oid_ref(self) -> &'static ObjectIdentifier {
        match self {
            Self::P256 => &P256,
            Self::P384 => &P384,
        }
    }
}

/// PKCS#8 version 1 around the seed, which is an octet string already.
pub(super) fn ed25519_pkcs8(seed: &[u8]) -> Vec<u8> {
    let algorithm = pkcs8::AlgorithmIdentifierRef {
        oid: ED25519,
        parameters: None,
    };
    // Fails only for keys of many megabytes.
    let der = PrivateKeyInfo::new(algorithm, seed).to_der();
    der.unwrap_or_default()
}

/// The curve named inside a SEC1 key: `SEQUENCE { 1, number, [0] curve, [1] point }`.
/// `None` if this is no such key.
fn sec1_curve(der: &[u8]) -> Option<Result<Curve, KeyError>> {
    use pkcs8::der::asn1::{AnyRef, OctetStringRef};
    use pkcs8::der::{Reader, SliceReader, TagNumber, asn1::ContextSpecific};
    let outer = AnyRef::from_der(der).ok()?;
    let mut reader = SliceReader::new(outer.value()).ok()?;
    let version: u8 = reader.decode().ok()?;
    let _number: OctetStringRef<'_> = reader.decode().ok()?;
    let curve = ContextSpecific::<ObjectIdentifier>::decode_explicit(&mut reader, TagNumber::N0);
    if version != 1 {
        return None;
    }
    Some(match curve {
        Ok(Some(curve)) => Curve::of(curve.value),
        _ => Err(KeyError::Unsupported("a curve that has no name")),
    })
}
