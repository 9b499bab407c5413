//! The truth: what a client has to hold, worked out from the whole history in the simplest way.

use std::sync::Arc;

use opal_client::data::intake::{Interests, target};
use opal_client::policy_store::{MemoryStore, StoreChange};
use opal_protocol::{
    CommitHash, DataPath, DataSourceEntry, Document, Patch, PatchOperation, RepoPath, Revision,
    SaveMethod, Topic,
};
use serde_json::{Map, Value};

use crate::git::Git;
use crate::history::{History, Recorded};
use crate::sources::Sources;
use crate::store;

/// One entry of an update, read.
#[derive(Debug)]
pub struct Write {
    topics: Vec<Topic>,
    /// Where it goes.
    pub path: DataPath,
    what: What,
}

#[derive(Debug)]
enum What {
    Put(Value),
    PutFrom(String),
    Patch(Patch),
    Delete,
    /// What no client can take.
    Nothing,
}

impl Write {
    /// Reads an entry; nothing if it is for nowhere.
    pub fn read(entry: &DataSourceEntry) -> Option<Self> {
        let target = target(entry).ok()?;
        let what = match (target.method, &entry.data) {
            (SaveMethod::Delete, _) => What::Delete,
            (SaveMethod::Put, Some(document)) => What::Put(read(document)),
            (SaveMethod::Put, None) => What::PutFrom(entry.url.clone()),
            (SaveMethod::Patch, document) => patch(&target.path, document.as_ref()),
        };
        Some(Self {
            topics: entry.topics.clone(),
            path: target.path,
            what,
        })
    }
}

fn patch(path: &DataPath, document: Option<&Document>) -> What {
    let text = document.map_or("", Document::text);
    let operations = serde_json::from_str::<Vec<PatchOperation>>(text);
    let patch = operations.map(|operations| Patch::parse(path.clone(), &operations));
    match patch {
        Ok(Ok(patch)) => What::Patch(patch),
        _ => What::Nothing,
    }
}

/// A document as it is put: members that are null are dropped.
fn read(document: &Document) -> Value {
    let value = serde_json::from_str(document.text());
    without_nulls(value.expect("a document is JSON"))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name, without_nulls(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// What a client holds of data once it has applied every change up to a revision, in order.
#[derive(Debug, Clone)]
pub struct DataModel {
    data: Value,
    upto: Revision,
}

impl DataModel {
    /// The data sources that concern the client, and no changes.
    pub fn new(interests: &Interests, sources: &Sources) -> Self {
        let mut model = Self {
            data: Value::Object(Map::new()),
            upto: Revision(0),
        };
        for write in sources.config().entries.iter().filter_map(Write::read) {
            model.apply(&write, interests, sources);
        }
        model
    }

    /// Applies everything up to `revision`.
    pub fn advance(
        &mut self,
        revision: Revision,
        history: &History,
        interests: &Interests,
        sources: &Sources,
    ) {
        for recorded in history.after(self.upto) {
            if recorded.change.position.revision > revision {
                break;
            }
            self.apply_change(recorded, interests, sources);
            self.upto = recorded.change.position.revision;
        }
    }

    /// Applies one change, wherever in the order it belongs.
    pub fn apply_change(&mut self, recorded: &Recorded, interests: &Interests, sources: &Sources) {
        for write in &recorded.writes {
            self.apply(write, interests, sources);
        }
    }

    fn apply(&mut self, write: &Write, interests: &Interests, sources: &Sources) {
        if !interests.concerns(&write.topics) {
            return;
        }
        match &write.what {
            What::Put(value) => self.put(&write.path, value.clone()),
            What::PutFrom(url) => self.put(&write.path, read(&sources.document(url))),
            What::Patch(patch) => {
                let at = self.data.pointer_mut(&write.path.to_pointer());
                // What does not apply here does not apply at a client either.
                if let Some(at) = at
                    && let Ok(patched) = patch.apply(at.clone())
                {
                    *at = patched;
                }
            }
            What::Delete => self.remove(&write.path),
            What::Nothing => {}
        }
    }

    fn put(&mut self, path: &DataPath, value: Value) {
        let mut at = &mut self.data;
        for name in path.segments() {
            let Some(members) = at.as_object_mut() else {
                return;
            };
            let empty = || Value::Object(Map::new());
            at = members.entry(name.as_str()).or_insert_with(empty);
        }
        *at = value;
    }

    fn remove(&mut self, path: &DataPath) {
        if let Some((above, name)) = path.split_last()
            && let Some(above) = self.data.pointer_mut(&above.to_pointer())
            && let Some(members) = above.as_object_mut()
        {
            members.remove(name);
        }
    }

    /// How far it is.
    pub fn upto(&self) -> Revision {
        self.upto
    }

    /// All data.
    pub fn data(&self) -> &Value {
        &self.data
    }
}

/// The paths that a change writes to, at a client with these interests.
pub fn paths(recorded: &Recorded, interests: &Interests) -> Vec<DataPath> {
    let writes = recorded.writes.iter();
    writes
        .filter(|write| interests.concerns(&write.topics))
        .map(|write| write.path.clone())
        .collect()
}

/// A store with the policies and static data of a commit.
pub fn at_commit(git: &Git, commit: &CommitHash, directories: &[RepoPath]) -> MemoryStore {
    let store = MemoryStore::new();
    let bundle = git.bundle(commit, directories, None);
    store::apply(&store, vec![StoreChange::Bundle(Arc::new(bundle))]);
    store
}

/// Two objects in one. They have no member in common, since nothing is published over static data.
pub fn merged(mut one: Value, other: &Value) -> Value {
    if let (Some(members), Some(more)) = (one.as_object_mut(), other.as_object()) {
        members.extend(more.clone());
    }
    one
}
