//! Which directories a new commit concerns.

use std::collections::BTreeSet;

use opal_protocol::RepoPath;

use super::git::objects::Change;
use super::selection::Selection;
use super::view::CommitView;

/// Every directory above a tracked file that changed, sorted; none if no tracked file did.
pub(super) fn changed_directories(changes: &[Change], selection: &Selection) -> Vec<RepoPath> {
    let sides = changes.iter().flat_map(|change| [&change.old, &change.new]);
    let paths = sides.flatten().map(|file| file.path.as_str());
    directories_above(paths.filter(|path| selection.is_tracked(path)))
}

/// Every directory above a tracked file of the commit, and the root in any case, sorted.
pub(super) fn all_directories(view: &CommitView, selection: &Selection) -> Vec<RepoPath> {
    let paths = view.files.iter().map(|file| file.path.as_str());
    let mut directories = directories_above(paths.filter(|path| selection.is_tracked(path)));
    if directories.is_empty() {
        directories.push(RepoPath::root());
    }
    directories
}

/// Sorted by components, as Python sorts paths: the root first, `a/b` before `a-b`.
fn directories_above<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<RepoPath> {
    let mut above: BTreeSet<Vec<&str>> = BTreeSet::new();
    for path in paths {
        let mut directory: Vec<&str> = path.split('/').collect();
        while directory.pop().is_some() && above.insert(directory.clone()) {}
    }
    above
        .into_iter()
        .map(|components| RepoPath::normalized(&components.join("/")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_sorted_by_component() {
        let directories = directories_above(["a-b/x.rego", "a/b/x.rego", "y.rego"].into_iter());
        assert_eq!(directories, [".", "a", "a/b", "a-b"].map(RepoPath::from));
        assert!(directories_above([].into_iter()).is_empty());
    }
}
