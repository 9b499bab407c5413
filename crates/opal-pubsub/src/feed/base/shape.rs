//! What a patch touches.

use opal_protocol::patch::{Operation, OperationKind};
use opal_protocol::{DataPath, Patch};

/// The same patch at the deepest path below which all of it happens.
///
/// An operation needs what holds its place, and nothing above: the patch applies to the same
/// documents, with the same result.
pub(super) fn narrowed(patch: &Patch) -> Patch {
    let mut shared = parent(patch.operations().first().map(|first| &first.path));
    for path in paths(patch) {
        let above = parent(Some(path));
        let same = shared.iter().zip(above).take_while(|(a, b)| **a == **b);
        shared = shared.get(..same.count()).unwrap_or_default();
    }
    let named = shared.iter().take_while(|segment| is_name(segment)).count();
    let shared = shared.get(..named).unwrap_or_default();
    let target = joined(patch.target(), shared);
    let cut = |path: &DataPath| {
        let rest = path.segments().get(shared.len()..).unwrap_or_default();
        DataPath::from_segments(rest.iter().cloned())
    };
    Patch::new(target, mapped(patch, cut))
}

/// The same patch with `above` as its target, which contains it.
pub(super) fn widened(patch: &Patch, above: &DataPath) -> Patch {
    let below = patch.target().segments().get(above.segments().len()..);
    let below = DataPath::from_segments(below.unwrap_or_default().iter().cloned());
    let operations = mapped(patch, |path| joined(&below, path.segments()));
    Patch::new(above.clone(), operations)
}

fn mapped(patch: &Patch, path: impl Fn(&DataPath) -> DataPath) -> Vec<Operation> {
    let operations = patch.operations().iter().map(|operation| {
        let kind = match &operation.kind {
            OperationKind::Move { from } => OperationKind::Move { from: path(from) },
            OperationKind::Copy { from } => OperationKind::Copy { from: path(from) },
            other => other.clone(),
        };
        Operation {
            kind,
            path: path(&operation.path),
        }
    });
    operations.collect()
}

/// Every path that an operation names.
fn paths(patch: &Patch) -> impl Iterator<Item = &DataPath> {
    patch.operations().iter().flat_map(|operation| {
        let from = match &operation.kind {
            OperationKind::Move { from } | OperationKind::Copy { from } => Some(from),
            _ => None,
        };
        std::iter::once(&operation.path).chain(from)
    })
}

fn parent(path: Option<&DataPath>) -> &[String] {
    let segments = path.map(DataPath::segments).unwrap_or_default();
    segments.split_last().map_or(&[], |(_, above)| above)
}

fn joined(path: &DataPath, below: &[String]) -> DataPath {
    DataPath::from_segments(path.segments().iter().chain(below).cloned())
}

/// Whether a segment names a member wherever it stands, and can be part of an entry's path.
fn is_name(segment: &str) -> bool {
    let is_index = segment == "-" || segment.bytes().all(|byte| byte.is_ascii_digit());
    !is_index && segment != "." && segment != ".."
}

/// What a patch reads or writes, beyond needing what holds it. An item of a list stands for the
/// list, since the items after it move.
pub(super) fn touches(patch: &Patch) -> Vec<DataPath> {
    let full = paths(patch).map(|path| match path.segments().split_last() {
        Some((last, above)) if !is_name(last) => joined(patch.target(), above),
        _ => joined(patch.target(), path.segments()),
    });
    let mut touched: Vec<DataPath> = full.collect();
    touched.sort();
    touched.dedup();
    touched
}

/// The place that the patch removes, if it removes one member and does nothing else.
///
/// Removing what is not there fails, so that a patch of several operations is no list of removals.
pub(super) fn removed_member(patch: &Patch) -> Option<DataPath> {
    match patch.operations() {
        [operation] if operation.kind == OperationKind::Remove => member(patch, operation),
        _ => None,
    }
}

/// The place that the patch sets, if it sets one member and does nothing else.
pub(super) fn set_member(patch: &Patch) -> Option<DataPath> {
    match patch.operations() {
        [operation] if is_set(operation) => member(patch, operation),
        _ => None,
    }
}

/// The place, for an operation of a narrowed patch on a member.
fn member(patch: &Patch, operation: &Operation) -> Option<DataPath> {
    match operation.path.segments() {
        [name] if is_name(name) => Some(patch.target().join(name)),
        _ => None,
    }
}

/// Whether `new`, which sets the member at `path`, leaves nothing of `old`, which is within `path`,
/// and needs nothing of it: where `old` applied, `new` would have, or someone has removed what held
/// both since. A member that `old` adds may not have been there to be replaced.
pub(super) fn overwrites(new: &Patch, old: &Patch, path: &DataPath) -> bool {
    let replaces = new
        .operations()
        .iter()
        .any(|operation| matches!(operation.kind, OperationKind::Replace { .. }));
    let makes = |operation: &Operation| {
        matches!(operation.kind, OperationKind::Add { .. })
            && joined(old.target(), operation.path.segments()) == *path
    };
    only_sets(old) && !(replaces && old.operations().iter().any(makes))
}

/// Whether each operation adds or replaces.
pub(super) fn only_sets(patch: &Patch) -> bool {
    patch.operations().iter().all(is_set)
}

/// Whether each operation adds a member.
pub(super) fn only_adds_members(patch: &Patch) -> bool {
    patch.operations().iter().all(|operation| {
        let last = operation.path.segments().last();
        matches!(operation.kind, OperationKind::Add { .. })
            && last.is_some_and(|last| is_name(last))
    })
}

fn is_set(operation: &Operation) -> bool {
    matches!(
        operation.kind,
        OperationKind::Add { .. } | OperationKind::Replace { .. }
    )
}
