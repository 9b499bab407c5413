//! `GET /v1/fleet` and `GET /healthcheck?verbose`.

use opal_testing::http;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::support::{TestServer, recorded_repo};

async fn json_of(server: &TestServer, target: &str, token: Option<&str>) -> Value {
    let request = http::get(server.url(target));
    let request = match token {
        Some(token) => request.bearer(token),
        None => request,
    };
    request
        .send()
        .await
        .unwrap()
        .expect(200)
        .unwrap()
        .json()
        .unwrap()
}

#[tokio::test]
async fn the_fleet_names_released_clients_and_the_head() {
    let server = TestServer::start(&[]).await;
    let empty = json_of(&server, "/v1/fleet", None).await;
    assert_eq!(empty["clients"], json!([]));
    let head = empty["head"]["default"].as_str().unwrap().to_owned();
    assert!(head.contains(":0:"), "{head}");
    let mut client = Peer::try_connect(&server, "/ws?__opal_client_id=old-1", None)
        .await
        .unwrap();
    client.subscribe(&["policy_data"]).await;
    let fleet = json_of(&server, "/v1/fleet", None).await;
    let seen = &fleet["clients"][0];
    assert_eq!(seen["id"], "old-1");
    assert_eq!(seen["mode"], "released");
    assert_eq!(seen["position"], Value::Null);
    assert_eq!(seen["topics"], json!(["policy_data"]));
}

#[tokio::test]
async fn the_fleet_is_for_bearers_and_each_sees_the_scopes_that_it_may() {
    let server = TestServer::secured(&[]).await;
    assert_eq!(server.get("/v1/fleet").await.status, 401);
    let client = server.token_of("client").await;
    let authorization = format!("Bearer {client}");
    let mut peer = Peer::try_connect(&server, "/ws", Some(&authorization))
        .await
        .unwrap();
    peer.subscribe(&["policy_data"]).await;
    for (scopes, clients, heads) in [(json!(["default"]), 1, 1), (json!(["s1"]), 0, 0)] {
        let claims = json!({ "allowed_scopes": scopes });
        let token = server
            .token(&json!({ "type": "listener", "claims": claims }))
            .await;
        let fleet = json_of(&server, "/v1/fleet", Some(&token)).await;
        assert_eq!(
            fleet["clients"].as_array().unwrap().len(),
            clients,
            "{scopes}"
        );
        assert_eq!(fleet["head"].as_object().unwrap().len(), heads, "{scopes}");
        let health = json_of(&server, "/healthcheck?verbose", Some(&token)).await;
        let counts = health["clients"].as_object().unwrap();
        let counted: u64 = counts.values().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(counted, clients as u64, "{scopes}");
        let heads_named = health["feed"]["head"].as_object().unwrap().len();
        assert_eq!(heads_named, heads, "{scopes}");
    }
}

#[tokio::test]
async fn the_health_check_is_short_unless_asked_and_then_says_everything() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    server.until(|status| status.position.is_some()).await;
    assert_eq!(
        server.get("/healthcheck").await.text(),
        r#"{"status":"ok"}"#
    );
    let mut client = Peer::subscribed(&server, &["policy_data"]).await;
    let health = json_of(&server, "/healthcheck?verbose", None).await;
    assert_eq!(health["status"], "ok");
    assert!(
        health["feed"]["head"]["default"]
            .as_str()
            .unwrap()
            .contains(":1:")
    );
    assert_eq!(health["feed"]["durable"], false);
    assert_eq!(health["feed"]["error"], Value::Null);
    assert_eq!(health["policy"]["commit"], json!(ids[0]));
    assert_eq!(health["policy"]["error"], Value::Null);
    assert!(health["policy"]["last_sync"].is_string());
    assert_eq!(health["clients"], json!({ "current": 1 }));

    let _hidden = repo.hide().unwrap();
    assert_eq!(server.post("/policy/refresh", &json!({})).await.status, 502);
    let health = json_of(&server, "/healthcheck?verbose=1", None).await;
    let error = health["policy"]["error"].as_str().unwrap();
    assert!(error.starts_with("could not fetch from"), "{error}");
    assert!(health["policy"]["error_since"].is_string());
    client.subscribe(&["more"]).await;
}

#[tokio::test]
async fn only_a_bearer_learns_how_a_secured_server_is_doing() {
    let server = TestServer::secured(&[]).await;
    assert_eq!(server.get("/healthcheck").await.status, 200);
    assert_eq!(server.get("/healthcheck?verbose").await.status, 401);
    let token = server.token_of("listener").await;
    let health = json_of(&server, "/healthcheck?verbose", Some(&token)).await;
    assert_eq!(health["policy"], Value::Null);
}
