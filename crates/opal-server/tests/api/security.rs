//! Tokens, the public key, and what each mode asks for.

use opal_testing::http;
use serde_json::{Map, Value, json};

use crate::support::{MASTER, TestServer, config, fixture, warnings};

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

#[tokio::test]
async fn a_request_for_a_token_is_short() {
    let server = TestServer::secured(&[]).await;
    let mut request = json!({ "type": "client", "claims": { "note": "x".repeat(60_000) } });
    server.token(&request).await;
    request["claims"]["note"] = "x".repeat(70_000).into();
    let post = http::post(server.url("/token")).bearer(MASTER);
    let answer = post.json(&request).unwrap().send().await.unwrap();
    assert_eq!(answer.status, 413);
}

#[test]
fn keys_without_a_master_token_are_warned_about() {
    let ours = opal_runtime::token::generate().unwrap();
    let keys = [
        ("OPAL_AUTH_PRIVATE_KEY", ours.private_pem.as_str()),
        ("OPAL_AUTH_PUBLIC_KEY", ours.public_pem.as_str()),
        ("OPAL_AUTH_PUBLIC_KEY_FORMAT", "pem"),
    ];
    let open = warnings(keys);
    assert!(
        open.len() == 1 && open[0].contains("POST /token is open"),
        "{open:?}"
    );
    let guarded = keys.into_iter().chain([("OPAL_AUTH_MASTER_TOKEN", MASTER)]);
    assert_eq!(warnings(guarded), Vec::<String>::new());
}

#[test]
fn the_old_port_counts_if_it_is_a_number_and_must_then_be_a_port() {
    let port = |old| config([("OPAL_SERVER_PORT", old)]).map(|config| config.port);
    assert_eq!(port("8000"), Ok(8000));
    assert_eq!(port("tcp://10.0.0.1:7002"), Ok(7002));
    assert_eq!(port(""), Ok(7002));
    let refused = port("70000").unwrap_err();
    assert!(
        refused.contains("OPAL_SERVER_PORT") && refused.contains("70000"),
        "{refused}"
    );
}
