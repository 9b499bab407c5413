//! `/data/…`: what is posted, and what subscribers hear of it.

use opal_testing::http;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::support::{TestServer, fixture, lines};

/// As recorded, but that each connection is told once of each update, and that an update without
/// an id gets one, so that all clients report the same.
#[tokio::test]
async fn every_recorded_update_is_told_as_recorded() {
    let server = TestServer::start(&[]).await;
    let mut client = Peer::subscribed(&server, &["policy_data", "users"]).await;
    for line in lines::<Value>(fixture!("data/update-to-notification.jsonl")) {
        let posted = &line["posted"];
        server
            .post("/data/config", posted)
            .await
            .expect(200)
            .unwrap();
        let recorded = &line["notifications_to_a_client_subscribed_to_policy_data_and_users"];
        let Some(recorded) = recorded.get(0) else {
            continue; // That nothing is told shows in the next notification.
        };
        let mut told = client.notified().await;
        assert_eq!(
            told["subscription"]["topic"],
            recorded["subscription"]["topic"]
        );
        let id = told["data"]["id"].take();
        match posted.get("id") {
            Some(posted) => assert_eq!(id, *posted),
            None => assert_eq!(id.as_str().map(str::len), Some(32)),
        }
        let mut expected = recorded["data"].clone();
        expected["id"].take();
        assert_eq!(told["data"].to_string(), expected.to_string());
    }
}

#[tokio::test]
async fn every_recorded_report_is_taken() {
    let server = TestServer::start(&[]).await;
    for line in lines::<Value>(fixture!("data/callback-reports.jsonl")) {
        let answer = server.post("/data/callback_report", &line["body"]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "{}"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_wrong_update_is_refused_with_every_fault_named_and_tells_nobody() {
    let server = TestServer::start(&[]).await;
    let mut client = Peer::subscribed(&server, &["policy_data"]).await;
    let wrong = json!({ "entries": [
        { "url": "", "dst_path": "/a/../b", "data": {} },
        { "url": "" },
        { "url": "", "data": {}, "save_method": "POST" },
        { "url": "", "data": {} },
    ]});
    let answer = server
        .post("/data/config", &wrong)
        .await
        .expect(422)
        .unwrap()
        .json()
        .unwrap();
    let places = answer["detail"].as_array().unwrap().iter();
    let entries: Vec<&Value> = places.map(|violation| &violation["loc"][2]).collect();
    assert_eq!(
        entries,
        [0, 1, 2].map(|at| json!(at)).iter().collect::<Vec<_>>()
    );

    let right = json!({ "id": "right", "entries": [{ "url": "", "data": {} }] });
    server
        .post("/data/config", &right)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(client.notified().await["data"]["id"], "right");
}

#[tokio::test]
async fn an_update_that_would_end_released_clients_is_refused() {
    let server = TestServer::start(&[]).await;
    let large = "x".repeat(1_500_000);
    let update = json!({ "entries": [{ "url": "", "data": { "text": large } }] });
    let answer = server.post("/data/config", &update).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("publish a URL"), "{}", answer.text());
}

#[tokio::test]
async fn a_delete_is_told_as_a_patch_that_released_clients_understand() {
    let server = TestServer::start(&[]).await;
    let mut client = Peer::subscribed(&server, &["policy_data"]).await;
    let delete = json!({ "entries": [{ "save_method": "DELETE", "dst_path": "/users/bob" }] });
    server
        .post("/data/config", &delete)
        .await
        .expect(200)
        .unwrap();
    let told = &client.notified().await["data"]["entries"][0];
    assert_eq!(told["save_method"], "PATCH");
    assert_eq!(told["dst_path"], "/users");
    assert_eq!(told["data"][0]["op"], "remove");
}

#[tokio::test]
async fn a_body_is_judged_before_the_peer_type_and_after_the_signature() {
    let server = TestServer::secured(&[]).await;
    let client = server.token_of("client").await;
    let wrong = json!({ "entries": [{ "topics": ["x"] }] });
    let post = |token: &str| {
        http::post(server.url("/data/config"))
            .bearer(token)
            .json(&wrong)
            .unwrap()
    };
    assert_eq!(post(&client).send().await.unwrap().status, 422);
    assert_eq!(post("garbage").send().await.unwrap().status, 401);
}

#[tokio::test]
async fn an_unsecured_server_passes_on_a_token_to_an_external_source_unread() {
    let sources = r#"{"external_source_url":"http://elsewhere.example/?token=old&x=1"}"#;
    let server = TestServer::start(&[("OPAL_DATA_CONFIG_SOURCES", sources)]).await;
    let get = http::get(server.url("/data/config")).bearer("THIS_IS_A_DEV_SECRET");
    let answer = get.send().await.unwrap();
    let location = &answer.headers["location"];
    assert_eq!(
        location,
        "http://elsewhere.example/?x=1&token=THIS_IS_A_DEV_SECRET"
    );
}
