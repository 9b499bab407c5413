//! The task that owns the hub, and the handle through which everyone else talks to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opal_protocol::{CommitHash, Position, ScopeId, Topic};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::feed::{AppendError, ChangeDraft};
use crate::hub::{Hub, Now, Published, SubscriberId};
use crate::outbox::Outbox;

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
    /// Nobody is there to accept it.
    #[error(transparent)]
    Stopped(#[from] HubStopped),
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
    Publish {
        scope: ScopeId,
        draft: ChangeDraft,
        except: Option<SubscriberId>,
        answer: oneshot::Sender<Result<Published, AppendError>>,
    },
    Register(SubscriberId, Arc<Outbox>, oneshot::Sender<()>),
    Subscribe(SubscriberId, Vec<Topic>, oneshot::Sender<bool>),
    Unsubscribe(SubscriberId, Vec<Topic>, oneshot::Sender<()>),
    Head(ScopeId, oneshot::Sender<(Position, Option<CommitHash>)>),
}

/// The task that owns the [`Hub`].
#[derive(Debug)]
pub struct HubTask {
    hub: Hub,
    commands: mpsc::Receiver<Command>,
    closed: mpsc::UnboundedReceiver<SubscriberId>,
}

impl Publisher {
    /// A handle, and the task that has to run for it to work.
    pub fn new(hub: Hub) -> (Self, HubTask) {
        let (sender, commands) = mpsc::channel(WAITING_COMMANDS);
        let (close, closed) = mpsc::unbounded_channel();
        let publisher = Self {
            commands: sender,
            closed: close,
            next_subscriber: Arc::new(AtomicU64::new(1)),
        };
        let task = HubTask {
            hub,
            commands,
            closed,
        };
        (publisher, task)
    }

    /// Appends a change to the feed of `scope` and hands it to its subscribers.
    ///
    /// Returns once both are done: the change's position is final, delivery goes on by itself.
    /// Waits while the hub's queue is full: publishers are slowed, changes are not dropped.
    pub async fn publish(
        &self,
        scope: &ScopeId,
        draft: ChangeDraft,
        except: Option<SubscriberId>,
    ) -> Result<Published, PublishError> {
        let scope = scope.clone();
        let published = self
            .ask(|answer| Command::Publish {
                scope,
                draft,
                except,
                answer,
            })
            .await??;
        Ok(published)
    }

    /// Where the feed of `scope` is, and the commit that its last policy change led to.
    pub async fn head(
        &self,
        scope: &ScopeId,
    ) -> Result<(Position, Option<CommitHash>), HubStopped> {
        self.ask(|answer| Command::Head(scope.clone(), answer))
            .await
    }

    /// Adds a connection without topics; it ends when the registration is dropped.
    pub async fn register(&self, outbox: Arc<Outbox>) -> Result<Registration, HubStopped> {
        let id = SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed));
        let registration = Registration {
            id,
            publisher: self.clone(),
        };
        // Done before the registration can be dropped, whose end travels by another road.
        self.ask(|done| Command::Register(id, outbox, done)).await?;
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
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Without a hub there is nothing to be removed from.
        let _ = self.publisher.closed.send(self.id);
    }
}

impl HubTask {
    /// Runs until `shutdown`, then ends every connection.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut check = tokio::time::interval(Duration::from_secs(1));
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(id) = self.closed.recv() => self.hub.remove(id),
                Some(command) = self.commands.recv() => self.handle(command),
                _ = check.tick() => {
                    let ended = self.hub.end_slow_subscribers(Instant::now());
                    if ended > 0 {
                        warn!(ended, "Disconnected {ended} subscribers that did not keep up");
                    }
                }
            }
        }
        self.hub.end_all();
    }

    fn handle(&mut self, command: Command) {
        // Whoever asked may have gone meanwhile; then nobody misses the answer.
        match command {
            Command::Publish {
                scope,
                draft,
                except,
                answer,
            } => {
                let published = self.hub.publish(&scope, None, draft, except, now());
                let _ = answer.send(published);
            }
            Command::Register(id, outbox, done) => {
                self.hub.register(id, outbox);
                if done.send(()).is_err() {
                    self.hub.remove(id);
                }
            }
            Command::Subscribe(id, topics, done) => {
                let _ = done.send(self.hub.subscribe(id, topics));
            }
            Command::Unsubscribe(id, topics, done) => {
                self.hub.unsubscribe(id, &topics);
                let _ = done.send(());
            }
            Command::Head(scope, answer) => {
                let feed = self.hub.feed();
                let _ = answer.send((feed.head(&scope), feed.commit(&scope).cloned()));
            }
        }
    }
}

fn now() -> Now {
    // A clock before 1970 is no time at all.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since_epoch.unwrap_or_default().as_millis();
    Now {
        instant: Instant::now(),
        unix_millis: u64::try_from(millis).unwrap_or(u64::MAX),
    }
}
