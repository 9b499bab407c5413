//! The embedded Rego engine (`OPAL_POLICY_STORE_TYPE=EMBEDDED`).
//!
//! Each change is one transaction: a bundle with one bad module is refused whole and the last good one
//! stays. Changes of one batch become visible together, unless one of them has to look at what those
//! before it have done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use opal_engine::{Edit, Engine, EngineError};
use opal_protocol::{DataPath, Patch, PlainOperation, PolicyBundle};

use super::document::Write;
use super::ignore::IgnoredPaths;
use super::static_data::{DataPlan, StaticData};
use super::{PolicyProblem, PolicyStore, StoreChange, StoreError, system};

/// A [`PolicyStore`] over an [`Engine`] in this process.
///
/// Work runs on blocking threads. A change whose future is dropped may still be applied.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    ignored: IgnoredPaths,
    split_root_data: bool,
    /// What the bundles brought so far. Held while a batch is applied: one at a time.
    static_data: Mutex<StaticData>,
}

impl EmbeddedStore {
    /// A store over `engine`, to which nobody else should write.
    pub fn new(engine: Engine, ignored: IgnoredPaths, split_root_data: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                ignored,
                split_root_data,
                static_data: Mutex::default(),
            }),
        }
    }

    /// The engine, to serve it or to ask it.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }
}

#[async_trait]
impl PolicyStore for EmbeddedStore {
    async fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        let shared = Arc::clone(&self.shared);
        let count = batch.len();
        let applied = tokio::task::spawn_blocking(move || shared.apply(batch)).await;
        applied.unwrap_or_else(|error| {
            let message = error.to_string();
            let failed = || Err(StoreError::EngineFailed(message.clone()));
            std::iter::repeat_with(failed).take(count).collect()
        })
    }

    async fn is_reachable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn policies(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let ours = self.shared.policies().into_iter();
        Ok(ours.map(|(id, text)| (id, text.to_string())).collect())
    }
}

/// A change that was made ready, and how to read the engine's verdict on it.
struct Prepared {
    edits: Vec<Edit>,
    explain: Box<dyn Fn(EngineError) -> StoreError>,
}

impl Shared {
    fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        // After a panic the record may be older than the data; the next bundle still removes and
        // writes what it names.
        let mut held = self
            .static_data
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut ready = Vec::new();
        for change in batch {
            if looks_at_store(&change) {
                outcomes.extend(self.commit(std::mem::take(&mut ready)));
            }
            if let StoreChange::Bundle(bundle) = change {
                outcomes.push(self.bundle(&bundle, &mut held));
            } else {
                ready.push(self.prepare(change, &held));
            }
        }
        outcomes.extend(self.commit(ready));
        outcomes
    }

    /// Carries out what is ready, as one batch.
    fn commit(&self, ready: Vec<Result<Prepared, StoreError>>) -> Vec<Result<(), StoreError>> {
        let mut edits = Vec::new();
        let mut explanations = Vec::new();
        for each in ready {
            explanations.push(each.map(|prepared| {
                edits.push(prepared.edits);
                prepared.explain
            }));
        }
        let mut verdicts = self.engine.apply(edits).into_iter();
        let outcomes = explanations.into_iter().map(|explanation| {
            let explain = explanation?;
            verdicts.next().unwrap_or(Ok(())).map_err(explain)
        });
        outcomes.collect()
    }

    fn prepare(&self, change: StoreChange, held: &StaticData) -> Result<Prepared, StoreError> {
        match change {
            StoreChange::Bundle(_) => Ok(prepared(Vec::new(), |error| failed(&error))),
            StoreChange::Put { path, document } => {
                let writes = held.writes(&path, &document, self.split_root_data)?;
                let edits = writes.into_iter().map(put).collect();
                Ok(prepared(edits, move |error| invalid(&path, error)))
            }
            StoreChange::Patch { path, operations } => {
                let patch = Patch::parse(path.clone(), &operations)?;
                let plain = match patch.plain() {
                    Some(plain) => plain,
                    None => patch.resolve(self.read(&path, &patch)?)?,
                };
                let edit = Edit::PatchData {
                    path: path.segments().to_vec(),
                    operations: plain.into_iter().map(operation).collect(),
                };
                Ok(prepared(vec![edit], move |error| {
                    patch.fails(error.to_string()).into()
                }))
            }
            StoreChange::Delete { path } => {
                let edits = self.deletions(std::slice::from_ref(&path));
                Ok(prepared(edits, move |error| invalid(&path, error)))
            }
        }
    }

    fn read(&self, path: &DataPath, patch: &Patch) -> Result<serde_json::Value, StoreError> {
        let text = self.engine.data(path.segments());
        let text = text.ok_or_else(|| patch.fails("there is no document"))?;
        serde_json::from_str(&text).map_err(|error| patch.fails(error.to_string()).into())
    }

    /// Removals of what is there; places below one already removed are gone with it.
    fn deletions(&self, paths: &[DataPath]) -> Vec<Edit> {
        let mut removed: Vec<&DataPath> = Vec::new();
        for path in paths {
            let is_gone = removed.iter().any(|above| above.contains(path));
            if !is_gone && self.engine.data(path.segments()).is_some() {
                removed.push(path);
            }
        }
        let delete = |path: &DataPath| Edit::DeleteData {
            path: path.segments().to_vec(),
        };
        removed.into_iter().map(delete).collect()
    }

    fn bundle(&self, bundle: &PolicyBundle, held: &mut StaticData) -> Result<(), StoreError> {
        let plan = held.plan(bundle);
        if !plan.problems.is_empty() {
            return Err(StoreError::Refused {
                problems: plan.problems,
            });
        }
        let DataPlan {
            removals,
            writes,
            after,
            ..
        } = plan;
        let mut edits = self.deletions(&removals);
        edits.extend(writes.into_iter().map(put));
        edits.extend(self.policy_edits(bundle));
        let mut verdicts = self.engine.apply(vec![edits]);
        verdicts.pop().unwrap_or(Ok(())).map_err(refused)?;
        *held = after;
        Ok(())
    }

    fn policy_edits(&self, bundle: &PolicyBundle) -> Vec<Edit> {
        let modules = bundle.policy_modules.iter();
        let modules = modules.filter(|module| !self.ignored.contains(&module.path));
        let mut edits: Vec<Edit> = modules
            .map(|module| Edit::PutPolicy {
                id: module.path.as_str().to_owned(),
                source: module.rego.as_str().into(),
            })
            .collect();
        let stored = self.policies();
        let gone: BTreeSet<String> = if bundle.is_diff() {
            let deleted = bundle.deleted_files.iter();
            let deleted = deleted.flat_map(|files| files.policy_modules.iter());
            deleted.map(|path| path.as_str().to_owned()).collect()
        } else {
            stored.keys().cloned().collect()
        };
        let is_written = |id: &String| {
            let mut modules = bundle.policy_modules.iter();
            modules.any(|module| module.path.as_str() == id)
        };
        let gone = gone
            .into_iter()
            .filter(|id| stored.contains_key(id) && !is_written(id));
        edits.extend(gone.map(|id| Edit::DeletePolicy { id }));
        edits
    }

    /// The policies that are ours to touch.
    fn policies(&self) -> BTreeMap<String, Arc<str>> {
        let mut policies = self.engine.policies();
        policies.retain(|id, text| {
            !system::is_system(id, text) && !self.ignored.contains(&id.as_str().into())
        });
        policies
    }
}

/// Whether what the change does depends on what is in the store.
fn looks_at_store(change: &StoreChange) -> bool {
    match change {
        StoreChange::Put { .. } => false,
        StoreChange::Bundle(_) | StoreChange::Delete { .. } => true,
        StoreChange::Patch { operations, .. } => operations
            .iter()
            .any(|each| !matches!(each.op.as_str(), "add" | "replace" | "remove")),
    }
}

fn prepared(edits: Vec<Edit>, explain: impl Fn(EngineError) -> StoreError + 'static) -> Prepared {
    Prepared {
        edits,
        explain: Box::new(explain),
    }
}

fn put(write: Write) -> Edit {
    Edit::PutData {
        path: write.path.segments().to_vec(),
        document: Bytes::from(write.json),
    }
}

fn operation(operation: PlainOperation) -> opal_engine::PatchOperation {
    match operation {
        PlainOperation::Add { path, json } => opal_engine::PatchOperation::Add {
            path: path.segments().to_vec(),
            document: Bytes::from(json),
        },
        PlainOperation::Replace { path, json } => opal_engine::PatchOperation::Replace {
            path: path.segments().to_vec(),
            document: Bytes::from(json),
        },
        PlainOperation::Remove { path } => opal_engine::PatchOperation::Remove {
            path: path.segments().to_vec(),
        },
    }
}

fn invalid(path: &DataPath, error: EngineError) -> StoreError {
    match error {
        EngineError::Panicked(_) | EngineError::DeadlineExceeded => failed(&error),
        other => StoreError::InvalidDocument {
            path: path.clone(),
            problem: other.to_string(),
        },
    }
}

fn failed(error: &EngineError) -> StoreError {
    StoreError::EngineFailed(error.to_string())
}

/// Why a bundle was refused, file by file where the engine knows the file.
fn refused(error: EngineError) -> StoreError {
    let problems = match error {
        EngineError::Policies(problems) | EngineError::PolicyDataConflict(problems) => problems
            .into_iter()
            .map(|problem| PolicyProblem {
                file: problem.file,
                row: problem.row,
                col: problem.col,
                code: problem.code.as_str().to_owned(),
                message: problem.message,
            })
            .collect(),
        EngineError::Panicked(_) | EngineError::DeadlineExceeded => return failed(&error),
        other => vec![PolicyProblem {
            file: "data.json".to_owned(),
            row: 0,
            col: 0,
            code: "data_error".to_owned(),
            message: other.to_string(),
        }],
    };
    StoreError::Refused { problems }
}
