//! Tokens, the public key, and what each mode asks for.

use opal_testing::http;
use serde_json::{Map, Value, json};

use crate::support::{MASTER, TestServer, config, fixture};

#[tokio::test]
async fn the_recorded_tokens_are_issued_again() {
    let server = TestServer::secured(&[]).await;
    let recorded: Map<String, Value> = serde_json::from_str(fixture!("auth/tokens.json")).unwrap();
    for (name, recorded) in &recorded {
        let (details, claims) = (
            &recorded["response"]["details"],
            &recorded["decoded_claims"],
        );
        let mut more = details["claims"].clone();
        more.as_object_mut().unwrap().shift_remove("peer_type");
        let ttl = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        let request = json!({
            "id": details["id"], "type": details["type"], "ttl": ttl, "claims": more,
        });
        let issued = server.issue(&request).await;
        assert_eq!(issued["type"], recorded["response"]["type"], "{name}");
        for member in ["id", "type", "claims"] {
            assert_eq!(issued["details"][member], details[member], "{name}");
        }
        let token = issued["token"].as_str().unwrap();
        assert_eq!(decoded(token, 0), recorded["decoded_header"], "{name}");
        let mut ours = decoded(token, 1);
        let issued_at = ours["iat"].as_i64().unwrap();
        assert_eq!(ours["exp"], issued_at + ttl, "{name}");
        ours["iat"] = claims["iat"].clone();
        ours["exp"] = claims["exp"].clone();
        assert_eq!(ours.to_string(), claims.to_string(), "{name}");
    }
}

/// A part of a token, unverified.
fn decoded(token: &str, part: usize) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(part).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[tokio::test]
async fn no_refusal_repeats_the_token() {
    let server = TestServer::secured(&[]).await;
    let expired = server.token(&json!({ "ttl": -10 })).await;
    let client = server.token_of("client").await;
    for token in ["a-secret-of-someone", &expired, &client] {
        for target in ["/token", "/data/config"] {
            let request = http::post(server.url(target)).bearer(token);
            let request = request.json(&json!({ "entries": [] })).unwrap();
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status, 401);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(!answer.text().contains(token), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn the_master_token_is_asked_for_before_the_body_is_looked_at() {
    let server = TestServer::secured(&[]).await;
    let post = || http::post(server.url("/token")).body("{");
    assert_eq!(post().send().await.unwrap().status, 401);
    assert_eq!(post().bearer(MASTER).send().await.unwrap().status, 422);
}

#[tokio::test]
async fn an_unsecured_server_looks_at_no_token() {
    let server = TestServer::start(&[]).await;
    for token in ["THIS_IS_A_DEV_SECRET", "garbage"] {
        let update = http::post(server.url("/data/config")).bearer(token);
        let update = update.json(&json!({ "entries": [] })).unwrap();
        update.send().await.unwrap().expect(200).unwrap();
    }
}

#[test]
fn one_key_without_the_other_or_with_a_foreign_one_is_refused() {
    let ours = opal_runtime::token::generate().unwrap();
    let foreign = ("OPAL_AUTH_PUBLIC_KEY", fixture!("auth/public_key.pub"));
    let private = ("OPAL_AUTH_PRIVATE_KEY", ours.private_pem.as_str());
    for settings in [vec![private], vec![foreign], vec![private, foreign]] {
        let refused = config(settings).unwrap_err();
        assert!(refused.contains("OPAL_AUTH_"), "{refused}");
        assert!(!refused.contains("PRIVATE KEY-----"), "{refused}");
    }
}
