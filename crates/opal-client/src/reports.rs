//! Sends reports in the background: an update does not wait for those who are told of it.

use std::sync::{Arc, Mutex, PoisonError};

use opal_protocol::{DataUpdateReport, UpdateCallback};
use opal_runtime::TaskSpawner;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::callbacks::{CallbackRegister, Reporter};

/// Reports that may be on their way. More are dropped, with a warning: whoever is told is far
/// behind, and the server knows the state by other means.
const UNDER_WAY: usize = 256;

/// Everyone who is told how updates went. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reports {
    reporter: Reporter,
    register: Arc<Mutex<CallbackRegister>>,
    tasks: TaskSpawner,
    places: Arc<Semaphore>,
}

impl Reports {
    /// Reports to those in `register`, and to those that an update names.
    pub fn new(reporter: Reporter, register: CallbackRegister, tasks: TaskSpawner) -> Self {
        Self {
            reporter,
            register: Arc::new(Mutex::new(register)),
            tasks,
            places: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }

    /// Sends `report` in the background.
    pub fn send(&self, report: DataUpdateReport, callback: UpdateCallback) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!("Dropped a report: {UNDER_WAY} are still on their way");
            return;
        };
        let register = self.register.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = register.entries().to_vec();
        drop(register);
        let reporter = self.reporter.clone();
        let shutdown = self.tasks.shutdown().clone();
        self.tasks.spawn("report", async move {
            let sending = reporter.report(&report, &callback.callbacks, &registered);
            shutdown.run_until_cancelled(sending).await;
            drop(place);
        });
    }
}
