//! The command line: flags for settings, then a command, then the command's own words.

use std::ffi::OsString;

use super::setting::{Program, Setting};
use super::settings::Problem;
use super::typo;

/// What was said on the command line. Wrong flags are problems like any other, reported with
/// those of the environment.
#[derive(Clone, Default)]
pub struct CommandLine {
    pub(super) flags: Vec<(&'static Setting, String)>,
    pub(super) problems: Vec<Problem>,
    /// The command, such as `run`.
    pub command: Option<String>,
    /// What follows the command.
    pub arguments: Vec<String>,
    /// Whether `--help` was among the flags.
    pub help: bool,
}

// Flags and arguments hold secrets.
impl std::fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags: Vec<&str> = self.flags.iter().map(|(setting, _)| setting.key).collect();
        f.debug_struct("CommandLine")
            .field("command", &self.command)
            .field("flags", &flags)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

impl CommandLine {
    /// Reads the words after the program's name. `commands` are the commands it has.
    ///
    /// A setting's flag is `--server-bind-port 7010`, `--server-bind-port=7010` or, where there is
    /// one, a short form (`-s URL`). Every flag takes a value.
    pub fn parse(
        program: Program,
        commands: &[&str],
        words: impl IntoIterator<Item = OsString>,
    ) -> Self {
        let mut line = Self::default();
        let mut words = words.into_iter().map(OsString::into_string).peekable();
        while let Some(word) = words.next() {
            let Ok(word) = word else {
                line.problem("command line", "holds a word that is not UTF-8");
                continue;
            };
            if !word.starts_with('-') || word == "-" {
                line.take_command(commands, word);
                break;
            }
            if word == "--help" {
                line.help = true;
                continue;
            }
            let (flag, inline) = split_flag(&word);
            let is_value = |word: &Result<String, OsString>| match word {
                Ok(word) => !word.starts_with('-') && !commands.contains(&word.as_str()),
                Err(_) => false,
            };
            let Some(setting) = find(program, flag) else {
                line.unknown_flag(program, flag);
                // What follows is likely its value, and might be a secret.
                if inline.is_none() {
                    words.next_if(is_value);
                }
                continue;
            };
            let value = match inline {
                Some(value) => Some(Ok(value.to_owned())),
                None => words.next(),
            };
            match value {
                Some(Ok(value)) => line.flags.push((setting, value)),
                Some(Err(_)) => line.problem(flag, "is not UTF-8"),
                None => line.problem(flag, "needs a value"),
            }
        }
        line.arguments
            .extend(words.map(|word| word.unwrap_or_else(|w| w.to_string_lossy().into_owned())));
        line
    }

    fn take_command(&mut self, commands: &[&str], word: String) {
        if commands.contains(&word.as_str()) {
            self.command = Some(word);
        } else if self.problems.is_empty() {
            let known = commands.join(", ");
            self.problem(
                "command line",
                &format!("no such command; expected one of {known}"),
            );
        }
    }

    fn unknown_flag(&mut self, program: Program, flag: &str) {
        let flags: Vec<String> = program.settings().map(Setting::long_flag).collect();
        let hint = typo::closest(flag, flags.iter().map(String::as_str))
            .map(|meant| format!(" (did you mean `{meant}`?)"))
            .unwrap_or_default();
        self.problem(flag, &format!("no such option{hint}"));
    }

    fn problem(&mut self, name: &str, message: &str) {
        self.problems
            .push(Problem::new(name.to_owned(), message.to_owned()));
    }
}

/// The name and the value attached to it: `--a=b`, `-sb`.
fn split_flag(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        }
    } else {
        let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
        let (flag, value) = word.split_at(end);
        (flag, (!value.is_empty()).then_some(value))
    }
}

fn find(program: Program, flag: &str) -> Option<&'static Setting> {
    let short = flag.strip_prefix('-').filter(|rest| rest.len() == 1);
    let short = short.and_then(|rest| rest.chars().next());
    program.settings().find(|setting| match short {
        Some(short) => setting.flag == Some(short),
        None => setting.long_flag() == flag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> CommandLine {
        let words = words.split_whitespace().map(OsString::from);
        CommandLine::parse(Program::Client, &["run", "obtain-token"], words)
    }

    fn flags(line: &CommandLine) -> Vec<(&str, &str)> {
        let flags = line.flags.iter();
        flags
            .map(|(setting, text)| (setting.key, text.as_str()))
            .collect()
    }

    fn problems(line: &CommandLine) -> Vec<String> {
        line.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_come_before_the_command_and_words_after_it() {
        let line = parse("--log-level DEBUG -s http://a --client-token=x=y -tz run --log-level x");
        assert_eq!(
            flags(&line),
            [
                ("LOG_LEVEL", "DEBUG"),
                ("SERVER_URL", "http://a"),
                ("CLIENT_TOKEN", "x=y"),
                ("CLIENT_TOKEN", "z"),
            ]
        );
        assert_eq!(line.command.as_deref(), Some("run"));
        assert_eq!(line.arguments, ["--log-level", "x"]);
    }

    #[test]
    fn all_wrong_flags_are_reported_and_what_follows_them_is_not_printed() {
        let line = parse("--client-tokn hunter2 --foo=hunter2 -x hunter2 run");
        assert_eq!(
            problems(&line),
            [
                "--client-tokn: no such option (did you mean `--client-token`?)",
                "--foo: no such option",
                "-x: no such option",
            ]
        );
        assert_eq!(line.command.as_deref(), Some("run"));
        assert!(!format!("{line:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_value_and_an_unknown_command_are_problems() {
        assert_eq!(
            problems(&parse("--log-level")),
            ["--log-level: needs a value"]
        );
        assert_eq!(
            problems(&parse("walk")),
            ["command line: no such command; expected one of run, obtain-token"]
        );
        assert!(parse("").command.is_none());
        assert!(parse("--help").help);
    }
}
