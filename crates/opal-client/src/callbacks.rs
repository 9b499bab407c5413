//! Who is told how an update went.
//!
//! [`CallbackRegister`] holds the callbacks that are told of every update, [`Callbacks`] is a handle
//! to it; [`Reporter`] sends a report to them and to those that the update itself names.

mod register;
mod reporter;

pub use register::{CallbackEntry, CallbackRegister, Callbacks};
pub use reporter::{Reporter, ReporterOptions, ServerReports};
