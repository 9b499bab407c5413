//! From texts to types, with all problems in the end.

use super::problem::{ConfigErrors, Problem, Source, Warning};
use super::setting::Setting;
use super::settings::Settings;
use super::value::FromSetting;

/// Reads settings one by one, goes on after a problem, and reports them all in
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    /// Starts with what is already known to be wrong, be it read or not.
    pub fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            problems: settings.problems.clone(),
            warnings: settings.warnings.clone(),
        }
    }

    /// The settings this reads.
    pub fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// The value of a setting that has a default.
    ///
    /// After a problem this is the default, so that reading can go on; [`finish`](Self::finish)
    /// will not hand it out.
    ///
    /// # Panics
    ///
    /// If the tables have no such setting, or no default of this type for it.
    pub fn get<T: FromSetting>(&mut self, key: &str) -> T {
        let setting = self.setting(key);
        if let Some(value) = self.parsed(setting) {
            return value;
        }
        self.settings
            .default_text(setting)
            .and_then(|text| T::from_setting(&text, setting).ok())
            .expect("a setting read by `get` has a default of its type")
    }

    /// The value of a setting, or `None` if nobody set it and it has no default.
    ///
    /// # Panics
    ///
    /// If the tables have no such setting.
    pub fn optional<T: FromSetting>(&mut self, key: &str) -> Option<T> {
        let setting = self.setting(key);
        self.parsed(setting)
    }

    /// As [`optional`](Self::optional), with empty text taken for unset.
    ///
    /// # Panics
    ///
    /// If the tables have no such setting.
    pub fn non_empty<T: FromSetting>(&mut self, key: &str) -> Option<T> {
        let is_empty = |text: String| text.trim().is_empty();
        if self.settings.text(key).is_none_or(is_empty) {
            return None;
        }
        self.optional(key)
    }

    /// Whether someone set it.
    pub fn is_set(&self, key: &str) -> bool {
        self.settings.source(key) != Source::Default
    }

    /// Notes that the value of `key` is not what is `expected` ("a port that is free").
    ///
    /// # Panics
    ///
    /// If the tables have no such setting.
    pub fn expected(&mut self, key: &str, expected: &str) {
        let problem = self.settings.wrong(self.setting(key), expected);
        self.note(problem);
    }

    /// Notes a problem with `key` in words that show no secret.
    ///
    /// # Panics
    ///
    /// If the tables have no such setting.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let problem = Problem::new(self.settings.name(self.setting(key)), message.into());
        self.note(problem);
    }

    /// Notes something odd that does not stop the program.
    ///
    /// # Panics
    ///
    /// If the tables have no such setting.
    pub fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(Warning {
            name: self.settings.name(self.setting(key)),
            message: message.into(),
        });
    }

    /// `value` and what was odd, if nothing was wrong.
    ///
    /// # Errors
    ///
    /// All problems, those of settings nobody read included.
    pub fn finish<T>(self, value: T) -> Result<(T, Vec<Warning>), ConfigErrors> {
        if self.problems.is_empty() {
            Ok((value, self.warnings))
        } else {
            Err(ConfigErrors(self.problems))
        }
    }

    fn parsed<T: FromSetting>(&mut self, setting: &'static Setting) -> Option<T> {
        let text = self.settings.text(setting.key)?;
        match T::from_setting(&text, setting) {
            Ok(value) => Some(value),
            Err(expected) => {
                // A type may quote what it was given; what must not be shown is not asked.
                let expected = match setting.secret {
                    true => setting.kind.expected(),
                    false => expected,
                };
                let problem = self.settings.wrong(setting, &expected);
                self.note(problem);
                None
            }
        }
    }

    fn setting(&self, key: &str) -> &'static Setting {
        let setting = self.settings.setting(key);
        setting.unwrap_or_else(|| unreachable!("`{key}` is in no table of this program"))
    }

    /// One problem for each name: the first says it best.
    fn note(&mut self, problem: Problem) {
        if self.problems.iter().all(|known| known.name != problem.name) {
            self.problems.push(problem);
        }
    }
}
