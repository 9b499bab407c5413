//! Drops old snapshots, so that no query and no writer pays for it.
//!
//! The last reference to a large document that was replaced takes milliseconds to drop.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How often snapshots that are still read are looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// A handle to the thread that waits until nobody else holds what was retired, and drops it.
#[derive(Debug)]
pub(crate) struct Retirement<T> {
    retired: mpsc::Sender<Arc<T>>,
}

impl<T: Send + Sync + 'static> Retirement<T> {
    pub(crate) fn start() -> Self {
        let (retired, queue) = mpsc::channel();
        let started = thread::Builder::new()
            .name("rego-retire".to_owned())
            .spawn(move || drop_when_unused(&queue));
        if let Err(error) = started {
            tracing::error!(%error, "Old snapshots will be dropped by whoever held them last");
        }
        Self { retired }
    }

    pub(crate) fn retire(&self, old: Arc<T>) {
        // Without the thread it is dropped here.
        let _ = self.retired.send(old);
    }
}

fn drop_when_unused<T>(queue: &mpsc::Receiver<Arc<T>>) {
    let mut waiting: Vec<Arc<T>> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            queue
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(PAUSE)
        };
        match next {
            Ok(old) => waiting.push(old),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|old| Arc::strong_count(old) > 1);
    }
}
