//! From settings to keys: what a program needs to know about tokens, or why it must not start.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::algorithm::Algorithm;
use super::keys::{KeyFormat, PrivateKey, PublicKey};
use super::signer::TokenSigner;
use super::verifier::TokenVerifier;
use super::{Access, MasterToken};
use crate::chain;
use crate::config::{FromSetting, Reader, Setting};

impl FromSetting for KeyFormat {
    fn from_setting(text: &str, setting: &Setting) -> Result<Self, String> {
        match text {
            "pem" => Ok(Self::Pem),
            "ssh" => Ok(Self::Ssh),
            "der" => Ok(Self::Der),
            _ => Err(setting.kind.expected()),
        }
    }
}

/// What a server knows about tokens.
#[derive(Debug, Clone, Default)]
pub struct ServerSecurity {
    /// Whether requests need a token.
    pub access: Access,
    /// Who issues tokens; nobody without keys.
    pub signer: Option<TokenSigner>,
    /// Who may ask for one.
    pub master: MasterToken,
    /// The key that others verify with.
    pub public_key: Option<PublicKey>,
}

impl ServerSecurity {
    /// Reads the `AUTH_*` settings of a server. Notes a problem if there is one key without the
    /// other, or if they do not match.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let master = MasterToken::new(reader.optional("AUTH_MASTER_TOKEN"));
        let (private, public) = (private_key(reader), public_key(reader));
        let alone = "is set without OPAL_AUTH_PUBLIC_KEY; set both for secured access, or none";
        match (
            reader.is_set("AUTH_PRIVATE_KEY"),
            reader.is_set("AUTH_PUBLIC_KEY"),
        ) {
            (true, false) => reader.problem("AUTH_PRIVATE_KEY", alone),
            (false, true) => {
                reader.problem("AUTH_PUBLIC_KEY", alone.replace("PUBLIC", "PRIVATE"));
            }
            (true, true) | (false, false) => {}
        }
        let mut security = Self {
            master,
            ..Self::default()
        };
        let algorithm = algorithm(reader);
        let (audience, issuer) = audience_and_issuer(reader);
        let (Some(private), Some(public), Some(algorithm)) = (private, public, algorithm) else {
            return security;
        };
        if !reader.is_set("AUTH_MASTER_TOKEN") {
            reader.warn(
                "AUTH_MASTER_TOKEN",
                "is not set: POST /token is open, and everyone may have a token of any kind",
            );
        }
        match TokenSigner::new(&private, &public, algorithm, audience, issuer) {
            Ok((signer, verifier)) => {
                security.access = Access::Secured(Arc::new(verifier));
                security.signer = Some(signer);
                security.public_key = Some(public);
            }
            Err(error) => reader.problem("AUTH_PRIVATE_KEY", chain(&error)),
        }
        security
    }
}

impl Access {
    /// Reads the `AUTH_*` settings of a program that only verifies: secured if there is a public
    /// key.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let (public, algorithm) = (public_key(reader), algorithm(reader));
        let (audience, issuer) = audience_and_issuer(reader);
        let (Some(public), Some(algorithm)) = (public, algorithm) else {
            return Self::Open;
        };
        match TokenVerifier::new(&public, algorithm, audience, issuer) {
            Some(verifier) => Self::Secured(Arc::new(verifier)),
            None => {
                let message = format!("{algorithm} does not work with this kind of key");
                reader.problem("AUTH_PUBLIC_KEY", message);
                Self::Open
            }
        }
    }
}

fn audience_and_issuer(reader: &mut Reader<'_>) -> (String, String) {
    (
        reader.get("AUTH_JWT_AUDIENCE"),
        reader.get("AUTH_JWT_ISSUER"),
    )
}

/// The algorithm, which matters only if there are keys.
fn algorithm(reader: &mut Reader<'_>) -> Option<Algorithm> {
    let name: String = reader.get("AUTH_JWT_ALGORITHM");
    let algorithm = Algorithm::parse(&name);
    if algorithm.is_none() && reader.is_set("AUTH_PUBLIC_KEY") {
        let names: Vec<&str> = Algorithm::names().collect();
        reader.expected(
            "AUTH_JWT_ALGORITHM",
            &format!("one of {}", names.join(", ")),
        );
    }
    algorithm
}

fn private_key(reader: &mut Reader<'_>) -> Option<PrivateKey> {
    let format = reader.get("AUTH_PRIVATE_KEY_FORMAT");
    let passphrase: Option<SecretString> = reader.optional("AUTH_PRIVATE_KEY_PASSPHRASE");
    let passphrase = passphrase.as_ref().map(ExposeSecret::expose_secret);
    let text: SecretString = reader.optional("AUTH_PRIVATE_KEY")?;
    match PrivateKey::read(text.expose_secret(), format, passphrase) {
        Ok(key) => Some(key),
        Err(error) => {
            reader.problem("AUTH_PRIVATE_KEY", chain(&error));
            None
        }
    }
}

fn public_key(reader: &mut Reader<'_>) -> Option<PublicKey> {
    let format = reader.get("AUTH_PUBLIC_KEY_FORMAT");
    let text: String = reader.optional("AUTH_PUBLIC_KEY")?;
    match PublicKey::read(&text, format) {
        Ok(key) => Some(key),
        Err(error) => {
            reader.problem("AUTH_PUBLIC_KEY", chain(&error));
            None
        }
    }
}
