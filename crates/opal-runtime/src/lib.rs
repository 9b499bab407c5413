//! What OPAL's daemons need to be good processes: tasks, settings, tokens, HTTP, logs.
//!
//! The road of a daemon's `main`, in order:
//!
//! 1. [`http::install_crypto_provider`], before anything can need TLS.
//! 2. [`config`]: flags, environment, `.env` file and defaults become [`config::Settings`]; a
//!    [`config::Reader`] turns their texts into types and reports all problems together.
//!    [`admin`] is what a daemon does besides running.
//! 3. [`telemetry`]: logs, as the settings ask for them.
//! 4. [`tasks`]: one owner for every task; [`shutdown`]: signals cancel its token.
//! 5. [`token`]: keys, tokens signed and verified, who may do what.
//! 6. [`mod@serve`] answers requests, to browsers as [`cors`] says; [`http`] makes them, [`backoff`] says when to try again.
//! 7. [`tasks::Tasks::join`] waits for the end and says why it came.
//!
//! Nothing here knows what policies, data updates or topics are.

pub mod admin;
pub mod backoff;
pub mod config;
pub mod cors;
pub mod daemon;
mod errors;
mod host;
pub mod http;
pub mod paths;
pub mod python;
mod retry_after;
pub mod serve;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod token;

pub use backoff::{Backoff, ConnRetryOptions, WaitStrategy};
pub use errors::chain;
pub use host::host_name;
pub use retry_after::retry_after;
pub use serve::serve;
pub use tasks::{BoxError, TaskError, TaskSpawner, Tasks};
