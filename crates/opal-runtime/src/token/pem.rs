//! PEM blocks, the traditional encryption included, which no crate at hand reads.
//!
//! `ssh-keygen -m pem` and `openssl rsa -aes128` encrypt like this: a header names cipher and
//! initialisation vector, the key is an MD5 of passphrase and vector (OpenSSL's
//! `EVP_BytesToKey` with one round).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::keys::KeyError;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block of a PEM text.
pub(super) struct Block {
    /// What it says it is, such as `RSA PRIVATE KEY`.
    pub(super) label: String,
    /// Its DER, still encrypted if `encryption` says so.
    pub(super) der: Vec<u8>,
    encryption: Option<Encryption>,
}

struct Encryption {
    cipher: String,
    iv: Vec<u8>,
}

/// The first block of `text` that holds a key.
pub(super) fn first_key(text: &str) -> Result<Block, KeyError> {
    let mut rest = text;
    loop {
        let (block, after) = next_block(rest)?;
        // `openssl ecparam` writes the curve before the key.
        if block.label != "EC PARAMETERS" {
            return Ok(block);
        }
        rest = after;
    }
}

fn next_block(text: &str) -> Result<(Block, &str), KeyError> {
    let (_, after_begin) = text.split_once(BEGIN).ok_or(KeyError::NotPem)?;
    let (label, body) = after_begin.split_once(DASHES).ok_or(KeyError::NotPem)?;
    let (body, after) = body.split_once(END).ok_or(KeyError::NotPem)?;
    let mut encryption = None;
    let mut base64 = String::with_capacity(body.len());
    for line in body.lines().map(str::trim) {
        if let Some(info) = line.strip_prefix("DEK-Info:") {
            encryption = Some(parse_encryption(info)?);
        } else if !line.contains(':') {
            base64.push_str(line);
        }
    }
    let der = STANDARD.decode(base64).map_err(|_| KeyError::NotPem)?;
    let block = Block {
        label: label.to_owned(),
        der,
        encryption,
    };
    Ok((block, after))
}

fn parse_encryption(info: &str) -> Result<Encryption, KeyError> {
    let (cipher, iv) = info.trim().split_once(',').ok_or(KeyError::NotPem)?;
    Ok(Encryption {
        cipher: cipher.trim().to_ascii_uppercase(),
        iv: hex::decode(iv.trim()).map_err(|_| KeyError::NotPem)?,
    })
}

impl Block {
    /// The DER, decrypted if need be.
    pub(super) fn decrypted(self, passphrase: Option<&[u8]>) -> Result<Vec<u8>, KeyError> {
        let Some(encryption) = self.encryption else {
            return Ok(self.der);
        };
        let passphrase = passphrase.ok_or(KeyError::NeedsPassphrase)?;
        encryption.decrypt(passphrase, &self.der)
    }
}

impl Encryption {
    fn decrypt(&self, passphrase: &[u8], data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.cipher.as_str() {
            "AES-128-CBC" => self.cbc::<cbc::Decryptor<aes::Aes128>>(16, passphrase, data),
            "AES-192-CBC" => self.cbc::<cbc::Decryptor<aes::Aes192>>(24, passphrase, data),
            "AES-256-CBC" => self.cbc::<cbc::Decryptor<aes::Aes256>>(32, passphrase, data),
            "DES-EDE3-CBC" => self.cbc::<cbc::Decryptor<des::TdesEde3>>(24, passphrase, data),
            _ => Err(KeyError::Unsupported(
                "encryption other than AES-CBC or 3DES-CBC",
            )),
        }
    }

    fn cbc<C>(&self, length: usize, passphrase: &[u8], data: &[u8]) -> Result<Vec<u8>, KeyError>
    where
        C: KeyIvInit + BlockDecryptMut,
    {
        let salt = self.iv.get(..8).ok_or(KeyError::NotPem)?;
        let key = derived_key(passphrase, salt, length);
        C::new_from_slices(&key, &self.iv)
            .map_err(|_| KeyError::NotPem)?
            .decrypt_padded_vec_mut::<Pkcs7>(data)
            .map_err(|_| KeyError::WrongPassphrase)
    }
}

fn derived_key(passphrase: &[u8], salt: &[u8], length: usize) -> Vec<u8> {
    let mut key: Vec<u8> = Vec::new();
    let mut previous: Vec<u8> = Vec::new();
    while key.len() < length {
        let mut md5 = Md5::new();
        md5.update(&previous);
        md5.update(passphrase);
        md5.update(salt);
        previous = md5.finalize().to_vec();
        key.extend_from_slice(&previous);
    }
    key.truncate(length);
    key
}
