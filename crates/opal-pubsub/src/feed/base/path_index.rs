//! Which entries are where.

use std::collections::BTreeMap;

use opal_protocol::DataPath;

/// Places in the order of entries, by path. Of one path they ascend.
#[derive(Debug, Clone, Default)]
pub(super) struct PathIndex(BTreeMap<DataPath, Vec<u64>>);

impl PathIndex {
    pub(super) fn insert(&mut self, path: &DataPath, place: u64) {
        let places = self.0.entry(path.clone()).or_default();
        if let Err(at) = places.binary_search(&place) {
            places.insert(at, place);
        }
    }

    pub(super) fn remove(&mut self, path: &DataPath, place: u64) {
        let Some(places) = self.0.get_mut(path) else {
            return;
        };
        if let Ok(at) = places.binary_search(&place) {
            places.remove(at);
        }
        if places.is_empty() {
            self.0.remove(path);
        }
    }

    /// Those at `path` itself, newest first.
    pub(super) fn at(&self, path: &DataPath) -> impl Iterator<Item = u64> {
        self.0.get(path).into_iter().flatten().rev().copied()
    }

    /// Those at `path` and below it, path by path.
    pub(super) fn at_or_below(&self, path: &DataPath) -> impl Iterator<Item = u64> {
        let all = self.0.range(path.clone()..);
        let within = all.take_while(|(place, _)| path.contains(place));
        within.flat_map(|(_, places)| places.iter().copied())
    }

    /// The newest at `path` or above it.
    pub(super) fn newest_at_or_above(&self, path: &DataPath) -> Option<u64> {
        let at = self.at(path).next();
        at.max(self.newest_above(path))
    }

    /// The newest above `path`, itself excluded.
    pub(super) fn newest_above(&self, path: &DataPath) -> Option<u64> {
        above(path).filter_map(|above| self.at(&above).next()).max()
    }

    /// All at, above and below `path`, path by path.
    pub(super) fn overlapping(&self, path: &DataPath) -> impl Iterator<Item = u64> {
        let above = above(path).flat_map(|above| self.at(&above).collect::<Vec<_>>());
        above.chain(self.at_or_below(path))
    }

    /// Whether something at, above or below `path` is newer than `place`.
    pub(super) fn overlaps_after(&self, path: &DataPath, place: u64) -> bool {
        self.newest_above(path).is_some_and(|newest| newest > place)
            || self.at_or_below(path).any(|other| other > place)
    }
}

/// The paths above `path`, nearest first, ending with the root.
pub(super) fn above(path: &DataPath) -> impl Iterator<Item = DataPath> {
    let first = path.split_last().map(|(parent, _)| parent);
    std::iter::successors(first, |path| path.split_last().map(|(parent, _)| parent))
}
