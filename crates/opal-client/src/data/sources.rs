//! Where the server says our data comes from: the sources to load at the start, and those to load
//! again and again.

use std::time::{Duration, Instant};

use opal_protocol::{DataSourceConfig, DataSourceEntry};

use crate::server_api::{ServerApi, ServerApiError};

/// Asks for the sources. Redirects are followed.
pub(crate) async fn fetch(api: &ServerApi) -> Result<DataSourceConfig, ServerApiError> {
    let url = api.data_sources_url().clone();
    api.get_json(&url).await
}

/// The sources that are loaded again and again. No clock: times are passed in.
#[derive(Debug, Default)]
pub struct Polled {
    entries: Vec<(Instant, Duration, DataSourceEntry)>,
}

/// No source is polled more often, or less.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Polled {
    /// Forgets all before and polls those of `config` that say how often, beginning now. Returns
    /// the others.
    pub fn restart(&mut self, config: DataSourceConfig, now: Instant) -> Vec<DataSourceEntry> {
        let (polled, once): (Vec<_>, Vec<_>) = config
            .entries
            .into_iter()
            .partition(|entry| interval(entry).is_some());
        self.entries = polled
            .into_iter()
            .filter_map(|entry| Some((now, interval(&entry)?, entry)))
            .collect();
        once
    }

    /// The entries that are due, each rescheduled.
    pub fn due(&mut self, now: Instant) -> Vec<DataSourceEntry> {
        let due = self.entries.iter_mut().filter(|(at, ..)| *at <= now);
        due.map(|(at, interval, entry)| {
            *at = now + *interval;
            entry.clone()
        })
        .collect()
    }

    /// When the next entry is due.
    pub fn next_wake(&self) -> Option<Instant> {
        self.entries.iter().map(|(at, ..)| *at).min()
    }
}

fn interval(entry: &DataSourceEntry) -> Option<Duration> {
    let seconds = entry.periodic_update_interval?;
    let interval = Duration::try_from_secs_f64(seconds).ok()?;
    (!interval.is_zero()).then(|| interval.clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_with_an_interval_are_due_at_once_and_then_every_so_often() {
        let mut polled = Polled::default();
        let now = Instant::now();
        let often = DataSourceEntry {
            periodic_update_interval: Some(5.0),
            ..DataSourceEntry::from_url("http://often")
        };
        let once = DataSourceEntry::from_url("http://once");
        let entries = vec![often.clone(), once.clone()];
        let rest = polled.restart(DataSourceConfig { entries }, now);
        assert_eq!(rest, [once]);
        assert_eq!(polled.due(now), [often]);
        assert!(polled.due(now).is_empty());
        assert_eq!(polled.next_wake(), Some(now + Duration::from_secs(5)));
        polled.restart(DataSourceConfig::default(), now);
        assert_eq!(polled.next_wake(), None);
    }
}
