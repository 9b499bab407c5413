//! Keys as `ssh-keygen` and `openssl` write them, in every form that upstream takes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use opal_runtime::token::keys::{KeyError, KeyFormat, PrivateKey, PublicKey};
use opal_runtime::token::{Algorithm, SignerError, TokenSigner};
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse";

/// A directory of keys made by the real programs.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, arguments: &str) -> &Self {
        let output = Command::new(program)
            .args(
                arguments
                    .split(' ')
                    .map(|word| if word == "PASS" { PASSPHRASE } else { word }),
            )
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("`{program}` is needed by this test: {e}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments}: {error}");
        self
    }

    fn private(&self, name: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
        let format = match name.ends_with(".der") {
            true => KeyFormat::Der,
            false => KeyFormat::Pem,
        };
        PrivateKey::read(text(&self.path(name)), format, passphrase)
    }

    fn public(&self, name: &str) -> PublicKey {
        let format = match Path::new(name).extension().and_then(|e| e.to_str()) {
            Some("pub") => KeyFormat::Ssh,
            Some("der") => KeyFormat::Der,
            _ => KeyFormat::Pem,
        };
        PublicKey::read(text(&self.path(name)), format).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pair(private: &PrivateKey, public: &PublicKey, algorithm: &str) -> Result<(), SignerError> {
    let algorithm = Algorithm::parse(algorithm).unwrap();
    TokenSigner::new(private, public, algorithm, "a".into(), "i".into()).map(drop)
}

#[test]
fn rsa_keys_of_ssh_keygen_match_their_public_key_in_every_form() {
    let keys = Keys::new();
    keys.run("ssh-keygen", "-q -t rsa -b 2048 -m pem -N  -f traditional")
        .run(
            "ssh-keygen",
            "-q -t rsa -b 2048 -m pem -N PASS -f encrypted",
        )
        .run("ssh-keygen", "-q -t rsa -b 2048 -N  -f openssh")
        .run(
            "ssh-keygen",
            "-q -t rsa -b 2048 -N PASS -f openssh_encrypted",
        )
        .run(
            "ssh-keygen",
            "-q -t rsa -b 2048 -m pkcs8 -N PASS -f pkcs8_encrypted",
        );
    for (name, passphrase) in [
        ("traditional", None),
        ("encrypted", Some(PASSPHRASE)),
        ("openssh", None),
        ("openssh_encrypted", Some(PASSPHRASE)),
        ("pkcs8_encrypted", Some(PASSPHRASE)),
    ] {
        let private = keys.private(name, passphrase).unwrap();
        let public = keys.public(&format!("{name}.pub"));
        for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            pair(&private, &public, algorithm).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert!(matches!(
            pair(&private, &public, "ES256"),
            Err(SignerError::WrongKind(_))
        ));
    }
    let (one, other) = (
        keys.private("openssh", None).unwrap(),
        keys.public("traditional.pub"),
    );
    assert!(matches!(
        pair(&one, &other, "RS256"),
        Err(SignerError::Mismatch)
    ));
}

#[test]
fn keys_of_openssl_are_read_in_pem_and_der() {
    let keys = Keys::new();
    keys.run("openssl", "genrsa -traditional -out rsa.pem 2048")
        .run("openssl", "pkcs8 -topk8 -nocrypt -in rsa.pem -out rsa8.pem")
        .run(
            "openssl",
            "rsa -in rsa.pem -outform DER -traditional -out rsa.der",
        )
        .run(
            "openssl",
            "pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out rsa8.der",
        )
        .run(
            "openssl",
            "pkcs8 -topk8 -in rsa.pem -outform DER -passout pass:secret -out rsae.der",
        )
        .run("openssl", "rsa -in rsa.pem -pubout -out public.pem")
        .run(
            "openssl",
            "rsa -in rsa.pem -RSAPublicKey_out -out public1.pem",
        )
        .run(
            "openssl",
            "rsa -in rsa.pem -pubout -outform DER -out public.der",
        );
    let publics = ["public.pem", "public1.pem", "public.der"].map(|name| keys.public(name));
    assert!(publics.iter().all(|public| *public == publics[0]));
    for (name, passphrase) in [
        ("rsa.pem", None),
        ("rsa8.pem", None),
        ("rsa.der", None),
        ("rsa8.der", None),
        ("rsae.der", Some("secret")),
    ] {
        let private = keys.private(name, passphrase).unwrap();
        pair(&private, &publics[0], "RS256").unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn traditional_encryption_is_opened_for_every_cipher() {
    let keys = Keys::new();
    keys.run("openssl", "genrsa -traditional -out rsa.pem 2048")
        .run("openssl", "rsa -in rsa.pem -pubout -out public.pem");
    for cipher in ["aes128", "aes192", "aes256", "des3"] {
        let name = format!("{cipher}.pem");
        let line =
            format!("rsa -in rsa.pem -traditional -{cipher} -passout pass:secret -out {name}");
        keys.run("openssl", &line);
        let pem = std::fs::read_to_string(keys.path(&name)).unwrap();
        assert!(pem.contains("Proc-Type: 4,ENCRYPTED"), "{pem}");
        let private = keys.private(&name, Some("secret")).unwrap();
        pair(&private, &keys.public("public.pem"), "RS256").unwrap();
        assert!(matches!(
            keys.private(&name, None),
            Err(KeyError::NeedsPassphrase)
        ));
        for wrong in 0..300 {
            let passphrase = format!("wrong{wrong}");
            let error = keys.private(&name, Some(&passphrase)).unwrap_err();
            assert!(matches!(error, KeyError::WrongPassphrase), "{error}");
        }
    }
}

#[test]
fn elliptic_keys_are_read_in_every_form() {
    let keys = Keys::new();
    for (curve, bits, algorithm) in [
        ("prime256v1", "256", "ES256"),
        ("secp384r1", "384", "ES384"),
    ] {
        let of = |name: &str| format!("{curve}{name}");
        keys.run(
            "openssl",
            &format!("ecparam -name {curve} -genkey -out {}", of(".pem")),
        )
        .run(
            "openssl",
            &format!("ec -in {curve}.pem -pubout -out {curve}.spki.pem"),
        )
        .run(
            "openssl",
            &format!("pkcs8 -topk8 -nocrypt -in {curve}.pem -out {curve}.8.pem"),
        )
        .run(
            "openssl",
            &format!("ec -in {curve}.pem -aes256 -passout pass:secret -out {curve}.e.pem"),
        )
        .run(
            "openssl",
            &format!("ec -in {curve}.pem -outform DER -out {curve}.der"),
        );
        let public = keys.public(&of(".spki.pem"));
        for (name, passphrase) in [
            (".pem", None),
            (".8.pem", None),
            (".e.pem", Some("secret")),
            (".der", None),
        ] {
            let private = keys.private(&of(name), passphrase).unwrap();
            pair(&private, &public, algorithm).unwrap_or_else(|e| panic!("{curve}{name}: {e}"));
        }
        keys.run(
            "ssh-keygen",
            &format!("-q -t ecdsa -b {bits} -N PASS -f {}", of(".ssh")),
        );
        let private = keys.private(&of(".ssh"), Some(PASSPHRASE)).unwrap();
        pair(&private, &keys.public(&of(".ssh.pub")), algorithm).unwrap();
    }
    keys.run("ssh-keygen", "-q -t ecdsa -b 521 -N  -f p521");
    assert!(matches!(
        keys.private("p521", None),
        Err(KeyError::Unsupported(_))
    ));
}

#[test]
fn ed25519_keys_are_read_in_every_form() {
    let keys = Keys::new();
    keys.run("openssl", "genpkey -algorithm ed25519 -out ed.pem")
        .run("openssl", "pkey -in ed.pem -pubout -out ed.spki.pem")
        .run("ssh-keygen", "-q -t ed25519 -N PASS -f ssh");
    pair(
        &keys.private("ed.pem", None).unwrap(),
        &keys.public("ed.spki.pem"),
        "EdDSA",
    )
    .unwrap();
    let private = keys.private("ssh", Some(PASSPHRASE)).unwrap();
    pair(&private, &keys.public("ssh.pub"), "EdDSA").unwrap();
}

#[test]
fn a_key_may_be_text_with_underscores_for_newlines() {
    let keys = Keys::new();
    keys.run("ssh-keygen", "-q -t rsa -b 2048 -m pem -N PASS -f key");
    let pem = std::fs::read_to_string(keys.path("key")).unwrap();
    let line = std::fs::read_to_string(keys.path("key.pub")).unwrap();
    let public = PublicKey::read(line.trim(), KeyFormat::Ssh).unwrap();
    for text in [
        pem.clone(),
        pem.replace('\n', "_"),
        pem.trim_end().replace('\n', "_"),
    ] {
        let private = PrivateKey::read(&text, KeyFormat::Pem, Some(PASSPHRASE)).unwrap();
        pair(&private, &public, "RS256").unwrap();
    }
}

#[test]
fn small_rsa_keys_are_refused_in_words() {
    let keys = Keys::new();
    keys.run("openssl", "genrsa -traditional -out rsa.pem 1024")
        .run("openssl", "rsa -in rsa.pem -pubout -out public.pem");
    let private = keys.private("rsa.pem", None).unwrap();
    let error = pair(&private, &keys.public("public.pem"), "RS256").unwrap_err();
    assert!(error.to_string().contains("2048 bits"), "{error}");
}

#[test]
fn garbage_is_refused_without_being_repeated() {
    let begin = "-----BEGIN RSA PRIVATE KEY-----";
    let texts = [
        String::new(),
        "hunter2".to_owned(),
        "/no/such/hunter2".to_owned(),
        begin.to_owned(),
        format!("{begin}_hunter2_-----END RSA PRIVATE KEY-----_"),
        format!("{begin}_aHVudGVyMg==_-----END RSA PRIVATE KEY-----_"),
        format!("{begin}\nDEK-Info: AES-128-CBC,00\n\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----"),
        format!("{begin}\nDEK-Info: RC4,00\n\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----"),
        "-----BEGIN OPENSSH PRIVATE KEY-----\naHVudGVyMg==\n-----END OPENSSH PRIVATE KEY-----"
            .to_owned(),
        "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----".to_owned(),
    ];
    for text in &texts {
        for format in [KeyFormat::Pem, KeyFormat::Ssh, KeyFormat::Der] {
            let error = PrivateKey::read(text, format, Some("hunter2"))
                .unwrap_err()
                .to_string();
            assert!(
                !error.contains("hunter2") && !error.contains("aHVu"),
                "{error}"
            );
            let error = PublicKey::read(text, format).unwrap_err().to_string();
            assert!(
                !error.contains("hunter2") && !error.contains("aHVu"),
                "{error}"
            );
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"\xff\xfe\x00").unwrap();
    for format in [KeyFormat::Pem, KeyFormat::Ssh, KeyFormat::Der] {
        PrivateKey::read(text(file.path()), format, None).unwrap_err();
        PublicKey::read(text(file.path()), format).unwrap_err();
    }
}
