//! JSON as text: rewritten without losing member order or the digits of a number.
//!
//! Report hashes and what released OPAL writes into a policy store are defined over the text that
//! Python's `json.dumps` makes, which keeps integers of any length and prints floats its own
//! way. Parsing into a tree would lose both, so these functions walk the text.

use std::fmt::Write as _;

/// The text that Python's `json.dumps` gives for the document `json`.
///
/// `json` must be valid JSON. Separators are `", "` and `": "`, everything outside ASCII is
/// escaped, integers keep their digits, floats are printed as Python does.
pub fn python_text(json: &str) -> String {
    Rewriter::new(json, Style::Python, Nulls::Keep).rewrite()
}

/// The document `json` without the members whose value is null, at every depth; items of arrays
/// stay. As released OPAL stores documents. `json` must be valid JSON.
pub fn without_null_members(json: &str) -> String {
    Rewriter::new(json, Style::Compact, Nulls::Drop).rewrite()
}

/// How many objects and arrays are inside one another in `json`, which must be valid JSON; 0 for a
/// scalar. Costs no stack, however many there are.
pub fn depth(json: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    Python,
    Compact,
}

#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    Keep,
    Drop,
}

/// Where the walk is inside one container.
struct Level {
    closes: u8,
    /// Whether something was written, so that the next item needs a separator.
    started: bool,
}

struct Rewriter<'a> {
    rest: &'a str,
    out: String,
    levels: Vec<Level>,
    style: Style,
    nulls: Nulls,
}

impl<'a> Rewriter<'a> {
    fn new(json: &'a str, style: Style, nulls: Nulls) -> Self {
        Self {
            rest: json,
            out: String::with_capacity(json.len() + json.len() / 8),
            levels: Vec::new(),
            style,
            nulls,
        }
    }

    /// Walks the whole text without recursion: documents come from outside and may be deep.
    fn rewrite(mut self) -> String {
        loop {
            self.skip_blanks_and_commas();
            let Some(first) = self.rest.bytes().next() else {
                return self.out;
            };
            match (first, self.levels.last().map(|level| level.closes)) {
                (b'}' | b']', _) => self.close(),
                (b'"', Some(b'}')) => self.member(),
                _ => {
                    self.separate();
                    self.value();
                }
            }
        }
    }

    fn skip_blanks_and_commas(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
    }

    fn separate(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && std::mem::replace(&mut level.started, true)
        {
            self.out.push_str(match self.style {
                Style::Python => ", ",
                Style::Compact => ",",
            });
        }
    }

    /// A name, its colon and its value; nothing at all for a null that is to be dropped.
    fn member(&mut self) {
        let name = self.take_string();
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', ':']);
        if self.nulls == Nulls::Drop
            && let Some(rest) = self.rest.strip_prefix("null")
        {
            self.rest = rest;
            return;
        }
        self.separate();
        self.push_string(name);
        self.out.push_str(match self.style {
            Style::Python => ": ",
            Style::Compact => ":",
        });
        self.value();
    }

    fn value(&mut self) {
        match self.rest.bytes().next() {
            Some(b'{') => self.open('{', b'}'),
            Some(b'[') => self.open('[', b']'),
            Some(b'"') => {
                let text = self.take_string();
                self.push_string(text);
            }
            _ => self.scalar(),
        }
    }

    fn open(&mut self, bracket: char, closes: u8) {
        self.out.push(bracket);
        self.rest = self.rest.get(1..).unwrap_or_default();
        self.levels.push(Level {
            closes,
            started: false,
        });
    }

    fn close(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
        if let Some(level) = self.levels.pop() {
            self.out.push(char::from(level.closes));
        }
    }

    /// The next string with its quotes, as written.
    fn take_string(&mut self) -> &'a str {
        let mut escaped = false;
        let end = self
            .rest
            .bytes()
            .skip(1)
            .position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            })
            .map_or(self.rest.len(), |at| at + 2);
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    fn push_string(&mut self, literal: &str) {
        if self.style == Style::Compact {
            self.out.push_str(literal);
            return;
        }
        match serde_json::from_str::<String>(literal) {
            Ok(text) => push_python_string(&mut self.out, &text),
            // Lone surrogates are JSON, but no text of ours: they stay as they were written.
            Err(_) => self.out.push_str(literal),
        }
    }

    fn scalar(&mut self) {
        let end = self
            .rest
            .find([',', '}', ']', ' ', '\t', '\n', '\r'])
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let is_float = text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            && text.contains(['.', 'e', 'E']);
        match text.parse::<f64>() {
            Ok(number) if is_float && self.style == Style::Python => {
                self.out.push_str(&python_float(number));
            }
            _ => self.out.push_str(text),
        }
    }
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent from 1e16 up
/// and below 1e-4.
fn python_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') {
        plain
    } else {
        format!("{plain}.0")
    }
}

fn push_python_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    // Writing to a `String` cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_python_s() {
        for (json, python) in [
            ("{}", "{}"),
            (
                r#"{"a":[1,2,{"b":null}],"c":"é\u0041😀"}"#,
                r#"{"a": [1, 2, {"b": null}], "c": "\u00e9A\ud83d\ude00"}"#,
            ),
            (
                "[1.0,1e16,1E15,0.00001,0.0001,-0.0,1.5e300,12345678901234567890123]",
                "[1.0, 1e+16, 1000000000000000.0, 1e-05, 0.0001, -0.0, 1.5e+300, 12345678901234567890123]",
            ),
            (" [ \"a\\/b\" , true ]\n", r#"["a/b", true]"#),
            (r#""\ud800""#, r#""\ud800""#),
            ("\"\u{7f}\"", r#""\u007f""#),
        ] {
            assert_eq!(python_text(json), python);
        }
    }

    #[test]
    fn null_members_go_and_null_items_stay() {
        assert_eq!(
            without_null_members(
                r#"{"a":null,"b":{"c":null,"d":[null,{"e":null,"f":"null"}]},"g":12345678901234567890.10}"#
            ),
            r#"{"b":{"d":[null,{"f":"null"}]},"g":12345678901234567890.10}"#
        );
        assert_eq!(without_null_members("null"), "null");
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        for (json, expected) in [
            ("1", 0),
            ("\"[{\"", 0),
            (r#"{"a\"[":[1,{"b":[]}],"c":{}}"#, 4),
        ] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        assert_eq!(without_null_members(&deep), deep);
        assert_eq!(depth(&deep), 200_000);
    }

    proptest! {
        #[test]
        fn rewriting_keeps_the_meaning(text in "[\\x00-\\x7f\u{e9}\u{1f600}]{0,12}", number in any::<f64>().prop_filter("finite", |n| n.is_finite()), int in any::<i64>()) {
            let value = serde_json::json!({ "t": text, "n": number, "deep": [int, { &text: true }] });
            let rewritten = python_text(&value.to_string());
            prop_assert!(rewritten.is_ascii());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&rewritten).unwrap(), value);
        }
    }
}
