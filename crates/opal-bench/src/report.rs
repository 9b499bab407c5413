//! Medians, ratios, and what was promised.

use std::collections::BTreeMap;

use crate::contender::Contender;

/// What is promised about a figure. Smaller is better for all but [`Target::TimesMore`].
#[derive(Debug, Clone, Copy)]
enum Target {
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is at most so many times the floor's, and at least so many times less than Python's.
    NearTheFloor { times: f64, less_than_python: f64 },
    /// Ours is at least so many times Python's.
    TimesMore(f64),
    /// Shown to explain another figure.
    None,
}

const METRICS: [(&str, &str, Target); 29] = [
    (
        "delivery-cpu",
        "µs CPU a delivery",
        Target::NearTheFloor {
            times: 1.5,
            less_than_python: 20.0,
        },
    ),
    ("delivery-all", "ms, 1,000 notified", Target::AtMost(40.0)),
    ("connection-memory", "kB a connection", Target::AtMost(8.0)),
    (
        "start-memory",
        "MB, server just started",
        Target::AtMost(20.0),
    ),
    (
        "start-time",
        "ms to the first answer",
        Target::AtMost(150.0),
    ),
    ("client-memory", "MB, client alone", Target::AtMost(15.0)),
    (
        "policy-small-rate",
        "GET /policy a second, 3 files",
        Target::TimesMore(100.0),
    ),
    ("policy-small-time", "ms a request, 3 files", Target::None),
    (
        "policy-large-time",
        "ms a request, 1,150 files",
        Target::AtMost(6.0),
    ),
    (
        "policy-large-cpu",
        "ms CPU a request, 1,150 files",
        Target::None,
    ),
    (
        "diff-after-fetch",
        "ms from fetch to diff bundle",
        Target::AtMost(150.0),
    ),
    ("diff-total", "ms from webhook to diff bundle", Target::None),
    ("diff-fetch", "ms, the fetch alone", Target::None),
    (
        "update-time",
        "ms from publish to answer",
        Target::AtMost(3.0),
    ),
    ("commit-time", "ms from webhook to answer", Target::None),
    ("connect-rate", "connections a second", Target::None),
    (
        "resume-after-stop",
        "s, 5,000 resumed after a stop",
        Target::AtMost(5.0),
    ),
    (
        "resume-after-kill",
        "s, 5,000 resumed after a kill",
        Target::AtMost(5.0),
    ),
    (
        "resume-snapshots",
        "snapshots after a restart",
        Target::AtMost(0.0),
    ),
    (
        "feed-delivery-alone",
        "µs CPU a delivery alone, feed",
        Target::None,
    ),
    (
        "released-delivery-alone",
        "… as released clients are told",
        Target::None,
    ),
    ("feed-alone-ratio", "… their ratio", Target::None),
    (
        "feed-delivery",
        "µs CPU a delivery of 16, feed",
        Target::None,
    ),
    (
        "released-delivery",
        "… as released clients are told",
        Target::None,
    ),
    ("feed-ratio", "… their ratio", Target::AtMost(0.5)),
    (
        "history-memory",
        "MB, 100,000 changes of 256 B",
        Target::AtMost(60.0),
    ),
    ("history-large", "MB, of documents of 256 B", Target::None),
    (
        "fleet-time",
        "ms, 10,000 clients listed",
        Target::AtMost(100.0),
    ),
    (
        "wait-time",
        "ms until 1,000 have applied",
        Target::AtMost(60.0),
    ),
];

/// All samples so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    samples: BTreeMap<&'static str, BTreeMap<Contender, Vec<f64>>>,
}

impl Report {
    pub(crate) fn add(&mut self, metric: &'static str, contender: Contender, value: f64) {
        let of_metric = self.samples.entry(metric).or_default();
        of_metric.entry(contender).or_default().push(value);
    }

    fn median_of(&self, metric: &str, contender: Contender) -> Option<f64> {
        self.samples
            .get(metric)?
            .get(&contender)
            .and_then(|samples| median(samples))
    }

    /// Whether everything that was measured is as promised.
    pub(crate) fn is_as_promised(&self) -> bool {
        METRICS
            .iter()
            .all(|(metric, _, target)| self.keeps(metric, *target) != Some(false))
    }

    /// None when a figure that the promise speaks of was not measured.
    fn keeps(&self, metric: &str, target: Target) -> Option<bool> {
        let ours = self.median_of(metric, Contender::Ours)?;
        match target {
            Target::AtMost(limit) => Some(ours <= limit),
            Target::NearTheFloor {
                times,
                less_than_python,
            } => {
                let floor = self.median_of(metric, Contender::Floor)?;
                let python = self.median_of(metric, Contender::Python)?;
                Some(ours <= times * floor && less_than_python * ours <= python)
            }
            Target::TimesMore(times) => {
                Some(ours >= times * self.median_of(metric, Contender::Python)?)
            }
            Target::None => None,
        }
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!(
            "\n{:<32} {:>11} {:>11} {:>11} {:>9} {:>9}  {:<26}",
            "median of", "ours", "python", "floor", "py/ours", "ours/flo", "target"
        );
        for (metric, what, target) in METRICS {
            if !self.samples.contains_key(metric) {
                continue;
            }
            let ours = self.median_of(metric, Contender::Ours);
            let python = self.median_of(metric, Contender::Python);
            let floor = self.median_of(metric, Contender::Floor);
            let verdict = match self.keeps(metric, target) {
                Some(true) => "kept",
                Some(false) => "MISSED",
                None => "",
            };
            println!(
                "{what:<32} {:>11} {:>11} {:>11} {:>9} {:>9}  {:<26} {verdict}",
                number(ours),
                number(python),
                number(floor),
                number(ratio(python, ours)),
                number(ratio(ours, floor)),
                target.text(),
            );
        }
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::NearTheFloor {
                times,
                less_than_python,
            } => {
                format!("≤ {times} × floor, ≥ {less_than_python} × less")
            }
            Self::TimesMore(times) => format!("≥ {times} × Python"),
            Self::None => String::new(),
        }
    }
}

fn ratio(above: Option<f64>, below: Option<f64>) -> Option<f64> {
    Some(above? / below.filter(|below| *below != 0.0)?)
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() < 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// The middle of `samples`; of an even number, the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_delivery_is_judged_by_floor_and_python() {
        let mut report = Report::default();
        report.add("delivery-cpu", Contender::Ours, 20.0);
        assert!(report.is_as_promised(), "nothing to compare with yet");
        report.add("delivery-cpu", Contender::Floor, 16.0);
        report.add("delivery-cpu", Contender::Python, 514.0);
        assert!(report.is_as_promised());
        report.add("delivery-cpu", Contender::Python, 300.0);
        report.add("delivery-cpu", Contender::Python, 300.0);
        assert!(!report.is_as_promised());
    }
}
