//! Runs OPAL's own state machines in a simulated world, to find what makes a client stale.
//!
//! Real are the hub with its feed, sessions and outboxes, the conversation of a client, its replica
//! with queue, sync and ledger, its back-off and its store in memory, and every frame between them.
//! Faked are time, network, disk, git, data sources and HTTP. Everything random comes from one seed, so
//! that a run can be had again.
//!
//! The road of a run: [`world`] holds a [`server`], some [`client`]s and the `env` around them, takes
//! one event after the other from the [`agenda`] and lets its schedule do harm. What clients claim is
//! held against the truth by the [`oracle`] all the time; at the end the harm stops, and every store has
//! to be what the `model` says. A [`Bug`](bug::Bug) is a mistake made on purpose, to see that it is
//! found.

pub mod agenda;
pub mod bug;
pub mod client;
pub mod disk;
pub mod env;
pub mod event;
pub mod git;
pub mod history;
pub mod model;
pub mod network;
pub mod oracle;
pub mod publishers;
pub mod server;
pub mod sources;
pub mod store;
pub mod trace;
pub mod updates;
pub mod weather;
pub mod wire;
pub mod world;
