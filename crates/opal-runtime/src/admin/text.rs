//! What people read: headers, usage, help.

use std::fmt::Write;
use std::time::Duration;

use crate::config::{Effect, Kind, Program, Setting};

pub(super) const DEFAULT_SERVER_URL: &str = "http://localhost:7002";
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Colours, where there is a terminal.
pub(super) struct Colour(pub(super) bool);

impl Colour {
    fn paint(&self, code: u8, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub(super) fn red(&self, text: &str) -> String {
        self.paint(31, text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.paint(32, text)
    }

    pub(super) fn cyan(&self, text: &str) -> String {
        self.paint(36, text)
    }
}

fn name(program: Program) -> &'static str {
    match program {
        Program::Server => "server",
        Program::Client => "client",
    }
}

/// The lines above `run` and above the usage.
pub fn header(program: Program) -> String {
    let first = match program {
        Program::Server => "💎 OPAL-SERVER 💎",
        Program::Client => "OPAL-CLIENT",
    };
    format!(
        "\n    {first}\n    Open-Policy Administration Layer - {}",
        name(program)
    )
}

/// The line below the header of `run`.
pub(super) fn starting(program: Program, engine_type: &str) -> String {
    let what = match program {
        Program::Server => "OPAL Server",
        Program::Client => "OPAL client",
    };
    format!("-- Starting {what} (with {engine_type}) --")
}

/// The usage and a few examples.
pub fn usage(program: Program) -> String {
    let name = name(program);
    format!(
        r#"Usage: opal-{name} [OPTIONS] [COMMAND] [ARGS]...

    Config top level options:
        - Use env-vars (same as cmd options) but uppercase
            and with "_" instead of "-"; all prefixed with "OPAL_"
        - Use command line options as detailed by '--help'
        - Use .env or .ini files

    Examples:
        - opal-{name} --help                           Detailed help on CLI
        - opal-{name} run --help                       Help on run command
        - opal-{name} run --engine-type gunicorn       Run {name} with gunicorn
"#
    )
}

const COMMAND_HELP: [(&str, &str, &str); 6] = [
    (
        "run",
        "Run in the foreground.",
        "  --engine-type TEXT  accepted for compatibility; there is one engine",
    ),
    ("print-config", "Print all settings; secrets are masked.", ""),
    (
        "obtain-token",
        "Ask a server for a token.",
        "  MASTER_TOKEN                   the server's OPAL_AUTH_MASTER_TOKEN [env: OPAL_MASTER_TOKEN]
  --server-url TEXT              the server [default: http://localhost:7002]
  --type TEXT                    client, datasource or listener [default: client]
  --ttl INTEGER TEXT             how long it holds [default: 365 days]
  --claims TEXT                  more claims, as JSON [default: {}]
  --just-the-token / --no-just-the-token
                                 print the token alone, or the whole answer",
    ),
    (
        "generate-secret",
        "Print random bytes.",
        "  --size INTEGER  how many [default: 32]
  --format TEXT   urlsafe, hex or bytes [default: urlsafe]",
    ),
    (
        "publish-data-update",
        "Publish a data update through a server.",
        "  TOKEN                what the server asks for [env: OPAL_CLIENT_TOKEN]
  --server-url TEXT    the server [default: http://localhost:7002]
  --server-route TEXT  the route [default: /data/config]
  --reason TEXT        why
  -e, --entries TEXT   the entries, as JSON; or one entry:
  --src-url TEXT       where clients fetch it
  -t, --topic TEXT     whom it concerns; may be repeated
  --data TEXT          the document itself, as JSON
  --src-config TEXT    how clients fetch it, as JSON [default: {}]
  --dst-path TEXT      where it goes
  --save-method TEXT   PUT or PATCH [default: PUT]",
    ),
    ("version", "Print the version.", ""),
];

/// The answer to `COMMAND --help`.
pub(super) fn command_help(program: Program, command: &str) -> String {
    let name = name(program);
    let known = COMMAND_HELP.iter().find(|(name, ..)| *name == command);
    let (_, what, options) = known.unwrap_or(&COMMAND_HELP[0]);
    format!("Usage: opal-{name} {command} [OPTIONS] [ARGS]...\n\n  {what}\n\n{options}")
}

/// The answer to `--help`: every setting, every command.
pub fn help(program: Program) -> String {
    let mut out = usage(program);
    out.push_str("\nOptions:\n");
    for setting in program.settings() {
        out.push_str(&option(setting));
    }
    out.push_str("\nCommands:\n");
    for (name, what, _) in COMMAND_HELP {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "  {name:<20} {what}");
    }
    out
}

fn option(setting: &Setting) -> String {
    let short = setting
        .flag
        .map(|flag| format!("-{flag}, "))
        .unwrap_or_default();
    let kind = match setting.kind {
        Kind::Bool => "BOOLEAN",
        Kind::Int => "INTEGER",
        Kind::Float => "FLOAT",
        Kind::List(_) => "LIST",
        Kind::Model(_) => "JSON",
        Kind::Text | Kind::Enum(_) | Kind::Key => "TEXT",
    };
    let mut text = format!(
        "  {short}{} {kind}\n      {}",
        setting.long_flag(),
        setting.help
    );
    if let Kind::Enum(enumeration) = setting.kind {
        let texts: Vec<&str> = enumeration.texts().collect();
        let _ = write!(text, " One of {}.", texts.join(", "));
    }
    if let Effect::Never(reason) = setting.effect {
        let _ = write!(text, " Without effect: {reason}.");
    }
    let _ = write!(text, " [env: {}]", setting.variable());
    if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
        let _ = write!(text, " [default: {}]", default.replace('\n', "\\n"));
    }
    text.push('\n');
    text
}
