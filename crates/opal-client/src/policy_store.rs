//! Where documents and bundles end up: one small trait over every policy engine.
//!
//! [`PolicyStore`] takes batches of [`StoreChange`]s and answers an outcome for each. What a
//! bundle and a document *mean* is decided once, in pure functions that all stores share:
//! `static_data` (which data a bundle writes and removes, in which order), `document` (nulls, lists at
//! the root), `patch` (RFC 6902). The stores only execute:
//!
//! - [`MemoryStore`]: in memory, for tests (`OPAL_POLICY_STORE_TYPE=MOCK`).
//! - [`OpaStore`]: OPA over REST, beside us or elsewhere.
//! - [`EmbeddedStore`]: the Rego engine in this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use opal_protocol::{DataPath, Document, PatchOperation, PolicyBundle};

mod document;
mod embedded;
mod error;
mod ignore;
mod memory;
mod opa;
mod static_data;
mod system;

pub use embedded::EmbeddedStore;
pub use error::{PolicyProblem, StoreError};
pub use ignore::IgnoredPaths;
pub use memory::MemoryStore;
pub use opa::{OpaAuth, OpaOptions, OpaStore};

/// A policy engine, as far as OPAL writes to it.
#[async_trait]
pub trait PolicyStore: Send + Sync + 'static {
    /// Applies `batch` in order and returns one outcome for each change, in the same order.
    ///
    /// A change is applied whole or not at all where the engine has transactions; over OPA's REST
    /// API a bundle and a split root document may be applied in part, and the error says so. Later
    /// changes of the batch go on after a failed one. Bundles are applied one after the other
    /// whoever asks; data changes that overlap must be ordered by the caller.
    async fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>>;

    /// Whether the engine answers, without credentials and without retries.
    async fn is_reachable(&self) -> Result<(), StoreError>;

    /// Whether the engine has the policy `id`. Engines that cannot lose what they hold while we live
    /// need not be asked.
    async fn has_policy(&self, _id: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// The policies in the engine that are OPAL's to touch, id to text.
    async fn policies(&self) -> Result<BTreeMap<String, String>, StoreError>;
}

/// One change of what a policy store holds.
#[derive(Debug, Clone)]
pub enum StoreChange {
    /// The policies and static data of a commit, complete or as a diff.
    Bundle(Arc<PolicyBundle>),
    /// The document replaces what is at `path`. Members that are null are dropped at every depth;
    /// a list for the root becomes `{"items": […]}`.
    Put {
        /// Where.
        path: DataPath,
        /// What.
        document: Document,
    },
    /// The operations are applied in order, all or none, below `path`. Nulls stay.
    Patch {
        /// What the operations' paths are relative to.
        path: DataPath,
        /// RFC 6902; an absent value is null.
        operations: Vec<PatchOperation>,
    },
    /// What is at `path` goes; nothing there is no error.
    Delete {
        /// Where.
        path: DataPath,
    },
}
