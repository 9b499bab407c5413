//! How a test waits: for a condition, with a limit, and with what was seen last in the failure.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long anything in a test may take before it counts as never.
///
/// Generous, because a loaded machine is slow and a passing test never waits this long.
pub const LIMIT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds and returns what it yields.
///
/// An error from `condition` means "not yet"; the last one is part of the failure when [`LIMIT`]
/// passes.
pub async fn until<T>(
    what: impl Display,
    condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    until_within(LIMIT, what, condition).await
}

/// As [`until`], with a limit of its own.
pub async fn until_within<T>(
    limit: Duration,
    what: impl Display,
    mut condition: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut last = anyhow::anyhow!("never looked");
    while start.elapsed() < limit {
        let left = limit.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(not_yet)) => last = not_yet,
            Err(_) => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last).with_context(|| format!("waited {limit:?} for {what}"))
}

/// Watches that `condition` holds all through `period`.
///
/// For claims that something does *not* happen: the condition is looked at again and again.
pub async fn throughout(
    period: Duration,
    what: impl Display,
    mut condition: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < period {
        condition().await.with_context(|| {
            format!(
                "expected all through {period:?}: {what}; after {:?}",
                start.elapsed()
            )
        })?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let seen = until("three looks", async || {
            looks += 1;
            anyhow::ensure!(looks == 3, "looked {looks} times");
            Ok(looks)
        })
        .await
        .unwrap();
        assert_eq!(seen, 3);
    }

    #[tokio::test]
    async fn the_failure_says_what_was_seen_last() {
        let limit = Duration::from_millis(50);
        let error = until_within(limit, "a green light", async || -> anyhow::Result<()> {
            anyhow::bail!("it is red")
        })
        .await
        .unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "waited 50ms for a green light: it is red"
        );
    }
}
