//! The task that owns the hub.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use opal_protocol::{Revision, ScopeId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::batch::Batch;
use super::storage::Storage;
use super::{AnnouncedPolicy, Command, FeedHead, PublishError, PublishRequest, WaitRequest};
use crate::feed::journal_file::{Journal, JournalError};
use crate::hub::{Hub, SubscriberId, WaitId, WaitOutcome};

/// Publishes that may wait for the batch before them, and their bytes.
const MOST_PENDING: usize = 8192;
const MOST_PENDING_BYTES: usize = 128 * 1024 * 1024;

/// How long a publisher waits for the disk.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// The task that owns the [`Hub`].
#[derive(Debug)]
pub struct HubTask {
    hub: Hub,
    commands: mpsc::Receiver<Command>,
    closed: mpsc::UnboundedReceiver<SubscriberId>,
    storage: Storage,
    /// What is being stored.
    batch: Batch,
    /// When that began.
    batch_since: Instant,
    /// What comes next, in order, with the time when it came.
    pending: VecDeque<(Instant, PublishRequest)>,
    pending_bytes: usize,
    /// Whether the last batch was not stored, and that was logged.
    failing: bool,
    /// Those who wait, by their waits in the hub.
    waiting: BTreeMap<WaitId, oneshot::Sender<WaitOutcome>>,
}

impl HubTask {
    pub(super) fn new(
        hub: Hub,
        journal: Option<Journal>,
        commands: mpsc::Receiver<Command>,
        closed: mpsc::UnboundedReceiver<SubscriberId>,
    ) -> Self {
        Self {
            hub,
            commands,
            closed,
            storage: Storage::new(journal),
            batch: Batch::default(),
            batch_since: now(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            failing: false,
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
                stored = self.storage.written(), if self.storage.is_writing() => self.finish(stored),
                // Whatever the disk does: there is more to the hub than publishing.
                Some(command) = self.commands.recv() => self.handle(command),
                () = until(deadline), if deadline.is_some() => self.hub.expire_waits(now()),
                _ = check.tick() => self.tick(),
            }
            self.store_pending();
            self.answer_waits();
        }
        if self.storage.is_writing() {
            // Whoever published is told what became of it.
            let stored = self.storage.written().await;
            self.finish(stored);
        }
        self.hub.end_all();
        self.answer_waits();
    }

    /// Begins the next batch, unless one is being stored.
    fn store_pending(&mut self) {
        if self.pending.is_empty() || self.storage.is_writing() {
            return;
        }
        self.pending_bytes = 0;
        self.batch_since = now();
        let requests = std::mem::take(&mut self.pending);
        let requests = requests.into_iter().map(|(_, request)| request);
        self.batch = Batch::stage(&mut self.hub, requests, unix_millis());
        if !self.storage.write(self.hub.feed(), self.batch.changes()) {
            self.commit();
        }
    }

    /// Ends the batch that was being stored.
    fn finish(&mut self, stored: Result<(), JournalError>) {
        match stored {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("Updates are stored again");
                }
                self.commit();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    error!(
                        "Updates are refused until they can be stored: {}",
                        error.with_cause()
                    );
                }
                std::mem::take(&mut self.batch).discard(&mut self.hub, error);
            }
        }
    }

    fn commit(&mut self) {
        let now = now();
        let outcomes = std::mem::take(&mut self.batch).commit(&mut self.hub, now);
        for outcome in outcomes {
            if let (Ok(published), Some(wait)) = (&outcome.published, outcome.wait) {
                let revision = published.appended.position().revision;
                self.wait(&outcome.scope, revision, wait, now);
            }
            if let Some(answer) = outcome.answer {
                // Whoever asked may have gone meanwhile; then nobody misses the answer.
                let _ = answer.send(outcome.published);
            }
        }
    }

    fn publish(&mut self, request: PublishRequest, now: Instant) {
        let bytes = request.draft.size();
        let is_full = self.pending.len() >= MOST_PENDING
            || self.pending_bytes.saturating_add(bytes) > MOST_PENDING_BYTES;
        if is_full && !self.pending.is_empty() {
            request.refuse(PublishError::Busy);
            return;
        }
        self.pending_bytes += bytes;
        self.pending.push_back((now, request));
    }

    /// Answers publishers who have waited long enough for a disk that does not answer.
    fn give_up(&mut self, now: Instant) {
        let is_over = |since: Instant| now.duration_since(since) >= STORED_WITHIN;
        if !self.storage.is_writing() || !is_over(self.batch_since) {
            return;
        }
        // What is being written cannot be taken back.
        self.batch.leave_in_doubt();
        while self
            .pending
            .front()
            .is_some_and(|(since, _)| is_over(*since))
            && let Some((_, request)) = self.pending.pop_front()
        {
            self.pending_bytes -= request.draft.size();
            request.refuse(PublishError::Busy);
        }
    }

    fn tick(&mut self) {
        self.hub.feed_mut().expire(unix_millis());
        self.give_up(now());
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
            Command::Publish(request) => self.publish(request, now),
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
                let _ = answer.send(self.head(&scope));
            }
            Command::Base(scope, topics, answer) => {
                let _ = answer.send(self.hub.base(&scope, &topics));
            }
            Command::Fleet(answer) => {
                let _ = answer.send(self.hub.fleet(now));
            }
            Command::ReportedPolicies(answer) => {
                let _ = answer.send(self.hub.reported_policies());
            }
            Command::MarkDrift(drifted, done) => {
                self.hub.mark_drift(&drifted, now);
                let _ = done.send(());
            }
        }
    }

    fn head(&self, scope: &ScopeId) -> FeedHead {
        let feed = self.hub.feed();
        let announced = feed.commit(scope).zip(feed.announced(scope));
        FeedHead {
            position: feed.head(scope),
            policy: announced.map(|(commit, position)| AnnouncedPolicy {
                commit: commit.clone(),
                position,
            }),
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

/// The time for others: milliseconds since the Unix epoch.
fn unix_millis() -> u64 {
    // A clock before 1970 is no time at all.
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
