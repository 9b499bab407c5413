//! One connection: moves frames between the socket, the conversation and whoever reads the events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use opal_protocol::Position;
use opal_protocol::rpc::{self, server_methods};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::{ANSWER_WITHIN, ConnectionError};
use crate::applied::{Outgoing, Pacing};
use crate::conversation::{Conversation, Opening, applied_text};
use crate::event::{Event, Start};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How often the connection is pinged; silence for three times as long ends it.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What a connection is made with.
pub(super) struct Ends {
    pub(super) socket: Socket,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) outgoing: watch::Receiver<Outgoing>,
    /// How many restarts had been asked for when the position was read.
    pub(super) restarts: u64,
}

/// See the module.
pub(super) struct Connection {
    ends: Ends,
    conversation: Conversation,
    /// Whether the server offered its feed.
    feed: bool,
    /// What the consumer has no room for yet. Nothing is read meanwhile.
    waiting: VecDeque<Event>,
    /// When to report; there is nobody to report to if `None`.
    pacing: Option<Pacing>,
    last_heard: Instant,
}

impl Connection {
    /// Subscribes. Returns the connection in any case, for what it knows of positions.
    pub(super) async fn open(ends: Ends, opening: Opening) -> (Self, Result<(), ConnectionError>) {
        let feed = opening.feed;
        let (conversation, first) = Conversation::open(opening, new_id());
        let mut connection = Self {
            ends,
            conversation,
            feed,
            waiting: VecDeque::new(),
            pacing: None,
            last_heard: Instant::now(),
        };
        let asked = timeout(ANSWER_WITHIN, connection.ask(first)).await;
        let asked = asked.unwrap_or(Err(ConnectionError::TimedOut));
        (connection, asked)
    }

    /// Where the next connection resumes.
    pub(super) fn received(&self) -> Option<Position> {
        self.conversation.received()
    }

    async fn ask(&mut self, first: String) -> Result<(), ConnectionError> {
        self.send(first).await?;
        while !self.conversation.is_live() {
            match receive(&mut self.ends.socket).await {
                Ok(Some(text)) => self.on_text(&text).await?,
                Ok(None) => {}
                // A released server refuses by closing.
                Err(ConnectionError::Closed { .. }) if !self.feed => {
                    return Err(self.conversation.denied().into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Passes on what comes, and reports what was applied, until the connection ends.
    pub(super) async fn follow(
        &mut self,
        keep_alive: Option<Duration>,
    ) -> Result<Infallible, ConnectionError> {
        let events = self.ends.events.clone();
        let mut ping = tokio::time::interval(PING_EVERY);
        let mut keep_alive = keep_alive.map(tokio::time::interval);
        loop {
            if self.ends.outgoing.borrow_and_update().restarts() != self.ends.restarts {
                return Err(ConnectionError::Restarted);
            }
            let report_at = self.report_at();
            tokio::select! {
                room = events.reserve(), if !self.waiting.is_empty() => {
                    self.hand_over(room.map_err(|_| ConnectionError::Unheard)?);
                }
                text = receive(&mut self.ends.socket), if self.waiting.is_empty() => {
                    self.last_heard = Instant::now();
                    if let Some(text) = text? {
                        self.on_text(&text).await?;
                    }
                }
                _ = ping.tick() => self.ping().await?,
                () = next_tick(&mut keep_alive) => self.keep_alive().await?,
                () = sleep_until(report_at) => self.report().await?,
                Ok(()) = self.ends.outgoing.changed() => {}
            }
        }
    }

    async fn on_text(&mut self, text: &str) -> Result<(), ConnectionError> {
        let heard = self.conversation.on_text(text)?;
        for reply in heard.replies {
            self.send(reply).await?;
        }
        self.waiting.extend(heard.events);
        Ok(())
    }

    fn hand_over(&mut self, room: mpsc::Permit<'_, Event>) {
        // What came while nothing was read is still to be heard.
        self.last_heard = Instant::now();
        let Some(event) = self.waiting.pop_front() else {
            return;
        };
        if let Some(pacing) = pacing_from(&event, &self.ends.outgoing.borrow()) {
            self.pacing = Some(pacing);
        }
        self.conversation.handed_over(&event);
        room.send(event);
    }

    fn report_at(&self) -> Option<Instant> {
        let now = Instant::now().into_std();
        let due = self
            .pacing
            .as_ref()?
            .due(&self.ends.outgoing.borrow(), now)?;
        Some(due.into())
    }

    async fn report(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now().into_std();
        let Some(pacing) = &mut self.pacing else {
            return Ok(());
        };
        let applied = pacing.take(&self.ends.outgoing.borrow(), now);
        match applied {
            Some(applied) => self.send(applied_text(&applied)).await,
            None => Ok(()),
        }
    }

    async fn ping(&mut self) -> Result<(), ConnectionError> {
        // While nothing is read, silence says nothing.
        if self.waiting.is_empty() && self.last_heard.elapsed() > PING_EVERY * 3 {
            return Err(ConnectionError::Silent);
        }
        send_message(&mut self.ends.socket, Message::Ping(bytes::Bytes::new())).await
    }

    async fn keep_alive(&mut self) -> Result<(), ConnectionError> {
        let call = rpc::request_text(server_methods::PING, &serde_json::json!({}), &new_id());
        self.send(call).await
    }

    async fn send(&mut self, text: String) -> Result<(), ConnectionError> {
        send_message(&mut self.ends.socket, Message::text(text)).await
    }
}

/// How reports are paced from the event on that says what a connection builds on.
fn pacing_from(event: &Event, outgoing: &Outgoing) -> Option<Pacing> {
    match event {
        Event::Subscribed(Start::Resumed { head }) => Some(Pacing::resumed(head.epoch)),
        Event::Subscribed(Start::Snapshot { head, .. }) => Some(Pacing::anew(head.epoch, outgoing)),
        _ => None,
    }
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

async fn next_tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
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
