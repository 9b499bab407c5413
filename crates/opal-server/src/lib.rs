//! Tracks policy, accepts data updates, tells clients.
//!
//! **The road of a commit**
//!
//! 1. A webhook reaches [`policy::webhook`], which verifies the sender and triggers the
//!    [`policy::PolicyWatcher`]; or the polling interval does.
//! 2. The watcher brings the clone up to date ([`policy::PolicyRepo`]) and asks which directories
//!    changed.
//! 3. [`publish::Publications`] makes the announcement a change of the feed, which
//!    [`opal_pubsub`] delivers to the subscribers of the directories' topics.
//! 4. A client asks `policy::api` for a bundle, complete or since its commit.
//!
//! **The road of a data update**
//!
//! 1. [`data`] receives `POST /data/config`: [`extract`] has checked the token, the handler checks
//!    its topics and every field.
//! 2. [`publish::Publications`] expands the topics, and the rest is as above.
//!
//! **Who is where**
//!
//! `position` keeps readers from answers older than what they know; [`wait`] waits until clients have
//! applied a change; `fleet` says what each client holds, and `drift` whether that is what it should.
//!
//! `store` opens the feed, in memory or in the state directory; [`websocket`] lets clients in; `cors` says what browsers may do; [`server`] wires all of it; [`config`] says how.

mod base;
pub mod config;
pub mod data;
mod drift;
pub mod error;
pub mod extract;
mod fleet;
pub mod health;
pub mod idempotency;
pub mod policy;
mod position;
pub mod publish;
pub mod router;
pub mod security;
pub mod server;
pub mod store;
pub mod wait;
pub mod websocket;

pub use config::ServerConfig;
pub use server::Server;
