//! The floor: what the crates below us cost when nothing is done with them.
//!
//! A websocket server that answers every request of a peer with `true`, and copies what is posted to
//! every connection as one shared frame. No topics, no tokens, no queues to speak of.

use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// Frames that may wait for a connection; far more than a bench publishes at a time.
const WAITING: usize = 64;

/// Serves `/ws`, `POST /data/config` and `/healthcheck` until killed.
pub(crate) async fn serve(port: u16) -> anyhow::Result<()> {
    let (frames, _) = broadcast::channel::<Utf8Bytes>(WAITING);
    let router = Router::new()
        .route("/healthcheck", get(async || "ok"))
        .route("/data/config", post(publish))
        .route("/ws", any(connect))
        .with_state(frames);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn publish(State(frames): State<broadcast::Sender<Utf8Bytes>>, update: String) {
    let frame = format!(
        "{{\"request\": {{\"method\": \"notify\", \"arguments\": {{\"subscription\": \
         {{\"id\": \"0123456789abcdef0123456789abcdef\", \"subscriber_id\": \
         \"0123456789abcdef0123456789abcdef\", \"topic\": \"policy_data\", \"notifier_id\": null}}, \
         \"data\": {update}}}, \"call_id\": \"0123456789abcdef0123456789abcdef\"}}, \
         \"response\": null}}"
    );
    let _nobody_listens = frames.send(frame.into());
}

async fn connect(
    upgrade: WebSocketUpgrade,
    State(frames): State<broadcast::Sender<Utf8Bytes>>,
) -> Response {
    let upgrade = upgrade.read_buffer_size(2048).write_buffer_size(0);
    upgrade.on_upgrade(async move |socket| talk(socket, frames.subscribe()).await)
}

async fn talk(mut socket: WebSocket, mut frames: broadcast::Receiver<Utf8Bytes>) {
    let yes = "{\"request\": null, \"response\": {\"result\": true, \"result_type\": \"bool\", \
               \"call_id\": \"s\"}}";
    loop {
        let frame = tokio::select! {
            Ok(frame) = frames.recv() => frame,
            Some(Ok(received)) = socket.recv() => match received {
                Message::Text(text) if text.contains("subscribe") => Utf8Bytes::from_static(yes),
                _ => continue,
            },
            else => return,
        };
        if socket.send(Message::Text(frame)).await.is_err() {
            return;
        }
    }
}
