//! JSON text into the engine's values and back, without losing digits of long integers.

use std::collections::BTreeMap;

use regorus::Value;
use serde_json::value::RawValue;

use crate::EngineError;

/// Integers of at least so many digits may not fit 64 bits.
const LONG_DIGITS: usize = 19;

/// Reads a document. Nesting is limited (to 128 levels), so that no text can exhaust the stack.
pub(crate) fn parse(text: &[u8]) -> Result<Value, EngineError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| EngineError::InvalidJson(format!("not UTF-8: {error}")))?;
    parse_str(text)
}

/// As [`parse`], of a string.
pub(crate) fn parse_str(text: &str) -> Result<Value, EngineError> {
    let invalid = |error: &dyn std::fmt::Display| EngineError::InvalidJson(describe(text, error));
    let value = Value::from_json_str(text).map_err(|error| invalid(&error))?;
    if has_long_integer(text) {
        return parse_exactly(text).map_err(|error| invalid(&error));
    }
    Ok(value)
}

/// Go's words for the commonest cases, the parser's for the others.
fn describe(text: &str, error: &dyn std::fmt::Display) -> String {
    let message = error.to_string();
    if text.trim().is_empty() {
        "EOF".to_owned()
    } else if message.starts_with("EOF while parsing") {
        "unexpected EOF".to_owned()
    } else {
        message
    }
}

fn has_long_integer(text: &str) -> bool {
    let bytes = text.as_bytes();
    let windows = bytes.chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit());
    windows.into_iter().any(|run| run.len() >= LONG_DIGITS)
}

/// Reads a text that is known to be a document, part by part: the usual reader makes a float of a
/// long integer.
fn parse_exactly(text: &str) -> anyhow::Result<Value> {
    let text = text.trim();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let members = members.into_iter().map(|(name, member)| {
                anyhow::Ok((Value::from(name), parse_exactly(member.get())?))
            });
            Ok(Value::from(members.collect::<Result<BTreeMap<_, _>, _>>()?))
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            let elements = elements
                .into_iter()
                .map(|element| parse_exactly(element.get()));
            Ok(Value::from(elements.collect::<Result<Vec<_>, _>>()?))
        }
        Some(b'-' | b'0'..=b'9') if !text.contains(['.', 'e', 'E']) => {
            Value::from_numeric_string(text)
        }
        _ => Value::from_json_str(text),
    }
}

/// Writes a value as JSON; sets become arrays.
pub(crate) fn write(value: &Value) -> String {
    write_for(value, false)
}

/// Writes a value as JSON, for people if `is_pretty`.
pub(crate) fn write_for(value: &Value, is_pretty: bool) -> String {
    let mut writer = Writer::new(is_pretty);
    writer.value(value);
    writer.text
}

struct Writer {
    text: String,
    is_pretty: bool,
    depth: usize,
}

impl Writer {
    fn new(is_pretty: bool) -> Self {
        Self {
            text: String::new(),
            is_pretty,
            depth: 0,
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Undefined => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&number.format_decimal()),
            Value::String(text) => self.string(text),
            Value::Array(elements) => self.elements(elements.iter()),
            Value::Set(elements) => self.elements(elements.iter()),
            Value::Object(members) => {
                self.text.push('{');
                let mut is_empty = true;
                for (name, member) in members.iter_sorted() {
                    self.begin(&mut is_empty);
                    self.name(name);
                    self.text.push_str(if self.is_pretty { ": " } else { ":" });
                    self.value(member);
                    self.depth -= 1;
                }
                self.end('}', is_empty);
            }
        }
    }

    fn elements<'v>(&mut self, elements: impl Iterator<Item = &'v Value>) {
        self.text.push('[');
        let mut is_empty = true;
        for element in elements {
            self.begin(&mut is_empty);
            self.value(element);
            self.depth -= 1;
        }
        self.end(']', is_empty);
    }

    /// As OPA, a name that is no string is written as the text of its JSON.
    fn name(&mut self, name: &Value) {
        match name {
            Value::String(name) => self.string(name),
            other => self.string(&write(other)),
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push_str(&crate::path::quote(text));
    }

    /// Begins a member or an element.
    fn begin(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.text.push(',');
        }
        self.depth += 1;
        self.line();
    }

    fn end(&mut self, bracket: char, is_empty: bool) {
        if !is_empty {
            self.line();
        }
        self.text.push(bracket);
    }

    fn line(&mut self) {
        if self.is_pretty {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n("  ", self.depth));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        write(&parse_str(text).unwrap())
    }

    #[test]
    fn digits_of_long_integers_are_kept() {
        for text in [
            "123456789012345678901234567890",
            "-9223372036854775809",
            r#"{"a":[18446744073709551616,{"b":-1}],"c":"99999999999999999999"}"#,
            r#"{"a":0.25,"n":null,"t":true,"z":99999999999999999999}"#,
        ] {
            assert_eq!(round_trip(text), text);
        }
    }

    #[test]
    fn pretty_text_is_as_opa_writes_it() {
        let value = parse_str(r#"{"a":[1,{}],"b":[],"c":{"d":"\"é\n"}}"#).unwrap();
        let expected = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": [],\n  \"c\": {\n    \"d\": \"\\\"é\\n\"\n  }\n}";
        assert_eq!(write_for(&value, true), expected);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "{", "[1,]", "nul", "1 2", "\u{0}", "{\"a\":1}}"] {
            assert!(parse_str(text).is_err(), "{text}");
        }
        let deep = "[".repeat(100_000) + "99999999999999999999" + &"]".repeat(100_000);
        assert!(parse_str(&deep).is_err());
    }
}
