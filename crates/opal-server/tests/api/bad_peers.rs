//! Peers that break the rules are cut off, and nobody else notices.

use std::time::Duration;

use opal_protocol::rpc::MAX_FRAME;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::peer::Peer;
use crate::support::TestServer;

/// A server that loses patience within a test's time.
async fn impatient() -> TestServer {
    TestServer::start_with(&[], |config| {
        config.connections.answer_within = Duration::from_secs(3);
        config.connections.write_within = Duration::from_secs(3);
        config.connections.check_every = Duration::from_millis(100);
    })
    .await
}

async fn update(server: &TestServer, topic: &str, data: &Value) {
    let entry = json!({ "url": "", "data": data, "topics": [topic], "dst_path": "/x" });
    server
        .post("/data/config", &json!({ "entries": [entry] }))
        .await
        .expect(200)
        .unwrap();
}

/// The bystander is there and gets what is published.
async fn undisturbed(server: &TestServer, bystander: &mut Peer) {
    update(server, "bystander", &json!({ "still": "here" })).await;
    let told = bystander.notified().await;
    assert_eq!(
        told["data"]["entries"][0]["data"],
        json!({ "still": "here" })
    );
}

#[tokio::test]
async fn garbage_and_binary_frames_are_closed_with_1000() {
    let server = TestServer::start(&[]).await;
    let mut bystander = Peer::subscribed(&server, &["bystander"]).await;
    for garbage in [
        Message::text("\u{0}\u{1f4a9}"),
        Message::text("{".repeat(100_000)),
        Message::text(r#"{"request":"#),
        Message::binary(vec![0xff; 1000]),
    ] {
        let mut bad = Peer::subscribed(&server, &["bystander"]).await;
        bad.send(garbage).await.unwrap();
        assert_eq!(bad.closed().await, Some(1000));
    }
    undisturbed(&server, &mut bystander).await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_connection() {
    let server = TestServer::start(&[]).await;
    let mut bystander = Peer::subscribed(&server, &["bystander"]).await;
    let address = server.url("").replacen("http://", "", 1);
    let mut bad = TcpStream::connect(&address).await.unwrap();
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    bad.write_all(upgrade.as_bytes()).await.unwrap();
    bad.write_all(&[0xff; 64]).await.unwrap();
    let mut heard = Vec::new();
    // A reset is an end as well.
    let _ = bad.read_to_end(&mut heard).await;
    assert!(
        heard.starts_with(b"HTTP/1.1 101"),
        "{:?}",
        String::from_utf8_lossy(&heard)
    );
    undisturbed(&server, &mut bystander).await;
}

#[tokio::test]
async fn a_frame_over_16_mib_ends_the_connection_and_one_below_does_not() {
    let server = TestServer::start(&[]).await;
    let mut bystander = Peer::subscribed(&server, &["bystander"]).await;
    let frame = |size: usize| {
        let frame = r#"{"request":{"method":"ping","call_id":""}}"#;
        let padding = " ".repeat(size - frame.len());
        Message::text(format!("{frame}{padding}"))
    };
    let mut large = Peer::connect(&server).await;
    large.send(frame(MAX_FRAME)).await.unwrap();
    assert_eq!(large.call("ping", json!({})).await, json!("pong"));

    let mut too_large = Peer::connect(&server).await;
    // The server may be gone before all of it is sent.
    let _ = too_large.send(frame(MAX_FRAME + 1)).await;
    too_large.closed().await;
    undisturbed(&server, &mut bystander).await;
}

#[tokio::test]
async fn a_peer_that_never_answers_a_notification_is_closed() {
    let server = impatient().await;
    let mut bystander = Peer::subscribed(&server, &["bystander"]).await;
    let mut silent = Peer::subscribed(&server, &["silent"]).await;
    update(&server, "silent", &json!({})).await;
    silent.notification().await;
    assert_eq!(silent.closed().await, Some(1000));
    undisturbed(&server, &mut bystander).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off_and_the_others_get_everything() {
    const UPDATES: usize = 24;
    let server = impatient().await;
    let mut stuck = Peer::subscribed(&server, &["all"]).await;
    let mut reader = Peer::subscribed(&server, &["all", "bystander"]).await;
    let large = json!({ "text": "x".repeat(900_000) });
    for _ in 0..UPDATES {
        update(&server, "all", &large).await;
        assert_eq!(reader.notified().await["data"]["entries"][0]["data"], large);
    }
    stuck.until_cut_off().await;
    undisturbed(&server, &mut reader).await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let server = TestServer::secured_with(&[], |config| {
        config.connections.check_every = Duration::from_millis(100);
    })
    .await;
    let connect = async |ttl: u32| {
        let authorization = format!("Bearer {}", server.token(&json!({ "ttl": ttl })).await);
        Peer::try_connect(&server, "/ws", Some(&authorization))
            .await
            .unwrap()
    };
    let mut lasting = connect(3600).await;
    let mut ending = connect(3).await;
    assert_eq!(ending.closed().await, Some(1000));
    assert_eq!(lasting.call("ping", json!({})).await, json!("pong"));
}
