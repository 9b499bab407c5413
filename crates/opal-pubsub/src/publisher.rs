//! The handle through which everyone talks to the hub, and [`HubTask`], the task that owns it.

mod batch;
mod storage;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opal_protocol::feed::{AppliedArguments, BaseSnapshot, ResumeAnswer, ResumeArguments};
use opal_protocol::{CommitHash, Position, Revision, ScopeId, Topic};
use tokio::sync::{mpsc, oneshot};

use crate::feed::journal_file::{Journal, JournalError};
use crate::feed::{AppendError, ChangeDraft};
use crate::hub::{
    AppliedFault, ClientView, Drift, Hub, Peer, Published, ReportedPolicies, SubscriberId,
    TooManyTopics, WaitOutcome, WaitTarget,
};
use crate::outbox::Outbox;

pub use task::HubTask;

/// Commands that may wait for the hub. More make their senders wait.
const WAITING_COMMANDS: usize = 1024;

/// The hub's task is gone: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is stopping")]
pub struct HubStopped;

/// Why a publish was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The feed refused it.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// It could not be made durable, so nobody was told of it. Publishing it again may succeed.
    #[error("the update could not be stored")]
    NotStored {
        /// Why. All that were to be stored at once share it.
        source: Arc<JournalError>,
    },
    /// More waits to be stored than is taken in, or this waited for too long. It was not stored, and
    /// nobody was told of it.
    #[error("the server has more updates to store than it can")]
    Busy,
    /// The disk has not answered in time: it may be stored yet, and told to subscribers then. Publishing
    /// it again under the same id does no harm.
    #[error("the update is not known to be stored: the disk does not answer")]
    InDoubt,
    /// Nobody is there to accept it.
    #[error(transparent)]
    Stopped(#[from] HubStopped),
}

/// Where the feed of a scope is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedHead {
    /// After its last change.
    pub position: Position,
    /// Its last policy change, if it ever had one.
    pub policy: Option<AnnouncedPolicy>,
}

/// A policy change of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedPolicy {
    /// The commit that it led to.
    pub commit: CommitHash,
    /// Where in the feed it is.
    pub position: Position,
}

/// Publishes to every subscriber, and registers them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    /// Connections that closed. Not bounded, so that a drop never waits; each connection is in it
    /// at most once.
    closed: mpsc::UnboundedSender<SubscriberId>,
    next_subscriber: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Command {
    Publish(PublishRequest),
    Wait(ScopeId, Revision, WaitRequest),
    Register(SubscriberId, Arc<Outbox>, Peer, oneshot::Sender<()>),
    Subscribe(SubscriberId, Vec<Topic>, oneshot::Sender<bool>),
    Unsubscribe(SubscriberId, Vec<Topic>, oneshot::Sender<()>),
    Resume(
        SubscriberId,
        ResumeArguments,
        oneshot::Sender<Result<ResumeAnswer, TooManyTopics>>,
    ),
    Applied(
        SubscriberId,
        AppliedArguments,
        oneshot::Sender<Result<(), AppliedFault>>,
    ),
    Head(ScopeId, oneshot::Sender<FeedHead>),
    Base(ScopeId, Vec<Topic>, oneshot::Sender<BaseSnapshot>),
    Fleet(oneshot::Sender<Vec<ClientView>>),
    ReportedPolicies(oneshot::Sender<Vec<ReportedPolicies>>),
    MarkDrift(Vec<Drift>, oneshot::Sender<()>),
}

/// A change that is to be appended and handed out.
#[derive(Debug)]
struct PublishRequest {
    scope: ScopeId,
    draft: ChangeDraft,
    except: Option<SubscriberId>,
    wait: Option<WaitRequest>,
    answer: oneshot::Sender<Result<Published, PublishError>>,
}

impl PublishRequest {
    fn refuse(self, error: PublishError) {
        // Whoever asked may have gone meanwhile; then nobody misses the answer.
        let _ = self.answer.send(Err(error));
    }
}

/// Somebody who wants to hear what becomes of a change.
#[derive(Debug)]
struct WaitRequest {
    target: WaitTarget,
    timeout: Duration,
    outcome: oneshot::Sender<WaitOutcome>,
}

impl Publisher {
    /// A handle, and the task that has to run for it to work. With a journal, which is that of the
    /// hub's feed, nobody hears of a change before it is durable.
    pub fn new(hub: Hub, journal: Option<Journal>) -> (Self, HubTask) {
        let (sender, commands) = mpsc::channel(WAITING_COMMANDS);
        let (close, closed) = mpsc::unbounded_channel();
        let publisher = Self {
            commands: sender,
            closed: close,
            next_subscriber: Arc::new(AtomicU64::new(1)),
        };
        (publisher, HubTask::new(hub, journal, commands, closed))
    }

    /// Appends a change to the feed of `scope` and hands it to its subscribers.
    ///
    /// Returns once both are done: the change's position is final, it is durable if there is a
    /// journal, and delivery goes on by itself. A disk that does not answer is waited for ten seconds.
    /// Waits while the hub's queue is full: publishers are slowed, changes are not dropped.
    pub async fn publish(
        &self,
        scope: &ScopeId,
        draft: ChangeDraft,
        except: Option<SubscriberId>,
    ) -> Result<Published, PublishError> {
        self.append(scope, draft, except, None).await
    }

    /// As [`publish`](Self::publish), then waits until `target` has applied the change, everybody
    /// is accounted for, `timeout` has passed, or the hub stops. Whose confirmation counts is fixed at
    /// the append, after which there is no error: the change is in the feed.
    pub async fn publish_and_wait(
        &self,
        scope: &ScopeId,
        draft: ChangeDraft,
        target: WaitTarget,
        timeout: Duration,
    ) -> Result<(Published, WaitOutcome), PublishError> {
        let (wait, outcome) = WaitRequest::new(target, timeout);
        let published = self.append(scope, draft, None, Some(wait)).await?;
        // Nothing is known if the hub has died.
        Ok((published, outcome.await.unwrap_or_default()))
    }

    async fn append(
        &self,
        scope: &ScopeId,
        draft: ChangeDraft,
        except: Option<SubscriberId>,
        wait: Option<WaitRequest>,
    ) -> Result<Published, PublishError> {
        let scope = scope.clone();
        let published = self
            .ask(|answer| {
                Command::Publish(PublishRequest {
                    scope,
                    draft,
                    except,
                    wait,
                    answer,
                })
            })
            .await??;
        Ok(published)
    }

    /// Waits until `target` has applied everything up to `revision` of `scope`, everybody is
    /// accounted for, or `timeout` has passed. Of a revision that the feed does not hold any more,
    /// every client of the scope counts.
    pub async fn wait(
        &self,
        scope: &ScopeId,
        revision: Revision,
        target: WaitTarget,
        timeout: Duration,
    ) -> Result<WaitOutcome, HubStopped> {
        let (wait, outcome) = WaitRequest::new(target, timeout);
        self.send(Command::Wait(scope.clone(), revision, wait))
            .await?;
        outcome.await.map_err(|_| HubStopped)
    }

    /// Where the feed of `scope` is.
    pub async fn head(&self, scope: &ScopeId) -> Result<FeedHead, HubStopped> {
        self.ask(|answer| Command::Head(scope.clone(), answer))
            .await
    }

    /// What the feed of `scope` comes down to at its head, for a client of `topics`.
    pub async fn base(
        &self,
        scope: &ScopeId,
        topics: Vec<Topic>,
    ) -> Result<BaseSnapshot, HubStopped> {
        self.ask(|answer| Command::Base(scope.clone(), topics, answer))
            .await
    }

    /// Every client that is connected or was lost within the last 30 s, sorted by id.
    pub async fn fleet(&self) -> Result<Vec<ClientView>, HubStopped> {
        self.ask(Command::Fleet).await
    }

    /// The policies that connected clients say they hold.
    pub async fn policies_reported(&self) -> Result<Vec<ReportedPolicies>, HubStopped> {
        self.ask(Command::ReportedPolicies).await
    }

    /// Says in the fleet view that the policies of clients are not those of their commit, until they
    /// report others, and tells those who are to take a snapshot. Those who have gone, or reported
    /// others meanwhile, are skipped.
    pub async fn mark_drift(&self, drifted: Vec<Drift>) -> Result<(), HubStopped> {
        self.ask(|done| Command::MarkDrift(drifted, done)).await
    }

    /// Adds a connection without topics; it ends when the registration is dropped.
    pub async fn register(
        &self,
        outbox: Arc<Outbox>,
        peer: Peer,
    ) -> Result<Registration, HubStopped> {
        let id = SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed));
        let registration = Registration {
            id,
            publisher: self.clone(),
        };
        // Done before the registration can be dropped, whose end travels by another road.
        self.ask(|done| Command::Register(id, outbox, peer, done))
            .await?;
        Ok(registration)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, HubStopped> {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer)).await?;
        answered.await.map_err(|_| HubStopped)
    }

    async fn send(&self, command: Command) -> Result<(), HubStopped> {
        self.commands.send(command).await.map_err(|_| HubStopped)
    }
}

impl WaitRequest {
    fn new(target: WaitTarget, timeout: Duration) -> (Self, oneshot::Receiver<WaitOutcome>) {
        let (outcome, receiver) = oneshot::channel();
        let request = Self {
            target,
            timeout,
            outcome,
        };
        (request, receiver)
    }
}

/// A connection's place in the hub. Dropping it removes the connection.
#[derive(Debug)]
pub struct Registration {
    id: SubscriberId,
    publisher: Publisher,
}

impl Registration {
    /// The connection's id.
    pub fn id(&self) -> SubscriberId {
        self.id
    }

    /// Adds topics. After `true` every change that is appended later is delivered; `false` says
    /// that they are too many, and that nothing was done.
    pub async fn subscribe(&self, topics: Vec<Topic>) -> Result<bool, HubStopped> {
        self.publisher
            .ask(|done| Command::Subscribe(self.id, topics, done))
            .await
    }

    /// Takes topics away. On return no later change is delivered for them.
    pub async fn unsubscribe(&self, topics: Vec<Topic>) -> Result<(), HubStopped> {
        self.publisher
            .ask(|done| Command::Unsubscribe(self.id, topics, done))
            .await
    }

    /// Follows the feed from a position, instead of what was resumed before. What the outbox gets
    /// from now on belongs after the answer.
    pub async fn resume(
        &self,
        arguments: ResumeArguments,
    ) -> Result<Result<ResumeAnswer, TooManyTopics>, HubStopped> {
        self.publisher
            .ask(|answer| Command::Resume(self.id, arguments, answer))
            .await
    }

    /// Notes what the client holds. A fault says that this changed nothing.
    pub async fn applied(
        &self,
        arguments: AppliedArguments,
    ) -> Result<Result<(), AppliedFault>, HubStopped> {
        self.publisher
            .ask(|answer| Command::Applied(self.id, arguments, answer))
            .await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Without a hub there is nothing to be removed from.
        let _ = self.publisher.closed.send(self.id);
    }
}

#[cfg(test)]
mod tests;
