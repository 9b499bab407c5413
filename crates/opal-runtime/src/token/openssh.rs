//! Keys in OpenSSH's own forms.

use pkcs8::der::Encode;
use rsa::pkcs1;
use rsa::pkcs1::UintRef;
use ssh_key::private::KeypairData;
use ssh_key::public::KeyData;

use super::der::ed25519_pkcs8;
use super::keys::{Curve, KeyError, PrivateKey, PublicKey};
use super::openssh_ecdsa;

impl PrivateKey {
    /// Reads the file `text`, whose only block holds `container`.
    pub(super) fn from_openssh(
        container: &[u8],
        text: &str,
        passphrase: Option<&[u8]>,
    ) -> Result<Self, KeyError> {
        if let Some(key) = openssh_ecdsa::read(container, text, passphrase)? {
            return Ok(key);
        }
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
            KeypairData::Ed25519(pair) => {
                let seed = octets(&pair.private.to_bytes());
                Ok(Self::Ed25519(ed25519_pkcs8(&seed)))
            }
            _ => Err(KeyError::Unsupported("this kind of key")),
        }
    }

    /// The key with that secret number, which has the curve's full width.
    pub(super) fn from_number(curve: Curve, number: &[u8]) -> Result<Self, KeyError> {
        Self::from_sec1(curve, &sec1(number))
    }
}

impl PublicKey {
    pub(super) fn from_openssh(text: &str) -> Result<Self, KeyError> {
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
