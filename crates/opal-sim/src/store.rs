//! The policy store of a client: the real one that keeps everything in memory, driven by hand.

use futures_util::FutureExt;
use opal_client::policy_store::{MemoryStore, PolicyStore, StoreChange, StoreError};
use opal_protocol::{DataPath, Document, PatchOperation, SaveMethod};
use std::collections::BTreeMap;

/// Applies changes, which never waits.
pub fn apply(store: &MemoryStore, changes: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
    let outcomes = store.apply(changes).now_or_never();
    outcomes.expect("a store in memory never waits")
}

/// The policies in it.
pub fn policies(store: &MemoryStore) -> BTreeMap<String, String> {
    let policies = store.policies().now_or_never();
    let policies = policies.expect("a store in memory never waits");
    policies.expect("a store in memory is always there")
}

/// What is to be done to write a document; nothing if it is no patch and ought to be.
pub fn change(path: DataPath, method: SaveMethod, document: Document) -> Option<StoreChange> {
    Some(match method {
        SaveMethod::Put => StoreChange::Put { path, document },
        SaveMethod::Delete => StoreChange::Delete { path },
        SaveMethod::Patch => {
            let operations = serde_json::from_str::<Vec<PatchOperation>>(document.text());
            StoreChange::Patch {
                path,
                operations: operations.ok()?,
            }
        }
    })
}
