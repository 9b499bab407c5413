//! `/ws` with the feed: positions instead of answers, and nothing of it for those who do not ask.

use serde_json::{Value, json};

use crate::peer::{Heard, Peer};
use crate::support::TestServer;

async fn update(server: &TestServer, topic: &str, data: u32) {
    let entry = json!({ "url": "", "data": { "n": data }, "topics": [topic], "dst_path": "/x" });
    server
        .post("/data/config", &json!({ "entries": [entry] }))
        .await
        .expect(200)
        .unwrap();
}

fn resume(topics: &[&str], position: &Value) -> Value {
    json!({ "topics": topics, "position": position, "client": { "id": "c1" } })
}

fn position(frame: &Value, revision: &str) -> Value {
    let part = |name: &str| frame[name].as_str().unwrap().to_owned();
    let (epoch, digest) = (part("epoch"), part("digest"));
    json!(format!("{epoch}:{}:{digest}", frame[revision]))
}

#[tokio::test]
async fn a_peer_that_resumes_gets_every_change_without_answering() {
    let server = TestServer::start(&[]).await;
    let mut peer = Peer::with_feed(&server, "/ws").await;
    let answer = peer.call("resume", resume(&["users"], &Value::Null)).await;
    assert_eq!(
        (&answer["mode"], &answer["head"]),
        (&json!("snapshot"), &json!(0))
    );
    let more_than_any_window = 100;
    for n in 1..=more_than_any_window {
        update(&server, "users", n).await;
    }
    let mut last = Value::Null;
    for n in 1..=more_than_any_window {
        let event = peer.event().await;
        assert_eq!(event["method"], "change");
        last = event["arguments"].clone();
        assert_eq!(
            (&last["revision"], &last["topics"]),
            (&json!(n), &json!(["users"]))
        );
        assert_eq!(last["payload"]["entries"][0]["data"]["n"], n);
    }
    peer.say("applied", json!({ "low": 100 })).await;

    last["epoch"] = answer["epoch"].clone();
    update(&server, "users", 101).await;
    let mut again = Peer::with_feed(&server, "/ws").await;
    let answer = again
        .call("resume", resume(&["users"], &position(&last, "revision")))
        .await;
    assert_eq!(
        (&answer["mode"], &answer["head"]),
        (&json!("replay"), &json!(101))
    );
    let (change, head) = (again.event().await, again.event().await);
    assert_eq!(change["arguments"]["revision"], 101);
    assert_eq!(
        (&head["method"], &head["arguments"]["revision"]),
        (&json!("position"), &json!(101))
    );
}

#[tokio::test]
async fn a_released_peer_sees_nothing_of_the_feed() {
    let server = TestServer::start(&[]).await;
    let mut feed = Peer::with_feed(&server, "/ws").await;
    feed.call("resume", resume(&["users"], &Value::Null)).await;
    let (mut released, header) = Peer::open(&server, "/ws", &[]).await.unwrap();
    assert_eq!(header, None);
    released.subscribe(&["users"]).await;
    update(&server, "users", 1).await;
    assert_eq!(
        released.notified().await["data"]["entries"][0]["data"]["n"],
        1
    );
    released
        .send_text(r#"{"request":{"method":"resume","arguments":{"topics":["users"]}}}"#)
        .await;
    assert_eq!(
        released.closed().await,
        Some(1000),
        "it does not exist for it"
    );
    assert_eq!(feed.event().await["method"], "change");
}

#[tokio::test]
async fn another_version_of_the_feed_is_not_agreed_on() {
    let server = TestServer::start(&[]).await;
    for version in ["2", "", "1, 2"] {
        let headers = [("x-opal-feed", version)];
        let (_, agreed) = Peer::open(&server, "/ws", &headers).await.unwrap();
        assert_eq!(agreed, None, "{version}");
    }
}

#[tokio::test]
async fn what_the_token_does_not_permit_is_answered_with_false_and_the_peer_stays() {
    let server = TestServer::secured(&[]).await;
    let claims = json!({ "permitted_topics": ["users"], "allowed_scopes": ["default"] });
    let token = server.token(&json!({ "claims": claims })).await;
    let bearer = format!("Bearer {token}");
    let headers = [("x-opal-feed", "1"), ("authorization", &bearer)];
    let (mut peer, _) = Peer::open(&server, "/ws", &headers).await.unwrap();
    let other_scope = json!({ "topics": ["users"], "scope": "tenant" });
    assert_eq!(peer.call("resume", other_scope).await, json!(false));
    let other_topic = resume(&["users", "secrets"], &Value::Null);
    assert_eq!(peer.call("resume", other_topic).await, json!(false));
    let answer = peer.call("resume", resume(&["users"], &Value::Null)).await;
    assert_eq!(answer["mode"], "snapshot");
}

#[tokio::test]
async fn a_report_of_what_was_never_told_is_passed_over() {
    let server = TestServer::start(&[]).await;
    let mut peer = Peer::with_feed(&server, "/ws").await;
    peer.call("resume", resume(&["users"], &Value::Null)).await;
    for nonsense in [
        json!({ "low": 99 }),
        json!({ "low": 0, "done": [[5, 2]] }),
        json!({ "low": u64::MAX, "done": [[1, 2], [1, 2]] }),
    ] {
        peer.say("applied", nonsense).await;
    }
    update(&server, "users", 1).await;
    assert_eq!(peer.event().await["arguments"]["revision"], 1);
    peer.say("applied", json!({ "low": "x" })).await;
    assert!(matches!(peer.hear().await, Heard::Closed(Some(1000))));
}
