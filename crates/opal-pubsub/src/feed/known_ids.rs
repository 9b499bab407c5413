//! Which change of a history has which id.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use opal_protocol::{Revision, UpdateId};

/// Revisions of changes by their id. The ids themselves are in the changes, and there only: each
/// call that compares is told where to find them.
#[derive(Debug, Default)]
pub(super) struct KnownIds {
    revisions: HashTable<Revision>,
    hasher: RandomState,
}

impl KnownIds {
    /// The change that has this id.
    pub(super) fn get<'a>(
        &self,
        id: &UpdateId,
        id_of: impl Fn(Revision) -> Option<&'a UpdateId>,
    ) -> Option<Revision> {
        let same = |revision: &Revision| id_of(*revision) == Some(id);
        self.revisions.find(self.hasher.hash_one(id), same).copied()
    }

    /// Notes that `revision` has this id, and no other change.
    pub(super) fn insert<'a>(
        &mut self,
        id: &UpdateId,
        revision: Revision,
        id_of: impl Fn(Revision) -> Option<&'a UpdateId>,
    ) {
        if let Some(before) = self.get(id, &id_of) {
            self.remove(id, before);
        }
        let hasher = &self.hasher;
        let rehash = |revision: &Revision| hasher.hash_one(id_of(*revision).unwrap_or(id));
        self.revisions
            .insert_unique(hasher.hash_one(id), revision, rehash);
    }

    /// Forgets that `revision` has this id. Another change may have it meanwhile.
    pub(super) fn remove(&mut self, id: &UpdateId, revision: Revision) {
        let hash = self.hasher.hash_one(id);
        if let Ok(found) = self.revisions.find_entry(hash, |held| *held == revision) {
            found.remove();
        }
    }
}
