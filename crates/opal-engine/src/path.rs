//! Paths of documents: how they are written in URLs, patches, messages and queries.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Longer paths than this lead nowhere and cannot be made: documents are walked recursively.
pub(crate) const MAX_DEPTH: usize = 128;

/// What Go's `url.PathEscape` leaves alone.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Decodes one percent-encoded segment; `None` if it is not UTF-8 or an escape is broken.
pub(crate) fn decode_segment(segment: &str) -> Option<String> {
    if has_broken_escape(segment) {
        return None;
    }
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

fn has_broken_escape(segment: &str) -> bool {
    let is_hex = |part: &[u8]| part.len() == 2 && part.iter().all(u8::is_ascii_hexdigit);
    segment
        .split('%')
        .skip(1)
        .any(|rest| !is_hex(rest.as_bytes().get(..2).unwrap_or_default()))
}

/// Decodes the segments of a URL path; `None` if one cannot be.
pub(crate) fn decode(path: &str) -> Option<Vec<String>> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.map(decode_segment).collect()
}

/// Decodes the path of a patch operation: as OPA, percent escapes and then `~1` and `~0`.
pub(crate) fn decode_pointer(pointer: &str) -> Option<Vec<String>> {
    let trimmed = pointer.trim_matches('/');
    if trimmed.is_empty() {
        return Some(Vec::new());
    }
    trimmed
        .split('/')
        .map(|segment| {
            Some(
                decode_segment(segment)?
                    .replace("~1", "/")
                    .replace("~0", "~"),
            )
        })
        .collect()
}

/// Writes a path as OPA's messages do.
pub(crate) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        text.push('/');
        text.extend(utf8_percent_encode(segment, ESCAPED));
    }
    if text.is_empty() {
        text.push('/');
    }
    text
}

/// Writes `data.a["b c"][0]`, the reference to the document at `path`.
///
/// As OPA, a segment that reads as an integer becomes a number.
pub(crate) fn reference(path: &[String]) -> String {
    let mut text = String::from("data");
    for segment in path {
        if let Ok(index) = segment.parse::<i64>() {
            text.push_str(&format!("[{index}]"));
        } else {
            text.push_str(&format!("[{}]", quote(segment)));
        }
    }
    text
}

/// Writes `text` as a Rego string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_and_broken_escapes_are_refused() {
        assert_eq!(decode("a/%C3%A9%2Fb//c/").unwrap(), ["a", "é/b", "c"]);
        for broken in ["%", "%4", "%zz", "a/%ff", "%C3"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn pointers_are_unescaped_as_opa_does() {
        assert_eq!(decode_pointer("/a~1b~0/c%20d").unwrap(), ["a/b~", "c d"]);
        assert!(decode_pointer("//").unwrap().is_empty());
    }

    #[test]
    fn references_quote_what_is_not_a_number() {
        let path = ["a\"b".to_owned(), "7".to_owned(), "-x".to_owned()];
        assert_eq!(reference(&path), r#"data["a\"b"][7]["-x"]"#);
    }

    #[test]
    fn messages_escape_segments() {
        assert_eq!(
            display(&["a b".to_owned(), "c/d".to_owned()]),
            "/a%20b/c%2Fd"
        );
        assert_eq!(display(&[]), "/");
    }
}
