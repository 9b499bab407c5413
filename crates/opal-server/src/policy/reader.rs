//! Makes bundles and keeps them: each is made once, whoever and however many ask.

use std::sync::Arc;

use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use opal_protocol::{CommitHash, PolicyBundle, RepoPath};
use tokio::sync::Semaphore;
use tracing::warn;

use super::bundle::Plan;
use super::disk::blocking;
use super::error::BundleError;
use super::git::GitError;
use super::git::clone::CloneDir;
use super::git::objects::{Change, Contents, Revision};
use super::git::remote::Git;
use super::selection::Selection;
use super::view::CommitView;

/// Encoded bundles that are kept, in bytes.
const BUNDLES: u64 = 64 * 1024 * 1024;
/// Listings of commits, and of changes, that are kept, in bytes each.
const LISTINGS: u64 = 32 * 1024 * 1024;
/// Resolved revision expressions that are kept.
const REVISIONS: u64 = 4096;
/// Child processes that read at the same time.
const PROCESSES: usize = 8;

type CommitPair = (CommitHash, CommitHash);

/// One request: the head, what changed since when, in which directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BundleKey {
    head: CommitHash,
    base: Option<CommitHash>,
    directories: Vec<RepoPath>,
}

/// Reads a clone. Everything it keeps is keyed by commit ids, so it outlives the clone.
pub(super) struct Reader {
    git: Arc<Git>,
    selection: Arc<Selection>,
    processes: Semaphore,
    revisions: Cache<(String, CommitHash), Revision>,
    views: Cache<CommitHash, Arc<CommitView>>,
    changes: Cache<CommitPair, Arc<Vec<Change>>>,
    bundles: Cache<BundleKey, Bytes>,
}

impl Reader {
    pub(super) fn new(git: Arc<Git>, selection: Selection) -> Self {
        Self {
            git,
            selection: Arc::new(selection),
            processes: Semaphore::new(PROCESSES),
            revisions: Cache::new(REVISIONS),
            views: weighed(LISTINGS, |view: &Arc<CommitView>| view.size()),
            changes: weighed(LISTINGS, |changes: &Arc<Vec<Change>>| {
                changes.len() * 400 + 100
            }),
            bundles: weighed(BUNDLES, |bundle: &Bytes| bundle.len() + 400),
        }
    }

    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The encoded bundle of `directories` at `head`: complete, or what changed since `base`.
    pub(super) async fn bundle(
        &self,
        clone: &CloneDir,
        head: &CommitHash,
        directories: Vec<RepoPath>,
        base: Option<&str>,
    ) -> Result<Bytes, BundleError> {
        let base = match base {
            Some(expression) => self.base(clone, head, expression).await,
            None => Revision::Unknown,
        };
        let base = match base {
            Revision::Commit(commit) => Some(commit),
            // As upstream: what is unknown is answered with everything.
            Revision::Unknown => None,
            Revision::Other => {
                self.check_paths(clone, head, &directories).await?;
                return Err(BundleError::NotACommit {
                    base: String::new(),
                });
            }
        };
        let key = BundleKey {
            head: head.clone(),
            base,
            directories,
        };
        if let Some(bundle) = self.bundles.get(&key).await {
            return Ok(bundle);
        }
        let make = self.make(clone, key.clone());
        let made = self.bundles.try_get_with(key, make).await;
        made.map_err(|error| (*error).clone())
    }

    async fn make(&self, clone: &CloneDir, key: BundleKey) -> Result<Bytes, BundleError> {
        let view = self.check_paths(clone, &key.head, &key.directories).await?;
        let plan = self.plan(clone, &view, key).await?;
        let contents = self.contents(clone, &plan).await?;
        aside(move || encode(&plan.fill(&view, &contents)?)).await
    }

    async fn check_paths(
        &self,
        clone: &CloneDir,
        head: &CommitHash,
        directories: &[RepoPath],
    ) -> Result<Arc<CommitView>, BundleError> {
        let view = self.view(clone, head).await.map_err(unreadable)?;
        let directories = directories.to_vec();
        aside(
            move || match directories.into_iter().find(|path| !view.contains(path)) {
                Some(path) => Err(BundleError::PathNotFound { path }),
                None => Ok(view),
            },
        )
        .await
    }

    async fn plan(
        &self,
        clone: &CloneDir,
        view: &Arc<CommitView>,
        key: BundleKey,
    ) -> Result<Plan, BundleError> {
        let (selection, directories) = (self.selection.clone(), key.directories);
        if let Some(base) = key.base {
            match self.changes(clone, &base, &key.head).await {
                Ok(changes) => {
                    let plan = move || Plan::diff(base, &changes, &selection, &directories);
                    return aside(plan).await;
                }
                Err(error) => {
                    warn!(%error, policy.base = %base, "Could not compare {base}..{}: sending everything", key.head);
                }
            }
        }
        let view = view.clone();
        aside(move || Plan::complete(&view, &selection, &directories)).await
    }

    async fn contents(&self, clone: &CloneDir, plan: &Plan) -> Result<Contents, BundleError> {
        let _permit = self.processes.acquire().await;
        let contents = self.git.contents(clone.git_dir(), &plan.ids()).await;
        contents.map_err(|error| unreadable(Arc::new(error)))
    }

    /// The files of a commit.
    pub(super) async fn view(
        &self,
        clone: &CloneDir,
        commit: &CommitHash,
    ) -> Result<Arc<CommitView>, Arc<GitError>> {
        let load = async {
            let _permit = self.processes.acquire().await;
            let view = CommitView::load(&self.git, clone.git_dir(), commit, &self.selection);
            view.await.map(Arc::new)
        };
        self.views.try_get_with(commit.clone(), load).await
    }

    /// What changed between two commits.
    pub(super) async fn changes(
        &self,
        clone: &CloneDir,
        old: &CommitHash,
        new: &CommitHash,
    ) -> Result<Arc<Vec<Change>>, Arc<GitError>> {
        let load = async {
            let _permit = self.processes.acquire().await;
            let changes = self.git.changes(clone.git_dir(), old, new);
            changes.await.map(Arc::new)
        };
        let pair = (old.clone(), new.clone());
        self.changes.try_get_with(pair, load).await
    }

    /// What a client says it has. A lookup that failed counts as unknown, for this request.
    async fn base(&self, clone: &CloneDir, head: &CommitHash, expression: &str) -> Revision {
        let revision = self.revision(clone, head, expression).await;
        revision.unwrap_or_else(|error| {
            warn!(%error, "Could not look up the base `{expression}`: sending everything");
            Revision::Unknown
        })
    }

    /// What `expression` names while the clone is at `head`.
    pub(super) async fn revision(
        &self,
        clone: &CloneDir,
        head: &CommitHash,
        expression: &str,
    ) -> Result<Revision, Arc<GitError>> {
        if expression == head.as_str() {
            return Ok(Revision::Commit(head.clone()));
        }
        if !is_plain_expression(expression) {
            return Ok(Revision::Unknown);
        }
        let resolve = async {
            let _permit = self.processes.acquire().await;
            self.git.resolve(clone.git_dir(), expression).await
        };
        let key = (expression.to_owned(), head.clone());
        self.revisions.try_get_with(key, resolve).await
    }
}

fn weighed<K, V>(bytes: u64, size: fn(&V) -> usize) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(bytes)
        .weigher(move |_, value| u32::try_from(size(value)).unwrap_or(u32::MAX))
        // What is asked for now matters; what was popular at an older commit does not.
        .eviction_policy(EvictionPolicy::lru())
        .build()
}

/// Does what takes long for large repositories.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    blocking(work).await.unwrap_or_else(|error| {
        let problem = error.to_string();
        Err(BundleError::NotMade { problem })
    })
}

fn unreadable(source: Arc<GitError>) -> BundleError {
    BundleError::Unreadable { source }
}

fn encode(bundle: &PolicyBundle) -> Result<Bytes, BundleError> {
    let encoded = serde_json::to_vec(bundle).map_err(|error| BundleError::NotMade {
        problem: error.to_string(),
    })?;
    Ok(encoded.into())
}

/// Whether git may be asked what this names: short, one line, and no search through history.
fn is_plain_expression(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "._/-~^@{}:+".contains(c);
    !text.is_empty()
        && text.len() <= 256
        && !text.starts_with(['-', ':'])
        && !text.contains("^{/")
        && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_expressions_reach_git() {
        for text in [
            "main",
            "HEAD~1",
            "HEAD^{tree}",
            "v1.0-2-gabc",
            "feature/é",
            "HEAD:app",
        ] {
            assert!(is_plain_expression(text), "{text}");
        }
        let long = "a".repeat(300);
        for text in [
            "",
            "-h",
            "--upload-pack=x",
            ":/secret",
            "HEAD^{/x}",
            "a b",
            "a\nb",
            &long,
        ] {
            assert!(!is_plain_expression(text), "{text}");
        }
    }
}
