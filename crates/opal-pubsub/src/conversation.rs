//! What one connection of a client says and understands, after the upgrade. No I/O, no clock.
//!
//! A [`Conversation`] begins with one call, `resume` where the server offered its feed and
//! `subscribe` where not. Then it is told every text frame, and says what to answer and what the
//! consumer has to know. What it cannot read of a feed ends the connection: skipping it would
//! leave us behind without knowing.

use std::collections::VecDeque;
use std::time::Duration;

use opal_protocol::feed::{
    self, AppliedArguments, ChangeArguments, ClientInfo, PositionArguments, ResumeAnswer,
    ResumeArguments, ResumeMode,
};
use opal_protocol::rpc::{self, Incoming, NotifyArguments, server_methods};
use opal_protocol::{ChainDigest, Document, Epoch, Position, Revision, ScopeId, Topic};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::event::{Event, FeedChange, Start};

/// What a connection is about.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Whether the server answered the upgrade with
    /// [`FEED_HEADER`](opal_protocol::feed::FEED_HEADER).
    pub feed: bool,
    /// Whose feed.
    pub scope: ScopeId,
    /// All topics.
    pub topics: Vec<Topic>,
    /// Who we are, for people.
    pub client: ClientInfo,
    /// What a server is told that asks for the id of our channel.
    pub channel_id: String,
    /// Where to resume from.
    pub position: Option<Position>,
}

/// One connection. See the module.
#[derive(Debug)]
pub struct Conversation {
    opening: Opening,
    call_id: String,
    state: State,
    /// Where the next connection resumes.
    received: Option<Position>,
}

#[derive(Debug)]
enum State {
    /// Our call is not answered. What a server tells us between registering us and saying so, as
    /// released ones may, waits.
    Asking {
        early: Vec<Event>,
    },
    Released,
    /// Everything up to `told` was told, on this connection or before.
    Feed {
        told: Position,
    },
}

/// What a frame calls for.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// Frames to send, before the events are handed over: a released server sends nothing more on
    /// a topic before its notification is answered.
    pub replies: Vec<String>,
    /// What to hand over, in order. See [`Conversation::handed_over`].
    pub events: VecDeque<Event>,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationError {
    /// The server does not let us have these topics, or this scope.
    #[error("the server refused to subscribe us to {topics:?} of scope `{scope}`")]
    Denied {
        /// What we asked for.
        topics: Vec<Topic>,
        /// Whose.
        scope: ScopeId,
    },
    /// It is no JSON, and might have been a change.
    #[error("the server sent text that is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON, and might have been a change.
    #[error("the server sent JSON that is neither a request nor a response")]
    NotAFrame,
    /// It is not what its name says.
    #[error("the server sent a `{method}` that cannot be read")]
    Unreadable {
        /// The method, or `resume` for the answer to ours.
        method: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A change or a position came before the answer that says of which epoch.
    #[error("the server sent a `{method}` before it had subscribed us")]
    TooEarly {
        /// The method.
        method: &'static str,
    },
    /// It goes on from somewhere else than where we are.
    #[error("the server resumes another position than ours")]
    NotOurPosition,
    /// Two histories have this revision.
    #[error("the server's revision {revision} is not the one that we know")]
    Diverged {
        /// Which.
        revision: Revision,
    },
}

impl Conversation {
    /// Begins a connection with a call whose id is `call_id`; the text is the first frame to send.
    pub fn open(opening: Opening, call_id: String) -> (Self, String) {
        let first = first_call(&opening, &call_id);
        let conversation = Self {
            received: opening.position,
            opening,
            call_id,
            state: State::Asking { early: Vec::new() },
        };
        (conversation, first)
    }

    /// Whether we are subscribed.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, State::Asking { .. })
    }

    /// The epoch that positions of this connection are of; `None` without a feed, and before we
    /// are subscribed.
    pub fn epoch(&self) -> Option<Epoch> {
        match &self.state {
            State::Feed { told } => Some(told.epoch),
            State::Asking { .. } | State::Released => None,
        }
    }

    /// Where the next connection resumes: everything up to here was handed over.
    pub fn received(&self) -> Option<Position> {
        self.received
    }

    /// Notes that the consumer has `event`. The events of [`Heard`] are to be noted one by one, in
    /// order, and none may be left out without ending the connection.
    pub fn handed_over(&mut self, event: &Event) {
        match event {
            Event::Subscribed(Start::Released) => self.received = None,
            Event::Subscribed(Start::Snapshot { head, .. }) => self.received = Some(*head),
            Event::Change(change) => self.received = Some(change.position),
            Event::Position(position) => self.received = Some(*position),
            Event::Subscribed(Start::Resumed { .. })
            | Event::Message { .. }
            | Event::Drifted
            | Event::Disconnected => {}
        }
    }

    /// That the server does not let us have what we asked for.
    pub fn denied(&self) -> ConversationError {
        ConversationError::Denied {
            topics: self.opening.topics.clone(),
            scope: self.opening.scope.clone(),
        }
    }

    /// What a text frame calls for. After an error the connection is to be ended; the next one
    /// resumes from [`Conversation::received`].
    pub fn on_text(&mut self, text: &str) -> Result<Heard, ConversationError> {
        match Incoming::parse(text) {
            Ok(Incoming::Request(request)) => self.on_request(&request),
            Ok(Incoming::Response(response)) => self.on_response(&response),
            Ok(Incoming::Neither) if self.opening.feed => Err(ConversationError::NotAFrame),
            Ok(Incoming::Neither) => Ok(Heard::default()),
            Err(error) if self.opening.feed => Err(ConversationError::NotJson(error)),
            Err(error) => {
                warn!("Ignored a frame that is not JSON: {error}");
                Ok(Heard::default())
            }
        }
    }

    fn on_response(&mut self, response: &rpc::Response<'_>) -> Result<Heard, ConversationError> {
        let is_ours = response.call_id.as_deref() == Some(self.call_id.as_str());
        let State::Asking { early } = &mut self.state else {
            return Ok(Heard::default());
        };
        if !is_ours {
            return Ok(Heard::default());
        }
        let early = std::mem::take(early);
        let start = match (self.opening.feed, response.result.get()) {
            (_, "false") => return Err(self.denied()),
            (true, answer) => self.resumed(answer)?,
            (false, "true") => self.released(),
            (false, _) => return Err(self.denied()),
        };
        let events = std::iter::once(Event::Subscribed(start)).chain(early);
        Ok(Heard {
            events: events.collect(),
            ..Heard::default()
        })
    }

    fn released(&mut self) -> Start {
        self.state = State::Released;
        Start::Released
    }

    fn resumed(&mut self, answer: &str) -> Result<Start, ConversationError> {
        let answer: ResumeAnswer = read(feed::RESUME, answer)?;
        let head = answer.position();
        let (told, start) = match answer.mode {
            ResumeMode::Snapshot => {
                let spread = Duration::from_millis(answer.spread_ms);
                (head, Start::Snapshot { head, spread })
            }
            ResumeMode::Replay => (self.replayed_from(&head)?, Start::Resumed { head }),
        };
        self.state = State::Feed { told };
        Ok(start)
    }

    /// Our position, if what comes between it and `head` can follow.
    fn replayed_from(&mut self, head: &Position) -> Result<Position, ConversationError> {
        let ours = self.opening.position;
        let fits = |ours: &Position| {
            ours.epoch == head.epoch && (ours.revision < head.revision || ours == head)
        };
        ours.filter(fits).ok_or_else(|| {
            // This server does not continue from there, so the next attempt takes a snapshot.
            self.received = None;
            ConversationError::NotOurPosition
        })
    }

    fn on_request(&mut self, request: &rpc::Request<'_>) -> Result<Heard, ConversationError> {
        let arguments = request.arguments.map_or("null", |text| text.get());
        let events = match request.method.as_str() {
            rpc::NOTIFY => self.on_notification(arguments)?,
            feed::CHANGE if self.opening.feed => self.on_change(arguments)?,
            feed::POSITION if self.opening.feed => self.on_position(arguments)?,
            _ => VecDeque::new(),
        };
        let replies = self.answer(request).into_iter().collect();
        Ok(Heard { replies, events })
    }

    fn answer(&self, request: &rpc::Request<'_>) -> Option<String> {
        let call_id = request.call_id.as_deref();
        match request.method.as_str() {
            rpc::NOTIFY => Some(rpc::notify_answer(call_id)),
            server_methods::PING => Some(rpc::response_text(&"pong", "str", call_id)),
            server_methods::GET_CHANNEL_ID => {
                let channel_id = &self.opening.channel_id;
                Some(rpc::response_text(channel_id, "str", call_id))
            }
            feed::CHANGE | feed::POSITION if self.opening.feed => None,
            method => {
                debug!("Ignored the server's call of `{method}`, which we do not have");
                None
            }
        }
    }

    fn on_notification(&mut self, arguments: &str) -> Result<VecDeque<Event>, ConversationError> {
        let notify: NotifyArguments = match read(rpc::NOTIFY, arguments) {
            Ok(notify) => notify,
            Err(error) if self.opening.feed => return Err(error),
            Err(error) => {
                warn!("Ignored a notification: {error}");
                return Ok(VecDeque::new());
            }
        };
        let null = || Document::from(&serde_json::Value::Null);
        let event = Event::Message {
            topic: notify.subscription.topic,
            data: notify.data.unwrap_or_else(null),
        };
        Ok(match &mut self.state {
            State::Asking { early } => {
                early.push(event);
                VecDeque::new()
            }
            State::Released | State::Feed { .. } => VecDeque::from([event]),
        })
    }

    fn on_change(&mut self, arguments: &str) -> Result<VecDeque<Event>, ConversationError> {
        let change: ChangeArguments = read(feed::CHANGE, arguments)?;
        let (_, advanced) = self.advance(feed::CHANGE, change.revision, change.digest)?;
        let Some(position) = advanced else {
            debug!(feed.revision = %change.revision, "Dropped revision {}, which was told twice", change.revision);
            return Ok(VecDeque::new());
        };
        Ok(VecDeque::from([Event::Change(FeedChange {
            position,
            topics: change.topics,
            payload: change.payload,
            confirm: change.confirm,
        })]))
    }

    fn on_position(&mut self, arguments: &str) -> Result<VecDeque<Event>, ConversationError> {
        let arguments: PositionArguments = read(feed::POSITION, arguments)?;
        let (told, _) = self.advance(feed::POSITION, arguments.revision, arguments.digest)?;
        // One that repeats where we are still ends a replay.
        let is_current = arguments.revision == told.revision;
        let position = is_current.then_some(Event::Position(told));
        let drifted = arguments.drift.then_some(Event::Drifted);
        Ok(position.into_iter().chain(drifted).collect())
    }

    /// Moves to a later revision. Returns where we are then, and the same again if it is further
    /// than before.
    fn advance(
        &mut self,
        method: &'static str,
        revision: Revision,
        digest: ChainDigest,
    ) -> Result<(Position, Option<Position>), ConversationError> {
        let State::Feed { told } = &mut self.state else {
            return Err(ConversationError::TooEarly { method });
        };
        if revision == told.revision && digest != told.digest {
            self.received = None;
            return Err(ConversationError::Diverged { revision });
        }
        if revision <= told.revision {
            return Ok((*told, None));
        }
        told.revision = revision;
        told.digest = digest;
        Ok((*told, Some(*told)))
    }
}

/// The frame that reports what was applied. Only for connections with a feed.
pub fn applied_text(applied: &AppliedArguments) -> String {
    rpc::event_text(feed::APPLIED, applied)
}

fn first_call(opening: &Opening, call_id: &str) -> String {
    if opening.feed {
        let arguments = ResumeArguments {
            scope: opening.scope.clone(),
            topics: opening.topics.clone(),
            position: opening.position,
            client: opening.client.clone(),
        };
        return rpc::request_text(feed::RESUME, &arguments, call_id);
    }
    let arguments = serde_json::json!({ "topics": opening.topics });
    rpc::request_text(server_methods::SUBSCRIBE, &arguments, call_id)
}

fn read<T: DeserializeOwned>(method: &'static str, text: &str) -> Result<T, ConversationError> {
    serde_json::from_str(text).map_err(|source| ConversationError::Unreadable { method, source })
}
