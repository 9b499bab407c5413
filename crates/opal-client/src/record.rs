//! What was written into an engine that can lose it, so that it can be written again.
//!
//! An engine in another process starts empty. Its policy and its data sources could be asked for
//! again, but not the documents that were published inline, and the server may be away just then.

use std::sync::Arc;

use opal_protocol::{DataModule, DataPath, Document, PolicyBundle, PolicyModule, RepoPath};

use crate::policy_store::StoreChange;

mod fold;

/// The folded history of a store. Holds documents by reference count.
#[derive(Debug, Default)]
pub struct Record {
    bundle: Option<Arc<PolicyBundle>>,
    /// Data in the order in which it was written, without what later writes left nothing of.
    data: Vec<StoreChange>,
    patches: usize,
    coverage: Coverage,
    /// How many changes were noted.
    version: u64,
}

/// Whether the record holds all that was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Coverage {
    #[default]
    Whole,
    /// Data had to be forgotten.
    Forgot,
    /// The same, and all of it is being written again.
    Renewing,
}

/// So many patches are kept. More are folded into their documents. If that leaves more than half of
/// them, all data is forgotten: what they were based on would be wrong without them.
const MOST_PATCHES: usize = 10_000;

impl Record {
    /// The store took a bundle: its static data lies over what had been written before.
    pub fn bundle_applied(&mut self, bundle: &PolicyBundle) {
        for module in &bundle.data_modules {
            let path = DataPath::from(&module.path);
            let document = Document::parse(module.data.as_str());
            self.write_over(&path, document.ok());
        }
        for deleted in bundle
            .deleted_files
            .iter()
            .flat_map(|files| &files.data_modules)
        {
            self.write_over(&DataPath::from(deleted), None);
        }
        match &mut self.bundle {
            Some(held) if bundle.is_diff() => merge(Arc::make_mut(held), bundle),
            held => *held = Some(Arc::new(bundle.clone())),
        }
        self.version += 1;
    }

    /// The store took a change of data.
    pub fn data_applied(&mut self, change: &StoreChange) {
        match change {
            StoreChange::Bundle(bundle) => return self.bundle_applied(bundle),
            StoreChange::Put { path, .. } | StoreChange::Delete { path } => {
                self.data.retain(|held| !replaces(path, held));
                self.patches = self.data.iter().filter(|held| is_patch(held)).count();
            }
            StoreChange::Patch { .. } => self.patches += 1,
        }
        self.data.push(change.clone());
        self.version += 1;
        if self.patches > MOST_PATCHES {
            self.fold();
        }
    }

    fn fold(&mut self) {
        let modules = self.bundle.iter().flat_map(|bundle| &bundle.data_modules);
        let modules: Vec<DataPath> = modules.map(|module| (&module.path).into()).collect();
        // A PUT above static data brings that back where the document has nothing.
        let is_whole = |path: &DataPath| {
            !path.is_root() && !modules.iter().any(|module| path.contains(module))
        };
        self.data = fold::folded(std::mem::take(&mut self.data), is_whole);
        self.patches = self.data.iter().filter(|held| is_patch(held)).count();
        if self.patches > MOST_PATCHES / 2 {
            self.data.clear();
            self.patches = 0;
            self.coverage = Coverage::Forgot;
        }
    }

    /// Notes that a bundle has replaced or removed what is at `path`. The root is left to the
    /// bundle: stores write its members one by one.
    fn write_over(&mut self, path: &DataPath, document: Option<Document>) {
        if path.is_root() {
            return;
        }
        self.data.retain(|held| !replaces(path, held));
        let lies_below = |held: &StoreChange| place(held).is_some_and(|at| at.contains(path));
        if self.data.iter().any(lies_below) {
            let path = path.clone();
            self.data.push(match document {
                Some(document) => StoreChange::Put { path, document },
                None => StoreChange::Delete { path },
            });
        }
    }

    /// Everything to write into an empty store, in order; `None` if nothing was ever written.
    pub fn replay(&self) -> Option<Vec<StoreChange>> {
        let bundle = self.bundle.clone().map(StoreChange::Bundle);
        let changes: Vec<StoreChange> = bundle.into_iter().chain(self.data.clone()).collect();
        (!changes.is_empty()).then_some(changes)
    }

    /// A policy that the engine must have if it has lost nothing.
    pub fn any_policy(&self) -> Option<String> {
        let module = self.bundle.as_ref()?.policy_modules.first()?;
        Some(module.path.to_string())
    }

    /// A number that grows with each change that is noted.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the replay lacks something that was written.
    pub fn is_incomplete(&self) -> bool {
        self.coverage != Coverage::Whole
    }

    /// Whether it lacks something that nobody has begun to write again.
    pub fn needs_renewal(&self) -> bool {
        self.coverage == Coverage::Forgot
    }

    /// Everything is about to be written again.
    pub fn renewal_began(&mut self) {
        self.coverage = Coverage::Renewing;
    }

    /// Everything has been written again since the renewal began.
    pub fn renewed(&mut self) {
        if self.coverage == Coverage::Renewing {
            self.coverage = Coverage::Whole;
            self.version += 1;
        }
    }
}

fn is_patch(change: &StoreChange) -> bool {
    matches!(change, StoreChange::Patch { .. })
}

/// Where a change of data is made.
fn place(change: &StoreChange) -> Option<&DataPath> {
    match change {
        StoreChange::Bundle(_) => None,
        StoreChange::Put { path, .. }
        | StoreChange::Patch { path, .. }
        | StoreChange::Delete { path } => Some(path),
    }
}

/// Whether a write of all of `path` leaves nothing of `held`.
fn replaces(path: &DataPath, held: &StoreChange) -> bool {
    place(held).is_some_and(|at| path.contains(at))
}

/// Makes of a complete bundle and a diff from its commit the complete bundle of the new commit.
fn merge(held: &mut PolicyBundle, diff: &PolicyBundle) {
    let deleted = diff.deleted_files.clone().unwrap_or_default();
    let goes = |list: &[RepoPath], path: &RepoPath| list.contains(path);
    held.data_modules
        .retain(|module| !goes(&deleted.data_modules, &module.path));
    held.policy_modules
        .retain(|module| !goes(&deleted.policy_modules, &module.path));
    for module in &diff.data_modules {
        put(&mut held.data_modules, module, |held| &held.path);
    }
    for module in &diff.policy_modules {
        put(&mut held.policy_modules, module, |held| &held.path);
    }
    held.hash = diff.hash.clone();
    held.manifest = manifest(&held.data_modules, &held.policy_modules);
}

fn put<M: Clone>(list: &mut Vec<M>, new: &M, path: impl Fn(&M) -> &RepoPath) {
    match list.iter_mut().find(|held| path(held) == path(new)) {
        Some(held) => held.clone_from(new),
        None => list.push(new.clone()),
    }
}

fn manifest(data: &[DataModule], policies: &[PolicyModule]) -> Vec<RepoPath> {
    let files = data.iter().map(|module| match module.path.is_root() {
        true => RepoPath::from("data.json"),
        false => RepoPath::from(format!("{}/data.json", module.path)),
    });
    let policies = policies.iter().map(|module| module.path.clone());
    policies.chain(files).collect()
}

#[cfg(test)]
mod tests {
    use opal_protocol::{CommitHash, DeletedFiles};

    use super::*;

    fn bundle(old: bool, policies: &[(&str, &str)], deleted: &[&str]) -> PolicyBundle {
        let hash = CommitHash::parse(&"a".repeat(40)).unwrap();
        PolicyBundle {
            manifest: Vec::new(),
            hash: hash.clone(),
            old_hash: old.then_some(hash),
            data_modules: Vec::new(),
            policy_modules: policies
                .iter()
                .map(|(path, rego)| PolicyModule {
                    path: (*path).into(),
                    package_name: String::new(),
                    rego: (*rego).to_owned(),
                })
                .collect(),
            deleted_files: Some(DeletedFiles {
                data_modules: Vec::new(),
                policy_modules: deleted.iter().map(|path| (*path).into()).collect(),
            }),
        }
    }

    fn put_at(path: &str) -> StoreChange {
        StoreChange::Put {
            path: DataPath::parse(path).unwrap(),
            document: Document::parse("1").unwrap(),
        }
    }

    fn paths(record: &Record) -> Vec<String> {
        let shown = |change: &StoreChange| match change {
            StoreChange::Bundle(bundle) => bundle
                .policy_modules
                .iter()
                .map(|module| format!("{}={}", module.path, module.rego))
                .collect::<Vec<_>>()
                .join(","),
            StoreChange::Put { path, .. } => format!("put {path}"),
            StoreChange::Patch { path, .. } => format!("patch {path}"),
            StoreChange::Delete { path } => format!("delete {path}"),
        };
        record
            .replay()
            .unwrap_or_default()
            .iter()
            .map(shown)
            .collect()
    }

    #[test]
    fn diffs_become_part_of_the_complete_bundle() {
        let mut record = Record::default();
        record.bundle_applied(&bundle(false, &[("a", "1"), ("b", "1")], &[]));
        record.bundle_applied(&bundle(true, &[("b", "2"), ("c", "2")], &["a"]));
        assert_eq!(paths(&record), ["b=2,c=2"]);
    }

    #[test]
    fn static_data_of_a_commit_lies_over_what_was_written_before_it() {
        let mut record = Record::default();
        for path in ["/users/bob", "/users", "/top"] {
            record.data_applied(&put_at(path));
        }
        let module = |path: &str| DataModule {
            path: path.into(),
            data: "2".into(),
        };
        let mut commit = bundle(false, &[], &[]);
        commit.data_modules = vec![module("users"), module("top/below")];
        record.bundle_applied(&commit);
        assert_eq!(paths(&record), ["", "put /top", "put /top/below"]);
    }

    #[test]
    fn only_what_is_left_of_the_data_is_written_again_in_its_order() {
        let mut record = Record::default();
        assert!(record.replay().is_none());
        let patch = StoreChange::Patch {
            path: DataPath::parse("/a/b").unwrap(),
            operations: Vec::new(),
        };
        for change in [
            put_at("/a/b"),
            put_at("/ab"),
            patch.clone(),
            put_at("/a"),
            patch,
        ] {
            record.data_applied(&change);
        }
        assert_eq!(paths(&record), ["put /ab", "put /a", "patch /a/b"]);
        record.data_applied(&StoreChange::Delete {
            path: DataPath::parse("/a").unwrap(),
        });
        assert_eq!(paths(&record), ["put /ab", "delete /a"]);
    }

    fn append(path: &str) -> StoreChange {
        let operations = r#"[{"op":"add","path":"/-","value":1}]"#;
        StoreChange::Patch {
            path: DataPath::parse(path).unwrap(),
            operations: serde_json::from_str(operations).unwrap(),
        }
    }

    #[test]
    fn any_number_of_patches_of_a_published_document_is_kept() {
        let mut record = Record::default();
        record.data_applied(&StoreChange::Put {
            path: DataPath::parse("/log").unwrap(),
            document: Document::parse("[]").unwrap(),
        });
        let count = MOST_PATCHES * 2 + 5;
        for _ in 0..count {
            record.data_applied(&append("/log"));
        }
        assert!(!record.is_incomplete());
        let store = crate::policy_store::MemoryStore::new();
        let replay = record.replay().unwrap();
        assert!(replay.len() < MOST_PATCHES);
        store.apply_now(replay);
        let log = store.data()["log"].as_array().unwrap().len();
        assert_eq!(log, count);
    }

    #[test]
    fn a_record_that_forgot_is_whole_once_everything_was_written_again() {
        let mut record = Record::default();
        let overflow = |record: &mut Record| {
            for _ in 0..=MOST_PATCHES {
                record.data_applied(&append("/static"));
            }
        };
        overflow(&mut record);
        assert!(record.is_incomplete() && record.needs_renewal());
        record.renewal_began();
        assert!(record.is_incomplete() && !record.needs_renewal());
        record.renewed();
        assert!(!record.is_incomplete());

        overflow(&mut record);
        record.renewal_began();
        overflow(&mut record);
        record.renewed();
        assert!(record.needs_renewal(), "some of it was forgotten again");
    }
}
