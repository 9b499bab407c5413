//! What surrounds the process: variables, the working directory and the settings file in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::settings::Problem;

/// A snapshot of the environment. Nothing else in the program reads it.
#[derive(Clone, Default)]
pub struct Environment {
    pub(super) variables: BTreeMap<String, String>,
    /// Names of variables that are not UTF-8.
    pub(super) unreadable: Vec<String>,
    pub(super) directory: PathBuf,
    pub(super) home: PathBuf,
    pub(super) file: Option<SettingsFile>,
    pub(super) problems: Vec<Problem>,
}

/// A `settings.ini` or `.env` file.
#[derive(Clone)]
pub(super) struct SettingsFile {
    pub(super) path: PathBuf,
    /// By upper-case name.
    pub(super) values: BTreeMap<String, String>,
}

// Variables hold secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The environment of this process, and the settings file in its working directory.
    pub fn of_process() -> Self {
        let mut environment = Self {
            directory: std::env::current_dir().unwrap_or_default(),
            home: crate::paths::home().unwrap_or_default(),
            ..Self::default()
        };
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment.read_file();
        environment
    }

    /// An environment for tests: these variables, nothing else.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            variables: variables.into_iter().map(owned).collect(),
            directory: PathBuf::from("/srv/opal"),
            home: PathBuf::from("/home/opal"),
            ..Self::default()
        }
    }

    /// The same in another working directory, whose settings file is read.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self.read_file();
        self
    }

    /// The text of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    // As upstream: one file, `settings.ini` before `.env`.
    fn read_file(&mut self) {
        for name in ["settings.ini", ".env"] {
            let path = self.directory.join(name);
            if !path.is_file() {
                continue;
            }
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let values = match name {
                        ".env" => parse_env(&text),
                        _ => parse_ini(&text),
                    };
                    self.file = Some(SettingsFile { path, values });
                }
                Err(error) => self.problems.push(Problem::new(
                    path.display().to_string(),
                    format!("cannot be read: {error}"),
                )),
            }
            return;
        }
    }
}

/// `NAME=VALUE` lines; a comment starts with `#`; one pair of quotes around a value is dropped.
fn parse_env(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let name = name.trim();
            let name = name.strip_prefix("export ").unwrap_or(name).trim();
            (name.to_uppercase(), unquoted(value.trim()).to_owned())
        })
        .collect()
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    value
}

/// The section `[settings]`; a comment starts with `#` or `;`, `%%` stands for `%`.
fn parse_ini(text: &str) -> BTreeMap<String, String> {
    let mut in_section = false;
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            in_section = section.trim_end_matches(']') == "settings";
        } else if in_section && let Some((name, value)) = line.split_once(['=', ':']) {
            values.insert(name.trim().to_uppercase(), value.trim().replace("%%", "%"));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_have_comments_and_quotes() {
        let text = "# c\nOPAL_A=1\n OPAL_B = \"x # y\"\nOPAL_C='a=b'\nnonsense\nexport OPAL_D=\n";
        let values = parse_env(text);
        let values: Vec<_> = values
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            values,
            [
                ("OPAL_A", "1"),
                ("OPAL_B", "x # y"),
                ("OPAL_C", "a=b"),
                ("OPAL_D", "")
            ]
        );
    }

    #[test]
    fn ini_files_have_a_section() {
        let text = "[other]\nopal_a = 0\n[settings]\n; c\nopal_a = 50%%\nOPAL_B: x\n";
        let values = parse_ini(text);
        assert_eq!(values.get("OPAL_A").unwrap(), "50%");
        assert_eq!(values.get("OPAL_B").unwrap(), "x");
    }

    #[test]
    fn debug_shows_no_values() {
        let environment = Environment::of([("OPAL_CLIENT_TOKEN", "hunter2")]);
        let text = format!("{environment:?}");
        assert!(text.contains("OPAL_CLIENT_TOKEN") && !text.contains("hunter2"));
    }
}
