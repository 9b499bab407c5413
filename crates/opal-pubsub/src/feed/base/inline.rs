//! A document of the base, and the patches that stand on it.

use std::collections::BTreeMap;

use opal_protocol::json_text::{python_text, without_null_members};
use opal_protocol::patch::{Operation, OperationKind};
use opal_protocol::{DataPath, Document, Patch, Revision};
use serde_json::Value;
use serde_json::value::RawValue;

use super::shape::widened;

/// A document that was published itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inline {
    pub(super) document: Document,
    /// What was patched into it since, in order, and by which change.
    pub(super) patches: Vec<(Revision, Patch)>,
    /// Whether folding the patches would keep every digit.
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
        let mut value = exact(&without_null_members(self.document.text()))?;
        for (_, patch) in &self.patches {
            patch.operations().iter().all(is_exact).then_some(())?;
            // Who had the document refused the patch too.
            let _ = patch.apply_to(&mut value);
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
