//! Which files of a policy repository are served.

use opal_protocol::{PathPattern, RepoPath};

/// Which files of the repository clients get, and in which order.
#[derive(Debug, Clone)]
pub struct Selection {
    extensions: Vec<String>,
    policy_extensions: Vec<String>,
    ignore: Vec<PathPattern>,
    manifest_path: String,
}

/// What a served file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModuleKind {
    /// A `data.json`.
    Data,
    /// A file with a policy extension.
    Policy,
}

impl Default for Selection {
    /// `.rego` and `.json` files, `.rego` being policy; nothing ignored; `.manifest` in the root.
    fn default() -> Self {
        Self {
            extensions: vec![".rego".to_owned(), ".json".to_owned()],
            policy_extensions: vec![".rego".to_owned()],
            ignore: Vec::new(),
            manifest_path: String::new(),
        }
    }
}

impl Selection {
    /// Serves files with these suffixes only (`OPAL_FILTER_FILE_EXTENSIONS`); none: any suffix.
    #[must_use]
    pub fn with_extensions(mut self, extensions: impl IntoIterator<Item = String>) -> Self {
        self.extensions = extensions.into_iter().collect();
        self
    }

    /// Takes files with these suffixes for policy (`OPAL_POLICY_REPO_POLICY_EXTENSIONS`).
    #[must_use]
    pub fn with_policy_extensions(mut self, extensions: impl IntoIterator<Item = String>) -> Self {
        self.policy_extensions = extensions.into_iter().collect();
        self
    }

    /// Leaves out what one of these patterns matches (`OPAL_BUNDLE_IGNORE`).
    #[must_use]
    pub fn ignoring<T: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.ignore = patterns
            .into_iter()
            .map(|pattern| PathPattern::parse(pattern.as_ref()))
            .collect();
        self
    }

    /// Orders modules by the manifest at `path`, a directory holding `.manifest` or a file
    /// (`OPAL_POLICY_REPO_MANIFEST_PATH`).
    #[must_use]
    pub fn with_manifest(mut self, path: impl Into<String>) -> Self {
        self.manifest_path = path.into();
        self
    }

    /// Where the root manifest is looked for; `None` for an absolute path, which is never found.
    pub(super) fn manifest_path(&self) -> Option<RepoPath> {
        (!self.manifest_path.starts_with('/')).then(|| RepoPath::normalized(&self.manifest_path))
    }

    /// Whether a change of this file is worth an announcement: its suffix counts and no pattern
    /// ignores it.
    pub(super) fn is_tracked(&self, path: &str) -> bool {
        self.has_extension(path) && !self.is_ignored(path)
    }

    /// Whether a pattern leaves `path`, a file or directory, out.
    pub(super) fn is_ignored(&self, path: &str) -> bool {
        self.ignore.iter().any(|pattern| pattern.matches(path))
    }

    /// What `path` is to clients that asked for `directories`; `None` if it is not served.
    pub(super) fn kind(&self, path: &str, directories: &[RepoPath]) -> Option<ModuleKind> {
        if !self.has_extension(path) || !is_below_any(path, directories) || self.is_ignored(path) {
            return None;
        }
        if file_name(path) == "data.json" {
            return Some(ModuleKind::Data);
        }
        contains(&self.policy_extensions, suffix(path)).then_some(ModuleKind::Policy)
    }

    fn has_extension(&self, path: &str) -> bool {
        self.extensions.is_empty() || contains(&self.extensions, suffix(path))
    }
}

fn contains(list: &[String], text: &str) -> bool {
    list.iter().any(|entry| entry == text)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The last suffix of the name with its dot, `""` if there is none; a leading or final dot starts
/// no suffix.
fn suffix(path: &str) -> &str {
    let name = file_name(path);
    match name.rfind('.') {
        Some(dot) if dot > 0 && dot + 1 < name.len() => &name[dot..],
        _ => "",
    }
}

fn is_below_any(path: &str, directories: &[RepoPath]) -> bool {
    directories.iter().any(|directory| {
        directory.is_root()
            || path
                .strip_prefix(directory.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Vec<RepoPath> {
        vec![RepoPath::root()]
    }

    #[test]
    fn only_data_json_and_policy_files_are_modules() {
        let selection = Selection::default();
        assert_eq!(
            selection.kind("a/data.json", &root()),
            Some(ModuleKind::Data)
        );
        assert_eq!(
            selection.kind("a/b.rego", &root()),
            Some(ModuleKind::Policy)
        );
        for path in ["settings.json", ".rego", "a.rego.", "a.rego/x", "README.md"] {
            assert_eq!(selection.kind(path, &root()), None, "{path}");
        }
    }

    #[test]
    fn a_directory_covers_what_is_below_it_but_not_itself() {
        let selection = Selection::default();
        let asked = [RepoPath::from("app"), RepoPath::from("x.rego")];
        assert!(selection.kind("app/a.rego", &asked).is_some());
        assert!(selection.kind("apple/a.rego", &asked).is_none());
        assert!(selection.kind("x.rego", &asked).is_none());
    }

    #[test]
    fn an_ignored_file_is_neither_served_nor_announced() {
        let selection = Selection::default().ignoring(["tests/**", "*_test.rego"]);
        assert!(!selection.is_tracked("tests/a.rego"));
        assert!(!selection.is_tracked("app/a_test.rego"));
        assert!(selection.is_tracked("app/settings.json"));
        assert!(selection.kind("tests/a.rego", &root()).is_none());
    }

    #[test]
    fn other_suffixes_can_be_policy() {
        let selection = Selection::default()
            .with_extensions([".cedar".to_owned()])
            .with_policy_extensions([".cedar".to_owned()]);
        assert_eq!(selection.kind("a.cedar", &root()), Some(ModuleKind::Policy));
        assert_eq!(selection.kind("a.rego", &root()), None);
    }
}
