//! The words after a command: options with one value or two, switches, and plain words.

use std::collections::BTreeMap;

use super::UsageErrors;

/// An option of a command.
pub(super) struct Flag {
    /// Its names, the first of which is what the command asks for.
    pub(super) names: &'static [&'static str],
    /// How many values it takes.
    pub(super) values: usize,
}

/// What was given. Problems are collected; [`finish`](Self::finish) reports them together.
pub(super) struct Arguments {
    options: BTreeMap<&'static str, Vec<Vec<String>>>,
    words: Vec<String>,
    problems: Vec<String>,
    pub(super) help: bool,
}

impl Arguments {
    /// Sorts `given`. At most `words` plain words are taken.
    pub(super) fn parse(options: &[Flag], words: usize, given: &[String]) -> Self {
        let mut arguments = Self {
            options: BTreeMap::new(),
            words: Vec::new(),
            problems: Vec::new(),
            help: false,
        };
        let mut given = given.iter();
        let mut only_words = false;
        while let Some(word) = given.next() {
            if only_words || !word.starts_with('-') || word == "-" {
                arguments.words.push(word.clone());
            } else if word == "--" {
                only_words = true;
            } else if word == "--help" {
                arguments.help = true;
            } else {
                arguments.take_option(options, word, &mut given);
            }
        }
        if arguments.words.len() > words {
            // They may be secrets.
            let more = arguments.words.len() - words;
            arguments.problem(format!("{more} unexpected argument(s)"));
        }
        arguments
    }

    fn take_option<'a>(
        &mut self,
        options: &[Flag],
        word: &str,
        given: &mut impl Iterator<Item = &'a String>,
    ) {
        let (name, attached) = split(word);
        let Some(option) = options.iter().find(|option| option.names.contains(&name)) else {
            self.problem(format!("{}: no such option", shown(name)));
            return;
        };
        let mut values: Vec<String> = attached.map(str::to_owned).into_iter().collect();
        if attached.is_some() && option.values == 0 {
            self.problem(format!("{name}: takes no value"));
            return;
        }
        let missing = option.values.saturating_sub(values.len());
        values.extend(given.take(missing).cloned());
        if values.len() < option.values {
            let plural = if option.values == 1 {
                "a value"
            } else {
                "two values"
            };
            self.problem(format!("{name}: needs {plural}"));
            return;
        }
        self.options
            .entry(option.names[0])
            .or_default()
            .push(values);
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Whether a switch was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// The values of the last of several equal options.
    pub(super) fn values(&self, name: &str) -> Option<&[String]> {
        self.options.get(name)?.last().map(Vec::as_slice)
    }

    /// The value of an option, or `default`.
    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// The value of an option.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.values(name).and_then(|values| values.first()).cloned()
    }

    /// The value of an option as `parse` reads it, or its default.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        default: T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.optional(name) else {
            return default;
        };
        parse(&text).unwrap_or_else(|| {
            self.problem(format!("{name}: expected {expected}"));
            default
        })
    }

    /// The values of every one of several equal options.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let given = self.options.get(name).into_iter().flatten();
        given.flatten().cloned().collect()
    }

    /// The first plain word.
    pub(super) fn word(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }

    /// `value`, if nothing was wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, UsageErrors> {
        match self.problems.is_empty() {
            true => Ok(value),
            false => Err(UsageErrors(self.problems)),
        }
    }
}

/// `--name=value`, `-nvalue`, or a name alone.
fn split(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
    }
    let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
    let (name, value) = word.split_at(end);
    (name, (!value.is_empty()).then_some(value))
}
/// An unknown option, if it looks like one: a secret may begin with a dash too.
fn shown(name: &str) -> &str {
    let is_option = |c: char| c.is_ascii_lowercase() || c == '-';
    match name.len() <= 24 && name.chars().all(is_option) {
        true => name,
        false => "(not shown)",
    }
}
