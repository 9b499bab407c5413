//! A stand-in for a server with a feed, whose change `n` appends `n` to a list by a patch: a change
//! that is missed, or applied twice, shows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, middleware};
use opal_protocol::feed::{FEED_HEADER, FEED_VERSION, POSITION_HEADER};
use opal_protocol::{ChainDigest, Epoch, Position, Revision, rpc};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where the list is.
pub(crate) const LIST: &str = "/log";

/// The running server; it ends with this value.
pub(crate) struct FeedServer {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
    _ends_connections: DropGuard,
}

struct Shared {
    stop: CancellationToken,
    head: watch::Sender<u64>,
    /// Positions that were resumed from.
    resumed: Mutex<Vec<Value>>,
    /// Paths that were asked for.
    asked: Mutex<Vec<String>>,
    /// What the clients said that they hold.
    applied: Mutex<Vec<Value>>,
    lacks_base: AtomicBool,
}

/// The position of change `revision`.
pub(crate) fn at(revision: u64) -> Position {
    let digest = u8::try_from(revision % 251).expect("a remainder is small");
    Position {
        epoch: Epoch(0xab),
        revision: Revision(revision),
        digest: ChainDigest([digest; 16]),
    }
}

/// The list after change `revision`.
pub(crate) fn list(revision: u64) -> Value {
    (1..=revision).collect::<Vec<_>>().into()
}

impl FeedServer {
    /// A server at change 1.
    pub(crate) async fn start() -> Self {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            stop: stop.clone(),
            head: watch::Sender::new(1),
            resumed: Mutex::default(),
            asked: Mutex::default(),
            applied: Mutex::default(),
            lacks_base: AtomicBool::default(),
        });
        let router = Router::new()
            .route("/ws", any(subscribe))
            .route("/policy", get(policy))
            .route("/data/config", get(async || Json(json!({ "entries": [] }))))
            .route("/v1/feed/base", get(base))
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), note))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self {
            url: format!("http://{address}"),
            shared,
            _server: server,
            _ends_connections: stop.drop_guard(),
        }
    }

    /// Publishes the next change and says which.
    pub(crate) fn publish(&self) -> u64 {
        self.shared.head.send_modify(|head| *head += 1);
        *self.shared.head.borrow()
    }

    /// From now on nobody gets the base.
    pub(crate) fn lose_base(&self) {
        self.shared.lacks_base.store(true, Ordering::Relaxed);
    }

    /// What a client said last that it holds.
    pub(crate) fn last_applied(&self) -> Option<Value> {
        let applied = self.shared.applied.lock().expect("no test panics here");
        applied.last().cloned()
    }

    /// Where the last subscription resumed.
    pub(crate) fn last_resume(&self) -> Option<Value> {
        self.shared
            .resumed
            .lock()
            .expect("no test panics here")
            .last()
            .cloned()
    }

    /// The paths that were asked for since the last call.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().expect("no test panics here"))
    }
}

async fn note(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: middleware::Next,
) -> Response {
    let path = request.uri().path().to_owned();
    shared.asked.lock().expect("no test panics here").push(path);
    next.run(request).await
}

async fn policy(State(shared): State<Arc<Shared>>) -> Response {
    let bundle = json!({
        "manifest": ["app.rego"],
        "hash": "c1".repeat(20),
        "data_modules": [],
        "policy_modules": [{
            "path": "app.rego",
            "package_name": "app",
            "rego": "package app\n\nlength := count(data.log)\n",
        }],
    });
    let position = at(*shared.head.borrow()).to_string();
    ([(POSITION_HEADER, position)], Json(bundle)).into_response()
}

async fn base(State(shared): State<Arc<Shared>>) -> Response {
    if shared.lacks_base.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let head = *shared.head.borrow();
    let entry = json!({
        "url": "", "dst_path": LIST, "save_method": "PUT", "topics": ["policy_data"], "data": list(head),
    });
    Json(json!({
        "position": at(head),
        "entries": [{ "revision": head, "entry": entry }],
    }))
    .into_response()
}

async fn subscribe(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let mut response = upgrade.on_upgrade(move |socket| async move {
        // A client that goes ends this; there is nothing to say about it.
        let _ = shared
            .stop
            .run_until_cancelled(follow(socket, &shared))
            .await;
    });
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let version = HeaderValue::from_static(FEED_VERSION);
    response.headers_mut().insert(FEED_HEADER, version);
    response
}

async fn follow(mut socket: WebSocket, shared: &Shared) -> Option<()> {
    let call = loop {
        if let Message::Text(text) = socket.recv().await?.ok()? {
            let frame: Value = serde_json::from_str(text.as_str()).expect("frames are JSON");
            break frame["request"].clone();
        }
    };
    assert_eq!(call["method"], "resume");
    let position = call["arguments"]["position"].clone();
    shared
        .resumed
        .lock()
        .expect("no test panics here")
        .push(position.clone());

    let mut heads = shared.head.subscribe();
    let head = at(*heads.borrow_and_update());
    let text = position.as_str().unwrap_or_default();
    let resumed = text
        .parse::<Position>()
        .ok()
        .filter(|held| held.epoch == head.epoch);
    let mut told = resumed.map_or(head.revision.0, |held| held.revision.0);
    let mode = if resumed.is_some() {
        "replay"
    } else {
        "snapshot"
    };
    let granted = json!({
        "epoch": head.epoch, "head": head.revision, "digest": head.digest, "mode": mode,
    });
    let answer = rpc::response_text(&granted, "x", call["call_id"].as_str());
    socket.send(Message::text(answer)).await.ok()?;
    loop {
        let head = *heads.borrow_and_update();
        for revision in told + 1..=head {
            socket.send(Message::text(change(revision))).await.ok()?;
        }
        told = head;
        tokio::select! {
            changed = heads.changed() => changed.ok()?,
            frame = socket.recv() => note_applied(shared, &frame?.ok()?),
        }
    }
}

fn note_applied(shared: &Shared, frame: &Message) {
    let Message::Text(text) = frame else {
        return;
    };
    let frame: Value = serde_json::from_str(text.as_str()).expect("frames are JSON");
    if frame["request"]["method"] == "applied" {
        let mut applied = shared.applied.lock().expect("no test panics here");
        applied.push(frame["request"]["arguments"].clone());
    }
}

fn change(revision: u64) -> String {
    let entry = json!({
        "url": "", "dst_path": LIST, "save_method": "PATCH", "topics": ["policy_data"],
        "data": [{ "op": "add", "path": "/-", "value": revision }],
    });
    let payload = json!({
        "id": format!("change-{revision}"), "entries": [entry], "callback": { "callbacks": [] },
    });
    let position = at(revision);
    let arguments = json!({
        "revision": revision, "digest": position.digest, "topics": ["policy_data"], "payload": payload,
    });
    rpc::event_text("change", &arguments)
}
