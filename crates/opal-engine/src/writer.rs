//! The one writer: applies transactions to the master copy, all or nothing each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regorus::Value;

use crate::document::{self, Operation};
use crate::policy::PolicySet;
use crate::snapshot::{self, Snapshot};
use crate::{Edit, EngineError, PatchOperation, json};

/// The master copy of policy and data.
#[derive(Debug)]
pub(crate) struct Writer {
    policies: PolicySet,
    /// Edited in place; snapshots share what is not edited.
    data: Value,
    evaluation_limit: Duration,
    /// An engine for exactly this policy and data, if one was made on the way.
    prepared: Option<regorus::Engine>,
}

impl Writer {
    /// Continues from `snapshot`.
    pub(crate) fn from_snapshot(snapshot: &Snapshot, evaluation_limit: Duration) -> Self {
        Self {
            policies: snapshot.policies.clone(),
            data: snapshot.data.clone(),
            evaluation_limit,
            prepared: None,
        }
    }

    /// Applies one transaction.
    pub(crate) fn apply(&mut self, transaction: Vec<Edit>) -> Result<(), EngineError> {
        let mut undo = Undo::default();
        let outcome = self.try_apply(transaction, &mut undo);
        if outcome.is_err() {
            undo.run(&mut self.data);
        }
        outcome
    }

    /// Makes the snapshot of the present state.
    pub(crate) fn publish(&mut self) -> Result<Snapshot, EngineError> {
        let engine = match self.prepared.take() {
            Some(engine) => engine,
            None => snapshot::prepare(&self.policies, &self.data, self.evaluation_limit)
                .map_err(EngineError::Policies)?,
        };
        Ok(Snapshot::new(
            engine,
            self.policies.clone(),
            self.data.clone(),
        ))
    }

    fn try_apply(&mut self, transaction: Vec<Edit>, undo: &mut Undo) -> Result<(), EngineError> {
        let mut changes = BTreeMap::new();
        for edit in transaction {
            self.try_edit(edit, &mut changes, undo)?;
        }
        changes.retain(|id, source| self.policies.sources().get(id) != source.as_ref());
        if changes.is_empty() {
            self.check_data(undo)?;
            if !undo.is_empty() {
                self.prepared = None;
            }
            return Ok(());
        }
        let next = self
            .policies
            .with(&changes)
            .map_err(EngineError::Policies)?;
        let conflicts = next.rules().data_conflicts(&self.data, &[]);
        if !conflicts.is_empty() {
            return Err(EngineError::Policies(conflicts));
        }
        let engine = snapshot::prepare(&next, &self.data, self.evaluation_limit)
            .map_err(EngineError::Policies)?;
        self.policies = next;
        self.prepared = Some(engine);
        Ok(())
    }

    fn try_edit(
        &mut self,
        edit: Edit,
        changes: &mut BTreeMap<String, Option<Arc<str>>>,
        undo: &mut Undo,
    ) -> Result<(), EngineError> {
        match edit {
            Edit::PutPolicy { id, source } => {
                changes.insert(id, Some(source));
                Ok(())
            }
            Edit::DeletePolicy { id } => {
                let is_known = match changes.get(&id) {
                    Some(change) => change.is_some(),
                    None => self.policies.sources().contains_key(&id),
                };
                if !is_known {
                    return Err(EngineError::PolicyNotFound(id));
                }
                changes.insert(id, None);
                Ok(())
            }
            Edit::PutData { path, document } => self.put(&path, &document, undo),
            Edit::CreateData { path, document } => {
                if document::read(&self.data, &path).is_some() {
                    return Err(EngineError::DocumentExists);
                }
                self.put(&path, &document, undo)
            }
            Edit::DeleteData { path } => {
                undo.remember(&self.data, &path);
                document::delete(&mut self.data, &path)
            }
            Edit::PatchData { path, operations } => operations
                .into_iter()
                .try_for_each(|operation| self.patch(path.clone(), operation, undo)),
        }
    }

    fn put(
        &mut self,
        path: &[String],
        document: &[u8],
        undo: &mut Undo,
    ) -> Result<(), EngineError> {
        let document = json::parse(document)?;
        undo.remember(&self.data, path);
        document::put(&mut self.data, path, document)
    }

    fn patch(
        &mut self,
        mut path: Vec<String>,
        operation: PatchOperation,
        undo: &mut Undo,
    ) -> Result<(), EngineError> {
        let (below, operation) = match operation {
            PatchOperation::Add { path, document } => {
                (path, Operation::Add(json::parse(&document)?))
            }
            PatchOperation::Replace { path, document } => {
                (path, Operation::Replace(json::parse(&document)?))
            }
            PatchOperation::Remove { path } => (path, Operation::Remove),
        };
        path.extend(below);
        undo.remember(&self.data, &path);
        document::apply(&mut self.data, &path, operation)
    }

    fn check_data(&self, undo: &Undo) -> Result<(), EngineError> {
        for (path, _) in &undo.steps {
            let conflicts = self.policies.rules().data_conflicts(&self.data, path);
            if !conflicts.is_empty() {
                return Err(EngineError::PolicyDataConflict(conflicts));
            }
        }
        Ok(())
    }
}

/// How to take a transaction back: what stood where, before.
///
/// Keeping the whole document instead would make the next edit copy every level it passes.
#[derive(Debug, Default)]
struct Undo {
    steps: Vec<(Vec<String>, Option<Value>)>,
}

impl Undo {
    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Remembers what an edit at `path` may change: the first thing on the way that is missing, an
    /// array (whose elements may shift) or the target itself.
    fn remember(&mut self, data: &Value, path: &[String]) {
        for length in 0..=path.len() {
            let (prefix, _) = path.split_at(length);
            let found = document::read(data, prefix);
            let is_passed = length < path.len() && matches!(found, Some(Value::Object(_)));
            if !is_passed {
                self.steps.push((prefix.to_vec(), found.cloned()));
                return;
            }
        }
    }

    fn run(self, data: &mut Value) {
        for (path, before) in self.steps.into_iter().rev() {
            let undone = match before {
                Some(value) => document::apply(data, &path, Operation::Add(value)),
                None if document::read(data, &path).is_some() => document::delete(data, &path),
                None => Ok(()),
            };
            if let Err(error) = undone {
                tracing::error!(%error, "A refused transaction could not be taken back");
            }
        }
    }
}
