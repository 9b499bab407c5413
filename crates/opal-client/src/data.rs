//! The road of a data update through the client.

pub mod intake;
pub mod queue;
pub mod sources;
