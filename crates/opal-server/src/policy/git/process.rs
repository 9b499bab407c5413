//! Runs `git` once: bounded in time and output, and gone with all its children when dropped.

use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::GitError;
use super::redact::Redactor;

/// What of the error output is kept; the rest is read and dropped.
const STDERR_KEPT: usize = 16 * 1024;

/// How long a process that has ended may leave its error output open: a child of it may hold it
/// for ever, as an `ssh` with `ControlPersist` does. What it printed is in the pipe by then.
const TAIL_GRACE: Duration = Duration::from_millis(200);

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
        Ok(ended) => {
            group.0 = None;
            match ended.status {
                Some(status) if status.success() => Ok(ended.stdout),
                _ => Err(GitError::Failed {
                    operation,
                    message: redactor.message(&ended.stderr),
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

/// A process that ended by itself.
struct Ended {
    /// `None` if the system did not tell.
    status: Option<ExitStatus>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Feeds and reads the child until it has ended or a limit is reached.
async fn converse(
    operation: &'static str,
    child: &mut Child,
    input: &[u8],
    limits: Limits,
) -> Result<Ended, GitError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        let problem = "no pipes".to_owned();
        return Err(GitError::Unexpected { operation, problem });
    };
    let start = Instant::now();
    let (heard, hearing) = watch::channel(start);
    let has_ended = Notify::new();
    let answer = async {
        let reading = read_bounded(operation, stdout, limits.output, &heard);
        let (stdout, ()) = tokio::try_join!(reading, feed(stdin, input))?;
        let status = child.wait().await.ok();
        has_ended.notify_one();
        Ok((stdout, status))
    };
    let too_late = async {
        has_ended.notified().await;
        sleep(TAIL_GRACE).await;
    };
    let talk = async {
        let complaints = read_tail(stderr, &heard, too_late);
        let ((stdout, status), stderr) = tokio::try_join!(answer, complaints)?;
        Ok(Ended {
            status,
            stdout,
            stderr,
        })
    };
    tokio::select! {
        ended = talk => ended,
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

/// Reads until the end, or until it is `too_late` for more.
async fn read_tail(
    mut pipe: impl AsyncRead + Unpin,
    heard: &watch::Sender<Instant>,
    too_late: impl Future<Output = ()>,
) -> Result<Vec<u8>, GitError> {
    let mut too_late = pin!(too_late);
    let mut tail = Vec::new();
    loop {
        let read = tokio::select! {
            read = pipe.read_buf(&mut tail) => read.unwrap_or(0),
            () = &mut too_late => 0,
        };
        if read == 0 {
            return Ok(tail);
        }
        heard.send_replace(Instant::now());
        if tail.len() > 2 * STDERR_KEPT {
            tail.drain(..tail.len() - STDERR_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use opal_protocol::RedactedUrl;

    use super::*;

    async fn run_script(script: &str, total: Duration) -> Result<Vec<u8>, GitError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let limits = Limits {
            total,
            silence: total,
            output: 1024,
        };
        let redactor = Redactor::new(&RedactedUrl::from("file:///nowhere"));
        run("script", command, &[], limits, &redactor).await
    }

    #[tokio::test]
    async fn a_process_that_hangs_after_closing_its_output_is_stopped() {
        let limit = Duration::from_millis(300);
        let hanging = run_script("exec >&- 2>&-; exec sleep 600", limit);
        let outcome = timeout(Duration::from_secs(30), hanging).await;
        let error = outcome.expect("in time").unwrap_err();
        assert_eq!(error.to_string(), "`git script` was stopped after 300ms");
    }

    #[tokio::test]
    async fn an_error_output_that_a_process_left_open_is_not_waited_for() {
        // As an ssh does that stays for later connections.
        let script = "sleep 600 >/dev/null </dev/null & echo $!";
        let printed = run_script(script, Duration::from_secs(20)).await.unwrap();
        let left: i32 = String::from_utf8_lossy(&printed).trim().parse().unwrap();
        let left = Pid::from_raw(left).unwrap();
        rustix::process::kill_process(left, Signal::KILL).expect("it was left alone");
    }

    #[tokio::test]
    async fn the_error_output_of_a_failed_process_is_its_message() {
        let failed = run_script("echo why >&2; exit 3", Duration::from_secs(20)).await;
        let message = failed.unwrap_err().to_string();
        assert_eq!(message, "`git script` failed: why");
    }
}
