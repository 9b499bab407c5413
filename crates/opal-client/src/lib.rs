//! Keeps a policy store in step with an OPAL server.
//!
//! **The road of a commit**: the subscription ([`opal_pubsub::subscriber`]) yields the server's
//! announcement → `updater` asks [`policy::sync`] what to fetch → `server_api` fetches the
//! bundle → [`policy_store`] takes it, and only then is its commit remembered.
//!
//! **The road of a data update**: the subscription yields the update → [`data::intake`] keeps the
//! entries that concern us → [`data::queue`] orders those that overlap and lets the others run
//! together → [`fetch`] gets their documents → [`policy_store`] takes them.
//!
//! **A reconnect** is an event like any other: policy asks for what changed since its commit, data
//! loads its [`sources`](data::sources) again.
//!
//! Both roads end in [`transactions`] (what `/ready` and `/healthy` say) and [`callbacks`] (who is
//! told). [`engine`] runs an `opa` of our own.

pub mod callbacks;
pub mod client;
pub mod config;
pub mod data;
pub mod engine;
pub mod fetch;
mod health;
pub mod policy;
pub mod policy_store;
mod probe;
pub mod record;
mod router;
mod server_api;
pub mod transactions;
mod updater;

pub use client::Client;
pub use config::ClientConfig;
