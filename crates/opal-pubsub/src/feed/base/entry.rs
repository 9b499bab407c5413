//! One entry of the base.

use opal_protocol::feed::BaseEntry;
use opal_protocol::{
    DataPath, DataSourceEntry, Document, Patch, PatchOperation, Revision, SaveMethod,
};

use super::inline::Inline;
use super::shape::{narrowed, touches};
use crate::feed::topics::Topics;

/// Something that a late client has to do, and who has to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The last change that made it what it is.
    pub(super) revision: Revision,
    /// As a set.
    pub(super) topics: Topics,
    pub(super) path: DataPath,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// PUT of a document.
    Inline(Inline),
    /// PUT of what a source has.
    Source(Source),
    /// DELETE.
    Delete,
    /// PATCH of something that the feed does not know.
    Patch(Patch),
    /// PATCH with the operations that a source has.
    SourcedPatch(Source),
}

/// Where a document is to be fetched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    url: String,
    config: Option<Document>,
}

impl Entry {
    /// The entry as part of the base; `None` if no client could take it.
    pub(super) fn read(revision: Revision, entry: &DataSourceEntry) -> Option<Self> {
        let path = entry.destination().ok()?;
        let source = (!entry.url.is_empty()).then(|| Source {
            url: entry.url.clone(),
            config: entry.config.clone(),
        });
        let kind = match (entry.method()?, &entry.data) {
            (SaveMethod::Put, Some(document)) => Kind::Inline(inline(&path, document)?),
            (SaveMethod::Put, None) => Kind::Source(source?),
            (SaveMethod::Patch, Some(operations)) => Kind::Patch(patch(&path, operations)?),
            (SaveMethod::Patch, None) => Kind::SourcedPatch(source?),
            (SaveMethod::Delete, _) if path.is_root() => Kind::Inline(Inline::empty()),
            (SaveMethod::Delete, _) => Kind::Delete,
        };
        let path = match &kind {
            Kind::Patch(patch) => patch.target().clone(),
            _ => path,
        };
        Some(Self {
            revision,
            topics: Topics::set(&entry.topics),
            path,
            kind,
        })
    }

    /// Whether everyone who is for `other` is for this.
    pub(super) fn reaches_all_of(&self, other: &Self) -> bool {
        let mut topics = other.topics.iter();
        topics.all(|topic| self.topics.binary_search(topic).is_ok())
    }

    /// What the entry reads or writes.
    pub(super) fn touches(&self) -> Vec<DataPath> {
        match &self.kind {
            Kind::Patch(patch) => touches(patch),
            _ => vec![self.path.clone()],
        }
    }

    pub(super) fn is_patch(&self) -> bool {
        matches!(self.kind, Kind::Patch(_) | Kind::SourcedPatch(_))
    }

    /// Whether the entry makes a document.
    pub(super) fn is_put(&self) -> bool {
        matches!(self.kind, Kind::Inline(_) | Kind::Source(_))
    }

    /// The entry as clients get it.
    pub(super) fn wire(&self) -> Vec<BaseEntry> {
        let (method, url, config, data) = match &self.kind {
            Kind::Inline(inline) => (SaveMethod::Put, "", None, Some(inline.document.clone())),
            Kind::Source(Source { url, config }) => {
                (SaveMethod::Put, url.as_str(), config.clone(), None)
            }
            Kind::Delete => (SaveMethod::Delete, "", None, None),
            Kind::Patch(patch) => (SaveMethod::Patch, "", None, Some(operations(patch))),
            Kind::SourcedPatch(Source { url, config }) => {
                (SaveMethod::Patch, url.as_str(), config.clone(), None)
            }
        };
        let first = self.wire_entry(self.revision, method, data);
        let first = BaseEntry {
            entry: DataSourceEntry {
                url: url.to_owned(),
                config,
                ..first.entry
            },
            ..first
        };
        let patches = match &self.kind {
            Kind::Inline(inline) => inline.patches.as_slice(),
            _ => &[],
        };
        let patches = patches.iter().map(|(revision, patch)| {
            self.wire_entry(*revision, SaveMethod::Patch, Some(operations(patch)))
        });
        std::iter::once(first).chain(patches).collect()
    }

    fn wire_entry(
        &self,
        revision: Revision,
        method: SaveMethod,
        data: Option<Document>,
    ) -> BaseEntry {
        let entry = DataSourceEntry {
            url: String::new(),
            config: None,
            topics: self.topics.to_vec(),
            dst_path: self.path.to_string(),
            save_method: method.as_str().to_owned(),
            data,
            periodic_update_interval: None,
        };
        BaseEntry { revision, entry }
    }
}

fn inline(path: &DataPath, document: &Document) -> Option<Inline> {
    let storable = !path.is_root() || document.is_object() || document.is_array();
    storable.then(|| Inline::new(document.clone()))
}

fn patch(path: &DataPath, operations: &Document) -> Option<Patch> {
    let operations: Vec<PatchOperation> = serde_json::from_str(operations.text()).ok()?;
    let patch = Patch::parse(path.clone(), &operations).ok()?;
    (!operations.is_empty()).then(|| narrowed(&patch))
}

fn operations(patch: &Patch) -> Document {
    let wire = patch
        .operations()
        .iter()
        .map(|operation| operation.to_wire());
    let wire: Vec<PatchOperation> = wire.collect();
    let text = serde_json::to_string(&wire).expect("a patch prints as JSON");
    Document::parse(text).expect("a patch prints as JSON")
}
