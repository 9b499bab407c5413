//! Keeps the clone at the remote's head: makes it, fetches into it, replaces it when damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use opal_protocol::{CommitHash, RedactedUrl};
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use super::disk::blocking;
use super::error::SourceError;
use super::git::GitError;
use super::git::clone::{CloneDir, remove_leftovers};
use super::git::remote::{Git, RemoteBranches};
use super::repo::{Shared, State};
use super::settings::GitSettings;

/// Fetches that fail though the remote answers, before the clone itself is blamed.
const PATIENCE: u32 = 3;
/// New commits between two looks at whether the clone needs packing.
const TIDY_EVERY: u32 = 50;

/// The one writer of the clone.
#[derive(Debug)]
pub(super) struct Tracker {
    git: Arc<Git>,
    settings: Arc<GitSettings>,
    shared: Arc<Shared>,
    /// Reading found something missing.
    suspect: AtomicBool,
    counters: Mutex<Counters>,
    /// Held by work on the disk, which goes on when its sync is dropped: the next one waits.
    disk: Arc<std::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    failed_fetches: u32,
    new_commits: u32,
}

impl Tracker {
    pub(super) fn new(git: Arc<Git>, settings: Arc<GitSettings>, shared: Arc<Shared>) -> Self {
        Self {
            git,
            settings,
            shared,
            suspect: AtomicBool::new(false),
            counters: Mutex::default(),
            disk: Arc::default(),
        }
    }

    /// Makes the next sync replace the clone. Whether that is news.
    pub(super) fn suspect_clone(&self) -> bool {
        !self.suspect.swap(true, Ordering::Relaxed)
    }

    /// Brings the clone to the remote's head.
    pub(super) async fn sync(&self) -> Result<CommitHash, SourceError> {
        let mut counters = self.counters.lock().await;
        self.git.prepare_key().await?;
        match self.shared.get() {
            State::At(..) if self.suspect.load(Ordering::Relaxed) => {
                warn!(repo.url = %self.url(), "The clone of `{}` is damaged: cloning again", self.url());
                self.replace(&mut counters).await
            }
            State::At(clone, head) => self.update(&mut counters, clone, &head).await,
            State::Absent | State::Empty => self.start(&mut counters).await,
        }
    }

    /// The first clone, or the one that an earlier process kept.
    async fn start(&self, counters: &mut Counters) -> Result<CommitHash, SourceError> {
        let parent = self.settings.clone_parent();
        let prefix = self.settings.clone_prefix.clone();
        let prepare = move |parent: &Path| {
            std::fs::create_dir_all(parent)?;
            remove_leftovers(parent, &prefix)
        };
        self.on_disk(parent, prepare).await?;
        if self.settings.reuse_clone
            && let Some((clone, head)) = self.open_kept().await?
        {
            self.shared.set(State::At(clone.clone(), head.clone()));
            return self.update(counters, clone, &head).await;
        }
        self.replace(counters).await
    }

    /// The kept clone, if it is there, free, of this repository, and readable.
    async fn open_kept(&self) -> Result<Option<(Arc<CloneDir>, CommitHash)>, SourceError> {
        let place = self.settings.kept_clone();
        let Some(clone) = self.on_disk(place.clone(), CloneDir::open).await? else {
            return Ok(None);
        };
        let directory = clone.git_dir();
        let origin = self.git.origin(directory).await.unwrap_or_default();
        let origin = RedactedUrl::new(origin).to_string();
        if origin != self.url().to_string() {
            let place = place.display();
            warn!(
                "The clone at `{place}` is of `{origin}`, not of `{}`: cloning again",
                self.url()
            );
            return Ok(None);
        }
        let pointed = self.git.point_head(directory).await;
        match (pointed, self.git.head(directory).await) {
            (Ok(()), Ok(head)) => Ok(Some((Arc::new(clone), head))),
            _ => Ok(None),
        }
    }

    /// Fetches into the clone that we have.
    async fn update(
        &self,
        counters: &mut Counters,
        clone: Arc<CloneDir>,
        before: &CommitHash,
    ) -> Result<CommitHash, SourceError> {
        let directory = clone.git_dir();
        let ours = clone.clone();
        let place = self.settings.clone_parent();
        let unlocked = self.on_disk(place, move |_| ours.remove_locks()).await;
        if unlocked.is_err() {
            return self.replace(counters).await;
        }
        if let Err(error) = self.git.fetch(directory).await {
            return self.after_failed_fetch(counters, directory, error).await;
        }
        counters.failed_fetches = 0;
        let Ok(head) = self.git.head(directory).await else {
            return self.replace(counters).await;
        };
        if head != *before {
            self.shared.set(State::At(clone.clone(), head.clone()));
            self.tidy(counters, directory).await;
        }
        Ok(head)
    }

    /// Finds out whose fault it was: the remote's, or our clone's.
    async fn after_failed_fetch(
        &self,
        counters: &mut Counters,
        directory: &Path,
        error: GitError,
    ) -> Result<CommitHash, SourceError> {
        if error.is_full_disk() {
            return Err(self.no_space(error));
        }
        if self.git.head(directory).await.is_err() {
            return self.replace(counters).await;
        }
        if !error.suggests_damage() {
            return Err(self.not_fetched(error));
        }
        match self.git.branches(directory).await {
            Ok(RemoteBranches::Empty) => Err(SourceError::Empty { url: self.url() }),
            Ok(RemoteBranches::OthersOnly) => Err(self.no_such_branch()),
            Ok(RemoteBranches::Ours { .. }) if !error.is_missing_branch() => {
                counters.failed_fetches += 1;
                if counters.failed_fetches < PATIENCE {
                    return Err(self.not_fetched(error));
                }
                self.replace(counters).await
            }
            Ok(RemoteBranches::Ours { .. }) | Err(_) => Err(self.not_fetched(error)),
        }
    }

    /// Clones beside what is there, then serves from the new clone.
    async fn replace(&self, counters: &mut Counters) -> Result<CommitHash, SourceError> {
        let clone = self.clone_fresh().await?;
        let head = self.git.head(clone.git_dir()).await;
        let head = head.map_err(|source| SourceError::Unreadable {
            url: self.url(),
            source: Arc::new(source),
        })?;
        self.serve(clone, &head).await?;
        info!(repo.url = %self.url(), policy.head = %head, "Cloned `{}` at {}", self.url(), head.short());
        self.suspect.store(false, Ordering::Relaxed);
        *counters = Counters::default();
        Ok(head)
    }

    async fn clone_fresh(&self) -> Result<CloneDir, SourceError> {
        let clone = self.empty_clone(false).await?;
        let branches = self.git.branches(clone.git_dir()).await;
        let clone = match branches.map_err(|error| self.not_fetched(error))? {
            RemoteBranches::Empty => {
                if let State::Absent = self.shared.get() {
                    self.shared.set(State::Empty);
                }
                return Err(SourceError::Empty { url: self.url() });
            }
            RemoteBranches::OthersOnly => return Err(self.no_such_branch()),
            RemoteBranches::Ours { sha256: true } => self.empty_clone(true).await?,
            RemoteBranches::Ours { sha256: false } => clone,
        };
        let fetched = self.git.fetch(clone.git_dir()).await;
        fetched.map_err(|error| self.not_fetched(error))?;
        Ok(clone)
    }

    async fn empty_clone(&self, sha256: bool) -> Result<CloneDir, SourceError> {
        let prefix = self.settings.clone_prefix.clone();
        let create = move |parent: &Path| {
            std::fs::create_dir_all(parent)?;
            CloneDir::create(parent, &prefix)
        };
        let clone = self.on_disk(self.settings.clone_parent(), create).await?;
        let made = self.git.init(clone.git_dir(), sha256).await;
        made.map_err(|source| match source.is_full_disk() {
            true => self.no_space(source),
            false => SourceError::Unreadable {
                url: self.url(),
                source: Arc::new(source),
            },
        })?;
        Ok(clone)
    }

    /// Serves from a new clone, which moves to where it is kept unless another process works there.
    async fn serve(&self, clone: CloneDir, head: &CommitHash) -> Result<(), SourceError> {
        let (shared, head) = (self.shared.clone(), head.clone());
        let keep = self.settings.reuse_clone;
        let ours = matches!(shared.get(), State::At(old, _) if old.is_kept());
        // In one go: a sync that is dropped must not leave the old state with the new directory.
        let serve = move |place: &Path| {
            let clone = match keep && (ours || !CloneDir::is_in_use(place)) {
                true => clone.keep_at(place)?,
                false => clone,
            };
            shared.set(State::At(Arc::new(clone), head));
            Ok(())
        };
        self.on_disk(self.settings.kept_clone(), serve).await
    }

    /// Packs the clone now and then. What fails here costs space, nothing else.
    async fn tidy(&self, counters: &mut Counters, directory: &Path) {
        counters.new_commits += 1;
        if counters.new_commits.is_multiple_of(TIDY_EVERY)
            && let Err(error) = self.git.tidy(directory).await
        {
            debug!(%error, "Could not tidy the clone of `{}`", self.url());
        }
    }

    /// Does what may block, with the directory that an error is about.
    async fn on_disk<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (at, disk) = (path.clone(), self.disk.clone());
        let work = move || {
            let _alone = disk.lock().unwrap_or_else(PoisonError::into_inner);
            work(&at)
        };
        let done = blocking(work).await;
        done.flatten()
            .map_err(|source| SourceError::CloneDirectory { path, source })
    }

    fn url(&self) -> RedactedUrl {
        self.settings.url.clone()
    }

    fn not_fetched(&self, source: GitError) -> SourceError {
        if source.is_full_disk() {
            return self.no_space(source);
        }
        let url = self.url();
        SourceError::Unreachable { url, source }
    }

    fn no_space(&self, source: GitError) -> SourceError {
        let path = self.settings.clone_parent();
        SourceError::NoSpace { path, source }
    }

    fn no_such_branch(&self) -> SourceError {
        SourceError::NoSuchBranch {
            url: self.url(),
            branch: self.settings.branch.clone(),
        }
    }
}
