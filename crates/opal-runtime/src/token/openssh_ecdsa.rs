//! ECDSA keys in OpenSSH's form, read by ourselves.
//!
//! The secret number is written without leading zeros. ssh-key 0.6.7 wants its full width, and so
//! refuses one key in 256. Only decryption is left to that crate.

use super::keys::{Curve, KeyError, PrivateKey};

const MAGIC: &[u8] = b"openssh-key-v1\0";
const BROKEN: KeyError = KeyError::NotA("private key in OpenSSH's form");

/// The fields of a key file, each with its length before it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], KeyError> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, KeyError> {
        let bytes = <[u8; 4]>::try_from(self.bytes(4)?).map_err(|_| BROKEN)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn next(&mut self) -> Result<&'a [u8], KeyError> {
        let length = usize::try_from(self.number()?).map_err(|_| BROKEN)?;
        self.bytes(length)
    }
}

/// The key in `container`, or `None` if it is of another kind. `text` is its PEM.
pub(super) fn read(
    container: &[u8],
    text: &str,
    passphrase: Option<&[u8]>,
) -> Result<Option<PrivateKey>, KeyError> {
    let mut fields = Fields(container.strip_prefix(MAGIC).ok_or(BROKEN)?);
    let cipher = fields.next()?;
    let (_kdf, _options) = (fields.next()?, fields.next()?);
    if fields.number()? != 1 {
        return Err(KeyError::Unsupported("a file of several keys"));
    }
    let (public, private) = (fields.next()?, fields.next()?);
    let curve = match Fields(public).next()? {
        b"ecdsa-sha2-nistp256" => Curve::P256,
        b"ecdsa-sha2-nistp384" => Curve::P384,
        b"ecdsa-sha2-nistp521" => return Err(KeyError::Unsupported("the curve P-521")),
        _ => return Ok(None),
    };
    let number = if cipher == b"none" {
        secret_number(private)?
    } else {
        secret_number(&decrypted(text, passphrase)?)?
    };
    let padding = curve.size().checked_sub(number.len()).ok_or(BROKEN)?;
    let number = [vec![0; padding], number].concat();
    PrivateKey::from_number(curve, &number).map(Some)
}

/// The last field but the comment, without leading zeros.
fn secret_number(private: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut fields = Fields(private);
    // Two equal random numbers: a wrong passphrase does not make such.
    if fields.number()? != fields.number()? {
        return Err(KeyError::WrongPassphrase);
    }
    let (_kind, _curve, _point) = (fields.next()?, fields.next()?, fields.next()?);
    let number = fields.next()?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    Ok(number[zeros..].to_vec())
}

fn decrypted(text: &str, passphrase: Option<&[u8]>) -> Result<Vec<u8>, KeyError> {
    let passphrase = passphrase.ok_or(KeyError::NeedsPassphrase)?;
    let key = ssh_key::PrivateKey::from_openssh(text).map_err(|_| BROKEN)?;
    let mut private = key.key_data().encrypted().ok_or(BROKEN)?.to_vec();
    let cipher = key.cipher();
    let (secret, iv) = key
        .kdf()
        .derive_key_and_iv(cipher, passphrase)
        .map_err(|_| BROKEN)?;
    cipher
        .decrypt(&secret, &iv, &mut private, None)
        .map_err(|_| KeyError::Unsupported("encryption other than AES-CTR and AES-CBC"))?;
    Ok(private)
}
