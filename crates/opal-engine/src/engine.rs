//! The handle: [`Engine`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use regorus::Value;

use crate::policy::PolicySet;
use crate::retire::Retirement;
use crate::snapshot::{self, Snapshot};
use crate::workers::{self, STACK_BYTES, Workers};
use crate::writer::Writer;
use crate::{Edit, EngineError, document, json, rest};

/// How an [`Engine`] behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Modules are Rego v0 unless they import `rego.v1`, as with `opa run --v0-compatible`.
    ///
    /// Otherwise all are v1. Default: `true`, as released OPAL.
    pub v0_compatible: bool,
    /// A query that takes longer fails. Default: 30 seconds.
    pub evaluation_limit: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            v0_compatible: true,
            evaluation_limit: Duration::from_secs(30),
        }
    }
}

/// A Rego engine. Cheap to clone; clones share policy and data.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: EngineOptions,
    current: ArcSwap<Snapshot>,
    writer: Mutex<Writer>,
    retirement: Retirement<Snapshot>,
    workers: Workers,
}

impl Engine {
    /// An engine without policy and data.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let policies = PolicySet::new(options.v0_compatible);
        let data = Value::new_object();
        let engine = snapshot::prepare(&policies, &data, options.evaluation_limit)
            .unwrap_or_else(|_| policies.template().clone());
        let snapshot = Snapshot::new(engine, policies, data);
        let writer = Writer::from_snapshot(&snapshot, options.evaluation_limit);
        Self {
            shared: Arc::new(Shared {
                options,
                current: ArcSwap::from_pointee(snapshot),
                writer: Mutex::new(writer),
                retirement: Retirement::start(),
                workers: Workers::start(),
            }),
        }
    }

    /// Applies each transaction, all of its edits or none, and answers an outcome for each.
    ///
    /// One new snapshot is published after the whole batch: a query sees all of it or nothing, and
    /// a transaction that failed leaves no trace. CPU-bound; waits while another batch is applied:
    /// call it where blocking is allowed.
    pub fn apply(&self, transactions: Vec<Vec<Edit>>) -> Vec<Result<(), EngineError>> {
        let count = transactions.len();
        let has_policy = transactions.iter().flatten().any(Edit::is_policy);
        let batch = || workers::contain(|| self.apply_batch(transactions));
        let outcome = if has_policy {
            on_deep_stack(batch)
        } else {
            batch()
        };
        outcome.unwrap_or_else(|error| {
            self.start_over();
            vec![Err(error); count]
        })
    }

    /// The sources of the policies held, by id.
    #[must_use]
    pub fn policies(&self) -> BTreeMap<String, Arc<str>> {
        self.snapshot().policies.sources().clone()
    }

    /// The base document at `path` as JSON text; rules are not looked at.
    #[must_use]
    pub fn data(&self, path: &[String]) -> Option<String> {
        let snapshot = self.snapshot();
        document::read(&snapshot.data, path).map(json::write)
    }

    /// Evaluates the document at `path`, rules and base data together; `None` is *undefined*.
    ///
    /// `input` and the answer are JSON text. Waits for an evaluating thread: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    ///
    /// If `input` is not JSON, or evaluation fails, takes too long or panics.
    pub fn evaluate(
        &self,
        path: &[String],
        input: Option<&str>,
    ) -> Result<Option<String>, EngineError> {
        let input = input.map(json::parse_str).transpose()?;
        let path = path.to_vec();
        let snapshot = self.snapshot();
        self.shared.workers.run_blocking(move || {
            let value = snapshot.evaluate(&path, input)?;
            Ok(value.as_ref().map(json::write))
        })
    }

    /// The REST API over this engine, and the page at `/`.
    pub fn router(&self) -> axum::Router {
        rest::router(self.clone())
    }

    /// Runs `question` on an evaluating thread, on the snapshot that is current now.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let snapshot = self.snapshot();
        self.shared.workers.run(move || question(&snapshot)).await
    }

    /// The current revision.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    pub(crate) fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    fn apply_batch(
        &self,
        transactions: Vec<Vec<Edit>>,
    ) -> Result<Vec<Result<(), EngineError>>, EngineError> {
        let mut writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let outcomes: Vec<_> = transactions
            .into_iter()
            .map(|transaction| writer.apply(transaction))
            .collect();
        if outcomes.iter().any(Result::is_ok) {
            let next = Arc::new(writer.publish()?);
            self.shared
                .retirement
                .retire(self.shared.current.swap(next));
        }
        Ok(outcomes)
    }

    /// Forgets what a batch that failed as a whole may have left in the writer.
    fn start_over(&self) {
        let mut writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *writer = Writer::from_snapshot(&self.snapshot(), self.shared.options.evaluation_limit);
    }
}

/// Runs `work` where syntax trees of any accepted depth can be walked.
fn on_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, EngineError> + Send,
) -> Result<T, EngineError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("rego-writer".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(workers::gone()),
        }
    })
}
