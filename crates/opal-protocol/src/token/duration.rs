//! Times to live as pydantic 1 reads them.

use chrono::TimeDelta;

/// In microseconds, as everything here.
const SECOND: i128 = 1_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;
/// Python's limit.
const MAX_DAYS: i128 = 999_999_999;

/// `[days[ days], ][[hours:]minutes:]seconds[.fraction]` or an ISO-8601 duration of days, hours,
/// minutes and seconds.
pub(super) fn parse(text: &str) -> Option<TimeDelta> {
    standard(text).or_else(|| iso_8601(text))
}

/// A number of seconds, read as the text that Python makes of it.
pub(super) fn from_seconds(seconds: f64) -> Option<TimeDelta> {
    standard(&format!("{seconds:.6}"))
}

fn standard(text: &str) -> Option<TimeDelta> {
    let (days, clock) = match text.split_once(' ') {
        Some((days, clock)) => {
            let word = ["days, ", "day, "]
                .into_iter()
                .find_map(|word| clock.strip_prefix(word));
            (whole(days)?, word.unwrap_or(clock))
        }
        None => (0, text),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match *parts.as_slice() {
        [seconds] => (0, 0, seconds),
        [minutes, seconds] => (0, whole(minutes)?, seconds),
        // After hours, neither minutes nor seconds may have a sign.
        [hours, minutes, seconds] if !minutes.starts_with('-') && !seconds.starts_with('-') => {
            (whole(hours)?, whole(minutes)?, seconds)
        }
        _ => return None,
    };
    let (seconds, fraction) = match seconds.split_once('.') {
        Some((seconds, fraction)) => (seconds, microseconds(fraction)?),
        None => (seconds, 0),
    };
    let sign = if seconds.starts_with('-') { -1 } else { 1 };
    let total =
        days * DAY + hours * HOUR + minutes * MINUTE + whole(seconds)? * SECOND + sign * fraction;
    delta(total)
}

fn iso_8601(text: &str) -> Option<TimeDelta> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let text = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .strip_prefix('P')?;
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let mut total = 0;
    for (mut rest, units) in [
        (date, &[('D', DAY)][..]),
        (time, &[('H', HOUR), ('M', MINUTE), ('S', SECOND)][..]),
    ] {
        for (unit, size) in units {
            if let Some((number, after)) = rest.split_once(*unit) {
                // As Python, whose parts are floats.
                total += (decimal(number)? * *size as f64).round() as i128;
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    delta(sign * total)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A whole number, perhaps negative.
fn whole(text: &str) -> Option<i128> {
    let short = text.len() <= 18;
    (short && is_digits(text.strip_prefix('-').unwrap_or(text))).then(|| text.parse().ok())?
}

/// Digits, perhaps a point and more digits.
fn decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (is_digits(whole) && is_digits(fraction)).then(|| text.parse().ok())?
}

/// The first six digits after the point; up to six more are cut off.
fn microseconds(fraction: &str) -> Option<i128> {
    let fits = is_digits(fraction) && fraction.len() <= 12;
    fits.then(|| format!("{fraction:0<6}").get(..6)?.parse().ok())?
}

fn delta(microseconds: i128) -> Option<TimeDelta> {
    let within = microseconds.abs() <= MAX_DAYS * DAY;
    let (seconds, rest) = (
        microseconds.div_euclid(SECOND),
        microseconds.rem_euclid(SECOND),
    );
    let nanoseconds = u32::try_from(rest * 1000).ok()?;
    within.then(|| TimeDelta::new(i64::try_from(seconds).ok()?, nanoseconds))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        let delta = parse(text)?;
        Some(delta.num_seconds() as f64 + f64::from(delta.subsec_nanos()) / 1e9)
    }

    #[test]
    fn durations_are_what_pydantic_makes_of_them() {
        for (text, expected) in [
            ("1.5", 1.5),
            ("-5", -5.0),
            ("-0.5", -0.5),
            ("30", 30.0),
            ("02:03", 123.0),
            ("10:20:30", 37230.0),
            ("-10:20:30", -36000.0 + 1230.0),
            ("1 02:03:04", 86400.0 + 7384.0),
            ("-1 02:03:04.5", -86400.0 + 7384.5),
            ("1 days, 02:03:04", 86400.0 + 7384.0),
            ("3 4", 3.0 * 86400.0 + 4.0),
            ("1 2:3", 86400.0 + 123.0),
            ("5.1234567", 5.123456),
            ("P", 0.0),
            ("P1D", 86400.0),
            ("+P1D", 86400.0),
            ("P1.5D", 129600.0),
            ("P1DT", 86400.0),
            ("PT1H2M3.5S", 3723.5),
            ("-PT1H", -3600.0),
            ("-P1DT2H", -93600.0),
            ("PT5.25M", 315.0),
            ("999999999999", 999_999_999_999.0),
            ("9999999999999", 9_999_999_999_999.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_pydantic_refuses_is_refused() {
        for text in [
            "",
            "xx",
            "P1Y",
            "P1W",
            "PT-1H",
            "p1d",
            "P-1D",
            "P1DT0,5S",
            "1e3",
            " 5",
            "1d",
            "nan",
            "1 day 5:00:00",
            "1:2:3:4",
            "1:-2:3",
            "5.",
            "5.1234567890123",
            ".5",
            "PT1.S",
            "PTS",
            "99999999999999999999999999999999",
            "P9999999999D",
            "é",
            "1 ",
            "::",
            "PT1S2H",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_seconds() {
        assert_eq!(from_seconds(1.5), Some(TimeDelta::milliseconds(1500)));
        assert_eq!(from_seconds(-60.0), Some(TimeDelta::seconds(-60)));
        for number in [1e30, f64::NAN, f64::INFINITY] {
            assert_eq!(from_seconds(number), None);
        }
    }
}
