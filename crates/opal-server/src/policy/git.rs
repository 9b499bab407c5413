//! The `git` program: the only module that knows it.
//!
//! [`process`] runs it with a deadline, [`remote`] talks to the repository that we follow,
//! [`clone`] owns a directory on disk, [`objects`] reads commits, trees and files.

pub(super) mod clone;
mod error;
pub(super) mod objects;
mod process;
mod redact;
pub(super) mod remote;
mod ssh;

pub use error::GitError;
