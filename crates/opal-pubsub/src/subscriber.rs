//! The client's end: keeps one connection alive and says what happens to it.

use std::time::{Duration, Instant};

use opal_protocol::feed::{ClientInfo, FEED_HEADER, FEED_VERSION};
use opal_protocol::{Position, RedactedUrl, ScopeId, Topic, rpc};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::InvalidHeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use self::connection::{Connection, Ends, Socket};
use crate::applied::AppliedSender;
use crate::conversation::{ConversationError, Opening};
pub use crate::event::{Event, FeedChange, Start};
use crate::reconnect::Reconnect;

mod connection;

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
    /// It does not let us subscribe, or says what cannot be understood.
    #[error(transparent)]
    Conversation(#[from] ConversationError),
    /// [`AppliedSender::restart`] was called.
    #[error("everything is to be taken anew")]
    Restarted,
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

impl ConnectionError {
    /// Whether the server is there and does not want us.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Conversation(ConversationError::Denied { .. })
        )
    }
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
    channel_id: String,
    /// Everything up to here was handed over.
    received: Option<Position>,
    /// How many restarts `received` knows of.
    restarts: u64,
}

impl Subscriber {
    /// A subscription that tells `events`. While that queue is full, the connection is not read:
    /// a consumer that does not keep up is disconnected by the server and resumes or starts anew.
    pub fn new(config: SubscriberConfig, events: mpsc::Sender<Event>) -> Self {
        Self {
            received: config.position,
            config,
            events,
            applied: AppliedSender::new(),
            channel_id: Uuid::new_v4().simple().to_string(),
            restarts: 0,
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

    async fn keep_connected(mut self) {
        let mut reconnect = Reconnect::new();
        loop {
            let connecting = Instant::now();
            let pause = match self.subscribe().await {
                Ok(connection) => {
                    let connected = Instant::now();
                    let error = self.follow(connection).await;
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
                    if error.is_refusal() {
                        // Rarely over in a second; do not wear the server out.
                        pause.max(Duration::from_secs(1))
                            + Duration::from_millis(rand::rng().random_range(0..1000))
                    } else {
                        pause
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn report(&self, error: &ConnectionError) {
        let url = &self.config.url;
        if matches!(error, ConnectionError::Restarted) {
            info!(server.url = %url, "Connecting to `{url}` again, to take everything anew");
            return;
        }
        match std::error::Error::source(error) {
            Some(cause) => warn!(server.url = %url, "Not connected to `{url}`: {error}: {cause}"),
            None => warn!(server.url = %url, "Not connected to `{url}`: {error}"),
        }
    }

    /// Connects and subscribes to all topics at once.
    async fn subscribe(&mut self) -> Result<Connection, ConnectionError> {
        let (socket, feed) = self.connect().await?;
        let outgoing = self.applied.subscribe();
        let restarts = outgoing.borrow().restarts();
        if restarts != self.restarts {
            self.received = None;
            self.restarts = restarts;
        }
        let ends = Ends {
            socket,
            events: self.events.clone(),
            outgoing,
            restarts,
        };
        let (connection, asked) = Connection::open(ends, self.opening(feed)).await;
        self.received = connection.received();
        asked.map(|()| connection)
    }

    async fn follow(&mut self, mut connection: Connection) -> ConnectionError {
        info!(server.url = %self.config.url, "Subscribed at `{}`", self.config.url);
        let ended = connection.follow(self.config.keep_alive).await;
        self.received = connection.received();
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn opening(&self, feed: bool) -> Opening {
        Opening {
            feed,
            scope: self.config.scope.clone(),
            topics: self.config.topics.clone(),
            client: self.config.client.clone(),
            channel_id: self.channel_id.clone(),
            position: self.received,
        }
    }

    /// A socket, and whether the server offers its feed on it.
    async fn connect(&self) -> Result<(Socket, bool), ConnectionError> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(rpc::MAX_FRAME))
            .max_frame_size(Some(rpc::MAX_FRAME));
        let connector = self.config.tls.clone().map(Connector::Rustls);
        let connecting = tokio_tungstenite::connect_async_tls_with_config(
            self.request()?,
            Some(limits),
            true,
            connector,
        );
        match timeout(ANSWER_WITHIN, connecting).await {
            Err(_) => Err(ConnectionError::TimedOut),
            Ok(Err(tungstenite::Error::Http(response)))
                if matches!(response.status().as_u16(), 401 | 403) =>
            {
                let status = response.status().as_u16();
                Err(ConnectionError::Refused { status })
            }
            Ok(Err(error)) => Err(ConnectionError::Connect(Box::new(error))),
            Ok(Ok((socket, response))) => {
                let answer = response.headers().get(FEED_HEADER);
                let offered = answer.is_some_and(|value| value == FEED_VERSION);
                Ok((socket, self.config.feed && offered))
            }
        }
    }

    fn request(&self) -> Result<Request, ConnectionError> {
        use secrecy::ExposeSecret;
        let url = self.config.url.expose();
        let mut request = url
            .into_client_request()
            .map_err(|_| ConnectionError::Unusable)?;
        let headers = request.headers_mut();
        if let Some(token) = &self.config.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        if self.config.feed {
            headers.insert(FEED_HEADER, HeaderValue::from_static(FEED_VERSION));
        }
        Ok(request)
    }
}
