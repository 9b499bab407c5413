//! Logs, as the `LOG_*` settings ask for them.
//!
//! Readable lines by default, flat JSON with `LOG_SERIALIZE`; colours only on a terminal. What must
//! not be printed is kept out of the log by whoever logs.

use std::io::{self, IsTerminal};

pub use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{FromSetting, Reader, Setting};

/// Libraries whose debug lines are about themselves; they show at `TRACE`, or when included.
const LIBRARIES: [&str; 8] = [
    "hyper",
    "hyper_util",
    "h2",
    "rustls",
    "reqwest",
    "tungstenite",
    "tokio_tungstenite",
    "mio",
];

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The lowest level shown.
    pub level: LogLevel,
    /// One JSON object a line.
    pub json: bool,
    /// Standard error, else standard output.
    pub to_stderr: bool,
    /// Colours, where there is a terminal.
    pub colour: bool,
    /// Hidden modules, by the start of their name.
    pub exclude: Vec<String>,
    /// Exceptions to `exclude`.
    pub include: Vec<String>,
}

/// A level by its name in Python's loggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub LevelFilter);

impl FromSetting for LogLevel {
    fn from_setting(text: &str, _: &Setting) -> Result<Self, String> {
        let level = match text.trim().to_ascii_uppercase().as_str() {
            "TRACE" => LevelFilter::TRACE,
            "DEBUG" => LevelFilter::DEBUG,
            "INFO" | "SUCCESS" => LevelFilter::INFO,
            "WARNING" | "WARN" => LevelFilter::WARN,
            "ERROR" | "CRITICAL" => LevelFilter::ERROR,
            _ => return Err("one of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL".to_owned()),
        };
        Ok(Self(level))
    }
}

impl LogConfig {
    /// Reads the `LOG_*` settings.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            level: reader.get("LOG_LEVEL"),
            json: reader.get("LOG_SERIALIZE"),
            to_stderr: reader.get("LOG_PIPE_TO_STDERR"),
            colour: reader.get("LOG_COLORIZE"),
            exclude: reader.get("LOG_MODULE_EXCLUDE_LIST"),
            include: reader.get("LOG_MODULE_INCLUDE_LIST"),
        }
    }

    /// Which modules show which levels; the longest matching name decides.
    fn targets(&self) -> Targets {
        let level = self.level.0;
        let mut targets = Targets::new().with_default(level);
        if level != LevelFilter::TRACE {
            let quiet = level.min(LevelFilter::WARN);
            targets = targets.with_targets(LIBRARIES.map(|name| (name, quiet)));
        }
        let named = |names: &[String], level: LevelFilter| -> Vec<(String, LevelFilter)> {
            names.iter().map(|name| (module(name), level)).collect()
        };
        targets
            .with_targets(named(&self.exclude, LevelFilter::OFF))
            .with_targets(named(&self.include, level))
    }

    fn layer<W>(&self, writer: W, terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let layer = tracing_subscriber::fmt::layer().with_writer(writer);
        if self.json {
            let layer = layer.json().flatten_event(true).with_ansi(false);
            layer.with_filter(self.targets()).boxed()
        } else {
            let layer = layer.with_ansi(self.colour && terminal);
            layer.with_filter(self.targets()).boxed()
        }
    }
}

/// Starts logging. The first call decides; later ones change nothing.
pub fn init(config: &LogConfig) {
    let layer = if config.to_stderr {
        config.layer(io::stderr, io::stderr().is_terminal())
    } else {
        config.layer(io::stdout, io::stdout().is_terminal())
    };
    // Fails only if a subscriber is set, as in tests that build two daemons in one process.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

/// A Python module's name as one of ours: `opal_client.opa` → `opal_client::opa`.
fn module(name: &str) -> String {
    name.trim().replace('.', "::")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    fn config() -> LogConfig {
        LogConfig {
            level: LogLevel(LevelFilter::DEBUG),
            json: false,
            to_stderr: true,
            colour: true,
            exclude: vec!["opal_client.opa".into()],
            include: vec!["opal_client.opa.logger".into(), "rustls".into()],
        }
    }

    #[test]
    fn the_longest_name_decides() {
        let targets = config().targets();
        assert!(targets.would_enable("opal_server::policy", &Level::DEBUG));
        assert!(!targets.would_enable("opal_server::policy", &Level::TRACE));
        assert!(!targets.would_enable("opal_client::opa::runner", &Level::ERROR));
        assert!(targets.would_enable("opal_client::opa::logger", &Level::DEBUG));
        assert!(!targets.would_enable("hyper::proto", &Level::DEBUG));
        assert!(targets.would_enable("rustls::client", &Level::DEBUG));
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &LogConfig, terminal: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = config.layer(move || writer.clone(), terminal);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::info!(scope = "a", "Hello"));
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn colours_show_on_a_terminal_only_and_json_is_flat() {
        assert!(logged(&config(), true).contains('\u{1b}'));
        assert!(!logged(&config(), false).contains('\u{1b}'));
        let json = LogConfig {
            json: true,
            ..config()
        };
        let line: serde_json::Value = serde_json::from_str(&logged(&json, true)).unwrap();
        assert_eq!(
            (&line["message"], &line["scope"]),
            (&"Hello".into(), &"a".into())
        );
    }
}
