//! Keeps a policy store in step with an OPAL server.
//!
//! **The road of a commit**: the subscription ([`opal_pubsub::subscriber`]) yields the server's
//! announcement → [`replica`] asks [`policy::sync`] what to fetch → `server_api` fetches the
//! bundle → [`policy_store`] takes it, and only then is its commit remembered.
//!
//! **The road of a data update**: the subscription yields the update → [`replica`] keeps the
//! entries that concern us ([`data::intake`]) → [`data::queue`] orders those that overlap and lets the
//! others run together → [`fetch`] gets their documents → [`policy_store`] takes them.
//!
//! [`replica`] decides all of this without I/O; `updater` is the task that does what it says. What the
//! store holds is told to the server as a position of its feed.
//!
//! **A reconnect** is an event like any other: the subscription was resumed and what was missed
//! follows, or everything is taken anew.
//!
//! Both roads end in [`transactions`] (what `/ready` and `/healthy` say) and [`callbacks`] (who is
//! told). [`engine`] runs an `opa` of our own.

pub mod callbacks;
pub mod client;
pub mod config;
pub mod data;
pub mod engine;
mod engine_api;
pub mod fetch;
mod health;
mod offline;
pub mod policy;
pub mod policy_store;
mod probe;
pub mod record;
pub mod replica;
mod router;
mod server_api;
pub mod standing;
pub mod transactions;
mod updater;

pub use client::Client;
pub use config::ClientConfig;
