//! A hand-made peer of the server's websocket, well-behaved or not, as a test wants.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use opal_testing::services::Service;
use opal_testing::wait;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// One connection to `/ws`.
#[derive(Debug)]
pub struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Peer {
    /// Connects with a token, or without any.
    pub async fn connect(server: &Service, token: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self {
            socket: connect(server, token).await?,
        })
    }

    /// The status with which the server refuses the upgrade.
    pub async fn refusal(server: &Service, token: Option<&str>) -> anyhow::Result<u16> {
        match connect(server, token).await {
            Ok(_) => bail!("the server accepted the connection"),
            Err(error) => match error.downcast::<Error>()? {
                Error::Http(response) => Ok(response.status().as_u16()),
                other => Err(other.into()),
            },
        }
    }

    /// Subscribes and waits for the answer.
    pub async fn subscribe(&mut self, topics: &[&str]) -> anyhow::Result<()> {
        let request =
            json!({"method": "subscribe", "arguments": {"topics": topics}, "call_id": "s"});
        self.send(Message::text(
            json!({"request": request, "response": null}).to_string(),
        ))
        .await?;
        loop {
            let frame = self
                .next_frame()
                .await?
                .context("closed instead of subscribed")?;
            if frame["response"]["call_id"] == "s" {
                return Ok(());
            }
        }
    }

    /// Sends anything.
    pub async fn send(&mut self, message: Message) -> anyhow::Result<()> {
        let sent = tokio::time::timeout(wait::LIMIT, self.socket.send(message)).await;
        Ok(sent.context("the server reads nothing")??)
    }

    /// The next JSON frame; none if the server ended the connection. Pings do not count.
    pub async fn next_frame(&mut self) -> anyhow::Result<Option<Value>> {
        let frame = tokio::time::timeout(wait::LIMIT, self.frame()).await;
        frame.context("the server says nothing")?
    }

    async fn frame(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next `notify`, unanswered; none if the server ended the connection.
    pub async fn next_notification(&mut self) -> anyhow::Result<Option<Value>> {
        while let Some(frame) = self.next_frame().await? {
            if frame["request"]["method"] == "notify" {
                return Ok(Some(frame["request"].clone()));
            }
        }
        Ok(None)
    }

    /// Answers a notification, as every peer must.
    pub async fn acknowledge(&mut self, notification: &Value) -> anyhow::Result<()> {
        let response = json!({
            "result": "None", "result_type": "str", "call_id": notification["call_id"],
        });
        let frame = json!({"request": null, "response": response});
        self.send(Message::text(frame.to_string())).await
    }

    /// Waits, reading and answering nothing, until the server has ended the connection.
    pub async fn wait_for_the_end(&mut self, limit: Duration) -> anyhow::Result<()> {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let ended = tokio::time::timeout(limit, end).await;
        ended.with_context(|| format!("the connection is still open after {limit:?}"))
    }
}

async fn connect(
    server: &Service,
    token: Option<&str>,
) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let mut request = server
        .url("/ws")
        .replacen("http", "ws", 1)
        .into_client_request()?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        request.headers_mut().insert("authorization", value);
    }
    let config = WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None);
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
    let (socket, _response) = tokio::time::timeout(wait::LIMIT, connecting).await??;
    Ok(socket)
}
