//! Spreads the snapshots that a crowd takes after a restart.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time in which snapshots count together.
const WINDOW: Duration = Duration::from_secs(10);
/// So many may begin at once.
const AT_ONCE: u64 = 20;
/// What each snapshot adds: about 200 begin in a second.
const EACH_MS: u64 = 5;
const LONGEST_MS: u64 = 60_000;

/// How many snapshots were granted lately.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    granted: VecDeque<Instant>,
}

impl Pacing {
    /// Grants a snapshot: within how many milliseconds it is to begin.
    pub(super) fn grant(&mut self, now: Instant) -> u64 {
        let is_old = |granted: &Instant| now.duration_since(*granted) >= WINDOW;
        while self.granted.front().is_some_and(is_old) {
            self.granted.pop_front();
        }
        // More than this make no difference any more.
        if (self.granted.len() as u64) < LONGEST_MS / EACH_MS {
            self.granted.push_back(now);
        }
        match self.granted.len() as u64 {
            0..=AT_ONCE => 0,
            many => (many * EACH_MS).min(LONGEST_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_begin_at_once_and_a_crowd_about_two_hundred_a_second() {
        let mut pacing = Pacing::default();
        let start = Instant::now();
        let spreads: Vec<u64> = (0..20_000).map(|_| pacing.grant(start)).collect();
        assert!(spreads.iter().take(20).all(|spread| *spread == 0));
        assert_eq!(spreads.get(20), Some(&105));
        assert_eq!(spreads.get(999), Some(&5000));
        assert_eq!(spreads.last(), Some(&LONGEST_MS));
        assert_eq!(pacing.grant(start + WINDOW), 0, "the crowd is gone");
    }
}
