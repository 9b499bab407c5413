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
pub struct Probe {
    store: Arc<dyn PolicyStore>,
    interval: Duration,
    transactions: TransactionLog,
    commands: mpsc::Sender<Command>,
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
    /// when an engine that was away is back: it may have lost what it held.
    pub fn new(
        store: Arc<dyn PolicyStore>,
        interval: Duration,
        transactions: TransactionLog,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            store,
            interval,
            transactions,
            commands,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.watch()).await;
    }

    async fn watch(self) {
        let mut ticker = tokio::time::interval(self.interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            let outcome = self.store.is_reachable().await;
            let reachable = outcome.is_ok();
            if !self.transactions.probed(outcome) {
                continue;
            }
            if !reachable {
                warn!("The policy engine does not answer");
                continue;
            }
            info!("The policy engine answers again, filling it anew");
            if self.commands.send(Command::StoreLost).await.is_err() {
                return;
            }
        }
    }
}
