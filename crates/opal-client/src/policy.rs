//! The road of a commit through the client.

pub mod sync;
