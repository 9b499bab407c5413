//! Asks the engine now and then whether it is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
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
    landmark: watch::Receiver<Option<String>>,
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
    /// the updater hears from elsewhere; of any other, that it lost the `landmark`, a policy that it
    /// took, shows a restart between two probes.
    pub(crate) fn new(
        store: Arc<dyn PolicyStore>,
        interval: Duration,
        transactions: TransactionLog,
        commands: mpsc::Sender<Command>,
        supervised: bool,
        landmark: watch::Receiver<Option<String>>,
    ) -> Self {
        Self {
            store,
            interval,
            transactions,
            commands,
            supervised,
            landmark,
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
        loop {
            ticker.tick().await;
            let outcome = self.store.is_reachable().await;
            let is_up = outcome.is_ok();
            let is_news = self.transactions.probed(outcome);
            if is_news && !is_up {
                warn!("The policy engine does not answer");
            }
            // Whoever supervises an engine knows better when it was restarted.
            if self.supervised || !is_up || !(is_news || self.has_lost_its_policy().await) {
                continue;
            }
            info!("The policy engine was restarted or away, filling it anew");
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

    /// Whether the engine lacks a policy that it took: it was restarted between two questions.
    async fn has_lost_its_policy(&self) -> bool {
        let Some(id) = self.landmark.borrow().clone() else {
            return false;
        };
        matches!(self.store.has_policy(&id).await, Ok(false))
    }
}
