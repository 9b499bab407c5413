//! Runs `git` once: bounded in time and output, and gone with all its children when dropped.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::GitError;
use super::redact::Redactor;

/// What of the error output is kept; the rest is read and dropped.
const STDERR_KEPT: usize = 16 * 1024;

/// How much a run may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In all.
    pub(super) total: Duration,
    /// Without printing anything.
    pub(super) silence: Duration,
    /// Bytes of output.
    pub(super) output: usize,
}

/// Kills a process group when dropped, unless it ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            // It may have ended in the meantime.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command`, gives it `input`, and returns what it printed.
///
/// Cancel-safe: dropping the future kills the process and everything it started.
pub(super) async fn run(
    operation: &'static str,
    mut command: Command,
    input: &[u8],
    limits: Limits,
    redactor: &Redactor,
) -> Result<Vec<u8>, GitError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| GitError::NotStarted { operation, source })?;
    let mut group = Group::of(&child);
    let outcome = converse(operation, &mut child, input, limits).await;
    match outcome {
        Ok((stdout, stderr)) => {
            let status = child.wait().await;
            group.0 = None;
            match status {
                Ok(status) if status.success() => Ok(stdout),
                _ => Err(GitError::Failed {
                    operation,
                    message: redactor.message(&stderr),
                }),
            }
        }
        Err(error) => {
            group.kill();
            // Only a process stuck in the kernel outlives this; it is reaped later.
            let _ = timeout(Duration::from_secs(5), child.wait()).await;
            Err(error)
        }
    }
}

type Printed = (Vec<u8>, Vec<u8>);

/// Feeds and reads the child until it closes its output or a limit is reached.
async fn converse(
    operation: &'static str,
    child: &mut Child,
    input: &[u8],
    limits: Limits,
) -> Result<Printed, GitError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        let problem = "no pipes".to_owned();
        return Err(GitError::Unexpected { operation, problem });
    };
    let start = Instant::now();
    let (heard, hearing) = watch::channel(start);
    let talk = async {
        let reading = read_bounded(operation, stdout, limits.output, &heard);
        let complaints = read_tail(stderr, &heard);
        let (stdout, stderr, ()) = tokio::try_join!(reading, complaints, feed(stdin, input))?;
        Ok((stdout, stderr))
    };
    tokio::select! {
        printed = talk => printed,
        limit = overdue(start, hearing, limits) => Err(GitError::TimedOut { operation, limit }),
    }
}

async fn feed(mut stdin: ChildStdin, input: &[u8]) -> Result<(), GitError> {
    // A process that ends early says why itself.
    let _ = stdin.write_all(input).await;
    Ok(())
}

/// Returns the limit that was exceeded, when it is.
async fn overdue(start: Instant, mut heard: watch::Receiver<Instant>, limits: Limits) -> Duration {
    let end = start + limits.total;
    loop {
        let silent = *heard.borrow_and_update() + limits.silence;
        let until = silent.min(end);
        sleep_until(until).await;
        if until == end {
            return limits.total;
        }
        if !heard.has_changed().unwrap_or(false) {
            return limits.silence;
        }
    }
}

async fn read_bounded(
    operation: &'static str,
    mut pipe: impl AsyncRead + Unpin,
    limit: usize,
    heard: &watch::Sender<Instant>,
) -> Result<Vec<u8>, GitError> {
    let mut all = Vec::new();
    while pipe.read_buf(&mut all).await.unwrap_or(0) > 0 {
        heard.send_replace(Instant::now());
        if all.len() > limit {
            return Err(GitError::TooMuchOutput { operation, limit });
        }
        if all.capacity() == all.len() {
            all.reserve(all.len().max(64 * 1024));
        }
    }
    Ok(all)
}

async fn read_tail(
    mut pipe: impl AsyncRead + Unpin,
    heard: &watch::Sender<Instant>,
) -> Result<Vec<u8>, GitError> {
    let mut tail = Vec::new();
    while pipe.read_buf(&mut tail).await.unwrap_or(0) > 0 {
        heard.send_replace(Instant::now());
        if tail.len() > 2 * STDERR_KEPT {
            tail.drain(..tail.len() - STDERR_KEPT);
        }
    }
    Ok(tail)
}
