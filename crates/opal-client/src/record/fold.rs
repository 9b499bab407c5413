//! Patches that become part of the document that they were applied to.
//!
//! What the changes lead to stays the same: a patch is folded only into a document of which nothing
//! else was changed since at its place, and only if no number changes by it. A PUT drops null members
//! and a PATCH keeps them, so those that patches made are written by a patch again.

use std::collections::BTreeMap;

use opal_protocol::json_text::{python_text, without_null_members};
use opal_protocol::patch::{CopyBudget, Operation, OperationKind};
use opal_protocol::{DataPath, Document, Patch, PatchOperation};
use serde_json::Value;

use super::place;
use crate::policy_store::StoreChange;

/// Changes of data that lead to the same as `changes`, with fewer patches. `is_whole` says of a
/// place whether a PUT there writes the document and nothing besides.
pub(super) fn folded(
    changes: Vec<StoreChange>,
    is_whole: impl Fn(&DataPath) -> bool,
) -> Vec<StoreChange> {
    let mut fold = Fold::default();
    for change in changes {
        let into = fold.document_of(&change).filter(|(path, _)| is_whole(path));
        let is_folded = into.is_some_and(|(path, at)| fold.fold(&path, at, &change).is_some());
        if !is_folded {
            fold.push(change);
        }
    }
    fold.into_changes()
}

#[derive(Default)]
struct Fold {
    changes: Vec<StoreChange>,
    /// The last change at each place, by its number.
    last: BTreeMap<DataPath, usize>,
    /// The documents that were looked into; none if that would lose something.
    documents: BTreeMap<usize, Option<Value>>,
}

impl Fold {
    fn push(&mut self, change: StoreChange) {
        if let Some(path) = place(&change) {
            self.last.insert(path.clone(), self.changes.len());
        }
        self.changes.push(change);
    }

    /// The document that a patch was applied to, and its number, if nothing changed the patch's
    /// place after it.
    fn document_of(&self, change: &StoreChange) -> Option<(DataPath, usize)> {
        let StoreChange::Patch { path, .. } = change else {
            return None;
        };
        let at = self.last_change_of(path)?;
        match self.changes.get(at)? {
            StoreChange::Put { path: put, .. } if put.contains(path) => Some((put.clone(), at)),
            _ => None,
        }
    }

    fn last_change_of(&self, path: &DataPath) -> Option<usize> {
        let segments = path.segments();
        let above = (0..segments.len()).map(|depth| {
            let above = segments.iter().take(depth).cloned();
            self.last.get(&DataPath::from_segments(above))
        });
        let below = self.last.range(path.clone()..);
        let below = below.take_while(|(at, _)| path.contains(at));
        let below = below.map(|(_, number)| number);
        above.flatten().chain(below).max().copied()
    }

    /// Applies a patch to the document at `path`, whose number is `at`.
    fn fold(&mut self, path: &DataPath, at: usize, change: &StoreChange) -> Option<()> {
        let StoreChange::Patch {
            path: target,
            operations,
        } = change
        else {
            return None;
        };
        let StoreChange::Put { document, .. } = self.changes.get(at)? else {
            return None;
        };
        let read = || exact(&without_null_members(document.text()));
        let value = self.documents.entry(at).or_insert_with(read).as_mut()?;
        let patch = Patch::parse(target.clone(), operations).ok()?;
        let replaces_all = |operation: &Operation| operation.path.is_root();
        let is_all = path == target && patch.operations().iter().any(replaces_all);
        if is_all || !patch.operations().iter().all(is_exact) {
            return None;
        }
        let below = target.segments().get(path.segments().len()..)?;
        let mut budget = CopyBudget::default();
        patch.apply_to(member(value, below)?, &mut budget).ok()
    }

    fn into_changes(self) -> Vec<StoreChange> {
        let mut documents = self.documents;
        let mut changes = Vec::with_capacity(self.changes.len());
        for (at, change) in self.changes.into_iter().enumerate() {
            match (change, documents.remove(&at).flatten()) {
                (StoreChange::Put { path, document }, Some(value)) => {
                    changes.extend(written(path, document, &value));
                }
                (change, _) => changes.push(change),
            }
        }
        changes
    }
}

/// The changes that write `value` at `path`, where `before` was.
fn written(path: DataPath, before: Document, value: &Value) -> Vec<StoreChange> {
    let mut nulls = Vec::new();
    find_nulls(value, &DataPath::root(), &mut nulls);
    let text = without_null_members(&value.to_string());
    // What was parsed can be written again.
    let document = Document::parse(text).unwrap_or(before);
    let patch = (!nulls.is_empty()).then(|| StoreChange::Patch {
        path: path.clone(),
        operations: nulls,
    });
    [StoreChange::Put { path, document }]
        .into_iter()
        .chain(patch)
        .collect()
}

/// The member at `place`, unless a list leads to it: its items have no places of their own.
fn member<'v>(mut value: &'v mut Value, place: &[String]) -> Option<&'v mut Value> {
    for name in place {
        value = value.as_object_mut()?.get_mut(name)?;
    }
    Some(value)
}

/// The value, if it holds all that the text says: numbers may be too long for it.
fn exact(json: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(json).ok()?;
    (python_text(&value.to_string()) == python_text(json)).then_some(value)
}

fn is_exact(operation: &Operation) -> bool {
    match &operation.kind {
        OperationKind::Add { json } | OperationKind::Replace { json } => exact(json).is_some(),
        // What is only compared is not written.
        OperationKind::Test { .. }
        | OperationKind::Remove
        | OperationKind::Move { .. }
        | OperationKind::Copy { .. } => true,
    }
}

/// Operations that write the null members of `value`, which is at `path`.
fn find_nulls(value: &Value, path: &DataPath, found: &mut Vec<PatchOperation>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = path.join(name);
                if member.is_null() {
                    let json = "null".to_owned();
                    let kind = OperationKind::Add { json };
                    found.push(Operation { kind, path }.to_wire());
                } else {
                    find_nulls(member, &path, found);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find_nulls(item, &path.join(&at.to_string()), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
