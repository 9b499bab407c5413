//! `POST /data/config` beyond what released callers use: where in the feed an update is, repeats,
//! and waiting.

use opal_protocol::Position;
use opal_testing::http::{self, Answer};
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::support::TestServer;

fn update(value: i64) -> Value {
    json!({ "entries": [{ "url": "", "dst_path": "/x", "data": { "value": value } }] })
}

pub(crate) fn position(answer: &Answer, header: &str) -> Position {
    answer.headers[header].to_str().unwrap().parse().unwrap()
}

async fn publish(server: &TestServer, key: &str, update: &Value) -> Answer {
    let request = http::post(server.url("/data/config")).header("idempotency-key", key);
    request.json(update).unwrap().send().await.unwrap()
}

#[tokio::test]
async fn a_publish_says_where_in_the_feed_it_is_and_whether_that_lasts() {
    let server = TestServer::start(&[]).await;
    let mut revisions = Vec::new();
    for value in [1, 2] {
        let answer = server.post("/data/config", &update(value)).await;
        assert_eq!(answer.text(), r#"{"status":"ok"}"#);
        assert_eq!(answer.headers["x-opal-durable"], "false");
        revisions.push(position(&answer, "x-opal-revision").revision.0);
    }
    assert_eq!(revisions, [1, 2]);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_first_publish_and_told_once() {
    let server = TestServer::start(&[]).await;
    let mut client = Peer::subscribed(&server, &["policy_data"]).await;
    let first = publish(&server, "order 7", &update(1))
        .await
        .expect(200)
        .unwrap();
    let again = publish(&server, "order 7", &update(1))
        .await
        .expect(200)
        .unwrap();
    assert_eq!(
        position(&first, "x-opal-revision"),
        position(&again, "x-opal-revision")
    );
    let other = publish(&server, "order 8", &update(2))
        .await
        .expect(200)
        .unwrap();
    assert_eq!(position(&other, "x-opal-revision").revision.0, 2);
    for value in [1, 2] {
        let told = client.notified().await;
        assert_eq!(told["data"]["entries"][0]["data"]["value"], value);
        assert_eq!(told["data"]["id"].as_str().unwrap().len(), 32);
    }
}

#[tokio::test]
async fn a_key_of_another_update_is_refused() {
    let server = TestServer::start(&[]).await;
    publish(&server, "k", &update(1)).await.expect(200).unwrap();
    let answer = publish(&server, "k", &update(2)).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.text(),
        r#"{"detail":"this `Idempotency-Key` was used for another update"}"#
    );
    let next = server.post("/data/config", &update(3)).await;
    assert_eq!(position(&next, "x-opal-revision").revision.0, 2);
}

#[tokio::test]
async fn absurd_keys_and_waits_are_refused_before_anything_is_published() {
    let server = TestServer::start(&[]).await;
    for key in ["", " ", &"k".repeat(256), "\u{e9}"] {
        let answer = publish(&server, key, &update(1)).await;
        assert_eq!(answer.status, 400, "{key}");
    }
    for query in [
        "wait=",
        "wait=some",
        "wait=0%25",
        "wait=101%25",
        "wait=client%3D",
        "wait=all&timeout=-1",
        "wait=all&timeout=301",
        "wait=all&timeout=soon",
    ] {
        let answer = server
            .post(&format!("/data/config?{query}"), &update(1))
            .await;
        assert_eq!(answer.status, 400, "{query}");
    }
    let answer = server.post("/data/config", &update(1)).await;
    assert_eq!(position(&answer, "x-opal-revision").revision.0, 1);
}

#[tokio::test]
async fn a_wait_for_nobody_is_met_and_one_for_an_unknown_client_is_not() {
    let server = TestServer::start(&[]).await;
    let answer = server.post("/data/config?wait=all", &update(1)).await;
    let revision = position(&answer, "x-opal-revision");
    assert_eq!(
        answer.json().unwrap(),
        json!({
            "status": "ok", "revision": revision, "met": true, "applied": [], "missing": [],
            "disconnected": [], "unconfirmed": [],
        })
    );
    let answer = server
        .post("/data/config?wait=client%3Dedge", &update(1))
        .await;
    let answer = answer.expect(200).unwrap().json().unwrap();
    assert_eq!(answer["met"], false);
    assert_eq!(
        answer["missing"],
        json!([{ "client": "edge", "reason": "not connected" }])
    );
}

#[tokio::test]
async fn a_released_client_cannot_confirm_and_does_not_hold_up() {
    let server = TestServer::start(&[]).await;
    let mut client = Peer::try_connect(&server, "/ws?__opal_client_id=old-1", None)
        .await
        .unwrap();
    client.subscribe(&["policy_data"]).await;
    let answer = server
        .post("/data/config?wait=all&timeout=300", &update(1))
        .await;
    let answer = answer.expect(200).unwrap().json().unwrap();
    assert_eq!(answer["unconfirmed"], json!(["old-1"]));
    assert_eq!(answer["applied"], json!([]));
    assert_eq!(
        client.notified().await["data"]["entries"][0]["data"]["value"],
        1
    );
}
