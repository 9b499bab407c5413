//! One engine process after the other, until shutdown.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use opal_runtime::Backoff;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Level, debug, error, info, warn};

use super::config::InlineOpaConfig;
use super::log_line::{EngineLogFormat, LogLine};
use crate::policy_store::PolicyStore;

/// How long a new process may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two questions to a process that does not answer yet.
const HEALTH_PAUSE: Duration = Duration::from_millis(50);
/// How long a process has to end by itself once it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A process that ran for so long was no failed start.
const STABLE: Duration = Duration::from_secs(60);
/// How long the output of a process that has ended is read.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// OPA logs this when a request made it panic. As upstream, we do not trust it any more.
const PANIC: &str = "go/src/runtime/panic.go";

/// What happens to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// It answers, and is empty.
    Up {
        /// Whether it was up before, so that what it held is lost.
        restart: bool,
    },
    /// It ended, or could not be started. It will be started again.
    Down {
        /// Why, for people.
        reason: String,
    },
}

/// The task that keeps an engine running.
pub struct InlineOpa {
    program: PathBuf,
    config: InlineOpaConfig,
    store: Arc<dyn PolicyStore>,
    events: mpsc::Sender<EngineEvent>,
}

impl std::fmt::Debug for InlineOpa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineOpa")
            .field("program", &self.program)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why a process is not there any more.
enum End {
    Shutdown,
    Failed(String),
}

impl InlineOpa {
    /// An engine that runs `program` as `config` says. It is up when `store` can reach it.
    ///
    /// Each event is delivered: while the channel of `events` is full, the engine runs unwatched.
    pub fn new(
        program: PathBuf,
        config: InlineOpaConfig,
        store: Arc<dyn PolicyStore>,
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        Self {
            program,
            config,
            store,
            events,
        }
    }

    /// Runs until `shutdown`, and stops the process then. If this future is dropped, or the client
    /// panics, the process is killed.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut restart = false;
        loop {
            let started = Instant::now();
            let reason = match self.life(&mut restart, &shutdown).await {
                End::Shutdown => return,
                End::Failed(reason) => reason,
            };
            if started.elapsed() > STABLE {
                backoff.reset();
            }
            let pause = backoff.next(&mut rand::rng());
            error!("The policy engine is down, starting it again in {pause:?}: {reason}");
            let pause = async {
                self.tell(EngineEvent::Down { reason }).await;
                sleep(pause).await;
            };
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// One process from its start to its end.
    async fn life(&self, restart: &mut bool, shutdown: &CancellationToken) -> End {
        if self.store.is_reachable().await.is_ok() {
            let addr = &self.config.addr;
            return End::Failed(format!("something else already answers at `{addr}`"));
        }
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => {
                let program = self.program.display();
                return End::Failed(format!("could not start `{program}`: {error}"));
            }
        };
        let mut watched = Watched::new(self.config.log_format, &mut child);
        let end = tokio::select! {
            () = shutdown.cancelled() => End::Shutdown,
            () = watched.follow() => End::Failed("it panicked".to_owned()),
            reason = self.attend(&mut child, restart) => End::Failed(reason),
        };
        stop(&mut child).await;
        match end {
            End::Shutdown => End::Shutdown,
            End::Failed(reason) => {
                // What it said last may not have been read yet; its children may keep the pipe open.
                let _ = timeout(LAST_WORDS_LIMIT, watched.drain()).await;
                End::Failed(watched.explain(reason))
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(self.config.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C is for us, and we stop everything it started.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        info!(
            engine.pid = child.id(),
            "Started the policy engine `{}`",
            self.program.display()
        );
        Ok(child)
    }

    /// Waits until the process answers, says so, and waits for its end.
    async fn attend(&self, child: &mut Child, restart: &mut bool) -> String {
        let healthy = async {
            while let Err(error) = self.store.is_reachable().await {
                debug!(%error, "The policy engine does not answer yet");
                sleep(HEALTH_PAUSE).await;
            }
        };
        tokio::select! {
            status = child.wait() => return ended(status),
            outcome = timeout(START_LIMIT, healthy) => if outcome.is_err() {
                return format!("it did not answer within {START_LIMIT:?}");
            },
        }
        info!("The policy engine answers at `{}`", self.config.addr);
        let up = EngineEvent::Up {
            restart: std::mem::replace(restart, true),
        };
        self.tell(up).await;
        ended(child.wait().await)
    }

    async fn tell(&self, event: EngineEvent) {
        // Nobody listens any more: we are about to be told to stop.
        let _ = self.events.send(event).await;
    }
}

fn ended(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("it ended with {status}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    }
}

/// Asks the process and its children to end, and makes them.
async fn stop(child: &mut Child) {
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) else {
        // It has ended and was waited for.
        return;
    };
    let group = rustix::process::Pid::from_raw(group);
    let signal = |signal| {
        // Fails if the group is gone, which is what we want.
        let _ = group.map(|group| rustix::process::kill_process_group(group, signal));
    };
    signal(rustix::process::Signal::TERM);
    if timeout(STOP_LIMIT, child.wait()).await.is_err() {
        warn!("The policy engine did not stop within {STOP_LIMIT:?} and is killed");
    }
    signal(rustix::process::Signal::KILL);
    if let Err(error) = child.kill().await {
        debug!(%error, "The policy engine had ended");
    }
}

/// Reads the engine's output.
struct Watched {
    format: EngineLogFormat,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    /// The last error, or else the last line: why a process ended, if it said so.
    last_words: Option<(Level, String)>,
}

impl Watched {
    fn new(format: EngineLogFormat, child: &mut Child) -> Self {
        Self {
            format,
            stdout: Lines::new(child.stdout.take()),
            stderr: Lines::new(child.stderr.take()),
            last_words: None,
        }
    }

    /// Shows the output as the format says. Returns when OPA says that it panicked, and never else:
    /// the end of the output is no event, the end of the process is.
    async fn follow(&mut self) {
        while let Some(line) = self.next().await {
            if self.take(&line) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads what is left.
    async fn drain(&mut self) {
        while let Some(line) = self.next().await {
            self.take(&line);
        }
    }

    async fn next(&mut self) -> Option<String> {
        tokio::select! {
            Some(line) = self.stdout.next() => Some(line),
            Some(line) = self.stderr.next() => Some(line),
            else => None,
        }
    }

    /// Shows one line. True if OPA panicked.
    fn take(&mut self, text: &str) -> bool {
        let line = LogLine::parse(text);
        if let Some(shown) = line.render(self.format) {
            show(line.level(), &shown);
        }
        let is_worse = |(level, _): &(Level, String)| line.level() <= *level;
        if self.last_words.as_ref().is_none_or(is_worse) {
            self.last_words = Some((line.level(), line.summary()));
        }
        text.contains(PANIC)
    }

    fn explain(&self, reason: String) -> String {
        match &self.last_words {
            Some((_, words)) => format!("{reason}, saying: {words}"),
            None => reason,
        }
    }
}

fn show(level: Level, text: &str) {
    match level {
        Level::ERROR => error!(target: "opal_client::opa::logger", "{text}"),
        Level::WARN => warn!(target: "opal_client::opa::logger", "{text}"),
        Level::INFO => info!(target: "opal_client::opa::logger", "{text}"),
        _ => debug!(target: "opal_client::opa::logger", "{text}"),
    }
}

/// The lines of an output.
struct Lines<R> {
    reader: Option<BufReader<R>>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(output: Option<R>) -> Self {
        Self {
            reader: output.map(BufReader::new),
            buffer: Vec::new(),
        }
    }

    /// The next line, if there is one. Cancel-safe: what was read of a line is kept.
    async fn next(&mut self) -> Option<String> {
        let reader = self.reader.as_mut()?;
        let read = reader.read_until(b'\n', &mut self.buffer).await;
        if !read.is_ok_and(|read| read > 0) {
            self.reader = None;
            if self.buffer.is_empty() {
                return None;
            }
        }
        let line = std::mem::take(&mut self.buffer);
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
