//! Tracks policy, accepts data updates, tells clients.
