//! When a client that lost its connection tries again. No clock: times are passed in.

use std::time::{Duration, Instant};

use rand::Rng;

/// Pauses between attempts to connect: jittered, at most one second during the first ten seconds
/// without a connection, then growing. Never ends.
#[derive(Debug)]
pub struct Reconnect {
    trying_since: Option<Instant>,
    attempt: u32,
}

/// How long early attempts stay frequent.
const EARLY: Duration = Duration::from_secs(10);
const EARLY_CAP: Duration = Duration::from_secs(1);
const LATE_CAP: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_millis(100);

/// A connection that lived so long was a good one.
const STABLE: Duration = Duration::from_secs(10);

impl Reconnect {
    /// Before the first attempt.
    pub fn new() -> Self {
        Self {
            trying_since: None,
            attempt: 0,
        }
    }

    /// How long to wait before the next attempt, after one that failed.
    pub fn failed(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let since = *self.trying_since.get_or_insert(now);
        let cap = if now.duration_since(since) < EARLY {
            EARLY_CAP
        } else {
            LATE_CAP
        };
        let grown = FIRST.saturating_mul(2_u32.saturating_pow(self.attempt.min(16)));
        self.attempt += 1;
        let ceiling = grown.min(cap);
        // Never less than half: a crowd spreads out, and nobody comes back in a tight loop.
        ceiling.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// How long to wait before the next attempt, after a connection that had been made and ended.
    pub fn lost(&mut self, connected_at: Instant, now: Instant, rng: &mut impl Rng) -> Duration {
        if now.duration_since(connected_at) >= STABLE {
            *self = Self::new();
        }
        self.failed(now, rng)
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn attempts_stay_frequent_for_ten_seconds_and_then_become_rare() {
        let mut rng = StdRng::seed_from_u64(7);
        let start = Instant::now();
        let mut now = start;
        let mut reconnect = Reconnect::new();
        let mut longest_early = Duration::ZERO;
        let mut longest = Duration::ZERO;
        for _ in 0..60 {
            let pause = reconnect.failed(now, &mut rng);
            assert!(pause >= FIRST / 2);
            if now - start < EARLY {
                longest_early = longest_early.max(pause);
            }
            longest = longest.max(pause);
            now += pause;
        }
        assert!(longest_early <= EARLY_CAP, "{longest_early:?}");
        assert!(longest > LATE_CAP / 2 && longest <= LATE_CAP, "{longest:?}");
    }

    #[test]
    fn a_connection_that_breaks_at_once_does_not_start_over() {
        let mut rng = StdRng::seed_from_u64(7);
        let now = Instant::now();
        let mut reconnect = Reconnect::new();
        for _ in 0..10 {
            reconnect.lost(now, now, &mut rng);
        }
        assert!(reconnect.lost(now, now, &mut rng) >= EARLY_CAP / 2);
        assert!(reconnect.lost(now, now + STABLE, &mut rng) <= FIRST);
    }
}
