//! Tracks policy, accepts data updates, tells clients.

pub mod policy;
