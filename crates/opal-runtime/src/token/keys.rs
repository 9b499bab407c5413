//! Private and public keys, from every form in which upstream takes them.
//!
//! A key is given as the path of a file or as its text. Whatever its form, it ends as what
//! signing and verifying need: PKCS#1 for RSA, PKCS#8 for the others, bare numbers for public
//! keys. No error repeats a key or a passphrase.

use std::path::PathBuf;

use jsonwebtoken::{DecodingKey, EncodingKey};

use super::pem;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file exists but cannot be read.
    #[error("could not read the key file `{}`", path.display())]
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
            "OPENSSH PRIVATE KEY" => Self::from_openssh(&block.der, text, passphrase),
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

    pub(super) fn point(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
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
    /// The bytes of one coordinate.
    pub(super) fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}
