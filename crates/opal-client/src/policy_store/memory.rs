//! A store in memory, for tests (`OPAL_POLICY_STORE_TYPE=MOCK`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use opal_protocol::{DataPath, Patch, PolicyBundle, PolicyModule};
use serde_json::{Map, Value};

use super::document::Write;
use super::static_data::StaticData;
use super::{PolicyProblem, PolicyStore, StoreChange, StoreError};

/// Keeps policies and data, evaluates nothing. Every change, a bundle too, is applied whole or not
/// at all. Of a module it checks only that it starts with `package`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    split_root: bool,
    contents: Mutex<Contents>,
}

#[derive(Debug, Clone)]
struct Contents {
    policies: BTreeMap<String, String>,
    /// Always an object.
    data: Value,
    static_data: StaticData,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            policies: BTreeMap::new(),
            data: Value::Object(Map::new()),
            static_data: StaticData::default(),
        }
    }
}

impl Clone for MemoryStore {
    /// A store that holds the same and goes its own way.
    fn clone(&self) -> Self {
        Self {
            split_root: self.split_root,
            contents: Mutex::new(self.contents().clone()),
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an object for the root is written member by member (`OPAL_SPLIT_ROOT_DATA`).
    pub fn with_split_root_data(mut self, split: bool) -> Self {
        self.split_root = split;
        self
    }

    /// All data.
    pub fn data(&self) -> Value {
        self.contents().data.clone()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic cannot leave half a change behind: changes of more than one place are made to a
        // copy.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`PolicyStore::apply`], which waits for nothing here.
    pub(crate) fn apply_now(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        let changes = batch.into_iter();
        changes.map(|change| self.change(change)).collect()
    }

    fn change(&self, change: StoreChange) -> Result<(), StoreError> {
        let mut contents = self.contents();
        match change {
            StoreChange::Bundle(bundle) => {
                let mut next = contents.clone();
                next.bundle(&bundle)?;
                *contents = next;
            }
            StoreChange::Put { path, document } => {
                let static_data = &contents.static_data;
                let writes = static_data.writes(&path, &document, self.split_root)?;
                if let [write] = writes.as_slice() {
                    return contents.put(write);
                }
                let mut next = contents.clone();
                writes.iter().try_for_each(|write| next.put(write))?;
                *contents = next;
            }
            StoreChange::Patch { path, operations } => {
                let patch = Patch::parse(path.clone(), &operations)?;
                let value = contents.data.pointer(&path.to_pointer()).cloned();
                let value = value.ok_or_else(|| patch.fails("there is no document"))?;
                contents.set(&path, patch.apply(value)?)?;
            }
            StoreChange::Delete { path } => contents.remove(&path),
        }
        Ok(())
    }
}

#[async_trait]
impl PolicyStore for MemoryStore {
    async fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        self.apply_now(batch)
    }

    async fn is_reachable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn policies(&self) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(self.contents().policies.clone())
    }
}

impl Contents {
    fn bundle(&mut self, bundle: &PolicyBundle) -> Result<(), StoreError> {
        let plan = self.static_data.plan(bundle);
        let mut problems = plan.problems;
        problems.extend(bundle.policy_modules.iter().filter_map(missing_package));
        if !problems.is_empty() {
            return Err(StoreError::Refused { problems });
        }
        plan.removals.iter().for_each(|path| self.remove(path));
        for write in &plan.writes {
            self.put(write)?;
        }
        if !bundle.is_diff() {
            self.policies.clear();
        }
        for module in &bundle.policy_modules {
            let id = module.path.as_str().to_owned();
            self.policies.insert(id, module.rego.clone());
        }
        let deleted = bundle.deleted_files.iter();
        for path in deleted.flat_map(|files| files.policy_modules.iter()) {
            self.policies.remove(path.as_str());
        }
        self.static_data = plan.after;
        Ok(())
    }

    /// Writes all of it or nothing.
    fn put(&mut self, write: &Write) -> Result<(), StoreError> {
        let value = serde_json::from_str(&write.json)
            .map_err(|error| invalid(&write.path, error.to_string()))?;
        self.set(&write.path, value)
    }

    /// Makes the objects that lead to `path`, unless something there is none.
    fn set(&mut self, path: &DataPath, value: Value) -> Result<(), StoreError> {
        if path.is_root() && !value.is_object() {
            return Err(invalid(path, "the whole data must be an object".to_owned()));
        }
        let mut place = &mut self.data;
        for name in path.segments() {
            let members = place
                .as_object_mut()
                .ok_or_else(|| invalid(path, format!("what holds `{name}` is not an object")))?;
            place = members
                .entry(name)
                .or_insert_with(|| Value::Object(Map::new()));
        }
        *place = value;
        Ok(())
    }

    fn remove(&mut self, path: &DataPath) {
        let Some((above, last)) = path.split_last() else {
            self.data = Value::Object(Map::new());
            return;
        };
        let above = self.data.pointer_mut(&above.to_pointer());
        if let Some(members) = above.and_then(Value::as_object_mut) {
            members.remove(last);
        }
    }
}

fn invalid(path: &DataPath, problem: String) -> StoreError {
    StoreError::InvalidDocument {
        path: path.clone(),
        problem,
    }
}

fn missing_package(module: &PolicyModule) -> Option<PolicyProblem> {
    let is_code = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let found = module
        .rego
        .lines()
        .enumerate()
        .find(|(_, line)| is_code(line));
    let (row, line) = found.unwrap_or((0, ""));
    if line.trim_start().starts_with("package ") {
        return None;
    }
    Some(PolicyProblem {
        file: module.path.as_str().to_owned(),
        row: u32::try_from(row + 1).unwrap_or(0),
        col: 1,
        code: "rego_parse_error".to_owned(),
        message: "package expected".to_owned(),
    })
}
