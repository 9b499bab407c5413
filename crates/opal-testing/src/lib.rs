//! Fixtures and stand-ins for the processes around OPAL, for its tests.
//!
//! Everything here is about *other* processes, as our daemons see them: [`services`] starts released
//! and own daemons and the real `opa` as children with their logs kept; [`fake_data_source`] answers
//! what a data source may answer, good or bad; [`cuttable_proxy`] is the network that fails on
//! purpose; [`git_repo`] is the policy repository that servers follow; [`keys`] makes the keys that installations have. [`wait`] is how a test waits: for a
//! condition, never for a time.
//!
//! Every child, port and directory belongs to the value that made it and ends with it.

pub mod binaries;
pub mod cuttable_proxy;
pub mod fake_data_source;
pub mod git_repo;
pub mod http;
pub mod keys;
pub mod ports;
pub mod process;
pub mod services;
pub mod wait;
