//! Private and public keys, from every form in which upstream takes them.
//!
//! A key is given as the path of a file or as its text. Whatever its form, it ends as what
//! signing and verifying need: PKCS#1 for RSA, PKCS#8 for the others, bare numbers for public
//! keys. No error repeats a key or a passphrase.

use std::path::PathBuf;

use jsonwebtoken::{DecodingKey, EncodingKey};
use pkcs8::der::{Decode, Encode};
use pkcs8::{EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo, SubjectPublicKeyInfoRef};
use rsa::pkcs1;
use rsa::pkcs1::UintRef;
use ssh_key::private::{EcdsaKeypair, KeypairData};
use ssh_key::public::KeyData;

use super::pem;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file exists but cannot be read.
    #[error("could not read the key file `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither a file nor a PEM text.
    #[error("neither the path of a file that exists nor a key in PEM form")]
    NotPem,
    /// The form is another than the one configured, or broken.
    #[error("not a {0}")]
    NotA(&'static str),
    /// The key is encrypted.
    #[error("the key is encrypted, and no passphrase is set")]
    NeedsPassphrase,
    /// The passphrase does not fit.
    #[error("the passphrase does not open the key")]
    WrongPassphrase,
    /// A kind of key that tokens cannot be signed with here.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// `-----BEGIN …`.
    Pem,
    /// OpenSSH's own.
    Ssh,
    /// Binary.
    Der,
}

/// An elliptic curve that tokens can be signed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, for ES256.
    P256,
    /// NIST P-384, for ES384.
    P384,
}

/// A key that signs.
#[derive(Clone)]
pub enum PrivateKey {
    /// PKCS#1.
    Rsa(Vec<u8>),
    /// PKCS#8.
    Ec(Curve, Vec<u8>),
    /// PKCS#8.
    Ed25519(Vec<u8>),
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point: `4`, x, y.
    Ec(Curve, Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The bytes of a key given as `text`: the file with that path, or the text itself.
///
/// In a text without newlines, every `_` stands for one, unless it is a one-line key.
fn material(text: &str, one_line: bool) -> Result<Vec<u8>, KeyError> {
    let path = crate::paths::expand_home(text);
    if path.is_file() {
        return std::fs::read(&path).map_err(|source| KeyError::Unreadable { path, source });
    }
    if one_line || text.contains('\n') {
        return Ok(text.as_bytes().to_vec());
    }
    Ok(decode_newlines(text).into_bytes())
}

/// `text` with `_` turned into newlines and one at its end, if it has no newline.
///
/// This is how multi-line keys travel in variables.
pub fn decode_newlines(text: &str) -> String {
    if text.contains('\n') {
        return text.to_owned();
    }
    let mut text = text.replace('_', "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

impl PrivateKey {
    /// Reads a private key: the path of a file, or its text.
    ///
    /// Takes PKCS#1, PKCS#8, SEC1 and OpenSSH keys, encrypted or not, whatever the label of the
    /// block says; `format` matters for binary keys only. A passphrase that is not needed is not
    /// used.
    ///
    /// # Errors
    ///
    /// If it is no key, cannot be decrypted, or is of a kind that is not supported.
    pub fn read(text: &str, format: KeyFormat, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let bytes = material(text, false)?;
        let passphrase = passphrase.map(str::as_bytes);
        if format == KeyFormat::Der {
            return Self::from_der(&bytes, passphrase);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotPem)?;
        let block = pem::first_key(text)?;
        match block.label.as_str() {
            "OPENSSH PRIVATE KEY" => Self::from_openssh(text, passphrase),
            "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
                let der = block.decrypted(passphrase)?;
                let encrypted = text.contains("DEK-Info:");
                Self::from_der(&der, passphrase).map_err(|error| match error {
                    // Padding is right by chance once in 256 times.
                    KeyError::NotA(_) if encrypted => KeyError::WrongPassphrase,
                    error => error,
                })
            }
            _ => Err(KeyError::NotA("private key")),
        }
    }

    fn from_der(der: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
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

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
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

    fn from_sec1(curve: Curve, der: &[u8]) -> Result<Self, KeyError> {
        let parameters = pkcs8::der::asn1::AnyRef::from(curve.oid_ref());
        let algorithm = pkcs8::AlgorithmIdentifierRef {
            oid: EC,
            parameters: Some(parameters),
        };
        let pkcs8 = PrivateKeyInfo::new(algorithm, der).to_der();
        let pkcs8 = pkcs8.map_err(|_| KeyError::NotA("private key"))?;
        Ok(Self::Ec(curve, pkcs8))
    }

    fn from_openssh(text: &str, passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        let not_a_key = |_| KeyError::NotA("private key in OpenSSH's form");
        let mut key = ssh_key::PrivateKey::from_openssh(text).map_err(not_a_key)?;
        if key.is_encrypted() {
            let passphrase = passphrase.ok_or(KeyError::NeedsPassphrase)?;
            key = key
                .decrypt(passphrase)
                .map_err(|_| KeyError::WrongPassphrase)?;
        }
        match key.key_data() {
            KeypairData::Rsa(pair) => rsa_pkcs1(pair).map(Self::Rsa),
            KeypairData::Ecdsa(pair) => {
                let curve = match pair {
                    EcdsaKeypair::NistP256 { .. } => Curve::P256,
                    EcdsaKeypair::NistP384 { .. } => Curve::P384,
                    EcdsaKeypair::NistP521 { .. } => {
                        return Err(KeyError::Unsupported("the curve P-521"));
                    }
                };
                Self::from_sec1(curve, &sec1(pair.private_key_bytes()))
            }
            KeypairData::Ed25519(pair) => {
                let seed = octets(&pair.private.to_bytes());
                Ok(Self::Ed25519(ed25519_pkcs8(&seed)))
            }
            _ => Err(KeyError::Unsupported("this kind of key")),
        }
    }

    pub(super) fn encoding_key(&self) -> EncodingKey {
        match self {
            Self::Rsa(der) => EncodingKey::from_rsa_der(der),
            Self::Ec(_, der) => EncodingKey::from_ec_der(der),
            Self::Ed25519(der) => EncodingKey::from_ed_der(der),
        }
    }
}

impl PublicKey {
    /// Reads a public key: the path of a file, or its text.
    ///
    /// # Errors
    ///
    /// If it is no key in that format, or of a kind that is not supported.
    pub fn read(text: &str, format: KeyFormat) -> Result<Self, KeyError> {
        let bytes = material(text, format == KeyFormat::Ssh)?;
        let utf8 = std::str::from_utf8(&bytes);
        match format {
            KeyFormat::Ssh => Self::from_openssh(utf8.unwrap_or_default()),
            KeyFormat::Der => Self::from_der(&bytes),
            KeyFormat::Pem => {
                let block = pem::first_key(utf8.map_err(|_| KeyError::NotPem)?)?;
                match block.label.as_str() {
                    "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::from_der(&block.der),
                    _ => Err(KeyError::NotA("public key")),
                }
            }
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
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

    fn from_openssh(text: &str) -> Result<Self, KeyError> {
        let not_a_key = || {
            KeyError::NotA(
                "public key in OpenSSH's one-line form, nor the path of a file that exists",
            )
        };
        let key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(|_| not_a_key())?;
        match key.key_data() {
            KeyData::Rsa(key) => {
                let positive = |number: &ssh_key::Mpint| {
                    let bytes = number.as_positive_bytes();
                    bytes.map(<[u8]>::to_vec).ok_or_else(not_a_key)
                };
                Ok(Self::Rsa {
                    n: positive(&key.n)?,
                    e: positive(&key.e)?,
                })
            }
            KeyData::Ecdsa(key) => {
                let curve = match key.curve() {
                    ssh_key::EcdsaCurve::NistP256 => Curve::P256,
                    ssh_key::EcdsaCurve::NistP384 => Curve::P384,
                    ssh_key::EcdsaCurve::NistP521 => {
                        return Err(KeyError::Unsupported("the curve P-521"));
                    }
                };
                Self::point(curve, key.as_sec1_bytes())
            }
            KeyData::Ed25519(key) => Ok(Self::Ed25519(key.0.to_vec())),
            _ => Err(KeyError::Unsupported("this kind of key")),
        }
    }

    fn rsa(key: &pkcs1::RsaPublicKey<'_>) -> Self {
        Self::Rsa {
            n: key.modulus.as_bytes().to_vec(),
            e: key.public_exponent.as_bytes().to_vec(),
        }
    }

    fn point(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.first() == Some(&4) && bytes.len() == 1 + 2 * curve.size() {
            Ok(Self::Ec(curve, bytes.to_vec()))
        } else {
            Err(KeyError::Unsupported("a compressed point"))
        }
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::Ec(_, point) => DecodingKey::from_ec_der(point),
            Self::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
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

    /// The bytes of one coordinate.
    pub(super) fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// The PKCS#1 form, rebuilt from the numbers: ssh-key 0.6.7's own conversion uses `p` twice.
fn rsa_pkcs1(pair: &ssh_key::private::RsaKeypair) -> Result<Vec<u8>, KeyError> {
    let number = |number: &ssh_key::Mpint| {
        let bytes = number.as_positive_bytes().unwrap_or_default();
        rsa::BigUint::from_bytes_be(bytes)
    };
    let private = &pair.private;
    let (p, q, d) = (number(&private.p), number(&private.q), number(&private.d));
    let one = rsa::BigUint::from(1u8);
    if p <= one || q <= one {
        return Err(KeyError::NotA("private key in OpenSSH's form"));
    }
    let numbers = [
        number(&pair.public.n),
        number(&pair.public.e),
        d.clone(),
        p.clone(),
        q.clone(),
        &d % (&p - &one),
        &d % (&q - &one),
        number(&private.iqmp),
    ]
    .map(|number| number.to_bytes_be());
    let [n, e, d, p, q, dp, dq, qi] = &numbers;
    let uint = |bytes| UintRef::new(bytes).map_err(|_| KeyError::NotA("private key"));
    pkcs1::RsaPrivateKey {
        modulus: uint(n)?,
        public_exponent: uint(e)?,
        private_exponent: uint(d)?,
        prime1: uint(p)?,
        prime2: uint(q)?,
        exponent1: uint(dp)?,
        exponent2: uint(dq)?,
        coefficient: uint(qi)?,
        other_prime_infos: None,
    }
    .to_der()
    .map_err(|_| KeyError::NotA("private key"))
}

/// PKCS#8 version 1 around the seed, which is an octet string already.
fn ed25519_pkcs8(seed: &[u8]) -> Vec<u8> {
    let algorithm = pkcs8::AlgorithmIdentifierRef {
        oid: ED25519,
        parameters: None,
    };
    // Fails only for keys of many megabytes.
    let der = PrivateKeyInfo::new(algorithm, seed).to_der();
    der.unwrap_or_default()
}

/// `ECPrivateKey` with nothing but the number; the curve stands outside.
fn sec1(number: &[u8]) -> Vec<u8> {
    let number = octets(number);
    let mut der = vec![0x30, 3 + number.len() as u8, 0x02, 0x01, 0x01];
    der.extend_from_slice(&number);
    der
}

/// A short octet string. INVARIANT: all keys here have fewer than 100 bytes.
fn octets(bytes: &[u8]) -> Vec<u8> {
    let mut der = vec![0x04, bytes.len() as u8];
    der.extend_from_slice(bytes);
    der
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
