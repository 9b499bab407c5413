//! JSON text into the engine's values.

use regorus::Value;

use crate::EngineError;

/// Reads a document. Nesting is limited (to 128 levels), so that no text can exhaust the stack.
pub(crate) fn parse(text: &[u8]) -> Result<Value, EngineError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| EngineError::InvalidJson(format!("not UTF-8: {error}")))?;
    parse_str(text)
}

/// As [`parse`], of a string.
pub(crate) fn parse_str(text: &str) -> Result<Value, EngineError> {
    Value::from_json_str(text).map_err(|error| EngineError::InvalidJson(describe(text, &error)))
}

/// Go's words for the commonest case, the parser's for the others.
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

/// Writes a value as JSON; sets become arrays.
pub(crate) fn write(value: &Value) -> Result<String, EngineError> {
    serde_json::to_string(value).map_err(|error| EngineError::InvalidJson(error.to_string()))
}
