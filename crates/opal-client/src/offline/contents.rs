//! What is in the file: what released OPAL reads and writes, and beside it what is needed to come
//! back to exactly the same state.

use std::collections::BTreeMap;
use std::sync::Arc;

use opal_protocol::{
    CommitHash, DataPath, Document, PatchOperation, PolicyBundle, PolicyModule, Position, RepoPath,
    ScopeId, Topic,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Identity;
use crate::policy_store::{MemoryStore, StoreChange};

/// The only format of our part of the file.
pub(super) const FORMAT: u64 = 1;

/// What the engine holds, at one moment.
#[derive(Debug)]
pub(crate) struct Copy {
    /// The policies in the engine, id to text.
    pub(crate) policies: BTreeMap<String, String>,
    /// What to write into an empty engine, in order.
    pub(crate) changes: Vec<StoreChange>,
    /// The position that this stands for; none while anything is outstanding.
    pub(crate) position: Option<Position>,
    /// The commit of the policies.
    pub(crate) commit: Option<CommitHash>,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Saved {
    /// What to write into an empty engine, in order.
    pub(crate) changes: Vec<StoreChange>,
    /// The position that this stands for, for a client that follows what we follow.
    pub(crate) position: Option<Position>,
    /// The commit of the policies.
    pub(crate) commit: Option<CommitHash>,
    /// Whether a store that holds it has been filled with all that we follow, as far as is known.
    pub(crate) is_whole: bool,
}

/// Why a text is no offline file of ours.
#[derive(Debug)]
pub(super) enum Unusable {
    /// No JSON, or not of this shape; line and column.
    Damaged(usize, usize),
    /// Of a version that we do not know.
    Foreign(u64),
    /// Of another tenant.
    OtherScope(String),
}

#[derive(Serialize)]
struct Written<'c> {
    policies: &'c BTreeMap<String, String>,
    data: Value,
    opal: WrittenExactly<'c>,
}

#[derive(Serialize)]
struct WrittenExactly<'c> {
    format: u64,
    position: Option<Position>,
    commit: Option<&'c CommitHash>,
    scope: &'c ScopeId,
    topics: &'c [Topic],
    directories: &'c [RepoPath],
    changes: Vec<ChangeForm>,
}

#[derive(Deserialize)]
struct Read {
    policies: BTreeMap<String, String>,
    data: Document,
    #[serde(default)]
    opal: Option<Document>,
}

#[derive(Deserialize)]
struct ReadFormat {
    format: u64,
}

#[derive(Deserialize)]
struct ReadExactly {
    position: Option<Position>,
    commit: Option<CommitHash>,
    scope: ScopeId,
    topics: Vec<Topic>,
    directories: Vec<RepoPath>,
    changes: Vec<ChangeForm>,
}

/// A [`StoreChange`] in JSON. Paths are lists of segments, since a segment may hold a slash.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChangeForm {
    Bundle(Arc<PolicyBundle>),
    Put {
        path: Vec<String>,
        document: Document,
    },
    Patch {
        path: Vec<String>,
        operations: Vec<PatchOperation>,
    },
    Delete {
        path: Vec<String>,
    },
}

impl Copy {
    /// Writes this as a file of a client that follows `identity`.
    pub(super) fn write(
        self,
        identity: &Identity,
        to: impl std::io::Write,
    ) -> Result<(), serde_json::Error> {
        let scratch = MemoryStore::new();
        // What cannot be written there leaves no mark in `data`, which is for other readers.
        let _ = scratch.apply_now(self.changes.clone());
        let written = Written {
            policies: &self.policies,
            data: scratch.data(),
            opal: WrittenExactly {
                format: FORMAT,
                position: self.position,
                commit: self.commit.as_ref(),
                scope: &identity.scope,
                topics: &identity.topics,
                directories: &identity.directories,
                changes: self.changes.into_iter().map(ChangeForm::from).collect(),
            },
        };
        serde_json::to_writer(to, &written)
    }
}

impl Saved {
    /// Reads a file, for a client that follows `identity`.
    pub(super) fn read(text: &[u8], identity: &Identity) -> Result<Self, Unusable> {
        let Read {
            policies,
            data,
            opal,
        } = serde_json::from_slice(text)?;
        let Some(opal) = opal else {
            return released(policies, data);
        };
        let ReadFormat { format } = serde_json::from_str(opal.text())?;
        if format != FORMAT {
            return Err(Unusable::Foreign(format));
        }
        let exact: ReadExactly = serde_json::from_str(opal.text())?;
        if exact.scope != identity.scope {
            return Err(Unusable::OtherScope(exact.scope.to_string()));
        }
        let of = Identity::new(exact.scope, &exact.topics, &exact.directories);
        let is_ours = of == *identity;
        let changes = exact.changes.into_iter().map(StoreChange::from);
        Ok(Self {
            changes: changes.collect(),
            position: exact.position.filter(|_| is_ours),
            commit: exact.commit.filter(|_| is_ours),
            is_whole: is_ours,
        })
    }
}

impl From<serde_json::Error> for Unusable {
    /// Keeps the place only: the rest may quote what the file holds.
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.line(), error.column())
    }
}

/// What a file says that released OPAL wrote: it is of no known commit.
fn released(policies: BTreeMap<String, String>, data: Document) -> Result<Saved, Unusable> {
    if !data.is_object() {
        return Err(Unusable::Damaged(0, 0));
    }
    let module = |(id, rego): (String, String)| PolicyModule {
        path: RepoPath::from(id),
        package_name: String::new(),
        rego,
    };
    let policy_modules: Vec<PolicyModule> = policies.into_iter().map(module).collect();
    let bundle = PolicyBundle {
        manifest: policy_modules
            .iter()
            .map(|each| each.path.clone())
            .collect(),
        hash: CommitHash::parse(&"0".repeat(40)).ok_or(Unusable::Damaged(0, 0))?,
        old_hash: None,
        data_modules: Vec::new(),
        policy_modules,
        deleted_files: None,
    };
    let data = StoreChange::Put {
        path: DataPath::root(),
        document: data,
    };
    Ok(Saved {
        changes: vec![StoreChange::Bundle(Arc::new(bundle)), data],
        position: None,
        commit: None,
        is_whole: true,
    })
}

impl From<StoreChange> for ChangeForm {
    fn from(change: StoreChange) -> Self {
        let segments = |path: &DataPath| path.segments().to_vec();
        match change {
            StoreChange::Bundle(bundle) => Self::Bundle(bundle),
            StoreChange::Put { path, document } => Self::Put {
                path: segments(&path),
                document,
            },
            StoreChange::Patch { path, operations } => Self::Patch {
                path: segments(&path),
                operations,
            },
            StoreChange::Delete { path } => Self::Delete {
                path: segments(&path),
            },
        }
    }
}

impl From<ChangeForm> for StoreChange {
    fn from(form: ChangeForm) -> Self {
        match form {
            ChangeForm::Bundle(bundle) => Self::Bundle(bundle),
            ChangeForm::Put { path, document } => Self::Put {
                path: DataPath::from_segments(path),
                document,
            },
            ChangeForm::Patch { path, operations } => Self::Patch {
                path: DataPath::from_segments(path),
                operations,
            },
            ChangeForm::Delete { path } => Self::Delete {
                path: DataPath::from_segments(path),
            },
        }
    }
}
