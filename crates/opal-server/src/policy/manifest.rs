//! The explicit manifest: the order in which a repository wants its modules loaded.

use std::collections::{HashMap, HashSet};

use opal_protocol::RepoPath;
use tracing::warn;

use super::selection::Selection;

/// The name of a directory's manifest.
pub(super) const MANIFEST: &str = ".manifest";

/// What is needed of a commit to follow its manifests.
pub(super) trait ManifestSource {
    /// Whether this is a directory of the commit.
    fn is_directory(&self, path: &RepoPath) -> bool;
    /// Whether this is a file of the commit.
    fn is_file(&self, path: &RepoPath) -> bool;
    /// The text of a manifest file; `None` if there is none or it is not text.
    fn manifest(&self, path: &RepoPath) -> Option<&str>;
}

/// A rank for each file that the manifests name; other files come after, as they were.
#[derive(Debug, Default, Clone)]
pub(super) struct ManifestOrder {
    ranks: HashMap<String, usize>,
}

impl ManifestOrder {
    /// Follows the manifests of a commit, starting where `selection` says.
    pub(super) fn compile(source: &impl ManifestSource, selection: &Selection) -> Self {
        let mut compiler = Compiler {
            source,
            selection,
            visited: HashSet::new(),
            order: Self::default(),
        };
        if let Some(root) = selection.manifest_path() {
            if source.is_directory(&root) {
                compiler.follow(&root, &join(&root, MANIFEST));
            } else if source.is_file(&root) {
                compiler.follow(&root.parent(), &root);
            }
        }
        compiler.order
    }

    /// Sorts `items`: those that are named first, in the manifest's order.
    pub(super) fn sort<T>(&self, items: &mut [T], path: impl Fn(&T) -> &str) {
        if !self.ranks.is_empty() {
            items.sort_by_key(|item| self.ranks.get(path(item)).copied().unwrap_or(usize::MAX));
        }
    }
}

struct Compiler<'a, S> {
    source: &'a S,
    selection: &'a Selection,
    visited: HashSet<RepoPath>,
    order: ManifestOrder,
}

impl<S: ManifestSource> Compiler<'_, S> {
    /// Takes the lines of one manifest. Entries lie below its directory, so this ends.
    fn follow(&mut self, directory: &RepoPath, manifest: &RepoPath) {
        let source = self.source;
        let Some(text) = source.manifest(manifest) else {
            return;
        };
        for line in lines(text) {
            match self.entry(directory, line) {
                Ok(path) if source.is_directory(&path) => {
                    self.follow(&path, &join(&path, MANIFEST));
                }
                Ok(path) => {
                    let rank = self.order.ranks.len();
                    self.order.ranks.insert(path.to_string(), rank);
                }
                Err(reason) => warn!("`{manifest}` names `{line}`, which {reason}; skipped"),
            }
        }
    }

    /// The path that a line names, or why it does not count.
    fn entry(&mut self, directory: &RepoPath, line: &str) -> Result<RepoPath, &'static str> {
        let leaves = line.starts_with('/') || line.split('/').any(|part| part == "..");
        if leaves || RepoPath::normalized(line).is_root() {
            return Err("is not below its directory");
        }
        let path = join(directory, line);
        if !self.source.is_file(&path) && !self.source.is_directory(&path) {
            return Err("does not exist");
        }
        if self.selection.is_ignored(path.as_str()) {
            return Err("is ignored");
        }
        if !self.visited.insert(path.clone()) {
            return Err("was named before");
        }
        Ok(path)
    }
}

fn join(directory: &RepoPath, below: &str) -> RepoPath {
    RepoPath::normalized(&format!("{directory}/{below}"))
}

/// The lines that Python's `splitlines` finds, without the empty ones.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    })
    .filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files with their text; directories are what is above them.
    struct Files(Vec<(&'static str, &'static str)>);

    impl ManifestSource for Files {
        fn is_directory(&self, path: &RepoPath) -> bool {
            path.is_root()
                || self
                    .0
                    .iter()
                    .any(|(file, _)| RepoPath::from(*file).ancestors().any(|d| d == *path))
        }
        fn is_file(&self, path: &RepoPath) -> bool {
            self.manifest(path).is_some()
        }
        fn manifest(&self, path: &RepoPath) -> Option<&str> {
            let found = self.0.iter().find(|(file, _)| *file == path.as_str());
            found.map(|(_, text)| *text)
        }
    }

    fn order(files: Vec<(&'static str, &'static str)>, selection: &Selection) -> Vec<String> {
        let order = ManifestOrder::compile(&Files(files), selection);
        let mut named: Vec<(usize, String)> = order
            .ranks
            .into_iter()
            .map(|(path, rank)| (rank, path))
            .collect();
        named.sort();
        named.into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn a_directory_continues_with_its_own_manifest() {
        let files = vec![
            (".manifest", "lib\nother\nmain.rego\r\n./a//b.rego\n"),
            ("lib/.manifest", "util/x.rego\nutil\n"),
            ("lib/util/x.rego", ""),
            ("lib/util/.manifest", "x.rego\ny.rego"),
            ("lib/util/y.rego", ""),
            ("other/z.rego", ""),
            ("main.rego", ""),
            ("a/b.rego", ""),
        ];
        assert_eq!(
            order(files, &Selection::default()),
            [
                "lib/util/x.rego",
                "lib/util/y.rego",
                "main.rego",
                "a/b.rego"
            ]
        );
    }

    #[test]
    fn lines_that_lead_elsewhere_are_skipped() {
        let files = vec![
            (
                ".manifest",
                "/a.rego\n../a.rego\nx/../a.rego\nmissing\n.\n\nt/b.rego\n a.rego\na.rego\na.rego\n# c\n",
            ),
            ("a.rego", ""),
            ("t/b.rego", ""),
        ];
        assert_eq!(
            order(files, &Selection::default().ignoring(["t/**"])),
            ["a.rego"]
        );
    }

    #[test]
    fn the_root_manifest_may_be_a_directory_or_a_file() {
        let files = vec![
            ("conf/order", "a.rego\nb"),
            ("conf/.manifest", "b/c.rego\n"),
            ("conf/a.rego", ""),
            ("conf/b/.manifest", "c.rego"),
            ("conf/b/c.rego", ""),
        ];
        for (path, expected) in [
            ("conf/order", vec!["conf/a.rego", "conf/b/c.rego"]),
            ("conf", vec!["conf/b/c.rego"]),
            ("./conf/", vec!["conf/b/c.rego"]),
            ("missing", vec![]),
            ("/conf", vec![]),
            ("", vec![]),
        ] {
            let selection = Selection::default().with_manifest(path);
            assert_eq!(order(files.clone(), &selection), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_named_keeps_its_place_at_the_end() {
        let files = vec![(".manifest", "b\nc\n"), ("b", ""), ("c", "")];
        let order = ManifestOrder::compile(&Files(files), &Selection::default());
        let mut paths = ["z", "c", "a", "b"];
        order.sort(&mut paths, |path| path);
        assert_eq!(paths, ["b", "c", "z", "a"]);
    }
}
