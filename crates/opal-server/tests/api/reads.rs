//! Reads that must not be older than their caller, and the base of the feed.

use opal_protocol::{AtLeast, Position, Revision};
use opal_testing::http::{self, Answer};
use serde_json::{Value, json};

use crate::publishing::position;
use crate::support::{TestServer, recorded_repo};

async fn get_at(server: &TestServer, target: &str, at_least: impl ToString) -> Answer {
    let request = http::get(server.url(target)).header("x-opal-at-least", at_least.to_string());
    request.send().await.unwrap()
}

async fn publish(server: &TestServer, path: &str, topic: &str) -> Position {
    let entry = json!({ "url": "", "dst_path": path, "topics": [topic], "data": { "a": 1 } });
    let answer = server
        .post("/data/config", &json!({ "entries": [entry] }))
        .await;
    position(&answer.expect(200).unwrap(), "x-opal-revision")
}

fn beyond(position: &Position) -> AtLeast {
    AtLeast {
        revision: Revision(position.revision.0 + 1),
        ..position.at_least()
    }
}

#[tokio::test]
async fn a_bundle_says_up_to_where_it_holds_everything_and_is_never_from_before() {
    let (repo, _) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    server.until(|status| status.position.is_some()).await;
    let plain = server.get("/policy").await.expect(200).unwrap();
    let here = position(&plain, "x-opal-position");
    assert_eq!(here.revision, Revision(1));
    let same = get_at(&server, "/policy", here).await.expect(200).unwrap();
    assert_eq!(same.body, plain.body);
    get_at(&server, "/policy", here.at_least())
        .await
        .expect(200)
        .unwrap();

    let behind = get_at(&server, "/policy", beyond(&here)).await;
    assert_eq!(behind.status, 503);
    assert_eq!(behind.headers["retry-after"], "1");
    assert_eq!(position(&behind, "x-opal-position"), here);
    let other_life = format!("{:016x}:1", here.epoch.0 ^ 1);
    assert_eq!(get_at(&server, "/policy", other_life).await.status, 503);
}

#[tokio::test]
async fn a_reader_waits_a_moment_for_what_is_about_to_come() {
    let server = TestServer::start(&[]).await;
    let first = publish(&server, "/a", "t").await;
    let asked = get_at(&server, "/v1/feed/base?topic=t", beyond(&first));
    let (answer, second) = tokio::join!(asked, publish(&server, "/b", "t"));
    let answer = answer.expect(200).unwrap();
    assert_eq!(position(&answer, "x-opal-position"), second);
}

#[tokio::test]
async fn what_is_no_position_is_refused() {
    let (repo, _) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    for wrong in [
        "",
        "7",
        "yesterday",
        "00000000000000ab",
        "00000000000000ab:-1",
        "0:1",
    ] {
        for target in ["/policy", "/v1/feed/base"] {
            assert_eq!(
                get_at(&server, target, wrong).await.status,
                400,
                "{target} {wrong}"
            );
        }
    }
}

#[tokio::test]
async fn the_base_holds_what_concerns_the_topics_asked_for() {
    let server = TestServer::start(&[]).await;
    publish(&server, "/a", "t/x").await;
    publish(&server, "/b", "u").await;
    let head = publish(&server, "/c", "t").await;
    let answer = get_at(&server, "/v1/feed/base?topic=t", head)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(position(&answer, "x-opal-position"), head);
    let base = answer.json().unwrap();
    assert_eq!(base["position"], json!(head));
    let entries = base["entries"].as_array().unwrap();
    let paths: Vec<&Value> = entries
        .iter()
        .map(|entry| &entry["entry"]["dst_path"])
        .collect();
    assert_eq!(paths, ["/a", "/c"]);
    assert_eq!(entries[1]["revision"], 3);
    let none = server.get("/v1/feed/base").await.json().unwrap();
    assert_eq!(none["entries"], json!([]));
}

#[tokio::test]
async fn the_base_is_for_tokens_that_may_have_the_topics_and_the_scope() {
    let server = TestServer::secured(&[]).await;
    let claims = json!({ "permitted_topics": ["t"], "allowed_scopes": ["default"] });
    let limited = server
        .token(&json!({ "type": "client", "claims": claims }))
        .await;
    let free = server.token_of("client").await;
    let status = async |token: Option<&str>, query: &str| {
        let request = http::get(server.url(&format!("/v1/feed/base?{query}")));
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        request.send().await.unwrap().status.as_u16()
    };
    assert_eq!(status(None, "topic=t").await, 401);
    assert_eq!(status(Some(&limited), "topic=t").await, 200);
    assert_eq!(status(Some(&limited), "topic=t&topic=u").await, 401);
    assert_eq!(status(Some(&limited), "topic=t&scope=s1").await, 403);
    assert_eq!(status(Some(&free), "topic=t&topic=u&scope=s1").await, 200);
    let many: String = (0..1001).map(|n| format!("topic={n}&")).collect();
    assert_eq!(status(Some(&free), &many).await, 400);
}
