//! A remote, a place for clones, and what a store makes of bundles.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use opal_protocol::{
    ChainDigest, CommitHash, Epoch, PolicyBundle, PolicyUpdateMessage, Position, RedactedUrl,
    RepoPath, Revision,
};
use opal_pubsub::publisher::AnnouncedPolicy;
use opal_server::policy::{
    AnnounceError, AnnouncePolicy, GitSettings, PolicyRepo, PolicyWatcher, Selection,
    WatcherHandle, WatcherStatus,
};
use opal_testing::git_repo::TestRepo;
use opal_testing::wait;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn settings(url: &str, clones: &TempDir) -> GitSettings {
    GitSettings {
        url: RedactedUrl::from(url),
        branch: "main".to_owned(),
        ssh_key: None,
        ssh_key_file: clones.path().join("ssh/key"),
        clone_parent: clones.path().join("clones"),
        clone_prefix: "opal_repo_clone".to_owned(),
        reuse_clone: false,
        clone_timeout: None,
        operation_timeout: PATIENCE,
    }
}

/// A remote and our view of it.
pub(crate) struct Followed {
    pub(crate) remote: TestRepo,
    pub(crate) repo: PolicyRepo,
    pub(crate) clones: TempDir,
}

impl Followed {
    pub(crate) fn new(remote: TestRepo) -> Self {
        Self::with(remote, Selection::default())
    }

    pub(crate) fn with(remote: TestRepo, selection: Selection) -> Self {
        let clones = tempfile::tempdir().unwrap();
        let repo = PolicyRepo::new(settings(&remote.url(), &clones), selection);
        Self {
            remote,
            repo,
            clones,
        }
    }

    /// Every clone that is on disk.
    pub(crate) fn clone_directories(&self) -> Vec<PathBuf> {
        clone_directories(&self.clones)
    }

    pub(crate) async fn bundle(&self, directories: &[&str], base: Option<&str>) -> PolicyBundle {
        bundle(&self.repo, directories, base).await
    }
}

pub(crate) async fn bundle(
    repo: &PolicyRepo,
    directories: &[&str],
    base: Option<&str>,
) -> PolicyBundle {
    let directories: Vec<RepoPath> = directories.iter().map(|d| RepoPath::from(*d)).collect();
    let encoded = repo.bundle(&directories, base).await.unwrap();
    serde_json::from_slice(&encoded).unwrap()
}

fn clone_directories(clones: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(clones.path().join("clones"));
    let entries = entries.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until as many clones are on disk: those that are done with go a little later.
pub(crate) async fn until_clones(clones: &TempDir, count: usize) {
    let counted = async || {
        let found = clone_directories(clones);
        anyhow::ensure!(found.len() == count, "{found:?}");
        Ok(())
    };
    let waited = wait::until(format!("{count} clones"), counted).await;
    waited.unwrap();
}

/// What a policy store holds after bundles.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) policies: BTreeMap<String, String>,
    pub(crate) data: BTreeMap<String, String>,
}

impl Store {
    pub(crate) fn of(bundle: &PolicyBundle) -> Self {
        let mut store = Self::default();
        store.apply(bundle);
        store
    }

    pub(crate) fn apply(&mut self, bundle: &PolicyBundle) {
        if let Some(deleted) = &bundle.deleted_files {
            for path in &deleted.policy_modules {
                assert!(
                    self.policies.remove(path.as_str()).is_some(),
                    "{path} was not there"
                );
            }
            for path in &deleted.data_modules {
                assert!(
                    self.data.remove(path.as_str()).is_some(),
                    "{path} was not there"
                );
            }
        }
        for module in &bundle.policy_modules {
            self.policies
                .insert(module.path.to_string(), module.rego.clone());
        }
        for module in &bundle.data_modules {
            self.data
                .insert(module.path.to_string(), module.data.clone());
        }
    }
}

/// Notes announcements; fails the first few if told to.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    state: Mutex<(Vec<PolicyUpdateMessage>, u32)>,
    before: Option<CommitHash>,
}

impl Announcements {
    pub(crate) fn failing(times: u32) -> Self {
        Self {
            state: Mutex::new((Vec::new(), times)),
            before: None,
        }
    }

    /// As after a restart: `commit` was announced before.
    pub(crate) fn after(commit: &CommitHash) -> Self {
        Self {
            before: Some(commit.clone()),
            ..Self::default()
        }
    }

    pub(crate) fn all(&self) -> Vec<PolicyUpdateMessage> {
        self.state.lock().unwrap().0.clone()
    }
}

#[async_trait]
impl AnnouncePolicy for Announcements {
    async fn announced(&self) -> Result<Option<AnnouncedPolicy>, AnnounceError> {
        let before = self.before.clone();
        Ok(before.map(|commit| AnnouncedPolicy {
            commit,
            position: position(7),
        }))
    }

    async fn announce(&self, update: PolicyUpdateMessage) -> Result<Position, AnnounceError> {
        let mut state = self.state.lock().unwrap();
        if state.1 > 0 {
            state.1 -= 1;
            return Err("the publisher is down".into());
        }
        state.0.push(update);
        Ok(position(state.0.len() as u64))
    }
}

fn position(revision: u64) -> Position {
    Position {
        epoch: Epoch(1),
        revision: Revision(revision),
        digest: ChainDigest::default(),
    }
}

/// A watcher that runs until this is dropped.
pub(crate) struct Watching {
    pub(crate) handle: WatcherHandle,
    pub(crate) announcements: Arc<Announcements>,
    _task: JoinSet<()>,
}

impl Watching {
    pub(crate) fn start(repo: &PolicyRepo, announcements: Announcements) -> Self {
        Self::polling(repo, announcements, None)
    }

    pub(crate) fn polling(
        repo: &PolicyRepo,
        announcements: Announcements,
        interval: Option<Duration>,
    ) -> Self {
        let announcements = Arc::new(announcements);
        let (watcher, handle) = PolicyWatcher::new(repo.clone(), interval, announcements.clone());
        let mut task = JoinSet::new();
        task.spawn(watcher.run(CancellationToken::new()));
        Self {
            handle,
            announcements,
            _task: task,
        }
    }

    /// Waits until the watcher's status is as described.
    pub(crate) async fn until(
        &self,
        condition: impl FnMut(&WatcherStatus) -> bool,
    ) -> WatcherStatus {
        let mut status = self.handle.status();
        let waited = timeout(PATIENCE, status.wait_for(condition)).await;
        waited.expect("in time").unwrap().clone()
    }

    /// Triggers, and waits for the end of a round that began after that.
    pub(crate) async fn look(&self) -> WatcherStatus {
        let before = self.handle.status().borrow().rounds;
        self.handle.trigger();
        self.until(|status| status.rounds > before).await
    }
}
