//! Asks the engine now and then whether it is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::policy_store::PolicyStore;
use crate::transactions::TransactionLog;
use crate::updater::Command;

/// The task that watches an engine over its own health route.
pub(crate) struct Probe {
    store: Arc<dyn PolicyStore>,
    interval: Duration,
    transactions: TransactionLog,
    commands: mpsc::Sender<Command>,
    supervised: bool,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl Probe {
    /// A probe of `store`, whose findings go to `transactions`, and to the updater through `commands`
    /// when an engine that was away is back: it may have lost what it held. Of a `supervised` engine
    /// the updater hears from elsewhere.
    pub(crate) fn new(
        store: Arc<dyn PolicyStore>,
        interval: Duration,
        transactions: TransactionLog,
        commands: mpsc::Sender<Command>,
        supervised: bool,
    ) -> Self {
        Self {
            store,
            interval,
            transactions,
            commands,
            supervised,
        }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.watch()).await;
    }

    async fn watch(self) {
        let mut ticker = tokio::time::interval(self.interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // An engine of our own is still starting at the first tick, which comes at once.
        if self.supervised {
            ticker.tick().await;
        }
        let mut was_up = false;
        loop {
            ticker.tick().await;
            let outcome = self.store.is_reachable().await;
            let is_up = outcome.is_ok();
            let is_news = self.transactions.probed(outcome);
            let came_back = is_up && is_news && was_up;
            was_up |= is_up;
            if is_news && !is_up {
                warn!("The policy engine does not answer");
            }
            // Whoever supervises an engine knows better when it was restarted.
            if !came_back || self.supervised {
                continue;
            }
            info!("The policy engine answers again, filling it anew");
            if self
                .commands
                .send(Command::EngineUp { lost: true })
                .await
                .is_err()
            {
                return;
            }
        }
    }
}
