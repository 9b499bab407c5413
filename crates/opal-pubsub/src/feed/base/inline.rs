//! A document of the base, and the patches that stand on it.

use std::collections::BTreeMap;

use opal_protocol::json_text::{python_text, without_null_members};
use opal_protocol::patch::{CopyBudget, Operation, OperationKind};
use opal_protocol::{DataPath, Document, Patch, Revision};
use serde_json::Value;
use serde_json::value::RawValue;

use super::shape::widened;

/// Folding copies at most so many times what was published, but always [`ALWAYS_COPIED`] …
const COPIED_PER_BYTE: usize = 4;
const ALWAYS_COPIED: usize = 1024 * 1024;
/// … and never more than this, which is less than any one patch may copy: whether a patch applies is
/// not decided here.
const NEVER_COPIED: usize = 16 * 1024 * 1024;
/// So many bytes of documents are copied for the patches of one fold that may fail half way.
const MOST_REWRITTEN: usize = 64 * 1024 * 1024;

/// A document that was published itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inline {
    pub(super) document: Document,
    /// What was patched into it since, in order, and by which change.
    pub(super) patches: Vec<(Revision, Patch)>,
    /// Whether folding the patches would keep every digit, and make no more than they are worth.
    foldable: bool,
}

impl Inline {
    pub(super) fn new(document: Document) -> Self {
        Self {
            document,
            patches: Vec::new(),
            foldable: true,
        }
    }

    /// An object without members.
    pub(super) fn empty() -> Self {
        Self::new(Document::from(&serde_json::json!({})))
    }

    /// The names of the members, null ones included; `None` if the document is no object.
    pub(super) fn members(&self) -> Option<BTreeMap<String, Box<RawValue>>> {
        serde_json::from_str(self.document.text()).ok()
    }

    /// Adds a patch; more than `limit` are folded into the document, which is at `path`. Returns
    /// whether that happened.
    pub(super) fn patch(
        &mut self,
        path: &DataPath,
        revision: Revision,
        patch: &Patch,
        limit: usize,
    ) -> bool {
        self.patches.push((revision, widened(patch, path)));
        if self.patches.len() <= limit || !self.foldable {
            return false;
        }
        self.foldable = self.fold(path).is_some();
        self.foldable
    }

    /// Applies the patches to the document as clients do: one that does not apply is skipped.
    fn fold(&mut self, path: &DataPath) -> Option<()> {
        let copying = self.patches.iter().filter(|(_, patch)| patch.copies());
        // Each of those works on a document of its own, to leave this one as it is if it fails.
        let rewritten = copying.count().saturating_mul(self.document.text().len());
        (rewritten <= MOST_REWRITTEN).then_some(())?;
        let mut value = exact(&without_null_members(self.document.text()))?;
        let mut budget = self.copy_budget();
        for (_, patch) in &self.patches {
            patch.operations().iter().all(is_exact).then_some(())?;
            // Who had the document refused the patch too.
            let _ = patch.apply_to(&mut value, &mut budget);
            (!budget.is_exceeded()).then_some(())?;
        }
        let mut nulls = Vec::new();
        find_nulls(&value, &DataPath::root(), &mut nulls);
        self.document = match path.is_root() {
            true => self.with_null_members(&value)?,
            false => document(&value)?,
        };
        let revision = self.patches.last()?.0;
        self.patches.clear();
        if !nulls.is_empty() {
            let patch = Patch::new(path.clone(), nulls);
            self.patches.push((revision, patch));
        }
        Some(())
    }

    /// What copies may make of what was published: a few of them could double it again and again.
    fn copy_budget(&self) -> CopyBudget {
        let operations = self
            .patches
            .iter()
            .flat_map(|(_, patch)| patch.operations());
        let patches: usize = operations.map(published_size).sum();
        let published = self.document.text().len() + patches;
        let budget = published.saturating_mul(COPIED_PER_BYTE);
        CopyBudget::new(budget.clamp(ALWAYS_COPIED, NEVER_COPIED))
    }

    /// The value as a document for the root. Clients that write it member by member write its null
    /// members, so they stay; patches have not touched them.
    fn with_null_members(&self, value: &Value) -> Option<Document> {
        let mut members: BTreeMap<String, Box<RawValue>> = self.members()?;
        members.retain(|_, value| value.get() == "null");
        for (name, value) in value.as_object()? {
            let text = without_null_members(&value.to_string());
            members.insert(name.clone(), RawValue::from_string(text).ok()?);
        }
        Document::parse(serde_json::to_string(&members).ok()?).ok()
    }
}

/// The value without its null members, if it can be published itself.
fn document(value: &Value) -> Option<Document> {
    let text = without_null_members(&value.to_string());
    let storable = value.is_object() || value.is_array();
    storable.then(|| Document::parse(text).ok()).flatten()
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

/// About as many bytes as it took to publish the operation.
fn published_size(operation: &Operation) -> usize {
    match &operation.kind {
        OperationKind::Add { json }
        | OperationKind::Replace { json }
        | OperationKind::Test { json } => json.len(),
        OperationKind::Remove | OperationKind::Move { .. } | OperationKind::Copy { .. } => 0,
    }
}

/// Operations that write the null members of `value`, which is at `path`.
fn find_nulls(value: &Value, path: &DataPath, found: &mut Vec<Operation>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = path.join(name);
                if member.is_null() {
                    let json = "null".to_owned();
                    let kind = OperationKind::Add { json };
                    found.push(Operation { kind, path });
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
