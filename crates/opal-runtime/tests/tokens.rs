//! Tokens against what released OPAL issued and answered.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use opal_protocol::{AccessTokenRequest, Claims, PeerType};
use opal_runtime::config::{CommandLine, Environment, Program, Reader, Settings};
use opal_runtime::token::keys::{KeyFormat, PrivateKey, PublicKey};
use opal_runtime::token::{
    Access, Algorithm, MasterToken, ServerSecurity, TokenError, TokenSigner, TokenVerifier,
    jwks_json, require_peer_type, require_topics,
};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

const AUDIENCE: &str = "https://api.opal.ac/v1/";
const ISSUER: &str = "https://opal.ac/";
const RECORDED_KEY: &str = include_str!("fixtures/auth/public_key.pub");

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn recorded() -> Map<String, Value> {
    serde_json::from_str(include_str!("fixtures/auth/tokens.json")).unwrap()
}

fn recorded_verifier() -> TokenVerifier {
    let key = PublicKey::read(RECORDED_KEY.trim(), KeyFormat::Ssh).unwrap();
    verifier(&key, "RS256")
}

fn verifier(key: &PublicKey, algorithm: &str) -> TokenVerifier {
    let algorithm = Algorithm::parse(algorithm).unwrap();
    TokenVerifier::new(key, algorithm, AUDIENCE.into(), ISSUER.into()).unwrap()
}

/// A pair for signing: an Ed25519 key with a known seed.
fn signer() -> (TokenSigner, TokenVerifier) {
    let private = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
        -----END PUBLIC KEY-----\n";
    let private = PrivateKey::read(private, KeyFormat::Pem, None).unwrap();
    let public = PublicKey::read(public, KeyFormat::Pem).unwrap();
    let algorithm = Algorithm::parse("EdDSA").unwrap();
    TokenSigner::new(&private, &public, algorithm, AUDIENCE.into(), ISSUER.into()).unwrap()
}

fn request(claims: &Value) -> AccessTokenRequest {
    AccessTokenRequest {
        id: uuid::Uuid::from_u128(0xc4ae_ccc3_cbfe_4e4f_8611_fd50_b0d2_37b4),
        peer_type: PeerType::Client,
        ttl: TimeDelta::seconds(60),
        claims: claims.as_object().unwrap().clone(),
    }
}

/// Issues a token whose payload has these claims on top, and verifies it at its time of issue.
fn outcome(claims: &Value) -> Result<Claims, TokenError> {
    let (signer, verifier) = signer();
    let issued = signer.issue(&request(claims), at(1000)).unwrap();
    verifier.verify_token(issued.token.as_bytes(), at(1000))
}

#[test]
fn recorded_tokens_verify_and_their_claims_are_those_recorded() {
    let verifier = recorded_verifier();
    for (name, record) in recorded() {
        let token = record["response"]["token"].as_str().unwrap();
        let header = format!("bEaReR {token}");
        let claims = verifier
            .verify(Some(header.as_bytes()), at(1_795_491_400))
            .unwrap();
        let expected: Claims = serde_json::from_value(record["decoded_claims"].clone()).unwrap();
        assert_eq!(claims, expected, "{name}");
    }
}

#[test]
fn a_recorded_token_ends_at_its_second() {
    let verifier = recorded_verifier();
    let record = &recorded()["listener"];
    let token = record["response"]["token"].as_str().unwrap().as_bytes();
    let end = record["decoded_claims"]["exp"].as_i64().unwrap();
    assert!(verifier.verify_token(token, at(end - 1)).is_ok());
    assert_eq!(
        verifier.verify_token(token, at(end)),
        Err(TokenError::Expired)
    );
}

#[test]
fn the_key_set_is_upstream_s_byte_for_byte() {
    let key = PublicKey::read(RECORDED_KEY.trim(), KeyFormat::Ssh).unwrap();
    assert_eq!(
        jwks_json(Some(&key)),
        include_str!("fixtures/auth/jwks.json").trim_end()
    );
    assert_eq!(jwks_json(None), "{}");
    let ed = PublicKey::Ed25519(vec![1; 32]);
    let x = URL_SAFE_NO_PAD.encode([1; 32]);
    assert_eq!(
        jwks_json(Some(&ed)),
        format!(r#"{{"keys": [{{"x": "{x}", "kty": "OKP", "crv": "Ed25519"}}]}}"#)
    );
}

#[test]
fn an_issued_token_has_upstream_s_payload_and_details() {
    let (signer, verifier) = signer();
    let now = DateTime::from_timestamp(1_795_491_315, 906_253_000).unwrap();
    let issued = signer.issue(&request(&json!({"x": 1})), now).unwrap();
    let answer = serde_json::to_value(&issued).unwrap();
    let token = issued.token;
    assert_eq!(
        answer,
        json!({"token": token, "type": "bearer", "details": {
            "id": "c4aeccc3-cbfe-4e4f-8611-fd50b0d237b4", "type": "client",
            "expired": "2026-11-24T03:36:15.906253", "claims": {"peer_type": "client", "x": 1}}})
    );
    let part = |n| {
        URL_SAFE_NO_PAD
            .decode(token.split('.').nth(n).unwrap())
            .unwrap()
    };
    assert_eq!(part(0), br#"{"alg":"EdDSA","typ":"JWT"}"#);
    let payload = String::from_utf8(part(1)).unwrap();
    assert_eq!(
        payload,
        r#"{"iat":1795491315,"exp":1795491375,"aud":"https://api.opal.ac/v1/","iss":"https://opal.ac/","sub":"c4aeccc3cbfe4e4f8611fd50b0d237b4","peer_type":"client","x":1}"#
    );
    assert!(verifier.verify_token(token.as_bytes(), now).is_ok());
    let whole = signer.issue(&request(&json!({})), at(0)).unwrap();
    assert_eq!(whole.details.expired, "1970-01-01T00:01:00");
}

#[test]
fn claims_of_the_request_override_all_others() {
    let (signer, _) = signer();
    let claims = json!({"peer_type": "datasource", "sub": "abc", "aud": "evil"});
    let issued = signer.issue(&request(&claims), at(1000)).unwrap();
    assert_eq!(Value::Object(issued.details.claims), claims);
    assert_eq!(issued.details.peer_type, PeerType::Client);
    assert_eq!(outcome(&claims), Err(TokenError::InvalidAudience));
}

#[test]
fn a_token_that_would_never_end_is_not_issued() {
    let (signer, _) = signer();
    for ttl in [TimeDelta::MAX, TimeDelta::MIN, TimeDelta::days(4_000_000)] {
        let request = AccessTokenRequest {
            ttl,
            ..request(&json!({}))
        };
        assert!(signer.issue(&request, at(1000)).is_err());
    }
}

#[test]
fn claims_are_judged_as_upstream_does() {
    use TokenError as E;
    for (claims, expected) in [
        (json!({}), None),
        (json!({"aud": [AUDIENCE, "other"]}), None),
        (json!({"aud": ["other"]}), Some(E::InvalidAudience)),
        (json!({"aud": [AUDIENCE, 1]}), Some(E::InvalidAudience)),
        (json!({"aud": 7}), Some(E::InvalidAudience)),
        (json!({"aud": null}), Some(E::Unknown)),
        (json!({"aud": ""}), Some(E::Unknown)),
        (json!({"aud": []}), Some(E::Unknown)),
        (json!({"iss": "other"}), Some(E::InvalidIssuer)),
        (json!({"iss": null}), Some(E::InvalidIssuer)),
        (
            json!({"iss": "other", "aud": "other"}),
            Some(E::InvalidIssuer),
        ),
        (json!({"exp": 1000}), Some(E::Expired)),
        (json!({"exp": 1001}), None),
        (json!({"exp": 1001.9}), None),
        (json!({"exp": "1001"}), None),
        (json!({"exp": "soon"}), Some(E::Undecodable)),
        (json!({"exp": null}), Some(E::Undecodable)),
        (json!({"exp": 1, "aud": "other"}), Some(E::Expired)),
        (json!({"iat": 1001}), Some(E::Unknown)),
        (json!({"iat": "x"}), Some(E::Unknown)),
        (json!({"nbf": 1001}), Some(E::Unknown)),
        (json!({"nbf": "x"}), Some(E::Undecodable)),
        (json!({"jti": 1}), Some(E::Unknown)),
        (json!({"sub": 1}), Some(E::Unknown)),
        (json!({"sub": ""}), Some(E::InvalidSubject)),
        (json!({"sub": "abc"}), Some(E::InvalidSubject)),
        (
            json!({"sub": "{11111111-2222-3333-4444-555555555555}"}),
            None,
        ),
        (
            json!({"sub": "urn:uuid:11111111-2222-3333-4444-555555555555"}),
            None,
        ),
        (
            json!({"sub": "1111111122223333444455555555555G"}),
            Some(E::InvalidSubject),
        ),
        (json!({"permitted_topics": "users"}), Some(E::Unknown)),
    ] {
        assert_eq!(outcome(&claims).err(), expected, "{claims}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let (signer, verifier) = signer();
    let good = signer.issue(&request(&json!({})), at(1000)).unwrap().token;
    let [header, payload, signature] =
        <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    let forged = |header: &str| {
        let header = URL_SAFE_NO_PAD.encode(header);
        format!("{header}.{payload}.{signature}")
    };
    let deep = URL_SAFE_NO_PAD.encode("[".repeat(100_000));
    use TokenError as E;
    for (token, expected) in [
        ("garbage".to_owned(), E::Undecodable),
        (String::new(), E::Undecodable),
        ("..".to_owned(), E::Undecodable),
        (format!("{header}.{payload}"), E::Undecodable),
        (
            format!("{header}.{payload}.{}", "A".repeat(86)),
            E::Undecodable,
        ),
        (format!("{header}.{payload}.!!!!"), E::Undecodable),
        (format!("{header}.{payload}.{signature}.x"), E::Undecodable),
        (format!("{deep}.{payload}.{signature}"), E::Undecodable),
        ("A".repeat(10_000_000), E::Undecodable),
        (format!("{header}.{payload}.{signature}="), E::Undecodable),
        (forged("[]"), E::Undecodable),
        (forged(r#"{"typ":"JWT"}"#), E::Unknown),
        (forged(r#"{"alg":"none"}"#), E::Unknown),
        (forged(r#"{"alg":"HS256"}"#), E::Unknown),
        (forged(r#"{"alg":"EdDSA","kid":1}"#), E::Unknown),
        (forged(r#"{"alg":"EdDSA","crit":["x"],"x":1}"#), E::Unknown),
        (forged(r#"{"alg":"EdDSA","b64":false}"#), E::Undecodable),
        (forged(r#"{"alg":"EdDSA"}"#), E::Undecodable),
    ] {
        let shown: String = token.chars().take(60).collect();
        assert_eq!(
            verifier.verify_token(token.as_bytes(), at(1000)),
            Err(expected),
            "{shown}"
        );
    }
    assert_eq!(
        verifier.verify_token(b"\xff.\xff.\xff", at(1000)),
        Err(E::Undecodable)
    );
    for header in [
        None,
        Some(&b"Basic abc"[..]),
        Some(b"Bearer "),
        Some(b"Bearer"),
        Some(b""),
    ] {
        assert_eq!(verifier.verify(header, at(1000)), Err(E::NotProvided));
    }
}

/// The attack that made algorithms a setting: an HMAC keyed with the public key's text.
#[test]
fn a_token_hmaced_with_the_public_key_is_refused() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let payload =
        json!({"aud": AUDIENCE, "iss": ISSUER, "sub": "c4aeccc3cbfe4e4f8611fd50b0d237b4"});
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload.to_string()));
    for secret in [RECORDED_KEY, RECORDED_KEY.trim()] {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
        let token = format!("{signed}.{signature}");
        let outcome = recorded_verifier().verify_token(token.as_bytes(), at(1000));
        assert_eq!(outcome, Err(TokenError::Unknown));
    }
}

#[test]
fn the_details_of_an_error_are_upstream_s_without_the_token() {
    let wrong = TokenError::WrongPeerType {
        actual: PeerType::Client,
        expected: PeerType::DataSource,
    };
    for (error, text) in [
        (TokenError::NotProvided, "access token was not provided"),
        (
            TokenError::InvalidAudience,
            "Invalid access token: invalid audience claim",
        ),
        (
            wrong,
            "Incorrect 'peer_type' claim for OPAL jwt token: PeerType.client, expected: PeerType.datasource",
        ),
        (
            TokenError::UnknownPeerType("X".into()),
            "Invalid 'peer_type' claim for OPAL jwt token: X",
        ),
        (
            TokenError::ForbiddenTopics(vec!["other".into()]),
            "Invalid 'topics' to publish {'other'}",
        ),
    ] {
        assert_eq!(error.detail(), json!({"error": text}));
    }
}

#[test]
fn routes_ask_for_peer_type_and_topics() {
    let claims = |value: Value| serde_json::from_value::<Claims>(value).unwrap();
    let client = claims(json!({"peer_type": "client", "permitted_topics": ["users"]}));
    assert_eq!(require_peer_type(&client, PeerType::Client), Ok(()));
    assert!(require_peer_type(&client, PeerType::Listener).is_err());
    let none = claims(json!({}));
    assert_eq!(
        require_peer_type(&none, PeerType::Client),
        Err(TokenError::MissingPeerType)
    );
    let odd = claims(json!({"peer_type": 3}));
    assert_eq!(
        require_peer_type(&odd, PeerType::Client),
        Err(TokenError::UnknownPeerType("3".into()))
    );
    assert_eq!(require_topics(&none, ["a"]), Ok(()));
    assert_eq!(require_topics(&client, ["users"]), Ok(()));
    assert_eq!(
        require_topics(&client, ["users", "users/a", "b", "b"]),
        Err(TokenError::ForbiddenTopics(vec![
            "users/a".into(),
            "b".into()
        ]))
    );
}

#[test]
fn the_master_token_guards_if_it_is_set() {
    let master = MasterToken::new(Some(SecretString::from("master-secret")));
    assert_eq!(master.check(Some(b"bEARER master-secret")), Ok(()));
    assert_eq!(master.check(None), Err(TokenError::HeaderRequired));
    for wrong in [
        &b"Bearer wrong"[..],
        b"Basic master-secret",
        b"Bearer master-secret ",
        b"",
    ] {
        assert_eq!(master.check(Some(wrong)), Err(TokenError::WrongMasterToken));
    }
    assert_eq!(MasterToken::default().check(None), Ok(()));
    assert!(!format!("{master:?}").contains("master-secret"));
}

fn security(variables: &[(&str, &str)]) -> Result<ServerSecurity, String> {
    let environment = Environment::of(variables.iter().copied());
    let settings = Settings::collect(Program::Server, &CommandLine::default(), &environment);
    let mut reader = Reader::new(&settings);
    let security = ServerSecurity::read(&mut reader);
    reader
        .finish(security)
        .map(|(value, _)| value)
        .map_err(|e| e.to_string())
}

#[test]
fn a_server_is_open_without_keys_and_refuses_half_a_pair() {
    let open = security(&[("OPAL_AUTH_JWT_ALGORITHM", "HS256")]).unwrap();
    assert!(!open.access.is_secured() && open.signer.is_none());
    assert!(open.access.verify(None, at(0)).unwrap().is_none());

    let one = security(&[("OPAL_AUTH_PUBLIC_KEY", RECORDED_KEY.trim())]).unwrap_err();
    assert_eq!(
        one,
        "OPAL_AUTH_PUBLIC_KEY: is set without OPAL_AUTH_PRIVATE_KEY; set both for secured access, or none"
    );
    let other = security(&[("OPAL_AUTH_PRIVATE_KEY", "hunter2")]).unwrap_err();
    assert!(
        other.contains("OPAL_AUTH_PRIVATE_KEY") && !other.contains("hunter2"),
        "{other}"
    );
    let empty = security(&[("OPAL_AUTH_PUBLIC_KEY", ""), ("OPAL_AUTH_PRIVATE_KEY", "")]);
    assert!(empty.is_err(), "an empty key is not an open server");
}

#[test]
fn an_algorithm_that_cannot_be_used_with_keys_is_refused_at_the_start() {
    let all = ["none", "HS256", "ES512", "ES521", "ES256K"];
    for algorithm in all {
        let variables = [
            ("OPAL_AUTH_PUBLIC_KEY", RECORDED_KEY.trim()),
            ("OPAL_AUTH_PRIVATE_KEY", "x"),
            ("OPAL_AUTH_JWT_ALGORITHM", algorithm),
        ];
        let text = security(&variables).unwrap_err();
        assert!(
            text.contains("OPAL_AUTH_JWT_ALGORITHM: expected one of RS256"),
            "{text}"
        );
    }
}

#[test]
fn a_client_verifies_with_a_public_key_alone() {
    let variables = [("OPAL_AUTH_PUBLIC_KEY", RECORDED_KEY.trim())];
    let environment = Environment::of(variables);
    let settings = Settings::collect(Program::Client, &CommandLine::default(), &environment);
    let mut reader = Reader::new(&settings);
    let access = Access::read(&mut reader);
    let (access, _) = reader.finish(access).unwrap();
    let token = recorded()["listener"]["response"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let header = format!("Bearer {token}");
    let claims = access
        .verify(Some(header.as_bytes()), at(1_795_491_400))
        .unwrap()
        .unwrap();
    assert_eq!(require_peer_type(&claims, PeerType::Listener), Ok(()));
}
