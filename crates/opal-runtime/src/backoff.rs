//! How long to wait before trying again: pure functions of the attempt and of randomness.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Doublings beyond this change nothing: the cap has long been reached.
const MAX_DOUBLINGS: u32 = 62;

/// A pause that doubles with each failure up to a cap, half of it random.
///
/// The random half keeps clients that lost the same server from coming back in step; the fixed
/// half keeps a client from trying again at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with a pause of at most `first` and never exceeds `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// The pause after one more failure.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let pause = doubled(self.first.as_secs_f64(), self.failures).min(self.max.as_secs_f64());
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs_f64(pause * (0.5 + 0.5 * rng.random::<f64>()))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// How the pauses of [`ConnRetryOptions`] grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStrategy {
    /// Always `wait_time`.
    Fixed,
    /// `wait_time`, doubled with each attempt, at most `max_wait`.
    Exponential,
    /// A uniformly random part of what `exponential` would wait.
    RandomExponential,
}

/// OPAL's retry settings, such as `OPAL_POLICY_STORE_CONN_RETRY`, in their JSON form.
///
/// They bound one round of attempts; what happens after a round is the caller's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnRetryOptions {
    /// How pauses grow.
    pub wait_strategy: WaitStrategy,
    /// The first pause, in seconds.
    pub wait_time: f64,
    /// Attempts in one round, the first included.
    pub attempts: u32,
    /// The longest pause of the exponential strategies, in seconds.
    pub max_wait: f64,
}

impl Default for ConnRetryOptions {
    fn default() -> Self {
        Self {
            wait_strategy: WaitStrategy::Fixed,
            wait_time: 2.0,
            attempts: 2,
            // As upstream: half of the longest time that Python's clock can hold.
            max_wait: 4.611686018427388e18,
        }
    }
}

impl ConnRetryOptions {
    /// The pause after failed attempt number `attempt`, counted from 1, or `None` when the round
    /// has no further attempt.
    pub fn delay(&self, attempt: u32, rng: &mut impl Rng) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let grown = || doubled(self.wait_time, attempt.saturating_sub(1)).min(self.max_wait);
        let seconds = match self.wait_strategy {
            WaitStrategy::Fixed => self.wait_time,
            WaitStrategy::Exponential => grown(),
            WaitStrategy::RandomExponential => grown() * rng.random::<f64>(),
        };
        // A negative, endless or meaningless setting must not stop the process.
        Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }
}

fn doubled(first: f64, times: u32) -> f64 {
    first * 2f64.powi(times.min(MAX_DOUBLINGS) as i32)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn a_pause_doubles_to_its_cap_and_is_never_less_than_half() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(4));
        let mut rng = rng();
        for full in [0.5, 1.0, 2.0, 4.0, 4.0, 4.0] {
            let pause = backoff.next(&mut rng).as_secs_f64();
            assert!(pause >= full / 2.0 && pause <= full, "{pause} of {full}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(500));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        backoff.failures = u32::MAX;
        assert!(backoff.next(&mut rng()) <= Duration::from_secs(60));
    }

    #[test]
    fn retry_options_have_upstream_s_defaults_and_names() {
        let options: ConnRetryOptions = serde_json::from_str("{}").unwrap();
        assert_eq!(options, ConnRetryOptions::default());
        let text =
            r#"{"wait_strategy":"random_exponential","max_wait":10,"attempts":5,"wait_time":1}"#;
        let options: ConnRetryOptions = serde_json::from_str(text).unwrap();
        assert_eq!(options.wait_strategy, WaitStrategy::RandomExponential);
        assert!(serde_json::from_str::<ConnRetryOptions>(r#"{"wait_strategy":"x"}"#).is_err());
    }

    #[test]
    fn each_strategy_waits_as_upstream_does() {
        let options = |wait_strategy| ConnRetryOptions {
            wait_strategy,
            wait_time: 1.0,
            attempts: 6,
            max_wait: 5.0,
        };
        let delays = |options: ConnRetryOptions| -> Vec<f64> {
            let mut rng = rng();
            (1..=6)
                .filter_map(|n| options.delay(n, &mut rng))
                .map(|delay| delay.as_secs_f64())
                .collect()
        };
        assert_eq!(delays(options(WaitStrategy::Fixed)), [1.0; 5]);
        assert_eq!(
            delays(options(WaitStrategy::Exponential)),
            [1.0, 2.0, 4.0, 5.0, 5.0]
        );
        let random = delays(options(WaitStrategy::RandomExponential));
        assert!(
            random
                .iter()
                .zip([1.0, 2.0, 4.0, 5.0, 5.0])
                .all(|(r, max)| *r <= max)
        );
    }

    #[test]
    fn absurd_settings_do_not_panic() {
        for wait_time in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let options = ConnRetryOptions {
                wait_time,
                ..ConnRetryOptions::default()
            };
            assert!(options.delay(1, &mut rng()).is_some());
        }
    }
}
