//! Follows the policy repository and announces new commits.
//!
//! [`PolicyWatcher`] waits for a trigger or the polling interval, brings the clone up to date and
//! gives what changed to an [`AnnouncePolicy`]. A commit counts as announced only once that has
//! succeeded; until then each round tries again, with back-off. What was announced before a restart
//! is asked of the [`AnnouncePolicy`], and neither announced again nor skipped.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use opal_protocol::{CommitHash, PolicyUpdateMessage, Position};
use opal_pubsub::publisher::AnnouncedPolicy;
use opal_runtime::Backoff;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::repo::PolicyRepo;

/// The first pause after a failure, before jitter.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while the first clone is still within its time, and whenever we have one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause once the clone timeout has passed without a clone.
const LONGEST_PAUSE_OVERDUE: Duration = Duration::from_secs(300);
/// The shortest time from the start of a round that failed to the next, whatever triggers it:
/// anyone may call the webhook.
const BETWEEN_FAILING_ROUNDS: Duration = Duration::from_secs(1);

/// The shortest time from one repair of the clone to the next, if it did not help.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(60);

/// Whatever made an announcement fail.
pub type AnnounceError = Box<dyn Error + Send + Sync>;

/// Tells the deployment about a new policy commit.
#[async_trait]
pub trait AnnouncePolicy: Send + Sync {
    /// What the deployment was last told of, if that is remembered. Asked until it answers, before
    /// anything is announced.
    async fn announced(&self) -> Result<Option<AnnouncedPolicy>, AnnounceError>;

    /// Publishes `update` and says where in the feed it is. An error means that it may be published
    /// again: repeats must do no harm.
    async fn announce(&self, update: PolicyUpdateMessage) -> Result<Position, AnnounceError>;
}

/// How the watcher is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatcherStatus {
    /// The last commit whose announcement succeeded, or that needed none.
    pub announced: Option<CommitHash>,
    /// Where in the feed the last announcement is, also of an earlier process.
    pub position: Option<Position>,
    /// The commit that is served.
    pub head: Option<CommitHash>,
    /// When the clone was last seen to be at the remote's head.
    pub last_sync: Option<DateTime<Utc>>,
    /// When a round last succeeded.
    pub last_success: Option<DateTime<Utc>>,
    /// Why the last round failed, with causes; `None` if it succeeded.
    pub error: Option<String>,
    /// Since when rounds fail.
    pub failing_since: Option<DateTime<Utc>>,
    /// Rounds so far, failed ones included.
    pub rounds: u64,
    /// The triggers that the last round came after.
    served: u64,
}

/// Triggers the watcher and tells how it is doing. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatcherHandle {
    triggers: Arc<Triggers>,
    status: watch::Receiver<WatcherStatus>,
}

#[derive(Debug, Default)]
struct Triggers {
    so_far: AtomicU64,
    waiting: Notify,
}

impl WatcherHandle {
    /// Makes the watcher look for new commits now, or in a second if the last look failed. Never
    /// blocks; triggers while one waits count once.
    pub fn trigger(&self) {
        self.next_check();
    }

    /// Makes the watcher look as [`trigger`](Self::trigger) does, and returns how it is doing once a
    /// look that began after this call has ended. `None` if the watcher stops first.
    pub async fn check(&self) -> Option<WatcherStatus> {
        let ours = self.next_check();
        let mut status = self.status.clone();
        let done = status.wait_for(|status| status.served >= ours).await;
        done.ok().map(|status| status.clone())
    }

    /// Asks for a check, and says by which number it is known.
    fn next_check(&self) -> u64 {
        let ours = self.triggers.so_far.fetch_add(1, Ordering::SeqCst) + 1;
        self.triggers.waiting.notify_one();
        ours
    }

    /// How the watcher is doing, and a way to wait for that to change.
    pub fn status(&self) -> watch::Receiver<WatcherStatus> {
        self.status.clone()
    }
}

/// The task that follows the policy repository. One runs for each deployment.
pub struct PolicyWatcher {
    repo: PolicyRepo,
    polling_interval: Option<Duration>,
    announce: Arc<dyn AnnouncePolicy>,
    triggers: Arc<Triggers>,
    status: watch::Sender<WatcherStatus>,
    /// The triggers before the round that runs.
    serving: u64,
    /// Whether it is known what was announced before this process.
    remembers: bool,
    backoff: Backoff,
    /// What the back-off said after the last round; `None` if that succeeded.
    pause: Option<Duration>,
    started: Instant,
    round_started: Instant,
    overdue: bool,
    repaired: Option<Instant>,
}

impl std::fmt::Debug for PolicyWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyWatcher")
            .field("repo", &self.repo)
            .field("polling_interval", &self.polling_interval)
            .finish_non_exhaustive()
    }
}

impl PolicyWatcher {
    /// A watcher of `repo`; without a polling interval it looks at its start and when triggered.
    pub fn new(
        repo: PolicyRepo,
        polling_interval: Option<Duration>,
        announce: Arc<dyn AnnouncePolicy>,
    ) -> (Self, WatcherHandle) {
        let triggers = Arc::new(Triggers::default());
        let (status, reader) = watch::channel(WatcherStatus::default());
        let handle = WatcherHandle {
            triggers: triggers.clone(),
            status: reader,
        };
        let watcher = Self {
            repo,
            polling_interval: polling_interval.filter(|interval| !interval.is_zero()),
            announce,
            triggers,
            status,
            serving: 0,
            remembers: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            pause: None,
            started: Instant::now(),
            round_started: Instant::now(),
            overdue: false,
            repaired: None,
        };
        (watcher, handle)
    }

    /// Runs until `shutdown`. Failures are reported and the round repeated, for ever.
    ///
    /// The first commit that the feed hears of is announced as "take everything", so that clients that
    /// waited learn of it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.started = Instant::now();
        loop {
            self.round_started = Instant::now();
            self.serving = self.triggers.so_far.load(Ordering::SeqCst);
            // Dropping a round is safe: what was not announced is announced by the next.
            let round = shutdown.run_until_cancelled(self.round()).await;
            let Some(outcome) = round else {
                break;
            };
            self.report(outcome);
            let waited = shutdown.run_until_cancelled(self.wait()).await;
            if waited.is_none() {
                break;
            }
        }
    }

    /// Fetches, and announces what is new. A commit that could not be announced is, even if the
    /// remote is gone by now.
    async fn round(&mut self) -> Result<(), AnnounceError> {
        let synced = self.repo.sync().await;
        if synced.is_ok() {
            let now = Utc::now();
            self.status
                .send_modify(|status| status.last_sync = Some(now));
        }
        self.remember().await?;
        if let Some(head) = self.repo.head() {
            self.announce_up_to(head).await?;
        }
        synced?;
        Ok(())
    }

    /// Learns what was announced before this process.
    async fn remember(&mut self) -> Result<(), AnnounceError> {
        if !self.remembers {
            let announced = self.announce.announced().await?;
            self.status.send_modify(|status| {
                status.position = announced.as_ref().map(|announced| announced.position);
                status.announced = announced.map(|announced| announced.commit);
            });
            self.remembers = true;
        }
        Ok(())
    }

    async fn announce_up_to(&mut self, head: CommitHash) -> Result<(), AnnounceError> {
        let (announced, synced) = {
            let status = self.status.borrow();
            (status.announced.clone(), status.last_sync.is_some())
        };
        // A kept clone that was never compared with its remote may be older than what was announced.
        if announced.as_ref() == Some(&head) || (announced.is_some() && !synced) {
            return Ok(());
        }
        let update = self.repo.announcement(announced.as_ref(), &head).await?;
        let position = match update {
            Some(update) => Some(self.announce.announce(update).await?),
            None => {
                info!(policy.head = %head, "No tracked file changed up to {head}");
                None
            }
        };
        self.status.send_modify(|status| {
            status.announced = Some(head);
            status.position = position.or(status.position);
        });
        Ok(())
    }

    fn report(&mut self, outcome: Result<(), AnnounceError>) {
        let error = outcome
            .err()
            .map(|error| opal_runtime::chain(error.as_ref()));
        let url = &self.repo.settings().url;
        if let Some(error) = &error {
            warn!(repo.url = %url, error, "Could not follow `{url}`: {error}");
        }
        let head = self.repo.head();
        let overdue = head.is_none() && self.is_overdue();
        if overdue && !self.overdue {
            error!(repo.url = %url, "Still no clone of `{url}` after the clone timeout: trying less often");
        }
        self.note_pause(error.is_some(), overdue);
        self.status.send_modify(|status| {
            let now = Utc::now();
            status.head = head;
            status.rounds += 1;
            status.served = self.serving;
            if error.is_none() {
                status.last_success = Some(now);
            }
            status.failing_since = error.is_some().then(|| status.failing_since.unwrap_or(now));
            status.error = error;
        });
    }

    fn note_pause(&mut self, failed: bool, overdue: bool) {
        if overdue != self.overdue {
            self.overdue = overdue;
            self.backoff = if overdue {
                Backoff::new(LONGEST_PAUSE, LONGEST_PAUSE_OVERDUE)
            } else {
                Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)
            };
        }
        if failed {
            self.pause = Some(self.backoff.next(&mut rand::rng()));
        } else {
            self.backoff.reset();
            self.pause = None;
        }
    }

    /// Returns when it is time for the next round.
    async fn wait(&mut self) {
        let due = self.next_pause();
        let due = due.and_then(|pause| Instant::now().checked_add(pause));
        if self.pause.is_some() {
            // Triggers in the meantime are one trigger after it.
            sleep_until(self.round_started + BETWEEN_FAILING_ROUNDS).await;
        }
        let time_is_up = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let repaired = self.repaired;
        let damage = async {
            self.repo.damage_noticed().await;
            if let Some(repaired) = repaired {
                sleep_until(repaired + BETWEEN_REPAIRS).await;
            }
        };
        tokio::select! {
            () = self.triggers.waiting.notified() => {}
            () = time_is_up => {}
            () = damage => self.repaired = Some(Instant::now()),
        }
    }

    /// How long to wait if nothing happens.
    fn next_pause(&self) -> Option<Duration> {
        match (self.pause, self.polling_interval) {
            (Some(pause), Some(interval)) => Some(pause.min(interval)),
            (pause, interval) => pause.or(interval),
        }
    }

    fn is_overdue(&self) -> bool {
        let timeout = self.repo.settings().clone_timeout;
        timeout.is_some_and(|timeout| self.started.elapsed() > timeout)
    }
}
