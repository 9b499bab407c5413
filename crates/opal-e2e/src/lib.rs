//! Whole systems, run as their users run them.
//!
//! A [`Deployment`] is a policy repository, a data source, `opal-server`, `opal-client` and a policy
//! engine, secured, each a process of its own and each ours or the released one. A [`scenario`] is
//! what a user does to it and what they see; the same scenarios run for every combination, the
//! released pair included, so that a scenario which asks for too much is found out.

pub mod deployment;
pub mod follower;
pub mod peer;
pub mod publisher;
pub mod scenario;

pub use deployment::{Announce, Deployment, Engine, Setup};
pub use publisher::Publisher;
