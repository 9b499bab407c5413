//! A websocket peer that says exactly what a test wants, and notes all that it hears.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use opal_testing::wait;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::TestServer;

/// Why the server did not let a peer in.
pub(crate) type Refusal = Response<Option<Vec<u8>>>;

pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Notifications that came while something else was awaited.
    notifications: std::collections::VecDeque<Value>,
}

/// What comes next from the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Frame(Value),
    /// The close code; `None` if the connection just broke.
    Closed(Option<u16>),
}

impl Peer {
    /// Connects without a token.
    pub(crate) async fn connect(server: &TestServer) -> Self {
        Self::try_connect(server, "/ws", None).await.unwrap()
    }

    /// Connects with the feed, which the server has to agree on.
    pub(crate) async fn with_feed(server: &TestServer, target: &str) -> Self {
        let (peer, feed) = Self::open(server, target, &[("x-opal-feed", "1")])
            .await
            .unwrap();
        assert_eq!(feed.as_deref(), Some("1"));
        peer
    }

    pub(crate) async fn try_connect(
        server: &TestServer,
        target: &str,
        authorization: Option<&str>,
    ) -> Result<Self, Box<Refusal>> {
        let headers: Vec<_> = authorization
            .map(|value| ("authorization", value))
            .into_iter()
            .collect();
        let (peer, _) = Self::open(server, target, &headers).await?;
        Ok(peer)
    }

    /// Connects; also returns what the server said about the feed.
    pub(crate) async fn open(
        server: &TestServer,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Self, Option<String>), Box<Refusal>> {
        let url = server.url(target).replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, response)) => {
                let peer = Self {
                    socket,
                    notifications: Default::default(),
                };
                let feed = response.headers().get("x-opal-feed");
                let feed = feed.map(|value| value.to_str().unwrap().to_owned());
                Ok((peer, feed))
            }
            Err(Error::Http(refusal)) => Err(refusal),
            Err(error) => panic!("could not connect: {error}"),
        }
    }

    /// Connects and subscribes.
    pub(crate) async fn subscribed(server: &TestServer, topics: &[&str]) -> Self {
        let mut peer = Self::connect(server).await;
        peer.subscribe(topics).await;
        peer
    }

    pub(crate) async fn subscribe(&mut self, topics: &[&str]) {
        let answer = self.call("subscribe", json!({ "topics": topics })).await;
        assert_eq!(answer, json!(true));
    }

    /// Sends a message; an error means that the server is gone.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        // If the server is gone already, the next thing heard says so.
        let _ = self.send(Message::Text(text.into().into())).await;
    }

    /// The next frame, or the end of the connection. Control frames are answered and passed over.
    pub(crate) async fn hear(&mut self) -> Heard {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Heard::Frame(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Heard::Closed(frame.map(|frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Heard::Closed(None),
                }
            }
        };
        tokio::time::timeout(wait::LIMIT, next)
            .await
            .expect("the server says something")
    }

    /// Calls a method and returns the answer's result.
    pub(crate) async fn call(&mut self, method: &str, arguments: Value) -> Value {
        let request = json!({ "method": method, "arguments": arguments, "call_id": "call" });
        self.send_text(json!({ "request": request }).to_string())
            .await;
        loop {
            let Heard::Frame(mut frame) = self.hear().await else {
                panic!("the server closed the connection");
            };
            match frame["response"]["call_id"] == "call" {
                true => return frame["response"]["result"].take(),
                false => self.notifications.push_back(frame),
            }
        }
    }

    /// The arguments of the next notification, which is answered.
    pub(crate) async fn notified(&mut self) -> Value {
        let mut frame = self.notification().await;
        let response = json!({
            "result": "None", "result_type": "str", "call_id": frame["request"]["call_id"],
        });
        self.send_text(json!({ "request": null, "response": response }).to_string())
            .await;
        frame["request"]["arguments"].take()
    }

    /// The next notification, left unanswered.
    pub(crate) async fn notification(&mut self) -> Value {
        let frame = match self.notifications.pop_front() {
            Some(frame) => frame,
            None => match self.hear().await {
                Heard::Frame(frame) => frame,
                end => panic!("{end:?}"),
            },
        };
        assert_eq!(frame["request"]["method"], "notify", "{frame}");
        frame
    }

    /// The next request of the server that asks for no answer.
    pub(crate) async fn event(&mut self) -> Value {
        let mut frame = match self.notifications.pop_front() {
            Some(frame) => frame,
            None => match self.hear().await {
                Heard::Frame(frame) => frame,
                end => panic!("{end:?}"),
            },
        };
        assert!(frame["request"]["call_id"].is_null(), "{frame}");
        assert!(frame["request"].get("call_id").is_some(), "{frame}");
        frame["request"].take()
    }

    /// Says something that is not answered.
    pub(crate) async fn say(&mut self, method: &str, arguments: Value) {
        let request = json!({ "method": method, "arguments": arguments, "call_id": null });
        self.send_text(json!({ "request": request }).to_string())
            .await;
    }

    /// Hears nothing more but the end of the connection, and returns its close code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        match self.hear().await {
            Heard::Closed(code) => code,
            frame => panic!("expected the end, heard {frame:?}"),
        }
    }

    /// Waits until the server has torn down the connection, without reading from it.
    pub(crate) async fn until_cut_off(&mut self) {
        let cut_off = async || match self.send(Message::Ping(Default::default())).await {
            Ok(()) => anyhow::bail!("the server still takes what we send"),
            Err(_) => Ok(()),
        };
        wait::until_within(Duration::from_secs(60), "the cut", cut_off)
            .await
            .unwrap();
    }
}
