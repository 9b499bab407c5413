//! The road of a data update through the client.

pub mod queue;
