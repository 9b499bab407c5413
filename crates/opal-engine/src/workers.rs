//! The threads that evaluate: as many as there are cores, with stacks deep enough for any policy
//! that passed the checks.

use std::any::Any;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;

use crate::EngineError;

/// Of address space; only what is used is ever memory.
pub(crate) const STACK_BYTES: usize = 256 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the threads, which end when the last handle is dropped.
///
/// Every caller waits for its own answer, so there are never more jobs than callers.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    pub(crate) fn start() -> Self {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let count = thread::available_parallelism().map_or(2, NonZero::get);
        for number in 0..count {
            let queue = Arc::clone(&queue);
            let started = thread::Builder::new()
                .name(format!("rego-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&queue));
            if let Err(error) = started {
                tracing::error!(%error, "Evaluating thread {number} could not be started");
            }
        }
        Self { jobs }
    }

    /// Runs `evaluation`, unless the caller stops waiting first. A panic is its error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        evaluation: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(move || {
            if !answer.is_closed() {
                // Nobody waits for the answer any more: nobody misses it.
                let _ = answer.send(contain(evaluation));
            }
        });
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Workers::run`], blocking the caller's thread.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        evaluation: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, receiver) = mpsc::sync_channel(1);
        self.submit(move || {
            // The caller is waiting below.
            let _ = answer.send(contain(evaluation));
        });
        receiver.recv().unwrap_or_else(|_| Err(gone()))
    }

    fn submit(&self, job: impl FnOnce() + Send + 'static) {
        // Without threads the job is dropped, which its caller sees.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

/// Runs `work`; a panic in it is an error of its caller alone.
pub(crate) fn contain<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(EngineError::Panicked(panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// The error of an answer that will never come.
pub(crate) fn gone() -> EngineError {
    EngineError::Panicked("the evaluating thread is gone".to_owned())
}
