//! The client's end over real sockets, with a stand-in for the server that says what a test wants.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use opal_protocol::feed::{AppliedArguments, ClientInfo};
use opal_protocol::rpc;
use opal_protocol::{ChainDigest, Epoch, Position, RedactedUrl, Revision, ScopeId, Topic};
use opal_pubsub::subscriber::{Subscriber, SubscriberConfig};
use opal_pubsub::{AppliedSender, Event, Start};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;

const EPOCH: Epoch = Epoch(0xab);

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn at(revision: u64) -> Position {
    in_epoch(EPOCH, revision)
}

fn in_epoch(epoch: Epoch, revision: u64) -> Position {
    let digest = u8::try_from(revision).expect("tests use small revisions");
    Position {
        epoch,
        revision: Revision(revision),
        digest: ChainDigest([digest; 16]),
    }
}

fn change(revision: u64) -> String {
    let arguments = json!({
        "revision": revision, "digest": at(revision).digest, "topics": ["users"], "payload": revision,
    });
    rpc::event_text("change", &arguments)
}

fn low(revision: u64) -> AppliedArguments {
    AppliedArguments {
        low: Revision(revision),
        ..AppliedArguments::default()
    }
}

/// A client that runs until the test ends, and its end of the events.
struct Client {
    events: mpsc::Receiver<Event>,
    applied: AppliedSender,
    _running: JoinSet<()>,
}

impl Client {
    fn start(server: &Server, position: Option<Position>, feed: bool) -> Self {
        Self::with_room_for(64, server, position, feed)
    }

    fn with_room_for(room: usize, server: &Server, position: Option<Position>, feed: bool) -> Self {
        let (sender, events) = mpsc::channel(room);
        let config = SubscriberConfig {
            url: RedactedUrl::new(&server.url),
            token: None,
            topics: vec![Topic::from("users")],
            keep_alive: None,
            tls: None,
            scope: ScopeId::default(),
            client: ClientInfo::default(),
            position,
            feed,
        };
        let subscriber = Subscriber::new(config, sender);
        let applied = subscriber.applied_sender();
        let mut running = JoinSet::new();
        running.spawn(subscriber.run(CancellationToken::new()));
        Self {
            events,
            applied,
            _running: running,
        }
    }

    async fn event(&mut self) -> Event {
        let event = timeout(LIMIT, self.events.recv()).await;
        event.expect("an event comes").expect("the client runs")
    }

    /// The next event, which is a change, and its revision.
    async fn revision(&mut self) -> u64 {
        let event = self.event().await;
        let Event::Change(change) = event else {
            unreachable!("the server sent a change, not {event:?}");
        };
        change.position.revision.0
    }
}

struct Server {
    listener: TcpListener,
    url: String,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self {
            listener,
            url: format!("ws://{address}/ws"),
        }
    }

    /// The next connection to a server that knows the feed.
    async fn accept(&self) -> Peer {
        self.accept_as(true).await
    }

    async fn accept_as(&self, knows_feed: bool) -> Peer {
        let (socket, _) = timeout(LIMIT, self.listener.accept())
            .await
            .expect("the client comes")
            .expect("the port works");
        let mut asked = false;
        #[expect(
            clippy::result_large_err,
            reason = "the websocket library says what its callback returns"
        )]
        let negotiate = |request: &Request, mut response: Response| {
            asked = request.headers().get("x-opal-feed").is_some();
            if asked && knows_feed {
                let version = HeaderValue::from_static("1");
                response.headers_mut().insert("x-opal-feed", version);
            }
            Ok::<Response, ErrorResponse>(response)
        };
        let socket = accept_hdr_async(socket, negotiate).await;
        Peer {
            socket: socket.expect("the client upgrades"),
            asked,
        }
    }

    /// The next connection, resumed from where the client asked, and where that is.
    async fn replay(&self, head: u64) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let call = peer.call("resume").await;
        peer.grant(&call, "replay", at(head)).await;
        (peer, call["arguments"]["position"].clone())
    }
}

/// The server's end of one connection. Dropped, it is cut.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// Whether the client asked for the feed.
    asked: bool,
}

impl Peer {
    async fn send(&mut self, text: impl Into<String>) {
        let sent = self.socket.send(Message::text(text.into())).await;
        sent.expect("the client is there");
    }

    /// The next frame.
    async fn hear(&mut self) -> Value {
        loop {
            let message = timeout(LIMIT, self.socket.next()).await;
            let message = message
                .expect("a frame comes")
                .expect("the client is there");
            if let Message::Text(text) = message.expect("the connection holds") {
                return serde_json::from_str(&text).expect("frames are JSON");
            }
        }
    }

    /// The next request, which is of `method`.
    async fn call(&mut self, method: &str) -> Value {
        let frame = self.hear().await;
        assert_eq!(frame["request"]["method"], method, "{frame}");
        frame["request"].clone()
    }

    async fn answer(&mut self, call: &Value, result: &Value) {
        let text = rpc::response_text(result, "x", call["call_id"].as_str());
        self.send(text).await;
    }

    async fn grant(&mut self, call: &Value, mode: &str, head: Position) {
        let result = json!({
            "epoch": head.epoch, "head": head.revision, "digest": head.digest, "mode": mode,
        });
        self.answer(call, &result).await;
    }

    /// What the next report says.
    async fn reported(&mut self) -> u64 {
        let call = self.call("applied").await;
        assert_eq!(call["call_id"], Value::Null);
        call["arguments"]["low"].as_u64().expect("a revision")
    }
}

fn snapshot(head: Position) -> Event {
    Event::Subscribed(Start::Snapshot {
        head,
        spread: Duration::ZERO,
    })
}

fn resumed(head: u64) -> Event {
    Event::Subscribed(Start::Resumed { head: at(head) })
}

#[tokio::test]
async fn a_cut_connection_resumes_after_the_last_change_and_none_comes_twice() {
    let server = Server::start().await;
    let mut client = Client::start(&server, None, true);
    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    assert_eq!(call["arguments"].get("position"), None);
    peer.grant(&call, "snapshot", at(3)).await;
    for revision in [4, 4, 5] {
        peer.send(change(revision)).await;
    }
    assert_eq!(client.event().await, snapshot(at(3)));
    assert_eq!(client.revision().await, 4);
    assert_eq!(client.revision().await, 5);
    drop(peer);
    assert_eq!(client.event().await, Event::Disconnected);

    let (mut peer, position) = server.replay(7).await;
    assert_eq!(position, json!(at(5)));
    for revision in [5, 6, 7] {
        peer.send(change(revision)).await;
    }
    assert_eq!(client.event().await, resumed(7));
    assert_eq!(client.revision().await, 6);
    assert_eq!(client.revision().await, 7);
}

#[tokio::test]
async fn the_first_connection_resumes_from_the_configured_position() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (_peer, position) = server.replay(5).await;
    assert_eq!(position, json!(at(5)));
    assert_eq!(client.event().await, resumed(5));
}

#[tokio::test]
async fn a_server_without_a_feed_voids_the_position() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let mut peer = server.accept_as(false).await;
    assert!(peer.asked);
    let call = peer.call("subscribe").await;
    assert_eq!(call["arguments"], json!({ "topics": ["users"] }));
    peer.answer(&call, &json!(true)).await;
    assert_eq!(client.event().await, Event::Subscribed(Start::Released));
    drop(peer);
    assert_eq!(client.event().await, Event::Disconnected);

    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    assert_eq!(call["arguments"].get("position"), None);
}

#[tokio::test]
async fn a_client_that_wants_no_feed_asks_for_none_and_ignores_the_offer() {
    let server = Server::start().await;
    let mut client = Client::start(&server, None, false);
    let mut peer = server.accept().await;
    assert!(!peer.asked);
    let call = peer.call("subscribe").await;
    peer.answer(&call, &json!(true)).await;
    assert_eq!(client.event().await, Event::Subscribed(Start::Released));
}

#[tokio::test]
async fn a_server_that_lost_its_epoch_gives_a_snapshot_and_hears_no_older_report() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (mut peer, _) = server.replay(5).await;
    assert_eq!(client.event().await, resumed(5));
    client.applied.report(EPOCH, low(5), false);
    assert_eq!(peer.reported().await, 5);
    drop(peer);
    assert_eq!(client.event().await, Event::Disconnected);

    let other = Epoch(0xcd);
    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    peer.grant(&call, "snapshot", in_epoch(other, 1)).await;
    assert_eq!(client.event().await, snapshot(in_epoch(other, 1)));
    client.applied.report(EPOCH, low(4), true);
    client.applied.report(other, low(1), true);
    assert_eq!(peer.reported().await, 1);
}

#[tokio::test]
async fn a_snapshot_of_the_same_epoch_hears_no_older_report() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (mut peer, _) = server.replay(5).await;
    assert_eq!(client.event().await, resumed(5));
    client.applied.report(EPOCH, low(5), true);
    assert_eq!(peer.reported().await, 5);
    drop(peer);
    assert_eq!(client.event().await, Event::Disconnected);

    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    peer.grant(&call, "snapshot", at(4)).await;
    assert_eq!(client.event().await, snapshot(at(4)));
    for call_id in ["p1", "p2", "p3"] {
        peer.send(rpc::request_text("_ping_", &json!({}), call_id))
            .await;
        let answer = peer.hear().await;
        assert_eq!(answer["response"]["call_id"], call_id, "{answer}");
    }
    client.applied.report(EPOCH, low(4), true);
    assert_eq!(peer.reported().await, 4);
}

#[tokio::test]
async fn a_refused_client_tells_nothing_and_asks_again_for_the_same() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    peer.answer(&call, &json!(false)).await;
    let (_peer, position) = server.replay(5).await;
    assert_eq!(position, json!(at(5)));
    assert_eq!(client.event().await, resumed(5));
}

#[tokio::test]
async fn a_change_that_cannot_be_read_is_asked_for_again() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (mut peer, _) = server.replay(5).await;
    peer.send(change(6)).await;
    peer.send(rpc::event_text("change", &json!({ "revision": 7 })))
        .await;
    // The client may be gone already.
    let _ = peer.socket.send(Message::text(change(8))).await;
    assert_eq!(client.event().await, resumed(5));
    assert_eq!(client.revision().await, 6);
    assert_eq!(client.event().await, Event::Disconnected);

    let (mut peer, position) = server.replay(8).await;
    assert_eq!(position, json!(at(6)));
    peer.send(change(7)).await;
    assert_eq!(client.event().await, resumed(8));
    assert_eq!(client.revision().await, 7);
}

#[tokio::test]
async fn a_server_that_resumes_elsewhere_is_asked_for_a_snapshot() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (_peer, _) = server.replay(4).await;
    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    assert_eq!(call["arguments"].get("position"), None);
    peer.grant(&call, "snapshot", at(4)).await;
    assert_eq!(client.event().await, snapshot(at(4)));
}

#[tokio::test]
async fn a_restart_asks_for_a_snapshot() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (_peer, _) = server.replay(5).await;
    assert_eq!(client.event().await, resumed(5));
    client.applied.report(EPOCH, low(5), false);
    client.applied.restart();
    assert_eq!(client.event().await, Event::Disconnected);
    let mut peer = server.accept().await;
    let call = peer.call("resume").await;
    assert_eq!(call["arguments"].get("position"), None);
    peer.grant(&call, "snapshot", at(5)).await;
    assert_eq!(client.event().await, snapshot(at(5)));
    client.applied.report(EPOCH, low(6), false);
    assert_eq!(peer.reported().await, 6);
}

#[tokio::test]
async fn the_next_connection_of_an_epoch_hears_the_last_report() {
    let server = Server::start().await;
    let mut client = Client::start(&server, Some(at(5)), true);
    let (mut peer, _) = server.replay(5).await;
    assert_eq!(client.event().await, resumed(5));
    client.applied.report(EPOCH, low(5), true);
    assert_eq!(peer.reported().await, 5);
    drop(peer);
    let (mut peer, _) = server.replay(5).await;
    assert_eq!(peer.reported().await, 5);
}

#[tokio::test]
async fn a_released_server_hears_no_report() {
    let server = Server::start().await;
    let mut client = Client::start(&server, None, true);
    let mut peer = server.accept_as(false).await;
    let call = peer.call("subscribe").await;
    peer.answer(&call, &json!(true)).await;
    assert_eq!(client.event().await, Event::Subscribed(Start::Released));
    client.applied.report(EPOCH, low(5), true);
    for call_id in ["n1", "n2", "n3"] {
        let arguments = json!({ "subscription": { "topic": "users" }, "data": 1 });
        peer.send(rpc::request_text("notify", &arguments, call_id))
            .await;
        let answer = peer.hear().await;
        assert_eq!(answer["response"]["call_id"], call_id, "{answer}");
    }
}

#[tokio::test]
async fn a_consumer_without_room_is_still_reported_for_and_misses_nothing() {
    let server = Server::start().await;
    let mut client = Client::with_room_for(1, &server, Some(at(5)), true);
    let (mut peer, _) = server.replay(5).await;
    for revision in 6..=9 {
        peer.send(change(revision)).await;
    }
    assert_eq!(client.event().await, resumed(5));
    client.applied.report(EPOCH, low(5), true);
    assert_eq!(peer.reported().await, 5);
    for revision in 6..=9 {
        assert_eq!(client.revision().await, revision);
    }
}
