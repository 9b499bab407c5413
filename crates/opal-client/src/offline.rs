//! The offline file: what the engine holds, so that a client can start from it while the server is
//! away, and resume from where it was when the server is there.
//!
//! [`OfflineFile`] writes a [`Copy`] and reads a [`Saved`]; both block. A file is replaced as a
//! whole: whoever reads it finds all of one copy. A position lies in the same file as the data that
//! it stands for, and is of use only to a client that follows the same ([`Identity`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use opal_protocol::{RepoPath, ScopeId, Topic};
use serde::{Deserialize, Serialize, Serializer};

mod contents;
mod file;

pub(crate) use contents::{Copy, Saved};
pub(crate) use file::OfflineFile;

/// Where the offline file is, and how often it is written.
#[derive(Debug, Clone)]
pub struct OfflineConfig {
    /// The file.
    pub path: PathBuf,
    /// The pause between two writes.
    pub interval: Duration,
}

/// What a client follows: a position means nothing to one that follows something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) scope: ScopeId,
    /// Those subscribed to, in order.
    pub(crate) topics: Vec<Topic>,
    pub(crate) directories: Vec<RepoPath>,
}

impl Identity {
    /// Of a client that subscribes to `topics` and asks for `directories`.
    pub(crate) fn new(scope: ScopeId, topics: &[Topic], directories: &[RepoPath]) -> Self {
        let (mut topics, mut directories) = (topics.to_vec(), directories.to_vec());
        topics.sort();
        directories.sort();
        Self {
            scope,
            topics,
            directories,
        }
    }
}

/// How the offline file is, for people.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OfflineStatus {
    path: PathBuf,
    /// Whether the engine was filled from it.
    restored: bool,
    /// When it was last written by this process.
    #[serde(serialize_with = "shown")]
    saved: Option<DateTime<Utc>>,
    /// Why it cannot be used.
    error: Option<String>,
    /// Since when.
    #[serde(serialize_with = "shown")]
    since: Option<DateTime<Utc>>,
}

impl OfflineStatus {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            restored: false,
            saved: None,
            error: None,
            since: None,
        }
    }

    pub(crate) fn restored(&mut self) {
        self.restored = true;
    }

    pub(crate) fn saved(&mut self, now: DateTime<Utc>) {
        self.saved = Some(now);
        self.error = None;
        self.since = None;
    }

    pub(crate) fn failed(&mut self, error: String, now: DateTime<Utc>) {
        self.error = Some(error);
        self.since.get_or_insert(now);
    }
}

fn shown<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_some(&at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        None => serializer.serialize_none(),
    }
}
