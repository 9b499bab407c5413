//! A fake policy repository: commits, and the bundles that a server makes of them.

use std::collections::{BTreeMap, BTreeSet};

use opal_protocol::policy::{DataModule, DeletedFiles, PolicyBundle, PolicyModule};
use opal_protocol::{CommitHash, RepoPath};
use rand::Rng;
use rand::seq::IndexedRandom;

/// The files of a commit by path.
pub type Files = BTreeMap<String, String>;

/// Commits, and which of them the remote's branch is at.
#[derive(Debug)]
pub struct Git {
    commits: BTreeMap<CommitHash, Files>,
    /// Every commit that the branch was at, in order.
    heads: Vec<CommitHash>,
    counter: u64,
}

const REGO: [&str; 4] = ["a/x.rego", "a/b/y.rego", "c/z.rego", "m.rego"];
const DATA: [&str; 5] = [
    "data.json",
    "p/data.json",
    "p/q/data.json",
    "a/data.json",
    "c/d/data.json",
];

impl Git {
    /// A repository with one commit.
    pub fn new(rng: &mut impl Rng) -> Self {
        let mut git = Self {
            commits: BTreeMap::new(),
            heads: Vec::new(),
            counter: 0,
        };
        git.commit_onto(Files::new(), rng);
        git
    }

    /// The commit that the branch is at.
    pub fn head(&self) -> CommitHash {
        self.heads.last().cloned().expect("there is a first commit")
    }

    /// The files of a commit; none of one that does not exist.
    pub fn files(&self, commit: &CommitHash) -> Option<&Files> {
        self.commits.get(commit)
    }

    /// A new commit on top of the branch.
    pub fn commit(&mut self, rng: &mut impl Rng) -> CommitHash {
        let files = self.commits.get(&self.head()).cloned();
        self.commit_onto(files.unwrap_or_default(), rng)
    }

    /// The branch goes back to one of its older commits, and on from there or not.
    pub fn force_push(&mut self, rng: &mut impl Rng) -> CommitHash {
        let back = self
            .heads
            .choose(rng)
            .cloned()
            .expect("there is a first commit");
        if rng.random_bool(0.5) {
            self.heads.push(back.clone());
            return back;
        }
        let files = self.commits.get(&back).cloned();
        self.commit_onto(files.unwrap_or_default(), rng)
    }

    fn commit_onto(&mut self, mut files: Files, rng: &mut impl Rng) -> CommitHash {
        self.counter += 1;
        for _ in 0..rng.random_range(1..=3) {
            self.edit(&mut files, rng);
        }
        let hash = format!("{:08x}{:032x}", self.counter, rng.random::<u128>());
        let hash = CommitHash::parse(&hash).expect("40 hexadecimal digits");
        self.commits.insert(hash.clone(), files);
        self.heads.push(hash.clone());
        hash
    }

    fn edit(&self, files: &mut Files, rng: &mut impl Rng) {
        let n = self.counter;
        let is_rego = rng.random_bool(0.6);
        let names: &[&str] = if is_rego { &REGO } else { &DATA };
        let path = names.choose(rng).copied().unwrap_or("m.rego");
        if rng.random_bool(0.25) && files.remove(path).is_some() {
            return;
        }
        let text = match path {
            _ if is_rego => format!("package p{n}\n"),
            "data.json" => format!(r#"{{"r{}":{n},"gone":null}}"#, n % 3),
            "p/data.json" => format!(r#"{{"q":{{"above":{n}}},"own":{n}}}"#),
            _ => format!(r#"{{"n":{n},"list":[{n}]}}"#),
        };
        files.insert(path.to_owned(), text);
    }

    /// The bundle of `head` for these directories: what changed since `base` if that is known,
    /// everything otherwise.
    pub fn bundle(
        &self,
        head: &CommitHash,
        directories: &[RepoPath],
        base: Option<&CommitHash>,
    ) -> PolicyBundle {
        let empty = Files::new();
        let files = selected(self.files(head).unwrap_or(&empty), directories);
        let old = base.and_then(|base| self.files(base));
        let old_files = old.map(|old| selected(old, directories));
        let changed: Vec<(&String, &String)> = files
            .iter()
            .filter(|(path, text)| {
                let before = old_files.as_ref().and_then(|old| old.get(*path));
                before != Some(text)
            })
            .map(|(path, text)| (*path, *text))
            .collect();
        let gone: Vec<&String> = old_files
            .iter()
            .flat_map(BTreeMap::keys)
            .filter(|path| !files.contains_key(*path))
            .copied()
            .collect();
        PolicyBundle {
            manifest: changed.iter().map(|(path, _)| repo(path)).collect(),
            hash: head.clone(),
            old_hash: base.filter(|_| old_files.is_some()).cloned(),
            data_modules: changed
                .iter()
                .filter(|(path, _)| !is_rego(path))
                .map(|(path, text)| DataModule {
                    path: repo(path).parent(),
                    data: (*text).clone(),
                })
                .collect(),
            policy_modules: changed
                .iter()
                .filter(|(path, _)| is_rego(path))
                .map(|(path, text)| PolicyModule {
                    path: repo(path),
                    package_name: String::new(),
                    rego: (*text).clone(),
                })
                .collect(),
            deleted_files: (!gone.is_empty()).then(|| deleted(&gone)),
        }
    }

    /// The directories above every file in which two commits differ.
    pub fn changed_directories(&self, old: Option<&CommitHash>, new: &CommitHash) -> Vec<RepoPath> {
        let empty = Files::new();
        let old = old.and_then(|old| self.files(old)).unwrap_or(&empty);
        let new = self.files(new).unwrap_or(&empty);
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = paths
            .into_iter()
            .filter(|path| old.get(*path) != new.get(*path));
        let mut above: BTreeSet<RepoPath> = BTreeSet::new();
        for path in changed {
            above.extend(repo(path).ancestors());
        }
        above.into_iter().collect()
    }
}

/// The files of a commit that are in these directories.
pub fn selected<'f>(
    files: &'f Files,
    directories: &[RepoPath],
) -> BTreeMap<&'f String, &'f String> {
    let is_ours = |path: &str| {
        let path = repo(path);
        directories
            .iter()
            .any(|directory| path.is_within(directory))
    };
    files.iter().filter(|(path, _)| is_ours(path)).collect()
}

fn deleted(paths: &[&String]) -> DeletedFiles {
    let (policies, data): (Vec<&&String>, Vec<&&String>) =
        paths.iter().partition(|path| is_rego(path));
    DeletedFiles {
        data_modules: data.iter().map(|path| repo(path).parent()).collect(),
        policy_modules: policies.iter().map(|path| repo(path)).collect(),
    }
}

fn is_rego(path: &str) -> bool {
    path.ends_with(".rego")
}

fn repo(path: &str) -> RepoPath {
    RepoPath::normalized(path)
}
