//! Subscribers as the released client is one: they subscribe, and answer every notification.

pub(crate) mod feed;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use opal_testing::services::Service;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Connections that are being made at the same time.
const AT_ONCE: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Many subscribers of one server, in this process.
#[derive(Debug)]
pub(crate) struct Subscribers {
    count: usize,
    notified: mpsc::UnboundedReceiver<Instant>,
    _connections: JoinSet<()>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Subscribers {
    /// Connects `count` subscribers of `policy_data` and waits until each has its answer.
    pub(crate) async fn connect(server: &Service, count: usize) -> anyhow::Result<Self> {
        let url = server.url("/ws").replacen("http", "ws", 1);
        let (heard, notified) = mpsc::unbounded_channel();
        let mut connecting = JoinSet::new();
        let mut connections = JoinSet::new();
        for made in 0..count + AT_ONCE {
            if made >= AT_ONCE {
                let socket: anyhow::Result<Socket> = connecting
                    .join_next()
                    .await
                    .context("all are connected")??;
                connections.spawn(listen(socket?, heard.clone()));
            }
            if made < count {
                connecting.spawn(subscribe(url.clone()));
            }
        }
        ensure!(
            connections.len() == count,
            "only {} of {count} connected",
            connections.len()
        );
        Ok(Self {
            count,
            notified,
            _connections: connections,
        })
    }

    /// Waits until every subscriber was notified once more, and returns when the last one was.
    pub(crate) async fn all_notified(&mut self) -> anyhow::Result<Instant> {
        let mut last = None;
        let all = async {
            for _ in 0..self.count {
                last = self.notified.recv().await.max(last);
            }
        };
        tokio::time::timeout(LIMIT, all)
            .await
            .context("not everyone was notified")?;
        last.context("everyone is gone")
    }
}

async fn subscribe(url: String) -> anyhow::Result<Socket> {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0);
    let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
    let (mut socket, _) = tokio::time::timeout(LIMIT, connecting).await??;
    let request = "{\"request\": {\"method\": \"subscribe\", \"arguments\": \
                   {\"topics\": [\"policy_data\"]}, \"call_id\": \"s\"}, \"response\": null}";
    socket.send(Message::text(request)).await?;
    loop {
        let frame = tokio::time::timeout(LIMIT, socket.next()).await?;
        let frame = frame.context("closed instead of subscribed")??;
        if frame
            .to_text()
            .is_ok_and(|text| text.contains("\"result\""))
        {
            return Ok(socket);
        }
    }
}

async fn listen(mut socket: Socket, heard: mpsc::UnboundedSender<Instant>) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let Some(call_id) = call_id(&text) else {
            continue;
        };
        if heard.send(Instant::now()).is_err() {
            return;
        }
        let answer = format!(
            "{{\"request\": null, \"response\": {{\"result\": \"None\", \"result_type\": \"str\", \
             \"call_id\": \"{call_id}\"}}}}"
        );
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

/// The `call_id` of a request frame, without parsing the rest: the load must cost little.
fn call_id(frame: &str) -> Option<&str> {
    let (_, after) = frame.rsplit_once("\"call_id\"")?;
    after
        .split('"')
        .nth(1)
        .filter(|id| !id.is_empty() && *id != "response")
}
