//! How long a server asks us to wait.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Nobody makes us wait for longer: what was asked for in an outage may be wrong a minute later.
const LONGEST: Duration = Duration::from_secs(600);

/// The value of `Retry-After`, if it is a number of seconds, at most ten minutes.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds: u64 = seconds.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_wait_is_cut_and_nonsense_is_none() {
        let asked = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked(" 5 "), Some(Duration::from_secs(5)));
        assert_eq!(asked("10000000000000000000"), Some(LONGEST));
        assert_eq!(asked("soon"), None);
    }
}
