//! One commit of the policy repository, without its contents.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use opal_protocol::{CommitHash, RepoPath};
use tracing::warn;

use super::disk::blocking;
use super::git::GitError;
use super::git::objects::{Listing, TreeFile};
use super::git::remote::Git;
use super::manifest::{MANIFEST, ManifestOrder, ManifestSource};
use super::selection::Selection;

/// The files of a commit and the order that its manifest asks for.
#[derive(Debug)]
pub(super) struct CommitView {
    /// The commit.
    pub(super) commit: CommitHash,
    /// Its regular files, in git's order.
    pub(super) files: Vec<TreeFile>,
    /// The order of modules.
    pub(super) order: ManifestOrder,
    directories: HashSet<String>,
}

impl CommitView {
    /// Lists `commit` and follows its manifests.
    pub(super) async fn load(
        git: &Git,
        git_dir: &Path,
        commit: &CommitHash,
        selection: &Arc<Selection>,
    ) -> Result<Self, GitError> {
        let listing = git.list(git_dir, commit).await?;
        if listing.symlinks > 0 {
            let links = listing.symlinks;
            warn!(policy.head = %commit, "Commit {} has {links} symbolic links: not served", commit.short());
        }
        let manifests = manifests(&listing, selection);
        let ids: Vec<&str> = manifests.iter().map(|file| file.id.as_str()).collect();
        let contents = git.contents(git_dir, &ids).await?;
        let texts = manifests
            .iter()
            .enumerate()
            .filter_map(|(at, file)| text(&file.path, contents.get(at)))
            .collect();
        let (commit, selection) = (commit.clone(), selection.clone());
        let viewed = blocking(move || Self::new(commit, listing, &texts, &selection)).await;
        viewed.map_err(|source| GitError::NotRead {
            operation: "ls-tree",
            source,
        })
    }

    fn new(
        commit: CommitHash,
        listing: Listing,
        manifests: &HashMap<String, String>,
        selection: &Selection,
    ) -> Self {
        let directories: HashSet<String> = listing.directories.into_iter().collect();
        let order = if manifests.is_empty() {
            ManifestOrder::default()
        } else {
            let files = listing
                .files
                .iter()
                .map(|file| file.path.as_str())
                .collect();
            let source = Named {
                files,
                directories: &directories,
                manifests,
            };
            ManifestOrder::compile(&source, selection)
        };
        Self {
            commit,
            files: listing.files,
            order,
            directories,
        }
    }

    /// Whether `path` is a directory or a file of the commit.
    pub(super) fn contains(&self, path: &RepoPath) -> bool {
        path.is_root()
            || self.directories.contains(path.as_str())
            || self.files.iter().any(|file| file.path == path.as_str())
    }

    /// About how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        let names: usize = self.files.iter().map(|file| file.path.len()).sum();
        names + self.files.len() * 160 + self.directories.len() * 80
    }
}

/// Every file that could be a manifest: a small number in any repository.
fn manifests<'a>(listing: &'a Listing, selection: &Selection) -> Vec<&'a TreeFile> {
    let root = selection.manifest_path();
    let is_manifest = |file: &&TreeFile| {
        let name = file.path.rsplit('/').next();
        name == Some(MANIFEST) || root.as_ref().is_some_and(|root| root.as_str() == file.path)
    };
    listing.files.iter().filter(is_manifest).collect()
}

fn text(path: &str, content: &[u8]) -> Option<(String, String)> {
    let Ok(text) = std::str::from_utf8(content) else {
        warn!("The manifest `{path}` is not UTF-8: taken as empty");
        return None;
    };
    Some((path.to_owned(), text.to_owned()))
}

struct Named<'a> {
    files: HashSet<&'a str>,
    directories: &'a HashSet<String>,
    manifests: &'a HashMap<String, String>,
}

impl ManifestSource for Named<'_> {
    fn is_directory(&self, path: &RepoPath) -> bool {
        path.is_root() || self.directories.contains(path.as_str())
    }

    fn is_file(&self, path: &RepoPath) -> bool {
        self.files.contains(path.as_str())
    }

    fn manifest(&self, path: &RepoPath) -> Option<&str> {
        self.manifests.get(path.as_str()).map(String::as_str)
    }
}
