//! Python's view of values: texts as it prints them, where people or scripts are used to them,
//! and what it takes for false.

use std::fmt::Write;

use serde_json::Value;

/// `repr()` of a text.
pub fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => escape(&mut out, u32::from(c)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn escape(out: &mut String, code: u32) {
    // Writing to a `String` cannot fail.
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// `repr()` of bytes.
pub fn bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from("b");
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b if char::from(b) == quote => {
                out.push('\\');
                out.push(quote);
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => escape(&mut out, u32::from(byte)),
        }
    }
    out.push(quote);
    out
}

/// `repr()` of a float.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        // Rust writes `4.6e18`, Python `4.6e+18`, with two digits of exponent at least.
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{number:?}")
}

/// `repr()` of the Python value that a JSON value becomes.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or_default()),
        Value::Number(number) => number.to_string(),
        Value::String(string) => text(string),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, member)| format!("{}: {}", text(key), self::value(member)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What Python takes for false.
pub fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A JSON text as `json.dumps` writes it: everything beyond ASCII escaped.
pub fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_choose_their_quotes() {
        for (given, shown) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("\"it's\"", "'\"it\\'s\"'"),
            ("a\n\u{1}\u{85}é\\", "'a\\n\\x01\\x85é\\\\'"),
        ] {
            assert_eq!(text(given), shown);
        }
        assert_eq!(bytes(b"\n\xe1\xd91"), r"b'\n\xe1\xd91'");
    }

    #[test]
    fn numbers_look_like_python_s() {
        for (given, shown) in [
            (1.0, "1.0"),
            (0.5, "0.5"),
            (4.611686018427388e18, "4.611686018427388e+18"),
            (1e-7, "1e-07"),
            (1e16, "1e+16"),
            (123456789.5, "123456789.5"),
            (0.0, "0.0"),
        ] {
            assert_eq!(float(given), shown);
        }
    }

    #[test]
    fn values_nest() {
        let given = json!({"a": [1, null, true], "b": {"c": "x"}});
        assert_eq!(value(&given), "{'a': [1, None, True], 'b': {'c': 'x'}}");
    }

    #[test]
    fn json_is_ascii() {
        assert_eq!(json_text("é\"💎\n"), "\"\\u00e9\\\"\\ud83d\\udc8e\\n\"");
    }
}
