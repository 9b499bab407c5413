//! Which data a bundle writes and removes, and in which order.
//!
//! The data modules of the bundles (`data.json` files) share one tree with each other and with the
//! documents of data updates. [`StaticData`] remembers which modules the bundles have brought, so
//! that a complete bundle and a diff to the same commit leave the same static data behind:
//!
//! - Removals come before writes, and parents before children.
//! - Where modules overlap, the deeper one wins whole; when it goes, what the one above says about its
//!   place comes back.
//! - A module that is replaced or removed takes what lies below it along; modules of the bundle that
//!   lie there are written again.
//! - The root's module is removed and replaced key by key: everything else in the store lies below
//!   it. Only the first bundle replaces the whole, as upstream does.

use std::collections::{BTreeMap, BTreeSet};

use opal_protocol::{DataModule, DataPath, Document, PolicyBundle, RepoPath};

use serde_json::value::RawValue;

use super::document::{self, Write};
use super::{PolicyProblem, StoreError};

/// The data modules that the store holds, by place.
#[derive(Debug, Clone, Default)]
pub(super) struct StaticData {
    modules: BTreeMap<DataPath, Document>,
    /// Whether a bundle was applied before.
    known: bool,
}

/// What a bundle does to the data.
#[derive(Debug)]
pub(super) struct DataPlan {
    /// In order, all before the writes. Nothing there is no error.
    pub(super) removals: Vec<DataPath>,
    /// In order.
    pub(super) writes: Vec<Write>,
    /// Modules that are not JSON, or are no data; they are left out of the writes, and what the store
    /// had in their place stays.
    pub(super) problems: Vec<PolicyProblem>,
    /// What to remember once the plan is carried out.
    pub(super) after: StaticData,
}

impl StaticData {
    /// What `bundle` does to the data of a store that holds `self`.
    pub(super) fn plan(&self, bundle: &PolicyBundle) -> DataPlan {
        let (written, problems) = parse(&bundle.data_modules);
        let removed = self.removed(bundle);
        let mut modules = self.modules.clone();
        modules.retain(|path, _| !removed.contains(path));
        modules.extend(written.clone());

        let mut removals = self.cleared(&removed, &written);
        let mut writes = BTreeMap::new();
        removals.retain(|path| match value_from_above(&modules, path) {
            Some(value) => writes.insert(path.clone(), value).is_some(),
            None => true,
        });
        for (path, document) in &written {
            let of_module = self.module_writes(path, document);
            writes.extend(of_module.into_iter().map(|write| (write.path, write.json)));
        }
        let touched: Vec<DataPath> = removals.iter().chain(writes.keys()).cloned().collect();
        for (path, document) in &modules {
            let wiped = touched.iter().any(|above| above.contains(path));
            if wiped && !written.contains_key(path) {
                writes.insert(path.clone(), Write::new(path.clone(), document).json);
            }
        }
        let writes = writes.into_iter();
        DataPlan {
            removals,
            writes: writes.map(|(path, json)| Write { path, json }).collect(),
            problems,
            after: Self {
                modules,
                known: true,
            },
        }
    }

    /// The writes that put `document` at `path`, and then back what it would take along of the
    /// modules: those below it, and the members of the root's, wherever the document itself has
    /// nothing. An empty default source for everything would otherwise wipe what the policy
    /// repository holds.
    pub(super) fn writes(
        &self,
        path: &DataPath,
        document: &Document,
        split_root: bool,
    ) -> Result<Vec<Write>, StoreError> {
        let mut writes = document::writes(path, document, split_root)?;
        if split_root && path.is_root() {
            return Ok(writes);
        }
        if let Some(root) = self.modules.get(path).filter(|_| path.is_root()) {
            let has = document::members(document);
            writes.extend(root_writes(path, root).filter(|write| {
                let name = write.path.segments().last();
                name.is_none_or(|name| !has.contains_key(name))
            }));
        }
        for (place, module) in self.modules.range(path.clone()..) {
            let below = place.segments().strip_prefix(path.segments());
            let is_below = below.is_some_and(|below| !below.is_empty());
            if is_below && below.is_none_or(|below| !has_value(document, below)) {
                writes.push(Write::new(place.clone(), module));
            }
        }
        Ok(writes)
    }

    /// The modules that go. A complete bundle removes what it does not name.
    fn removed(&self, bundle: &PolicyBundle) -> BTreeSet<DataPath> {
        let named = bundle.data_modules.iter();
        let named: BTreeSet<DataPath> = named.map(|module| (&module.path).into()).collect();
        let mut removed: BTreeSet<DataPath> = if bundle.is_diff() {
            let deleted = bundle.deleted_files.iter();
            let paths = deleted.flat_map(|files| files.data_modules.iter());
            paths.map(DataPath::from).collect()
        } else {
            self.modules.keys().cloned().collect()
        };
        removed.retain(|path| !named.contains(path));
        removed
    }

    /// The places to clear before anything is written, parents first.
    fn cleared(
        &self,
        removed: &BTreeSet<DataPath>,
        written: &BTreeMap<DataPath, Document>,
    ) -> Vec<DataPath> {
        let root = DataPath::root();
        let mut cleared = removed.clone();
        // INVARIANT: the root itself is never removed, since all data lies below it.
        let root_goes = cleared.remove(&root);
        let kept = written.get(&root).map(root_members);
        if root_goes || kept.is_some() {
            let kept = kept.unwrap_or_default();
            let held = self.modules.get(&root).map(root_members);
            let held = held.unwrap_or_default().into_keys();
            let vanished = held.filter(|key| !kept.contains_key(key));
            cleared.extend(vanished.map(|key| root.join(&key)));
        }
        cleared.into_iter().collect()
    }

    fn module_writes(&self, path: &DataPath, document: &Document) -> Vec<Write> {
        if path.is_root() && self.known {
            return root_writes(path, document).collect();
        }
        vec![Write::new(path.clone(), document)]
    }
}

/// The members of the root's module. One that is null is none, as it is when the module is written
/// whole.
fn root_members(document: &Document) -> BTreeMap<String, Box<RawValue>> {
    let mut members = document::members(document);
    members.retain(|_, value| value.get() != "null");
    members
}

fn root_writes(path: &DataPath, document: &Document) -> impl Iterator<Item = Write> {
    let writes = document::member_writes(path, document).into_iter();
    writes.filter(|write| write.json != "null")
}

/// Whether `document` has a value at this place inside it.
fn has_value(document: &Document, place: &[String]) -> bool {
    let mut value = document.clone();
    for name in place {
        let member = document::members(&value).remove(name);
        let Some(Ok(inner)) = member.map(|text| Document::parse(text.get())) else {
            return false;
        };
        value = inner;
    }
    !value.is_null()
}

/// What the nearest module above `path` says about that place.
fn value_from_above(modules: &BTreeMap<DataPath, Document>, path: &DataPath) -> Option<String> {
    let (mut place, name) = path.split_last()?;
    let mut below = vec![name.to_owned()];
    let module = loop {
        if let Some(module) = modules.get(&place) {
            break module;
        }
        let (parent, name) = place.split_last()?;
        below.insert(0, name.to_owned());
        place = parent;
    };
    let mut value = module.clone();
    for name in below {
        let text = document::members(&value).remove(&name)?;
        value = Document::parse(text.get()).ok()?;
    }
    // A member that is null is none.
    (!value.is_null()).then(|| Write::new(path.clone(), &value).json)
}

/// The modules by place, and what is wrong with the others.
fn parse(modules: &[DataModule]) -> (BTreeMap<DataPath, Document>, Vec<PolicyProblem>) {
    let mut documents = BTreeMap::new();
    let mut problems = Vec::new();
    for module in modules {
        let path = DataPath::from(&module.path);
        match parse_module(module, path.is_root()) {
            Ok(document) => {
                documents.insert(path, document);
            }
            Err(problem) => problems.push(problem),
        }
    }
    (documents, problems)
}

fn parse_module(module: &DataModule, is_root: bool) -> Result<Document, PolicyProblem> {
    let problem = |row: usize, col: usize, code: &str, message: String| PolicyProblem {
        file: file_name(&module.path),
        row: u32::try_from(row).unwrap_or(0),
        col: u32::try_from(col).unwrap_or(0),
        code: code.to_owned(),
        message,
    };
    let document = Document::parse(module.data.as_str()).map_err(|error| {
        problem(
            error.line(),
            error.column(),
            "json_error",
            error.to_string(),
        )
    })?;
    match is_root {
        // As upstream: a list for the root is stored under `items`.
        true if document.is_array() => {
            let wrapped = format!(r#"{{"items":{}}}"#, document.text());
            Document::parse(wrapped).map_err(|error| problem(0, 0, "json_error", error.to_string()))
        }
        true if !document.is_object() => {
            let message = "only an object or a list can be the whole data";
            Err(problem(1, 1, "data_error", message.to_owned()))
        }
        _ => Ok(document),
    }
}

fn file_name(directory: &RepoPath) -> String {
    if directory.is_root() {
        return "data.json".to_owned();
    }
    format!("{}/data.json", directory.as_str())
}

#[cfg(test)]
mod tests;
