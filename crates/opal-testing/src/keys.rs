//! Keys as installations have them: made by `ssh-keygen`, with a passphrase, in the old PEM form.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::services::{Setting, setting};

/// A key pair on disk and the master token that goes with it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// `-----BEGIN RSA PRIVATE KEY-----` with `Proc-Type: 4,ENCRYPTED` when there is a passphrase.
    pub private_key: PathBuf,
    /// What opens [`Keys::private_key`]; empty when it is not encrypted.
    pub passphrase: String,
    /// The one-line OpenSSH public key.
    pub public_key: PathBuf,
    /// What guards `POST /token`.
    pub master_token: String,
}

impl Keys {
    /// Makes an RSA key pair in `directory` as the documentation of OPAL says:
    /// `ssh-keygen -t rsa -b 2048 -m pem -N <passphrase>`.
    pub fn generate(directory: &Path, passphrase: &str) -> anyhow::Result<Self> {
        let private_key = directory.join("opal_key");
        let output = Command::new("ssh-keygen")
            .args([
                "-q", "-t", "rsa", "-b", "2048", "-m", "pem", "-C", "opal", "-N", passphrase, "-f",
            ])
            .arg(&private_key)
            .stdin(Stdio::null())
            .output()
            .context("could not run `ssh-keygen`; `scripts/test` installs it")?;
        ensure!(
            output.status.success(),
            "ssh-keygen failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            public_key: private_key.with_extension("pub"),
            private_key,
            passphrase: passphrase.to_owned(),
            master_token: "master-token-of-this-test".to_owned(),
        })
    }

    /// The settings of a secured server.
    pub fn server_settings(&self) -> Vec<Setting> {
        let mut settings = vec![
            setting("OPAL_AUTH_PRIVATE_KEY", &self.private_key.display()),
            setting("OPAL_AUTH_PUBLIC_KEY", &self.public_key.display()),
            setting("OPAL_AUTH_MASTER_TOKEN", &self.master_token),
        ];
        if !self.passphrase.is_empty() {
            settings.push(setting(
                "OPAL_AUTH_PRIVATE_KEY_PASSPHRASE",
                &self.passphrase,
            ));
        }
        settings
    }

    /// The settings of a client that checks tokens on its own API.
    pub fn client_settings(&self) -> Vec<Setting> {
        vec![setting("OPAL_AUTH_PUBLIC_KEY", &self.public_key.display())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_key_is_the_encrypted_pem_that_most_installations_have() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::generate(directory.path(), "pass phrase").unwrap();
        let private = std::fs::read_to_string(&keys.private_key).unwrap();
        assert!(private.contains("Proc-Type: 4,ENCRYPTED"), "{private}");
        let public = std::fs::read_to_string(&keys.public_key).unwrap();
        assert!(public.starts_with("ssh-rsa "), "{public}");
    }
}
