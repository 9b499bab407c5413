//! `generate-secret`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;

use super::arguments::{Arguments, Flag};
use crate::python;

/// More than anyone needs, less than hurts.
const MAX_SIZE: usize = 1 << 20;

const FLAGS: &[Flag] = &[
    Flag {
        names: &["--size"],
        values: 1,
    },
    Flag {
        names: &["--format"],
        values: 1,
    },
];

/// How random bytes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretFormat {
    /// Base64 for URLs.
    UrlSafe,
    /// Hexadecimal digits.
    Hex,
    /// A Python literal.
    Bytes,
}

/// Prints random bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateSecret {
    /// How many.
    pub size: usize,
    /// In which form.
    pub format: SecretFormat,
}

impl GenerateSecret {
    pub(super) fn parse(given: &[String]) -> (Arguments, Self) {
        let mut arguments = Arguments::parse(FLAGS, 0, given);
        let size = arguments.parsed("--size", 32, "a number of bytes up to 1048576", |text| {
            text.parse().ok().filter(|size| *size <= MAX_SIZE)
        });
        let expected = "one of hex, bytes, urlsafe";
        let format = arguments.parsed(
            "--format",
            SecretFormat::UrlSafe,
            expected,
            |text| match text {
                "urlsafe" => Some(SecretFormat::UrlSafe),
                "hex" => Some(SecretFormat::Hex),
                "bytes" => Some(SecretFormat::Bytes),
                _ => None,
            },
        );
        (arguments, Self { size, format })
    }

    /// New random bytes of the operating system's quality, as text.
    pub fn generate(&self) -> String {
        let mut bytes = vec![0; self.size];
        rand::rng().fill_bytes(&mut bytes);
        match self.format {
            SecretFormat::UrlSafe => URL_SAFE_NO_PAD.encode(bytes),
            SecretFormat::Hex => hex::encode(bytes),
            SecretFormat::Bytes => python::bytes(&bytes),
        }
    }
}
