//! From a setting's text to a type.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use url::Url;

use super::setting::{Kind, Setting};

/// A type that a setting's text can become.
pub trait FromSetting: Sized {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// What was expected instead, to follow "expected". It must not repeat `text`.
    fn from_setting(text: &str, setting: &Setting) -> Result<Self, String>;
}

/// A time given in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

/// A value given as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<T>(pub T);

/// Python's `int()`: surrounding space, a sign and `_` between digits are fine.
pub(crate) fn parse_int(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let well_formed = !digits.is_empty()
        && digits
            .split('_')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    well_formed
        .then(|| text.replace('_', ""))
        .and_then(|text| text.parse().ok())
}

/// Python's `float()`.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Whether `text` is what people write for true or false and upstream does not understand: it
/// quietly takes the default, and we say so. Any other text is a mistake.
pub(super) fn is_bool_elsewhere(text: &str) -> bool {
    const WORDS: [&str; 9] = ["", "yes", "no", "on", "off", "y", "n", "t", "f"];
    WORDS.contains(&text.trim().to_ascii_lowercase().as_str())
}

impl FromSetting for bool {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        parse_bool(text).ok_or_else(|| Kind::Bool.expected())
    }
}

impl FromSetting for f64 {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        parse_float(text).ok_or_else(|| Kind::Float.expected())
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl FromSetting for $number {
            fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
                let number = parse_int(text).ok_or_else(|| Kind::Int.expected())?;
                Self::try_from(number).map_err(|_| {
                    format!("a whole number from {} to {}", Self::MIN, Self::MAX)
                })
            }
        }
    )*};
}

whole_numbers!(i64, u16, u32, u64, usize);

impl FromSetting for Seconds {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        parse_float(text)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Self)
            .ok_or_else(|| "a number of seconds, not negative".to_owned())
    }
}

impl FromSetting for String {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl FromSetting for SecretString {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        Ok(Self::from(text))
    }
}

/// A path; `~` at its start is the home directory.
impl FromSetting for PathBuf {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        Ok(crate::paths::expand_home(text))
    }
}

impl FromSetting for Url {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        Self::parse(text.trim()).map_err(|error| format!("a URL ({error})"))
    }
}

impl<T: DeserializeOwned> FromSetting for Json<T> {
    fn from_setting(text: &str, setting: &Setting) -> Result<Self, String> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| match setting.secret {
                true => Kind::expected(&setting.kind),
                // The position and the member, never the value: it may hold credentials.
                false => format!(
                    "{} (problem at line {}, column {})",
                    setting.kind.expected(),
                    error.line(),
                    error.column()
                ),
            })
    }
}

/// A list: split at the setting's delimiter, items trimmed, quotes keep a delimiter inside.
impl FromSetting for Vec<String> {
    fn from_setting(text: &str, setting: &Setting) -> Result<Self, String> {
        let delimiter = match setting.kind {
            Kind::List(delimiter) => delimiter,
            _ => ',',
        };
        Ok(split(text, delimiter))
    }
}

pub(super) fn split(text: &str, delimiter: char) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == delimiter => items.push(String::new()),
            _ => {
                if let Some(item) = items.last_mut() {
                    item.push(c);
                }
            }
        }
    }
    items
        .iter()
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Setting = Setting::new("L", Kind::List(','), "");
    const NUMBER: Setting = Setting::new("N", Kind::Int, "");

    #[test]
    fn lists_are_split_trimmed_and_quoted() {
        for (given, items) in [
            ("", vec![]),
            (" .rego , .json ", vec![".rego", ".json"]),
            (r#""a,b",c"#, vec!["a,b", "c"]),
            ("a,,b,", vec!["a", "b"]),
        ] {
            assert_eq!(Vec::<String>::from_setting(given, &LIST).unwrap(), items);
        }
    }

    #[test]
    fn whole_numbers_are_read_as_python_does() {
        assert_eq!(u16::from_setting(" 7_002 ", &NUMBER), Ok(7002));
        assert_eq!(i64::from_setting("-1", &NUMBER), Ok(-1));
        for wrong in [
            "",
            "x",
            "1.5",
            "_1",
            "1__0",
            "0x10",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(i64::from_setting(wrong, &NUMBER).is_err(), "{wrong}");
        }
        assert_eq!(
            u16::from_setting("70000", &NUMBER),
            Err("a whole number from 0 to 65535".to_owned())
        );
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        let half = Seconds(Duration::from_millis(500));
        assert_eq!(Seconds::from_setting("0.5", &NUMBER), Ok(half));
        for wrong in ["-1", "inf", "nan", "1e40", "soon"] {
            assert!(Seconds::from_setting(wrong, &NUMBER).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_json_error_does_not_show_the_value() {
        let error = Json::<u8>::from_setting(r#"{"password": "hunter2""#, &LIST).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
