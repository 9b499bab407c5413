//! The policy repository against real repositories, by the real `git`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod damage;
mod following;
mod hostile;
mod property;
mod recorded;
mod support;
mod transports;
