//! The server through its sockets: what released peers were recorded to see, replayed against ours,
//! and what each interface promises beyond the recordings.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod bad_peers;
mod data;
mod documented;
mod durable;
mod feed;
mod fleet;
mod peer;
mod policy_api;
mod publishing;
mod reads;
mod recorded;
mod refresh;
mod security;
mod support;
mod waiting;
mod webhook;
mod websocket;
