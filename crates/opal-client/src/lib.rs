//! Keeps a policy store in step with an OPAL server.
//!
//! - [`fetch`]: documents, from wherever data source entries point.
//! - [`policy_store`]: where documents and bundles end up.
//! - [`engine`]: an `opa` of our own beside the client, started and watched.
//! - [`transactions`]: what succeeded, what is failing; `/ready` and `/healthy` follow from it.
//! - [`callbacks`]: who is told how an update went.

pub mod fetch;
pub mod policy_store;
