//! The client's end: keeps one connection alive and says what happens to it.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use opal_protocol::feed::ClientInfo;
use opal_protocol::rpc::{self, Incoming, NotifyArguments, server_methods};
use opal_protocol::{Document, Position, RedactedUrl, ScopeId, Topic};
use rand::Rng;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::InvalidHeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::applied::AppliedSender;
pub use crate::event::{Event, FeedChange, Start};
use crate::reconnect::Reconnect;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Whom to subscribe with, and to what.
#[derive(Clone)]
pub struct SubscriberConfig {
    /// The server's websocket.
    pub url: RedactedUrl,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<secrecy::SecretString>,
    /// All topics.
    pub topics: Vec<Topic>,
    /// Pause between keep-alive calls; none if `None`.
    pub keep_alive: Option<Duration>,
    /// How to trust a server with TLS; the system's roots if `None`.
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    /// Whose feed.
    pub scope: ScopeId,
    /// Who we are, for people.
    pub client: ClientInfo,
    /// Where to resume from. It holds for exactly these topics and this scope.
    pub position: Option<Position>,
    /// Whether to ask for the feed; if not, the released protocol is spoken with any server.
    pub feed: bool,
}

impl std::fmt::Debug for SubscriberConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriberConfig")
            .field("url", &self.url)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// How long the server may take to accept a connection, and to answer `subscribe`.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How often the connection is pinged; silence for three times as long ends it.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The URL is none, or the token cannot be a header.
    #[error("the server's address or our token cannot be used")]
    Unusable,
    /// The server refused us; the reason is in its log.
    #[error("the server refused our token (HTTP {status})")]
    Refused {
        /// 401 or 403.
        status: u16,
    },
    /// Nobody there, or not speaking this protocol.
    #[error("could not connect")]
    Connect(#[source] Box<tungstenite::Error>),
    /// Too slow.
    #[error("no answer within {ANSWER_WITHIN:?}")]
    TimedOut,
    /// The server does not let us have these topics.
    #[error("the server refused to subscribe us to {topics:?}")]
    Denied {
        /// What we asked for.
        topics: Vec<Topic>,
    },
    /// It was there and broke.
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
    /// The server closed it.
    #[error("the server closed the connection{}", code.map(|c| format!(" (code {c})")).unwrap_or_default())]
    Closed {
        /// The close code.
        code: Option<u16>,
    },
    /// Nothing was heard for long.
    #[error("the server fell silent")]
    Silent,
    /// Whoever reads our events is gone.
    #[error("nobody listens any more")]
    Unheard,
}

impl From<InvalidHeaderValue> for ConnectionError {
    fn from(_: InvalidHeaderValue) -> Self {
        Self::Unusable
    }
}

/// Keeps a subscription alive: connects, subscribes, reconnects, for ever.
#[derive(Debug)]
pub struct Subscriber {
    config: SubscriberConfig,
    events: mpsc::Sender<Event>,
    applied: AppliedSender,
}

impl Subscriber {
    /// A subscription that tells `events`. While that queue is full, the connection is not read:
    /// a consumer that does not keep up is disconnected by the server and starts anew.
    pub fn new(config: SubscriberConfig, events: mpsc::Sender<Event>) -> Self {
        let applied = AppliedSender::new();
        Self {
            config,
            events,
            applied,
        }
    }

    /// The way back: what was applied of what the events told.
    pub fn applied_sender(&self) -> AppliedSender {
        self.applied.clone()
    }

    /// Runs until `shutdown`, or until nobody reads the events.
    pub async fn run(self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.keep_connected()).await;
    }

    async fn keep_connected(self) {
        let mut reconnect = Reconnect::new();
        let channel_id = Uuid::new_v4().simple().to_string();
        loop {
            let connecting = Instant::now();
            let pause = match self.subscribe().await {
                Ok((socket, early)) => {
                    info!(server.url = %self.config.url, "Subscribed at `{}`", self.config.url);
                    let connected = Instant::now();
                    let error = self.follow(socket, early, &channel_id).await;
                    if matches!(error, ConnectionError::Unheard) {
                        return;
                    }
                    self.report(&error);
                    if self.events.send(Event::Disconnected).await.is_err() {
                        return;
                    }
                    reconnect.lost(connected, Instant::now(), &mut rand::rng())
                }
                Err(error) => {
                    self.report(&error);
                    let pause = reconnect.failed(connecting, &mut rand::rng());
                    // Being refused is rarely over in a second; do not wear the server out.
                    match error {
                        ConnectionError::Refused { .. } | ConnectionError::Denied { .. } => {
                            pause.max(Duration::from_secs(1))
                                + Duration::from_millis(rand::rng().random_range(0..1000))
                        }
                        _ => pause,
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn report(&self, error: &ConnectionError) {
        let url = &self.config.url;
        match std::error::Error::source(error) {
            Some(cause) => warn!(server.url = %url, "Not connected to `{url}`: {error}: {cause}"),
            None => warn!(server.url = %url, "Not connected to `{url}`: {error}"),
        }
    }

    fn request(&self) -> Result<Request, ConnectionError> {
        use secrecy::ExposeSecret;
        let url = self.config.url.expose();
        let mut request = url
            .into_client_request()
            .map_err(|_| ConnectionError::Unusable)?;
        if let Some(token) = &self.config.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        }
        Ok(request)
    }

    /// Connects and subscribes to all topics at once.
    async fn subscribe(&self) -> Result<(Socket, Vec<Event>), ConnectionError> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(rpc::MAX_FRAME))
            .max_frame_size(Some(rpc::MAX_FRAME));
        let connector = self.config.tls.clone().map(Connector::Rustls);
        let request = self.request()?;
        let connecting = tokio_tungstenite::connect_async_tls_with_config(
            request,
            Some(limits),
            true,
            connector,
        );
        let (mut socket, _) = match timeout(ANSWER_WITHIN, connecting).await {
            Err(_) => return Err(ConnectionError::TimedOut),
            Ok(Err(tungstenite::Error::Http(response)))
                if matches!(response.status().as_u16(), 401 | 403) =>
            {
                let status = response.status().as_u16();
                return Err(ConnectionError::Refused { status });
            }
            Ok(Err(error)) => return Err(ConnectionError::Connect(Box::new(error))),
            Ok(Ok(connected)) => connected,
        };
        match timeout(ANSWER_WITHIN, self.ask_for_topics(&mut socket)).await {
            Ok(Ok(early)) => Ok((socket, early)),
            // A released server refuses by closing.
            Ok(Err(ConnectionError::Closed { .. })) => Err(self.denied()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectionError::TimedOut),
        }
    }

    fn denied(&self) -> ConnectionError {
        let topics = self.config.topics.clone();
        ConnectionError::Denied { topics }
    }

    /// Returns what a server tells us between registering us and saying so, as released ones may.
    async fn ask_for_topics(&self, socket: &mut Socket) -> Result<Vec<Event>, ConnectionError> {
        let call_id = Uuid::new_v4().simple().to_string();
        let arguments = serde_json::json!({ "topics": self.config.topics });
        let ask = rpc::request_text(server_methods::SUBSCRIBE, &arguments, &call_id);
        send(socket, ask).await?;
        let mut early = Vec::new();
        loop {
            let Some(text) = receive(socket).await? else {
                continue;
            };
            match Incoming::parse(&text) {
                Ok(Incoming::Response(response))
                    if response.call_id.as_deref() == Some(call_id.as_str()) =>
                {
                    return match response.result.get() {
                        "true" => Ok(early),
                        _ => Err(self.denied()),
                    };
                }
                // A server with statistics asks who we are first.
                Ok(Incoming::Request(request)) => {
                    answer(socket, &request, &call_id).await?;
                    early.extend(notification(&request));
                }
                _ => {}
            }
        }
    }

    /// Passes on what comes until the connection ends.
    async fn follow(
        &self,
        mut socket: Socket,
        early: Vec<Event>,
        channel_id: &str,
    ) -> ConnectionError {
        let start = Event::Subscribed(Start::Released);
        for event in std::iter::once(start).chain(early) {
            if self.events.send(event).await.is_err() {
                return ConnectionError::Unheard;
            }
        }
        match self.follow_until_it_ends(&mut socket, channel_id).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow_until_it_ends(
        &self,
        socket: &mut Socket,
        channel_id: &str,
    ) -> Result<std::convert::Infallible, ConnectionError> {
        let mut ping = tokio::time::interval(PING_EVERY);
        let mut keep_alive = self.config.keep_alive.map(tokio::time::interval);
        let mut last_heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                text = receive(socket) => {
                    last_heard = tokio::time::Instant::now();
                    if let Some(text) = text? {
                        self.on_text(socket, &text, channel_id).await?;
                    }
                }
                _ = ping.tick() => {
                    if last_heard.elapsed() > PING_EVERY * 3 {
                        return Err(ConnectionError::Silent);
                    }
                    send_message(socket, Message::Ping(bytes::Bytes::new())).await?;
                }
                () = next_tick(&mut keep_alive) => {
                    let call_id = Uuid::new_v4().simple().to_string();
                    let call = rpc::request_text(server_methods::PING, &serde_json::json!({}), &call_id);
                    send(socket, call).await?;
                }
            }
        }
    }

    async fn on_text(
        &self,
        socket: &mut Socket,
        text: &str,
        channel_id: &str,
    ) -> Result<(), ConnectionError> {
        let request = match Incoming::parse(text) {
            Ok(Incoming::Request(request)) => request,
            Ok(Incoming::Response(_) | Incoming::Neither) => return Ok(()),
            Err(error) => {
                warn!("Ignored a frame that is not JSON: {error}");
                return Ok(());
            }
        };
        // Answered first: a released server sends nothing more on the topic before that.
        answer(socket, &request, channel_id).await?;
        match notification(&request) {
            Some(event) => {
                let sent = self.events.send(event).await;
                sent.map_err(|_| ConnectionError::Unheard)
            }
            None => Ok(()),
        }
    }
}

/// What a request tells us, if it is a notification.
fn notification(request: &rpc::Request<'_>) -> Option<Event> {
    if request.method != rpc::NOTIFY {
        return None;
    }
    let arguments = request.arguments.map_or("null", |text| text.get());
    match serde_json::from_str::<NotifyArguments>(arguments) {
        Ok(notify) => {
            let null = || Document::from(&serde_json::Value::Null);
            Some(Event::Message {
                topic: notify.subscription.topic,
                data: notify.data.unwrap_or_else(null),
            })
        }
        Err(error) => {
            warn!("Ignored a notification that cannot be read: {error}");
            None
        }
    }
}

async fn next_tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn answer(
    socket: &mut Socket,
    request: &rpc::Request<'_>,
    channel_id: &str,
) -> Result<(), ConnectionError> {
    let call_id = request.call_id.as_deref();
    let text = match request.method.as_str() {
        rpc::NOTIFY => rpc::notify_answer(call_id),
        server_methods::PING => rpc::response_text(&"pong", "str", call_id),
        server_methods::GET_CHANNEL_ID => rpc::response_text(&channel_id, "str", call_id),
        method => {
            debug!("Ignored the server's call of `{method}`, which we do not have");
            return Ok(());
        }
    };
    send(socket, text).await
}

async fn send(socket: &mut Socket, text: String) -> Result<(), ConnectionError> {
    send_message(socket, Message::text(text)).await
}

async fn send_message(socket: &mut Socket, message: Message) -> Result<(), ConnectionError> {
    match timeout(ANSWER_WITHIN, socket.send(message)).await {
        Ok(sent) => sent.map_err(|error| ConnectionError::Broken(Box::new(error))),
        Err(_) => Err(ConnectionError::TimedOut),
    }
}

/// The next text frame; `None` for anything else that shows the server is there. Cancel-safe.
async fn receive(socket: &mut Socket) -> Result<Option<tungstenite::Utf8Bytes>, ConnectionError> {
    match socket.next().await {
        None => Err(ConnectionError::Closed { code: None }),
        Some(Err(error)) => Err(ConnectionError::Broken(Box::new(error))),
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(frame))) => {
            let code = frame.map(|frame| frame.code.into());
            Err(ConnectionError::Closed { code })
        }
        Some(Ok(_)) => Ok(None),
    }
}
