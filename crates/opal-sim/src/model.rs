//! The truth: what a client has to hold, worked out from the whole history in the simplest way.

use opal_client::data::intake::{Interests, target};
use opal_client::policy_store::{MemoryStore, StoreChange};
use opal_protocol::{CommitHash, DataPath, DataSourceEntry, RepoPath, Revision};
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::git::Git;
use crate::history::{History, Recorded};
use crate::sources::Sources;
use crate::store;

/// What a client holds of data once it has applied every change up to a revision, in order.
#[derive(Debug, Clone)]
pub struct DataModel {
    store: MemoryStore,
    upto: Revision,
}

impl DataModel {
    /// The data sources that concern the client, and no changes.
    pub fn new(interests: &Interests, sources: &Sources) -> Self {
        let model = Self {
            store: MemoryStore::new(),
            upto: Revision(0),
        };
        for entry in &sources.config().entries {
            model.apply(entry, interests, sources);
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
    pub fn apply_change(&self, recorded: &Recorded, interests: &Interests, sources: &Sources) {
        let update = recorded.update.iter();
        for entry in update.flat_map(|update| &update.entries) {
            self.apply(entry, interests, sources);
        }
    }

    fn apply(&self, entry: &DataSourceEntry, interests: &Interests, sources: &Sources) {
        let Ok(target) = target(entry) else {
            return;
        };
        if !interests.concerns(&entry.topics) {
            return;
        }
        let document = entry.data.clone();
        let document = document.unwrap_or_else(|| sources.document(&entry.url));
        // What does not apply here does not apply at a client either.
        if let Some(change) = store::change(target.path, target.method, document) {
            store::apply(&self.store, vec![change]);
        }
    }

    /// How far it is.
    pub fn upto(&self) -> Revision {
        self.upto
    }

    /// All data.
    pub fn data(&self) -> Value {
        self.store.data()
    }
}

/// The paths that a change writes to, at a client with these interests.
pub fn paths(recorded: &Recorded, interests: &Interests) -> Vec<DataPath> {
    let update = recorded.update.iter();
    let entries = update.flat_map(|update| &update.entries);
    entries
        .filter(|entry| interests.concerns(&entry.topics))
        .filter_map(|entry| target(entry).ok())
        .map(|target| target.path)
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
pub fn merged(one: Value, other: Value) -> Value {
    let mut members = Map::new();
    for value in [one, other] {
        if let Value::Object(more) = value {
            members.extend(more);
        }
    }
    Value::Object(members)
}
