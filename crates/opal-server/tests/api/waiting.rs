//! Waiting for clients that speak the feed, and what is found out about them.

use std::collections::BTreeMap;
use std::time::Duration;

use opal_protocol::policy::policy_digest;
use opal_testing::{http, wait};
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::support::{TestServer, recorded_repo};

/// A client of the feed, once the server knows that it has everything.
async fn client(server: &TestServer, id: &str, topics: &[&str]) -> Peer {
    let mut peer = Peer::with_feed(server, "/ws").await;
    let client = json!({ "id": id, "host": "here", "version": "1" });
    let arguments = json!({ "topics": topics, "client": client });
    let answer = peer.call("resume", arguments).await;
    peer.say("applied", json!({ "low": answer["head"] })).await;
    until_state(server, id, "current").await;
    peer
}

async fn view(server: &TestServer, id: &str) -> Value {
    let fleet = server
        .get("/v1/fleet")
        .await
        .expect(200)
        .unwrap()
        .json()
        .unwrap();
    let clients = fleet["clients"].as_array().unwrap();
    let client = clients.iter().find(|client| client["id"] == id);
    client.cloned().unwrap_or_default()
}

async fn until_state(server: &TestServer, id: &str, state: &str) {
    wait::until(format!("`{id}` to be {state}"), async || {
        let seen = view(server, id).await;
        anyhow::ensure!(seen["state"] == state, "{seen}");
        Ok(())
    })
    .await
    .unwrap();
}

fn update() -> Value {
    json!({ "entries": [{ "url": "", "dst_path": "/x", "data": { "a": 1 } }] })
}

/// The next change, which somebody waits for.
async fn waited_for(peer: &mut Peer) -> Value {
    let change = peer.event().await;
    assert_eq!(change["method"], "change", "{change}");
    assert_eq!(change["arguments"]["confirm"], true, "{change}");
    change["arguments"]["revision"].clone()
}

#[tokio::test]
async fn a_publish_is_answered_once_all_have_applied_it() {
    let server = TestServer::start(&[]).await;
    let mut one = client(&server, "edge-1", &["policy_data"]).await;
    let mut two = client(&server, "edge-2", &["policy_data"]).await;
    let _other = client(&server, "edge-3", &["elsewhere"]).await;
    let update = update();
    let publish = server.post("/data/config?wait=all&timeout=300", &update);
    let apply = async {
        for peer in [&mut two, &mut one] {
            let revision = waited_for(peer).await;
            peer.say("applied", json!({ "low": revision })).await;
        }
    };
    let (answer, ()) = tokio::join!(publish, apply);
    let answer = answer.expect(200).unwrap().json().unwrap();
    assert_eq!(answer["applied"], json!(["edge-1", "edge-2"]));
    assert_eq!(
        (&answer["met"], &answer["missing"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn a_publish_that_a_client_cannot_apply_says_why() {
    let server = TestServer::start(&[]).await;
    let mut peer = client(&server, "edge-1", &["policy_data"]).await;
    let update = update();
    let publish = server.post("/data/config?wait=client%3Dedge-1&timeout=300", &update);
    let fail = async {
        let revision = waited_for(&mut peer).await;
        let failing = json!([{
            "revision": revision, "entry": "/x", "error": "refused by the engine",
            "since": "2026-01-01T00:00:00Z", "final": true,
        }]);
        let arguments = json!({ "low": revision, "failing": failing });
        peer.say("applied", arguments).await;
    };
    let (answer, ()) = tokio::join!(publish, fail);
    let answer = answer.expect(200).unwrap().json().unwrap();
    assert_eq!(answer["met"], false);
    let missing = &answer["missing"][0];
    assert_eq!(missing["client"], "edge-1");
    let reason = missing["reason"].as_str().unwrap();
    assert!(reason.contains("refused by the engine"), "{reason}");
    assert_eq!(view(&server, "edge-1").await["state"], "failing");
}

#[tokio::test]
async fn a_refresh_is_answered_once_the_client_has_the_commit() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    server.until(|status| status.position.is_some()).await;
    let mut peer = client(&server, "edge-1", &["policy:."]).await;
    repo.force(&ids[1]).unwrap();
    let body = json!({});
    let refresh = server.post("/policy/refresh?wait=client%3Dedge-1&timeout=300", &body);
    let apply = async {
        let change = peer.event().await;
        assert_eq!(
            change["arguments"]["payload"]["new_policy_hash"],
            json!(ids[1])
        );
        let low = &change["arguments"]["revision"];
        peer.say("applied", json!({ "low": low, "commit": ids[1] }))
            .await;
    };
    let (answer, ()) = tokio::join!(refresh, apply);
    let answer = answer.expect(200).unwrap().json().unwrap();
    assert_eq!(answer["applied"], json!(["edge-1"]));
    assert_eq!(answer["commit"], json!(ids[1]));
}

#[tokio::test]
async fn a_client_whose_policies_are_not_those_of_its_commit_is_told_so_once() {
    let (repo, ids) = recorded_repo(0);
    let url = repo.url();
    let settings = [
        ("OPAL_POLICY_REPO_URL", url.as_str()),
        ("OPAL_POLICY_REPO_MAIN_BRANCH", "main"),
    ];
    let often = Duration::from_millis(20);
    let server = TestServer::start_with(&settings, |config| config.drift_check = often).await;
    server.until(|status| status.position.is_some()).await;
    let bundle = http::get(server.url("/policy?path=app"))
        .send()
        .await
        .unwrap();
    let bundle = bundle.json().unwrap();
    let modules = bundle["policy_modules"].as_array().unwrap();
    assert!(!modules.is_empty());
    let text = |module: &Value, member: &str| module[member].as_str().unwrap().to_owned();
    let policies: BTreeMap<String, String> = modules
        .iter()
        .map(|module| (text(module, "path"), text(module, "rego")))
        .collect();

    let mut right = client(&server, "right", &["policy:app"]).await;
    let mut wrong = client(&server, "wrong", &["policy:app"]).await;
    let report = |digest: &str| json!({ "low": 1, "commit": ids[0], "digest_of_policies": digest });
    right
        .say("applied", report(&policy_digest(&policies)))
        .await;
    wrong.say("applied", report("0000")).await;
    let told = wrong.event().await;
    assert_eq!(
        (&told["method"], &told["arguments"]["drift"]),
        (&json!("position"), &json!(true))
    );
    assert_eq!(view(&server, "wrong").await["drift"], true);
    assert_eq!(view(&server, "right").await["drift"], false);

    // Another wrong report about the same commit changes nothing; one about the next does.
    wrong.say("applied", report("1111")).await;
    repo.force(&ids[1]).unwrap();
    server
        .post("/policy/refresh", &json!({}))
        .await
        .expect(200)
        .unwrap();
    let change = wrong.event().await;
    assert_eq!(change["method"], "change", "{change}");
    let low = &change["arguments"]["revision"];
    let report = json!({ "low": low, "commit": ids[1], "digest_of_policies": "0000" });
    wrong.say("applied", report).await;
    assert_eq!(wrong.event().await["arguments"]["drift"], true);
}
