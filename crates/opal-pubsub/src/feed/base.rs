//! What changes come down to, for someone who comes late.
//!
//! A client that takes a snapshot has the policy and the data sources, and then writes the entries
//! of the [`Base`] in their order. It ends where those are who applied every change; what it knows
//! of the documents beneath (static data of the policy, configured sources) the base does not, so
//! each rule below holds whatever they are:
//!
//! - **A PUT or DELETE** removes the older entries at and below its path, if it reaches everyone they
//!   reached, and stays. A DELETE leaves `{}` in the order where a PUT was, because that PUT made the
//!   objects above it.
//! - **A PUT of the root** removes nothing but an older one of which it has every member: some
//!   clients write it member by member, and keep what it does not name.
//! - **A PATCH of a known document** stands on it, and is folded into it when many do.
//! - **A PATCH of what a source has** goes: the source is current when it is fetched.
//! - **A PATCH that removes one member** is a DELETE.
//! - **Any other PATCH** stays in the order, and removes those whose every write it writes over.
//!
//! Nothing is removed from below a PATCH that may need it: if one in between was made for a place
//! above, what is older stays. A PUT takes the place in the order of an older one for the same path
//! and topics where nobody can tell, so that such patches do not make old documents pile up.

mod entry;
mod inline;
mod path_index;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use opal_protocol::feed::BaseEntry;
use opal_protocol::{DataPath, DataSourceEntry, DataUpdate, Patch, Revision, Topic};

use super::change::{Change, Payload};
use super::topics::TopicPool;
use entry::{Entry, Kind};
use inline::Inline;
use path_index::{PathIndex, above};
use shape::{only_adds_members, only_sets, overwrites, removed_member, set_member};

/// More patches on one document are folded into it.
const PATCHES_PER_DOCUMENT: usize = 64;

/// What changes come down to. Cloning copies no documents.
#[derive(Debug, Clone)]
pub struct Base {
    patches_per_document: usize,
    /// In order of their places, which are never given twice.
    entries: BTreeMap<u64, Arc<Entry>>,
    next_place: u64,
    /// PUTs and DELETEs by path.
    writes: PathIndex,
    /// Patches that stand alone, by the path they are for, and by the paths they touch.
    patches: PathIndex,
    touched: PathIndex,
    topics: TopicPool,
}

impl Default for Base {
    fn default() -> Self {
        Self::new(PATCHES_PER_DOCUMENT)
    }
}

impl Base {
    /// The base of no changes. More than `patches_per_document` patches on one document are folded
    /// into it.
    pub fn new(patches_per_document: usize) -> Self {
        Self {
            patches_per_document,
            entries: BTreeMap::new(),
            next_place: 0,
            writes: PathIndex::default(),
            patches: PathIndex::default(),
            touched: PathIndex::default(),
            topics: TopicPool::default(),
        }
    }

    /// Folds a change that follows all that were folded before. Only data counts, and only for the
    /// topics that the change was published to.
    pub fn fold(&mut self, change: &Change) {
        let (Payload::Data(document) | Payload::Message(document)) = &change.draft.payload else {
            return;
        };
        // What a peer says to the others may be anything.
        let Ok(mut update) = serde_json::from_str::<DataUpdate>(document.text()) else {
            return;
        };
        update.restrict_to(&change.draft.topics);
        for entry in &update.entries {
            self.fold_entry(change.position.revision, entry);
        }
    }

    /// Folds one entry of a change. One that no client could take is skipped.
    pub fn fold_entry(&mut self, revision: Revision, entry: &DataSourceEntry) {
        let Some(mut entry) = Entry::read(revision, entry) else {
            return;
        };
        entry.topics = self.topics.shared(entry.topics);
        match entry.kind {
            Kind::Patch(_) | Kind::SourcedPatch(_) => self.patch(entry),
            _ if entry.path.is_root() => self.write_root(entry),
            _ => self.write(entry),
        }
    }

    /// What has to be done, in order, by a client of `topics`.
    pub fn entries_for(&self, topics: &[Topic]) -> Vec<BaseEntry> {
        let concerned = |entry: &&Arc<Entry>| {
            let mut theirs = topics.iter();
            theirs.any(|topic| entry.topics.binary_search(topic).is_ok())
        };
        let entries = self.entries.values().filter(concerned);
        entries.flat_map(|entry| entry.wire()).collect()
    }

    /// What has to be done, in order, by a client of all topics.
    pub fn entries(&self) -> impl Iterator<Item = BaseEntry> {
        self.entries.values().flat_map(|entry| entry.wire())
    }

    fn write(&mut self, entry: Entry) {
        let slot = self.slot(&entry);
        self.wipe(&entry, slot);
        if let Some(slot) = slot.filter(|slot| !self.is_overtaken(&entry.path, *slot)) {
            self.entries.insert(slot, Arc::new(entry));
            return;
        }
        self.wipe(&entry, None);
        self.push(entry);
    }

    /// The newest entry that `new` may take the place of, if nothing newer minds.
    fn slot(&self, new: &Entry) -> Option<u64> {
        let mut places = self.writes.at(&new.path);
        places.find(|place| {
            self.entries
                .get(place)
                .is_some_and(|old| old.topics == new.topics && old.is_put() == new.is_put())
        })
    }

    /// Whether something newer than `place` has to do with `path`.
    fn is_overtaken(&self, path: &DataPath, place: u64) -> bool {
        self.writes.overlaps_after(path, place) || self.touched.overlaps_after(path, place)
    }

    /// Removes what `new` makes pointless, but for the entry at `spared`.
    fn wipe(&mut self, new: &Entry, spared: Option<u64>) {
        let barrier = self.barrier(&new.path);
        let writes = self.writes.at_or_below(&new.path);
        let mut places: Vec<u64> = writes.chain(self.touched.at_or_below(&new.path)).collect();
        places.retain(|place| barrier.is_none_or(|barrier| *place > barrier));
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        let is_anchored = matches!(new.kind, Kind::Delete) && new.path.segments().len() > 1;
        let mut anchors = Vec::new();
        for place in places.into_iter().filter(|place| Some(*place) != spared) {
            let Some(old) = self.entries.get(&place) else {
                continue;
            };
            if !new.reaches_all_of(old) || !is_within(&new.path, old) {
                continue;
            }
            let old = Arc::clone(old);
            self.remove(place);
            if is_anchored && old.is_put() && !anchors.contains(&old.topics) {
                anchors.push(old.topics.clone());
                self.anchor(place, &new.path, &old);
            }
        }
    }

    /// Leaves `{}` at `path` where `old` was: it made the objects that lead there.
    fn anchor(&mut self, place: u64, path: &DataPath, old: &Entry) {
        let anchor = Entry {
            path: path.clone(),
            kind: Kind::Inline(Inline::empty()),
            topics: old.topics.clone(),
            revision: old.revision,
        };
        self.insert(place, anchor);
    }

    /// The newest patch that may need what is at or below `path`, and does more than write there.
    fn barrier(&self, path: &DataPath) -> Option<u64> {
        let reaches_out = |place: &u64| {
            let patch = self.entries.get(place);
            patch.is_some_and(|patch| !is_within(path, patch))
        };
        let by_container = above(path)
            .filter(|above| !above.is_root())
            .filter_map(|above| self.patches.at(&above).find(reaches_out))
            .max();
        // The root is always there, so a patch of it needs no more than it touches.
        let of_root = |place: &u64| {
            let patch = self.entries.get(place);
            patch.is_some_and(|patch| patch.path.is_root())
        };
        let touching = self.touched.overlapping(path);
        let by_touch = touching.filter(of_root).filter(reaches_out).max();
        by_container.max(by_touch)
    }

    fn write_root(&mut self, new: Entry) {
        let barrier = self.patches.at(&new.path).next();
        let older: Vec<u64> = self.writes.at(&new.path).collect();
        for place in older {
            let replaced = self.entries.get(&place).is_some_and(|old| {
                barrier.is_none_or(|barrier| place > barrier)
                    && new.reaches_all_of(old)
                    && replaces_root(&new.kind, &old.kind)
            });
            if replaced {
                self.remove(place);
            }
        }
        self.push(new);
    }

    fn patch(&mut self, entry: Entry) {
        let place = self.beneath(&entry.path);
        let below = place.and_then(|place| self.entries.get_mut(&place));
        if let Some(below) = below {
            match &entry.kind {
                _ if matches!(below.kind, Kind::Source(_)) && below.reaches_all_of(&entry) => {
                    return;
                }
                Kind::Patch(patch) if below.topics == entry.topics => {
                    let patched = stands_on(below, patch)
                        && !place
                            .is_some_and(|place| self.touched.overlaps_after(&entry.path, place));
                    if patched {
                        let limit = self.patches_per_document;
                        Arc::make_mut(below).embed(entry.revision, patch, limit);
                        return;
                    }
                }
                _ => {}
            }
        }
        self.lone_patch(entry);
    }

    /// The newest write that has to do with `path`, if it is there or above.
    fn beneath(&self, path: &DataPath) -> Option<u64> {
        let place = self.writes.newest_at_or_above(path)?;
        let mut below = self.writes.at_or_below(path);
        (!below.any(|other| other > place)).then_some(place)
    }

    fn lone_patch(&mut self, entry: Entry) {
        match &entry.kind {
            Kind::Patch(patch) => {
                if let Some(path) = removed_member(patch) {
                    return self.write(Entry {
                        path,
                        kind: Kind::Delete,
                        ..entry
                    });
                }
                match set_member(patch) {
                    Some(path) => self.remove_overwritten(&entry, patch, &path),
                    None => self.remove_repeated(&entry, patch),
                }
            }
            _ => self.remove_same_source(&entry),
        }
        self.push(entry);
    }

    /// Removes older patches whose every write `new` writes over at `path`, as far back as nothing
    /// depends on them.
    fn remove_overwritten(&mut self, new: &Entry, patch: &Patch, path: &DataPath) {
        let mut places: Vec<u64> = self.touched.overlapping(path).collect();
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        for place in places {
            let overwritten = self.entries.get(&place).is_some_and(|old| {
                matches!(&old.kind, Kind::Patch(old) if overwrites(patch, old, path))
                    && old.topics == new.topics
                    && is_within(path, old)
            });
            if !overwritten {
                break;
            }
            self.remove(place);
        }
    }

    /// Removes an older patch if `new` sets the same members and nothing happened to them in between.
    fn remove_repeated(&mut self, new: &Entry, patch: &Patch) {
        let touches = new.touches();
        let newest = touches
            .first()
            .and_then(|path| self.touched.at(path).next());
        let Some(place) = newest else {
            return;
        };
        let repeated = self.entries.get(&place).is_some_and(|old| {
            matches!(&old.kind, Kind::Patch(old) if only_sets(old))
                && only_adds_members(patch)
                && old.topics == new.topics
                && old.path == new.path
                && old.touches() == touches
                && !touches.iter().any(|path| self.is_overtaken(path, place))
        });
        if repeated {
            self.remove(place);
        }
    }

    fn remove_same_source(&mut self, new: &Entry) {
        let is_same = |place: &u64| {
            let old = self.entries.get(place);
            old.is_some_and(|old| old.kind == new.kind && old.topics == new.topics)
        };
        let same = self.patches.at(&new.path).find(is_same);
        if let Some(place) = same {
            self.remove(place);
        }
    }

    fn push(&mut self, entry: Entry) {
        let place = self.next_place;
        self.next_place += 1;
        self.insert(place, entry);
    }

    fn insert(&mut self, place: u64, entry: Entry) {
        if entry.is_patch() {
            self.patches.insert(&entry.path, place);
            for path in entry.touches() {
                self.touched.insert(&path, place);
            }
        } else {
            self.writes.insert(&entry.path, place);
        }
        self.entries.insert(place, Arc::new(entry));
    }

    fn remove(&mut self, place: u64) {
        let Some(entry) = self.entries.remove(&place) else {
            return;
        };
        if entry.is_patch() {
            self.patches.remove(&entry.path, place);
            for path in entry.touches() {
                self.touched.remove(&path, place);
            }
        } else {
            self.writes.remove(&entry.path, place);
        }
    }
}

impl Entry {
    fn embed(&mut self, revision: Revision, patch: &Patch, limit: usize) {
        let Kind::Inline(inline) = &mut self.kind else {
            return;
        };
        if inline.patch(&self.path, revision, patch, limit) {
            self.revision = revision;
        }
    }
}

/// Whether all that the entry does is at `path` or below.
fn is_within(path: &DataPath, entry: &Entry) -> bool {
    let touches = entry.touches();
    touches.iter().all(|touched| path.contains(touched))
}

/// Whether the document of `below` says all there is about what `patch` finds. For the root that
/// holds for its members: what else is there, some clients keep.
fn stands_on(below: &Entry, patch: &Patch) -> bool {
    let Kind::Inline(inline) = &below.kind else {
        return false;
    };
    if !below.path.is_root() {
        return true;
    }
    let first = patch.target().segments().first();
    first.is_some_and(|first| {
        let members = inline.members().unwrap_or_default();
        members
            .get(first)
            .is_some_and(|value| value.get() != "null")
    })
}

/// Whether a newer PUT of the root leaves nothing of an older one, for those too who write it
/// member by member.
fn replaces_root(new: &Kind, old: &Kind) -> bool {
    match (new, old) {
        (Kind::Source(new), Kind::Source(old)) => new == old,
        (Kind::Inline(new), Kind::Inline(old)) => match (new.members(), old.members()) {
            (Some(new), Some(old)) => old.keys().all(|name| new.contains_key(name)),
            // A list is written whole.
            (None, _) => true,
            (Some(_), None) => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
