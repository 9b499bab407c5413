//! The task of one server-side websocket: moves frames between the socket, its
//! [`Session`] and its [`Outbox`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use opal_protocol::feed::{AppliedArguments, ResumeArguments};
use opal_protocol::rpc::{self, PublishArguments};
use opal_protocol::{Document, ScopeId, Topic, UpdateId};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::feed::{ChangeDraft, Payload};
use crate::hub::{Peer, TooManyTopics};
use crate::outbox::{Ended, Next, Outbox};
use crate::publisher::{HubStopped, Publisher, Registration};
use crate::session::{Action, Fault, Session, SessionLimits};

/// Close code for "come back and load everything anew".
const CLOSE_RESTART: u16 = 1012;
const CLOSE_NORMAL: u16 = 1000;

/// So many frames are written before we look whether the peer said something.
const AT_ONCE: usize = 64;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed it")]
    ByPeer,
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("it did not read what it subscribed to")]
    TooSlow,
    #[error("the server stops")]
    ShuttingDown,
    #[error("its client has a newer one")]
    Superseded,
    #[error("the connection broke")]
    Broken(#[from] axum::Error),
}

impl From<HubStopped> for End {
    fn from(_: HubStopped) -> Self {
        Self::ShuttingDown
    }
}

/// Serves one connection until either side ends it or the hub stops.
pub async fn serve(socket: WebSocket, session: Session, publisher: Publisher, peer: Peer) {
    let outbox = Arc::new(Outbox::default());
    let Ok(registration) = publisher.register(Arc::clone(&outbox), peer).await else {
        return;
    };
    // In a box: the future would otherwise hold it twice, as it came and as it is used.
    let mut channel = Box::new(Channel {
        socket,
        session,
        outbox,
        registration,
        publisher,
        warned: false,
    });
    let end = channel.run().await;
    let id = channel.session.channel_id();
    match &end {
        End::ByPeer | End::ShuttingDown | End::Superseded => {
            debug!(channel.id = id, "Connection ended: {end}")
        }
        End::Broken(error) => debug!(channel.id = id, "Connection ended: {end}: {error}"),
        End::Fault(_) | End::TooSlow => warn!(channel.id = id, "Ended a connection: {end}"),
    }
    channel.close(&end).await;
}

struct Channel {
    socket: WebSocket,
    session: Session,
    outbox: Arc<Outbox>,
    registration: Registration,
    publisher: Publisher,
    /// Whether a report that counts for nothing was warned of already.
    warned: bool,
}

impl Channel {
    async fn run(&mut self) -> End {
        let mut check = tokio::time::interval(self.session.limits().check_every);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        check.reset();
        loop {
            // Each branch is cancel-safe: nothing is taken from a source without being handled.
            let step = tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.on_message(message).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(End::ByPeer),
                },
                next = self.outbox.next(), if self.session.may_notify() => self.on_next(next).await,
                why = self.outbox.ended(), if !self.session.may_notify() => Err(why.into()),
                _ = check.tick() => self.check().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn check(&mut self) -> Result<(), End> {
        if let Some(fault) = self.session.overdue(Instant::now()) {
            return Err(fault.into());
        }
        self.write(Message::Ping(bytes::Bytes::new())).await
    }

    /// Writes what waits, as far as the window allows, and not so much that we would not listen.
    async fn on_next(&mut self, next: Next) -> Result<(), End> {
        let mut next = Some(next);
        for left in (0..AT_ONCE).rev() {
            let frame = match next {
                Some(Next::Frame(frame)) => frame,
                Some(Next::End(why)) => return Err(why.into()),
                None => break,
            };
            self.session.notified(&frame, Instant::now());
            let queued = self.socket.feed(Message::Text(frame));
            in_time(self.session.limits(), &self.outbox, queued).await?;
            next = match left > 0 && self.session.may_notify() {
                true => self.outbox.try_next(),
                false => None,
            };
        }
        // Many small frames are one write.
        in_time(self.session.limits(), &self.outbox, self.socket.flush()).await
    }

    /// Writes one frame.
    async fn write(&mut self, message: Message) -> Result<(), End> {
        let written = self.socket.send(message);
        in_time(self.session.limits(), &self.outbox, written).await
    }

    async fn on_message(&mut self, message: Message) -> Result<(), End> {
        let now = Instant::now();
        match message {
            Message::Text(text) => {
                match self.session.on_text(&text, now) {
                    Action::Nothing => Ok(()),
                    // Rare and large: not part of what each idle connection holds.
                    action => Box::pin(self.act(action)).await,
                }
            }
            Message::Ping(_) | Message::Pong(_) => {
                self.session.heard(now);
                Ok(())
            }
            Message::Binary(_) => Err(Fault::Binary.into()),
            Message::Close(_) => Err(End::ByPeer),
        }
    }

    async fn act(&mut self, action: Action) -> Result<(), End> {
        let reply = match action {
            Action::Nothing => return Ok(()),
            Action::Reply(reply) => reply,
            Action::Subscribe(topics, call_id) => {
                let granted = self.registration.subscribe(topics).await?;
                if !granted {
                    self.warn_of_too_many_topics();
                }
                rpc::response_text(&granted, "bool", call_id.as_deref())
            }
            Action::Resume(arguments, call_id) => self.resume(arguments, call_id).await?,
            Action::Applied(report) => return self.applied(report).await,
            Action::Unsubscribe(topics, reply) => {
                self.registration.unsubscribe(topics).await?;
                reply
            }
            Action::Publish(publish, call_id) => {
                let published = self.publish(publish).await;
                rpc::response_text(&published, "bool", call_id.as_deref())
            }
            Action::Denied(topics, reply) => {
                let channel_id = self.session.channel_id();
                let first = topics.first().map(Topic::as_str).unwrap_or_default();
                let first: String = first.chars().take(200).collect();
                warn!(
                    channel.id = channel_id,
                    topic.count = topics.len(),
                    "Refused topics to a connection, `{first}` the first of them"
                );
                reply
            }
            Action::DeniedScope(scope, reply) => {
                let channel_id = self.session.channel_id();
                let scope: String = scope.as_str().chars().take(200).collect();
                warn!(
                    channel.id = channel_id,
                    "Refused scope `{scope}` to a connection"
                );
                reply
            }
            Action::Close(fault) => return Err(fault.into()),
        };
        self.write(Message::Text(Utf8Bytes::from(reply))).await
    }

    /// Makes the connection follow the feed; returns the answer. It has to be written before
    /// anything else: the outbox holds what belongs after it.
    async fn resume(
        &mut self,
        arguments: ResumeArguments,
        call_id: Option<String>,
    ) -> Result<String, End> {
        let answer = self.registration.resume(arguments).await?;
        Ok(match answer {
            Ok(answer) => rpc::response_text(&answer, "dict", call_id.as_deref()),
            Err(TooManyTopics) => {
                self.warn_of_too_many_topics();
                rpc::response_text(&false, "bool", call_id.as_deref())
            }
        })
    }

    async fn applied(&mut self, report: AppliedArguments) -> Result<(), End> {
        if let Err(fault) = self.registration.applied(report).await?
            && !std::mem::replace(&mut self.warned, true)
        {
            let channel_id = self.session.channel_id();
            warn!(
                channel.id = channel_id,
                "Ignored what a client says that it applied: {fault}"
            );
        }
        Ok(())
    }

    fn warn_of_too_many_topics(&self) {
        let channel_id = self.session.channel_id();
        warn!(
            channel.id = channel_id,
            "Refused a connection that wants too many topics"
        );
    }

    /// Passes on what the peer publishes; it gets no copy unless it says that someone else spoke.
    /// Returns whether it has its place in the feed: only then may the peer forget it.
    async fn publish(&mut self, publish: PublishArguments) -> bool {
        let own = match &publish.notifier_id {
            None => true,
            Some(notifier) => notifier == self.session.channel_id(),
        };
        let nothing = || Document::from(&serde_json::Value::Null);
        let draft = ChangeDraft {
            id: UpdateId::from_uuid(Uuid::new_v4()),
            topics: publish.topics.into(),
            payload: Payload::Message(publish.data.unwrap_or_else(nothing)),
        };
        let except = own.then(|| self.registration.id());
        let scope = ScopeId::default();
        let published = self.publisher.publish(&scope, draft, except).await;
        if let Err(error) = &published {
            let channel_id = self.session.channel_id();
            warn!(
                channel.id = channel_id,
                "Could not pass on a peer's message: {error}"
            );
        }
        published.is_ok()
    }

    /// Says goodbye, if the peer still listens.
    async fn close(&mut self, end: &End) {
        let code = match end {
            End::ByPeer | End::Broken(_) => return,
            End::ShuttingDown | End::TooSlow => CLOSE_RESTART,
            End::Fault(_) | End::Superseded => CLOSE_NORMAL,
        };
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(""),
        };
        let goodbye = async {
            let _ = self.socket.send(Message::Close(Some(frame))).await;
            let _ = self.socket.close().await;
        };
        // Whether it arrives is the peer's business.
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// Waits until something is written. A peer that does not read holds up neither the hub nor our
/// shutdown.
async fn in_time(
    limits: &SessionLimits,
    outbox: &Outbox,
    writing: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), End> {
    tokio::select! {
        biased;
        written = timeout(limits.write_within, writing) => match written {
            Ok(written) => Ok(written?),
            Err(_) => Err(End::TooSlow),
        },
        why = outbox.ended() => Err(why.into()),
    }
}

impl From<Ended> for End {
    fn from(why: Ended) -> Self {
        match why {
            Ended::TooSlow => Self::TooSlow,
            Ended::ShuttingDown => Self::ShuttingDown,
            Ended::Superseded => Self::Superseded,
        }
    }
}
