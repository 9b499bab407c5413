//! The policy repository: a clone that follows its remote, and what is made from it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use opal_protocol::{CommitHash, PolicyUpdateMessage, RedactedUrl, RepoPath};
use tokio::sync::Notify;

use super::announcement::{all_directories, changed_directories};
use super::error::{BundleError, SourceError};
use super::git::GitError;
use super::git::clone::CloneDir;
use super::git::objects::Revision;
use super::git::remote::Git;
use super::reader::Reader;
use super::selection::Selection;
use super::settings::GitSettings;
use super::tracker::Tracker;

/// What can be served.
#[derive(Debug, Default, Clone)]
pub(super) enum State {
    /// Nothing was fetched yet.
    #[default]
    Absent,
    /// The remote answered, and has no branches.
    Empty,
    /// A clone at a commit.
    At(Arc<CloneDir>, CommitHash),
}

/// What the tracker writes and requests read. Locked only to copy it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: RwLock<State>,
    damage: Notify,
}

impl Shared {
    pub(super) fn get(&self) -> State {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    pub(super) fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// A handle on the policy repository. Cheap to clone.
#[derive(Clone)]
pub struct PolicyRepo {
    inner: Arc<Inner>,
}

impl fmt::Debug for PolicyRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyRepo")
            .field("url", &self.inner.settings.url)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

struct Inner {
    settings: Arc<GitSettings>,
    shared: Arc<Shared>,
    tracker: Tracker,
    reader: Reader,
}

impl PolicyRepo {
    /// Names the repository. Nothing is read or fetched before [`PolicyRepo::sync`].
    pub fn new(settings: GitSettings, selection: Selection) -> Self {
        let settings = Arc::new(settings);
        let git = Arc::new(Git::new(settings.clone()));
        let shared = Arc::new(Shared::default());
        let inner = Inner {
            tracker: Tracker::new(git.clone(), settings.clone(), shared.clone()),
            reader: Reader::new(git, selection),
            settings,
            shared,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// How it is reached.
    pub fn settings(&self) -> &GitSettings {
        &self.inner.settings
    }

    /// Brings the clone to the remote's head: clones if there is none, or if it is damaged.
    ///
    /// On an error the last commit is still served. Calls run one after the other. Cancel-safe: a
    /// `git` that runs is killed, and the clone is as before or as after.
    pub async fn sync(&self) -> Result<CommitHash, SourceError> {
        self.inner.tracker.sync().await
    }

    /// The commit that bundles are made from.
    pub fn head(&self) -> Option<CommitHash> {
        match self.inner.shared.get() {
            State::At(_, head) => Some(head),
            State::Absent | State::Empty => None,
        }
    }

    /// The JSON of a [`PolicyBundle`](opal_protocol::PolicyBundle) of the head commit.
    ///
    /// It holds what lies in `directories` (none: everything), which are normalised paths. With a `base` that is a commit it
    /// holds what changed since; a base that is unknown gives the complete bundle. Equal requests
    /// at the same time share the work, later ones its result.
    pub async fn bundle(
        &self,
        directories: &[RepoPath],
        base: Option<&str>,
    ) -> Result<Bytes, BundleError> {
        let (clone, head) = match self.inner.shared.get() {
            State::Absent => return Err(BundleError::NotCloned),
            State::Empty => return Err(BundleError::NotReady),
            State::At(clone, head) => (clone, head),
        };
        let mut directories = directories.to_vec();
        directories.sort();
        directories.dedup();
        if directories.is_empty() {
            directories.push(RepoPath::root());
        }
        let base = base.filter(|base| !base.is_empty());
        let bundle = self.inner.reader.bundle(&clone, &head, directories, base);
        bundle.await.map_err(|error| self.noted(error, base))
    }

    /// Completes an error, and sees to it that a damaged clone is repaired.
    fn noted(&self, error: BundleError, base: Option<&str>) -> BundleError {
        match error {
            BundleError::NotACommit { .. } => BundleError::NotACommit {
                base: base.unwrap_or_default().to_owned(),
            },
            BundleError::Unreadable { source } => {
                self.note_damage(&source);
                BundleError::Unreadable { source }
            }
            other => other,
        }
    }

    fn note_damage(&self, error: &GitError) {
        if error.suggests_damage() && self.inner.tracker.suspect_clone() {
            self.inner.shared.damage.notify_one();
        }
    }

    /// Returns when reading the clone has failed in a way that the next sync repairs.
    pub(super) async fn damage_noticed(&self) {
        self.inner.shared.damage.notified().await;
    }

    /// What to tell clients about the way from `old` to `new`; `None` if no tracked file changed.
    ///
    /// Without `old`, and if `old` is not in the clone any more, it says "take everything": both
    /// hashes are the new one, and all directories are listed.
    pub async fn announcement(
        &self,
        old: Option<&CommitHash>,
        new: &CommitHash,
    ) -> Result<Option<PolicyUpdateMessage>, SourceError> {
        let State::At(clone, head) = self.inner.shared.get() else {
            return Err(SourceError::NotCloned { url: self.url() });
        };
        let reader = &self.inner.reader;
        if let Some(old) = old.filter(|old| *old != new) {
            match reader.changes(&clone, old, new).await {
                Ok(changes) => {
                    let directories = changed_directories(&changes, reader.selection());
                    return Ok(message(old, new, directories));
                }
                Err(error) => {
                    let known = reader.revision(&clone, &head, old.as_str()).await;
                    if !matches!(known, Ok(Revision::Unknown | Revision::Other)) {
                        return Err(self.unreadable(error));
                    }
                }
            }
        }
        let view = reader.view(&clone, new).await;
        let view = view.map_err(|error| self.unreadable(error))?;
        let directories = all_directories(&view, reader.selection());
        Ok(message(new, new, directories))
    }

    fn unreadable(&self, source: Arc<GitError>) -> SourceError {
        self.note_damage(&source);
        let url = self.url();
        SourceError::Unreadable { url, source }
    }

    fn url(&self) -> RedactedUrl {
        self.inner.settings.url.clone()
    }
}

fn message(
    old: &CommitHash,
    new: &CommitHash,
    directories: Vec<RepoPath>,
) -> Option<PolicyUpdateMessage> {
    (!directories.is_empty()).then(|| PolicyUpdateMessage {
        old_policy_hash: old.clone(),
        new_policy_hash: new.clone(),
        changed_directories: directories,
    })
}
