//! Policy: from a git repository to bundles and to announcements of new commits.
//!
//! The road of a commit: [`PolicyWatcher`] is triggered or polls → [`PolicyRepo::sync`] fetches →
//! [`PolicyRepo::announcement`] names the changed directories → [`AnnouncePolicy`] publishes them →
//! a client asks, and [`PolicyRepo::bundle`] answers with everything or with what changed.
//!
//! | Module | What it knows |
//! | --- | --- |
//! | `git` | the `git` program: child processes with deadlines, clones, reading objects |
//! | `selection` | which files are served |
//! | `view`, `manifest` | one commit's files and the order that its manifest asks for |
//! | `bundle`, `announcement` | pure: files and changes → what clients are sent |
//! | `repo` | the handle: one clone and its head |
//! | `tracker` | clones, fetches, repairs: the one writer |
//! | `reader` | reads, makes bundles and keeps them |
//! | `disk` | how to do work that blocks |
//! | `watcher` | when to look, and what to do when looking fails |
//!
//! Git is the `git` program for the network and for reading alike: the user's SSH configuration,
//! credential helpers and proxies count, renames are those that git finds, and one deadline rule
//! covers all of it. Nothing is ever checked out. It must be git 2.31 or newer.
//!
//! # Differences from released OPAL
//!
//! - A rename that crosses the border of what is served (directories, suffixes, ignored paths) is
//!   an addition or a removal, whichever the client sees; there the two sides are mixed.
//! - A file that was renamed and edited is in a diff once, among the renamed; there it is also
//!   among the modified.
//! - Symbolic links are not served; there the target's name is taken for the content.
//! - An unknown `base_hash` gives the complete bundle, as was meant there.

mod announcement;
pub(crate) mod api;
mod bundle;
mod disk;
mod error;
mod git;
mod manifest;
mod reader;
pub(crate) mod refresh;
mod repo;
mod selection;
mod settings;
mod tracker;
mod view;
mod watcher;
pub mod webhook;

pub use error::{BundleError, SourceError};
pub use git::GitError;
pub use repo::PolicyRepo;
pub use selection::Selection;
pub use settings::GitSettings;
pub use watcher::{AnnounceError, AnnouncePolicy, PolicyWatcher, WatcherHandle, WatcherStatus};
