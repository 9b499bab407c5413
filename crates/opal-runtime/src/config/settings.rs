//! Every setting's text, and where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::command_line::CommandLine;
use super::environment::Environment;
use super::model::printable_url;
use super::problem::{Problem, Source, Warning};
use super::setting::{Kind, Program, Setting};
use super::{client, common, server, typo, value};

/// Longest part of a wrong value that is shown.
const SHOWN: usize = 80;

impl Program {
    /// The settings that only this program has.
    pub fn own_settings(self) -> &'static [Setting] {
        match self {
            Self::Server => server::SETTINGS,
            Self::Client => client::SETTINGS,
        }
    }

    /// All settings of this program.
    pub fn settings(self) -> impl Iterator<Item = &'static Setting> {
        self.own_settings().iter().chain(common::SETTINGS)
    }
}

/// The text of every setting of a program.
#[derive(Clone)]
pub struct Settings {
    pub(super) program: Program,
    values: BTreeMap<&'static str, Given>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    directory: PathBuf,
    home: PathBuf,
}

#[derive(Clone)]
struct Given {
    setting: &'static Setting,
    text: String,
    source: Source,
}

// Texts hold secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("program", &self.program)
            .field("given", &self.values.keys())
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Gives each setting its text: flag before environment before file before default.
    ///
    /// Problems are kept for [`Reader::finish`](super::Reader::finish). A variable that should be
    /// `true` or `false` and is another word for it (`yes`, `no`, `on`, `off`, `y`, `n`, `t`, `f`) or
    /// empty counts as not given, as upstream; here with a warning. Any other text is a problem.
    pub fn collect(program: Program, line: &CommandLine, environment: &Environment) -> Self {
        let mut settings = Self {
            program,
            values: BTreeMap::new(),
            problems: [line.problems.clone(), environment.problems.clone()].concat(),
            warnings: Vec::new(),
            directory: environment.directory.clone(),
            home: environment.home.clone(),
        };
        for setting in program.settings() {
            if let Some((text, source)) = given(setting, line, environment) {
                settings.take(setting, text, source);
            }
        }
        settings.note_names(environment);
        settings.apply_derived();
        settings
    }

    /// The text of a setting, if it has one. For a name that no table has, `None`.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.values.get(key) {
            Some(given) => Some(given.text.clone()),
            None => self.default_text(self.setting(key)?),
        }
    }

    /// Where the text of a setting came from.
    pub fn source(&self, key: &str) -> Source {
        let given = self.values.get(key);
        given.map_or(Source::Default, |given| given.source.clone())
    }

    /// The program these settings are for.
    pub fn program(&self) -> Program {
        self.program
    }

    /// The table's entry for `key`.
    pub fn setting(&self, key: &str) -> Option<&'static Setting> {
        self.program.settings().find(|setting| setting.key == key)
    }

    /// The default of a setting, its placeholders replaced.
    pub(super) fn default_text(&self, setting: &Setting) -> Option<String> {
        let mut text = String::new();
        let mut rest = setting.default?;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(before);
            text.push_str(&self.placeholder(name, &setting.kind));
            rest = after;
        }
        text.push_str(rest);
        Some(text)
    }

    fn placeholder(&self, name: &str, kind: &Kind) -> String {
        let (key, filter) = name.split_once('|').unwrap_or((name, ""));
        let text = match key {
            "cwd" => self.directory.display().to_string(),
            "home" => self.home.display().to_string(),
            key => self.text(key).unwrap_or_default(),
        };
        match (filter, kind) {
            ("ws", _) => text.replace("https", "wss").replace("http", "ws"),
            (_, Kind::Model(_)) => {
                let quoted = Value::from(text).to_string();
                quoted.trim_matches('"').to_owned()
            }
            _ => text,
        }
    }

    fn take(&mut self, setting: &'static Setting, text: String, source: Source) {
        let text = match (setting.kind, &source) {
            (Kind::Bool, Source::Flag) => flag_bool(&text).map_or(text, |b| b.to_string()),
            (Kind::Bool, source) if value::is_bool_elsewhere(&text) => {
                let default = setting.default.unwrap_or("None");
                self.warnings.push(Warning {
                    name: name_in(setting, source),
                    message: format!(
                        "`{}` is neither true nor false; the default, {default}, is used ({source})",
                        shortened(&text)
                    ),
                });
                return;
            }
            _ => text,
        };
        if !setting.kind.accepts(&text) {
            let problem = wrong(setting, &setting.kind.expected(), &text, &source);
            self.problems.push(problem);
        }
        let given = Given {
            setting,
            text,
            source,
        };
        self.values.insert(setting.key, given);
    }

    /// Names that nobody knows, and values that nobody can read.
    fn note_names(&mut self, environment: &Environment) {
        let known = |name: &str| {
            let mut all = [server::SETTINGS, client::SETTINGS, common::SETTINGS]
                .into_iter()
                .flatten();
            all.any(|s| s.variable() == name || s.other_variable().as_deref() == Some(name))
        };
        let variables: Vec<String> = self.program.settings().map(Setting::variable).collect();
        let from_file = environment.file.iter().flat_map(|file| file.values.keys());
        for name in environment.variables.keys().chain(from_file) {
            if !name.starts_with("OPAL_") || known(name) {
                continue;
            }
            if let Some(meant) = typo::closest(name, variables.iter().map(String::as_str)) {
                self.warnings.push(Warning {
                    name: name.clone(),
                    message: format!("no such setting; did you mean `{meant}`?"),
                });
            }
        }
        for name in environment.unreadable.iter().filter(|name| known(name)) {
            let problem = Problem::new(name.clone(), "is not UTF-8".to_owned());
            self.problems.push(problem);
        }
    }

    // As upstream: two settings that change others once all are known.
    fn apply_derived(&mut self) {
        if self.program != Program::Client {
            return;
        }
        let old = self.values.get("DATA_STORE_CONN_RETRY").cloned();
        if let (Some(given), Some(setting)) = (old, self.setting("DATA_UPDATER_CONN_RETRY")) {
            self.values.insert(setting.key, Given { setting, ..given });
        }
        let quiet = self.text("INLINE_OPA_LOG_FORMAT").as_deref() == Some("none");
        if let (true, Some(setting)) = (quiet, self.setting("LOG_MODULE_EXCLUDE_LIST")) {
            let mut text = self.text(setting.key).unwrap_or_default();
            if !text.trim().is_empty() {
                text.push(',');
            }
            text.push_str("opal_client.opa.logger");
            let source = self.source(setting.key);
            let given = Given {
                setting,
                text,
                source,
            };
            self.values.insert(setting.key, given);
        }
    }

    pub(super) fn wrong(&self, setting: &Setting, expected: &str) -> Problem {
        match self.values.get(setting.key) {
            Some(given) => wrong(given.setting, expected, &given.text, &given.source),
            None => Problem::new(setting.variable(), format!("expected {expected}")),
        }
    }

    pub(super) fn name(&self, setting: &Setting) -> String {
        name_in(setting, &self.source(setting.key))
    }
}

fn given(
    setting: &'static Setting,
    line: &CommandLine,
    environment: &Environment,
) -> Option<(String, Source)> {
    // As upstream: the last of several equal flags counts.
    let flag = line
        .flags
        .iter()
        .rev()
        .find(|(flag, _)| flag.key == setting.key);
    if let Some((_, text)) = flag {
        return Some((text.clone(), Source::Flag));
    }
    let names = [Some(setting.variable()), setting.other_variable()];
    let names = || names.iter().flatten();
    if let Some(text) = names().find_map(|name| environment.variables.get(name)) {
        return Some((text.clone(), Source::Environment));
    }
    let file = environment.file.as_ref()?;
    let text = names().find_map(|name| file.values.get(name))?;
    Some((text.clone(), Source::File(file.path.clone())))
}

/// Flags take more words for yes and no than variables do.
fn flag_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
        "" | "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

fn name_in(setting: &Setting, source: &Source) -> String {
    match source {
        Source::Flag => setting.long_flag(),
        _ => setting.variable(),
    }
}

fn wrong(setting: &Setting, expected: &str, text: &str, source: &Source) -> Problem {
    let message = match printable(setting, text) {
        Some(shown) => format!("expected {expected}, got `{shown}` ({source})"),
        None => format!("expected {expected} ({source})"),
    };
    Problem::new(name_in(setting, source), message)
}

/// `text` as it may be shown. Models may hold tokens, URLs passwords.
pub(super) fn printable(setting: &Setting, text: &str) -> Option<String> {
    let hidden = setting.secret || matches!(setting.kind, Kind::Model(_) | Kind::Key);
    (!hidden).then(|| {
        let text = if text.contains('@') {
            opal_protocol::RedactedUrl::new(text).to_string()
        } else {
            printable_url(text)
        };
        shortened(&text)
    })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
