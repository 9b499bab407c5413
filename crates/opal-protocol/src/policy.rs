//! Policy bundles and the message that announces a new commit.
//!
//! The JSON is byte for byte that of Python OPAL 0.9.9: every member is always present, in this
//! order, without blanks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::CommitHash;
use crate::path::RepoPath;

/// The policy and static data of one commit, or the difference between two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyBundle {
    /// All module paths, in the order in which a store should take them.
    pub manifest: Vec<RepoPath>,
    /// The commit this bundle leads to.
    pub hash: CommitHash,
    /// The commit this bundle starts from. Present: a diff, even when nothing changed.
    #[serde(default)]
    pub old_hash: Option<CommitHash>,
    /// Static data: the `data.json` files.
    pub data_modules: Vec<DataModule>,
    /// Policy files.
    pub policy_modules: Vec<PolicyModule>,
    /// What a diff removes; absent in a complete bundle and when nothing was removed.
    #[serde(default)]
    pub deleted_files: Option<DeletedFiles>,
}

impl PolicyBundle {
    /// Whether this bundle only says what changed since [`PolicyBundle::old_hash`].
    pub fn is_diff(&self) -> bool {
        self.old_hash.is_some()
    }
}

/// One `data.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataModule {
    /// The directory of the file, `.` for the root: where its content belongs in the data tree.
    pub path: RepoPath,
    /// The text of the file, not parsed.
    pub data: String,
}

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyModule {
    /// The path of the file, which is the policy's id in the store.
    pub path: RepoPath,
    /// The package it declares, `""` if none was found. Informational.
    pub package_name: String,
    /// The text of the file.
    pub rego: String,
}

/// What a diff bundle removes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFiles {
    /// Directories whose `data.json` is gone.
    pub data_modules: Vec<RepoPath>,
    /// Policy files that are gone, in the order in which a store should drop them.
    pub policy_modules: Vec<RepoPath>,
}

/// Announces that the policy repository moved from one commit to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyUpdateMessage {
    /// The commit announced before; equal to the new one for "take everything".
    pub old_policy_hash: CommitHash,
    /// The commit that is current now.
    pub new_policy_hash: CommitHash,
    /// Every directory with a change below it, sorted, `.` for the root.
    pub changed_directories: Vec<RepoPath>,
}

/// The digest of a set of policies, path to text: equal for equal sets, whatever order they came in.
///
/// Hexadecimal SHA-256 over the length and bytes of each path and text, by path.
pub fn policy_digest<P: AsRef<str> + Ord, T: AsRef<str>>(policies: &BTreeMap<P, T>) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    for (path, text) in policies {
        part(path.as_ref());
        part(text.as_ref());
    }
    hex::encode(hash.finalize())
}
