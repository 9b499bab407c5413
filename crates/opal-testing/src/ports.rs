//! Free loopback ports for children that must be told where to listen.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Context;

/// Below the range from which the system takes ports for outgoing connections, so that nothing else
/// takes one between this check and the child's own bind.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

static GIVEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// A port on `127.0.0.1` that nothing listens on, and that this process does not give out again.
pub fn free_port() -> anyhow::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let width = u64::from(RANGE.end - RANGE.start);
    let seed = RandomState::new();
    (0..1_000_u32)
        .filter_map(|attempt| u16::try_from(seed.hash_one(attempt) % width).ok())
        .map(|offset| RANGE.start + offset)
        .find(|port| is_free(*port) && given.insert(*port))
        .context("no free port on 127.0.0.1 between 10000 and 32000")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }
}
