//! The engine's log lines in ours.

use serde_json::{Map, Value};
use tracing::Level;

/// What of the engine's log is shown (`OPAL_INLINE_OPA_LOG_FORMAT`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineLogFormat {
    /// Nothing.
    #[default]
    None,
    /// The messages alone.
    Minimal,
    /// Requests with their method, path and status; else the whole line.
    Http,
    /// The whole lines.
    Full,
}

impl EngineLogFormat {
    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "minimal" => Some(Self::Minimal),
            "http" => Some(Self::Http),
            "full" => Some(Self::Full),
            _ => None,
        }
    }
}

/// A line of the engine's log, as far as we understand it.
#[derive(Debug, PartialEq)]
pub(super) struct LogLine {
    level: Level,
    message: Option<String>,
    members: Map<String, Value>,
}

impl LogLine {
    /// Takes a line apart; what is not OPA's JSON is a message.
    pub(super) fn parse(line: &str) -> Self {
        let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(line) else {
            return Self {
                level: Level::INFO,
                message: Some(line.to_owned()),
                members: Map::new(),
            };
        };
        let mut take = |name: &str| match members.shift_remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let level = level(take("level").unwrap_or_default().as_str());
        let message = take("msg");
        Self {
            level,
            message,
            members,
        }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The message, with its error if there is one.
    pub(super) fn summary(&self) -> String {
        let message = self.message.clone().unwrap_or_default();
        match self.members.get("err").and_then(Value::as_str) {
            Some(error) => format!("{message} {error}"),
            None => message,
        }
    }

    /// What is shown of the line; nothing if it is not to be shown.
    pub(super) fn render(&self, format: EngineLogFormat) -> Option<String> {
        match format {
            EngineLogFormat::None => None,
            EngineLogFormat::Minimal if self.message.is_some() => self.message.clone(),
            EngineLogFormat::Http if self.member("req_method").is_some() => Some(self.request()),
            EngineLogFormat::Minimal | EngineLogFormat::Http | EngineLogFormat::Full => {
                Some(self.whole())
            }
        }
    }

    fn request(&self) -> String {
        let text = |name: &str| self.member(name).unwrap_or_default();
        let message = self.message.as_deref().unwrap_or_default();
        let asked = format!("{message:<20} {} {}", text("req_method"), text("req_path"));
        match self.member("resp_status") {
            Some(status) => format!("{asked} -> {status}"),
            None => asked,
        }
    }

    fn whole(&self) -> String {
        let message = self.message.as_deref().unwrap_or_default();
        if self.members.is_empty() {
            return message.to_owned();
        }
        let members = Value::Object(self.members.clone());
        format!("{message:<20} {members}")
    }

    fn member(&self, name: &str) -> Option<String> {
        match self.members.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

fn level(name: &str) -> Level {
    match name {
        "debug" => Level::DEBUG,
        "warn" | "warning" => Level::WARN,
        "error" | "fatal" | "panic" => Level::ERROR,
        _ => Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_as_its_format_says() {
        let line = r#"{"level":"info","msg":"Sent response.","req_method":"GET","req_path":"/health","resp_status":200}"#;
        let line = LogLine::parse(line);
        for (format, shown) in [
            ("none", None),
            ("minimal", Some("Sent response.")),
            ("http", Some("Sent response.       GET /health -> 200")),
            (
                "full",
                Some(
                    r#"Sent response.       {"req_method":"GET","req_path":"/health","resp_status":200}"#,
                ),
            ),
        ] {
            let format = EngineLogFormat::parse(format).unwrap();
            assert_eq!(line.render(format).as_deref(), shown);
        }
        assert_eq!(EngineLogFormat::parse("loud"), None);
    }

    #[test]
    fn a_line_that_is_not_json_is_a_message_and_levels_are_kept() {
        let line = LogLine::parse("panic: oh");
        assert_eq!(
            line.render(EngineLogFormat::Minimal).as_deref(),
            Some("panic: oh")
        );
        assert_eq!(LogLine::parse(r#"{"level":"error"}"#).level(), Level::ERROR);
        let line = LogLine::parse(r#"{"level":"error","msg":"Unable","err":"in use"}"#);
        assert_eq!(line.summary(), "Unable in use");
    }
}
