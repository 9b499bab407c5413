//! The owner of every task: each has a name, and an end that someone notices.
//!
//! Two kinds of task. What must run as long as the process is given to [`Tasks::spawn`]: the first
//! of these to end early cancels the shared token, and [`Tasks::join`] names it. What comes and
//! goes (a connection, a callback) is given to a [`TaskSpawner`]: its end is no event, its panic
//! is logged, and shutdown waits for it like for the others.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

/// How long aborted tasks have to reach a point where they can be dropped.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// Any error, of which only text and sources matter.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the process stops without having been asked to, or does not stop cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A task that should have run until shutdown returned.
    #[error("task `{name}` ended early")]
    Ended {
        /// The task.
        name: &'static str,
    },
    /// A task that should have run until shutdown gave up.
    #[error("task `{name}` failed")]
    Failed {
        /// The task.
        name: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A task panicked.
    #[error("task `{name}` panicked: {message}")]
    Panicked {
        /// The task.
        name: &'static str,
        /// What the panic said.
        message: String,
    },
    /// Some tasks did not stop in time and were aborted.
    #[error("still running {grace:?} after shutdown: {}", names.join(", "))]
    Stuck {
        /// The tasks, each name once.
        names: Vec<&'static str>,
        /// The time they had.
        grace: Duration,
    },
}

/// What a task may return: nothing, or why it gave up.
pub trait TaskOutcome: Send + 'static {
    /// The reason, if the task failed.
    fn failure(self) -> Option<BoxError>;
}

impl TaskOutcome for () {
    fn failure(self) -> Option<BoxError> {
        None
    }
}

impl<E: Into<BoxError> + Send + 'static> TaskOutcome for Result<(), E> {
    fn failure(self) -> Option<BoxError> {
        self.err().map(Into::into)
    }
}

/// The tasks of this process. Made once, in `main`'s build step.
#[derive(Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
}

/// Starts short-lived tasks under the same owner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskSpawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shutdown: CancellationToken,
    abort: CancellationToken,
    tracker: TaskTracker,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first reason to stop, if it was a task's end.
    cause: Option<TaskError>,
    running: BTreeMap<&'static str, usize>,
    aborted: BTreeSet<&'static str>,
}

impl Tasks {
    /// An owner without tasks, whose tasks stop when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        let shared = Shared {
            shutdown,
            abort: CancellationToken::new(),
            tracker: TaskTracker::new(),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The token that tells every task to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shared.shutdown
    }

    /// A handle that starts short-lived tasks.
    pub fn spawner(&self) -> TaskSpawner {
        TaskSpawner {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Runs `task` until shutdown. If it ends before, in whatever way, everything stops.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutcome,
    {
        let shared = Arc::clone(&self.shared);
        let task = Box::pin(task);
        self.shared.run(name, async move {
            let error = match AssertUnwindSafe(task).catch_unwind().await {
                Err(panic) => panicked(name, panic.as_ref()),
                Ok(outcome) => match outcome.failure() {
                    Some(source) => TaskError::Failed { name, source },
                    None => TaskError::Ended { name },
                },
            };
            shared.ended(error);
        });
    }

    /// Waits for shutdown, then for the tasks, at most `grace`; the rest is aborted.
    ///
    /// # Errors
    ///
    /// If a task ended early, that; else, if tasks had to be aborted, which.
    pub async fn join(self, grace: Duration) -> Result<(), TaskError> {
        let shared = self.shared;
        shared.shutdown.cancelled().await;
        shared.tracker.close();
        let in_time = tokio::select! {
            outcome = tokio::time::timeout(grace, shared.tracker.wait()) => outcome.is_ok(),
            () = shared.abort.cancelled() => false,
        };
        if !in_time {
            shared.abort.cancel();
            if tokio::time::timeout(ABORT_LIMIT, shared.tracker.wait())
                .await
                .is_err()
            {
                warn!(
                    tasks = shared.running().join(","),
                    "Some tasks block their thread and are left behind"
                );
            }
        }
        let mut state = shared.state();
        let names: Vec<_> = state.aborted.iter().copied().collect();
        match state.cause.take() {
            Some(cause) => Err(cause),
            None if names.is_empty() => Ok(()),
            None => Err(TaskError::Stuck { names, grace }),
        }
    }
}

impl TaskSpawner {
    /// The token that tells every task to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shared.shutdown
    }

    /// Runs `task` to its end, or until it is aborted after the grace period of a shutdown.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Each layer around a future holds it twice, before and while it runs: of a box, that is
        // nothing, of a connection many kilobytes.
        let task = Box::pin(task);
        self.shared.run(name, async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                error!(task = name, "{}", panicked(name, panic.as_ref()));
            }
        });
    }

    /// Runs `task` beside the owner's life: nobody waits for it, and it may end the grace period
    /// by [`TaskSpawner::abort`].
    #[expect(clippy::disallowed_methods, reason = "this module owns all tasks")]
    pub(crate) fn spawn_untracked<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(task);
    }

    /// Ends the grace period: what still runs is aborted.
    pub(crate) fn abort(&self) {
        self.shared.abort.cancel();
    }
}

impl Shared {
    #[expect(clippy::disallowed_methods, reason = "this module owns all tasks")]
    fn run(self: &Arc<Self>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::start(self, name);
        let shared = Arc::clone(self);
        let abort = self.abort.clone();
        let task = async move {
            let _running = running;
            if abort.run_until_cancelled_owned(task).await.is_none() {
                shared.state().aborted.insert(name);
            }
        };
        tokio::spawn(self.tracker.track_future(task));
    }

    fn ended(&self, error: TaskError) {
        if self.shutdown.is_cancelled() {
            // Asked to stop; only a panic or an error is worth a word.
            if !matches!(error, TaskError::Ended { .. }) {
                error!("While stopping: {error}");
            }
            return;
        }
        self.state().cause.get_or_insert(error);
        self.shutdown.cancel();
    }

    fn running(&self) -> Vec<&'static str> {
        self.state().running.keys().copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task under its name for as long as it lives.
struct Running {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Running {
    fn start(shared: &Arc<Shared>, name: &'static str) -> Self {
        *shared.state().running.entry(name).or_default() += 1;
        Self {
            shared: Arc::clone(shared),
            name,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(count) = state.running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(self.name);
            }
        }
    }
}

fn panicked(name: &'static str, panic: &(dyn Any + Send)) -> TaskError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    TaskError::Panicked {
        name,
        message: text.unwrap_or("(no text)").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn tasks() -> Tasks {
        Tasks::new(CancellationToken::new())
    }

    #[tokio::test]
    async fn tasks_that_stop_when_told_are_no_error() {
        let tasks = tasks();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("a", shutdown.clone().cancelled_owned());
        shutdown.cancel();
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_task_to_end_early_stops_the_others_and_is_named() {
        let tasks = tasks();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("patient", shutdown.cancelled_owned());
        tasks.spawn("hasty", async {});
        let error = tasks.join(GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task `hasty` ended early");
    }

    #[tokio::test]
    async fn a_panic_and_a_failure_name_task_and_reason() {
        let panicking = tasks();
        panicking.spawn("p", async {
            if true {
                panic!("boom")
            }
        });
        let error = panicking.join(GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task `p` panicked: boom");

        let failing = tasks();
        failing.spawn("f", async {
            Err::<(), _>(std::io::Error::other("no disk"))
        });
        let error = failing.join(GRACE).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            (error.to_string(), source.as_str()),
            ("task `f` failed".into(), "no disk")
        );
    }

    #[tokio::test]
    async fn the_token_is_cancelled_even_if_nobody_joins_yet() {
        let tasks = tasks();
        tasks.spawn("hasty", async {});
        tasks.shutdown().cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_in_time_is_aborted_and_named() {
        let tasks = tasks();
        tasks.spawn("deaf", std::future::pending::<()>());
        tasks.spawner().spawn("connection", std::future::pending());
        tasks.shutdown().cancel();
        let error = tasks.join(GRACE).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "still running 5s after shutdown: connection, deaf"
        );
    }

    #[tokio::test]
    async fn a_short_task_may_end_or_panic_and_is_waited_for() {
        let tasks = tasks();
        let spawner = tasks.spawner();
        spawner.spawn("short", async {});
        spawner.spawn("bad", async { panic!("only mine") });
        let (done, finished) = tokio::sync::oneshot::channel();
        let shutdown = spawner.shutdown().clone();
        spawner.spawn("slow", async move {
            shutdown.cancelled().await;
            tokio::task::yield_now().await;
            done.send(()).unwrap();
        });
        tokio::task::yield_now().await;
        assert!(!tasks.shutdown().is_cancelled());
        tasks.shutdown().cancel();
        tasks.join(GRACE).await.unwrap();
        finished.await.unwrap();
    }
}
