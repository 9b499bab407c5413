//! Signals that ask the process to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::tasks::Tasks;

/// Cancels the token of `tasks` at the first SIGINT or SIGTERM; a second one ends the grace period.
///
/// # Errors
///
/// If the handlers cannot be installed.
pub fn on_signal(tasks: &Tasks) -> io::Result<()> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    };
    let spawner = tasks.spawner();
    tasks.spawner().spawn_untracked(async move {
        let name = signals.next().await;
        info!(signal = name, "Stopping on {name}");
        spawner.shutdown().cancel();
        let name = signals.next().await;
        warn!(signal = name, "Stopping at once on a second signal");
        spawner.abort();
    });
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn send_term_to_self() {
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    }

    #[tokio::test]
    async fn the_first_signal_cancels_and_the_second_ends_the_grace_period() {
        let tasks = Tasks::new(CancellationToken::new());
        on_signal(&tasks).unwrap();
        tasks.spawn("deaf", std::future::pending::<()>());
        send_term_to_self();
        tasks.shutdown().cancelled().await;
        send_term_to_self();
        let error = tasks.join(Duration::from_secs(600)).await.unwrap_err();
        assert!(error.to_string().ends_with("deaf"), "{error}");
    }
}
