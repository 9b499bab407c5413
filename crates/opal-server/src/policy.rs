//! Policy: from a git repository to bundles and to announcements of new commits.
//!
//! The road of a commit: [`PolicyWatcher`] is triggered or polls → [`PolicyRepo::sync`] fetches →
//! [`PolicyRepo::announcement`] names the changed directories → [`AnnouncePolicy`] publishes them →
//! a client asks, and [`PolicyRepo::bundle`] answers with everything or with what changed.
//!
//! | Module | What it knows |
//! | --- | --- |
//! | `git` | the `git` program: child processes with deadlines, clones, reading objects |
//! | `selection`, `glob` | which files are served |
//! | `view`, `manifest` | one commit's files and the order that its manifest asks for |
//! | `bundle`, `announcement` | pure: files and changes → what clients are sent |
//! | `repo` | the handle: one clone and its head |
//! | `tracker` | clones, fetches, repairs: the one writer |
//! | `reader` | reads, makes bundles and keeps them |
//! | `watcher` | when to look, and what to do when looking fails |
//!
//! Git is the `git` program for the network and for reading alike: the user's SSH configuration,
//! credential helpers and proxies count, renames are those that git finds, and one deadline rule
//! covers all of it. Nothing is ever checked out.

mod announcement;
mod bundle;
mod error;
mod git;
mod glob;
mod manifest;
mod reader;
mod repo;
mod selection;
mod settings;
mod tracker;
mod view;
mod watcher;

pub use error::{BundleError, SourceError};
pub use git::GitError;
pub use repo::PolicyRepo;
pub use selection::Selection;
pub use settings::GitSettings;
pub use watcher::{AnnounceError, AnnouncePolicy, PolicyWatcher, WatcherHandle, WatcherStatus};
