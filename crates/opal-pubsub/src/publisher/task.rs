//! The task that owns the hub.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use opal_protocol::{Revision, ScopeId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Command, WaitRequest};
use crate::hub::{Delivery, Hub, Now, SubscriberId, WaitId, WaitOutcome};

/// The task that owns the [`Hub`].
#[derive(Debug)]
pub struct HubTask {
    hub: Hub,
    commands: mpsc::Receiver<Command>,
    closed: mpsc::UnboundedReceiver<SubscriberId>,
    /// Those who wait, by their waits in the hub.
    waiting: BTreeMap<WaitId, oneshot::Sender<WaitOutcome>>,
}

impl HubTask {
    pub(super) fn new(
        hub: Hub,
        commands: mpsc::Receiver<Command>,
        closed: mpsc::UnboundedReceiver<SubscriberId>,
    ) -> Self {
        Self {
            hub,
            commands,
            closed,
            waiting: BTreeMap::new(),
        }
    }

    /// Runs until `shutdown`, then ends every connection.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut check = tokio::time::interval(Duration::from_secs(1));
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.hub.next_deadline();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(id) = self.closed.recv() => self.hub.remove(id, now()),
                Some(command) = self.commands.recv() => self.handle(command),
                () = until(deadline), if deadline.is_some() => self.hub.expire_waits(now()),
                _ = check.tick() => self.tick(),
            }
            self.answer_waits();
        }
        self.hub.end_all();
    }

    fn tick(&mut self) {
        let ended = self.hub.tick(now());
        if ended > 0 {
            warn!(
                ended,
                "Disconnected {ended} subscribers that did not keep up"
            );
        }
        let hub = &mut self.hub;
        self.waiting.retain(|id, outcome| {
            let gone = outcome.is_closed();
            if gone {
                hub.cancel_wait(*id);
            }
            !gone
        });
    }

    fn answer_waits(&mut self) {
        for (id, outcome) in self.hub.finished_waits() {
            if let Some(waiting) = self.waiting.remove(&id) {
                // Whoever waited may have gone meanwhile.
                let _ = waiting.send(outcome);
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let now = now();
        // Whoever asked may have gone meanwhile; then nobody misses the answer.
        match command {
            Command::Publish {
                scope,
                draft,
                except,
                wait,
                answer,
            } => {
                let confirm = wait.is_some();
                let delivery = Delivery { except, confirm };
                let unix_millis = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                let at = Now { instant: now, unix_millis };
                let published = self.hub.publish(&scope, None, draft, delivery, at);
                if let (Ok(published), Some(wait)) = (&published, wait) {
                    let revision = published.appended.position().revision;
                    self.wait(&scope, revision, wait, now);
                }
                let _ = answer.send(published);
            }
            Command::Wait(scope, revision, wait) => self.wait(&scope, revision, wait, now),
            Command::Register(id, outbox, peer, done) => {
                self.hub.register(id, outbox, peer, now);
                if done.send(()).is_err() {
                    self.hub.remove(id, now);
                }
            }
            Command::Subscribe(id, topics, done) => {
                let _ = done.send(self.hub.subscribe(id, topics));
            }
            Command::Unsubscribe(id, topics, done) => {
                self.hub.unsubscribe(id, &topics);
                let _ = done.send(());
            }
            Command::Resume(id, arguments, answer) => {
                let _ = answer.send(self.hub.resume(id, arguments, now));
            }
            Command::Applied(id, arguments, answer) => {
                let _ = answer.send(self.hub.applied(id, arguments, now));
            }
            Command::Head(scope, answer) => {
                let feed = self.hub.feed();
                let _ = answer.send((feed.head(&scope), feed.commit(&scope).cloned()));
            }
            Command::Fleet(answer) => {
                let _ = answer.send(self.hub.fleet(now));
            }
            Command::ReportedPolicies(answer) => {
                let _ = answer.send(self.hub.reported_policies());
            }
            Command::MarkDrift(subscribers, done) => {
                self.hub.mark_drift(&subscribers, now);
                let _ = done.send(());
            }
        }
    }

    fn wait(&mut self, scope: &ScopeId, revision: Revision, wait: WaitRequest, now: Instant) {
        let id = self
            .hub
            .wait(scope, revision, wait.target, wait.timeout, now);
        self.waiting.insert(id, wait.outcome);
    }
}

async fn until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// The time by the clock that this task sleeps with.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
