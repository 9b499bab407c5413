//! `print-config`: all settings as upstream prints them, secrets masked.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::model::{REDACTED, printable_url};
use super::problem::Source;
use super::setting::{Kind, Program, Setting};
use super::settings::Settings;
use super::{common, value};
use crate::python;

/// Common settings that upstream's server defines once more.
const TWICE_ON_SERVER: [&str; 2] = ["ALLOWED_ORIGINS", "ENABLE_DATADOG_APM"];

/// Two JSON objects, own settings and common ones, below a headline.
///
/// Every value is a text as Python writes it (`"None"`, `"['.rego']"`). A secret that someone set
/// is masked, as are credentials in URLs; scripts that compare defaults see no difference.
pub fn print_config(settings: &Settings) -> String {
    let program = settings.program();
    let mut own = rows(settings, program.own_settings());
    if program == Program::Server {
        let again = common::SETTINGS
            .iter()
            .filter(|s| TWICE_ON_SERVER.contains(&s.key));
        own.extend(again.map(|setting| row(settings, setting)));
        // Upstream reads one variable into two entries with different defaults.
        let trigger = match settings.source("DATA_CONFIG_ROUTE") {
            Source::Default => "/data/update".to_owned(),
            _ => settings.text("DATA_CONFIG_ROUTE").unwrap_or_default(),
        };
        own.insert("DATA_UPDATE_TRIGGER_ROUTE", trigger);
    }
    let common = rows(settings, common::SETTINGS);
    format!(
        "Printing configuration values\n{}\n{}",
        object(&own),
        object(&common)
    )
}

fn rows(settings: &Settings, table: &'static [Setting]) -> BTreeMap<&'static str, String> {
    let table = table.iter().filter(|setting| !setting.ours);
    table.map(|setting| row(settings, setting)).collect()
}

fn row(settings: &Settings, setting: &'static Setting) -> (&'static str, String) {
    let text = match settings.text(setting.key) {
        None => "None".to_owned(),
        Some(_) if hidden(settings, setting) => REDACTED.to_owned(),
        Some(text) => render(setting, &text),
    };
    (setting.shown_as, text)
}

fn hidden(settings: &Settings, setting: &Setting) -> bool {
    setting.secret && settings.source(setting.key) != Source::Default
}

/// Python's `str()` of the value. A text that does not parse is shown as it is.
fn render(setting: &Setting, text: &str) -> String {
    let rendered = match &setting.kind {
        Kind::Bool => value::parse_bool(text).map(|value| python::value(&value.into())),
        Kind::Int => value::parse_int(text).map(|number| number.to_string()),
        Kind::Float => value::parse_float(text).map(python::float),
        Kind::Text => Some(printable_url(text)),
        Kind::List(delimiter) => {
            let items = value::split(text, *delimiter).into_iter().map(Value::from);
            Some(python::value(&items.collect()))
        }
        Kind::Enum(enumeration) => enumeration
            .name_of(text)
            .map(|name| format!("{}.{name}", enumeration.class)),
        Kind::Model(model) => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Some(model.render(&object)),
            _ => Some(REDACTED.to_owned()),
        },
        // As upstream, which prints the object that holds the key.
        Kind::Key => Some("<public key>".to_owned()),
    };
    rendered.unwrap_or_else(|| text.to_owned())
}

fn object(rows: &BTreeMap<&'static str, String>) -> String {
    let mut out = String::from("{");
    for (n, (name, text)) in rows.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{comma}\n  \"{name}\": {}", python::json_text(text));
    }
    out.push_str("\n}");
    out
}
