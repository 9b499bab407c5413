//! What becomes of a document on its way into a store.

use std::collections::BTreeMap;

use opal_protocol::json_text::without_null_members;
use opal_protocol::{DataPath, Document};
use serde_json::value::RawValue;

use super::StoreError;

/// A document as it is written: where, and its JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) path: DataPath,
    pub(super) json: String,
}

impl Write {
    /// A write of `document`, without its null members.
    pub(super) fn new(path: DataPath, document: &Document) -> Self {
        let json = without_null_members(document.text());
        Self { path, json }
    }
}

/// The writes that put `document` at `path`.
///
/// As upstream: null members go, a list for the root is wrapped as `{"items": […]}`, and with
/// `split_root` (`OPAL_SPLIT_ROOT_DATA`) an object for the root is one write for each of its members.
///
/// # Errors
///
/// If the root would stop being an object.
pub(super) fn writes(
    path: &DataPath,
    document: &Document,
    split_root: bool,
) -> Result<Vec<Write>, StoreError> {
    if !path.is_root() {
        return Ok(vec![Write::new(path.clone(), document)]);
    }
    if document.is_array() {
        let json = format!(r#"{{"items":{}}}"#, without_null_members(document.text()));
        let path = path.clone();
        return Ok(vec![Write { path, json }]);
    }
    if !document.is_object() {
        return Err(StoreError::InvalidDocument {
            path: path.clone(),
            problem: "only an object or a list can be the whole data".to_owned(),
        });
    }
    if split_root {
        return Ok(member_writes(path, document));
    }
    Ok(vec![Write::new(path.clone(), document)])
}

/// One write for each member of an object. A member that is null is written as null, as upstream
/// does when it splits; nulls below are dropped.
pub(super) fn member_writes(path: &DataPath, document: &Document) -> Vec<Write> {
    members(document)
        .into_iter()
        .map(|(name, value)| Write {
            path: path.join(&name),
            json: without_null_members(value.get()),
        })
        .collect()
}

/// The members of an object with their texts; nothing for any other document.
pub(super) fn members(document: &Document) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(document.text()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &str, json: &str, split: bool) -> Vec<(String, String)> {
        let document = Document::parse(json).unwrap();
        let writes = writes(&DataPath::parse(path).unwrap(), &document, split).unwrap();
        let pair = |write: Write| (write.path.to_url_path(), write.json);
        writes.into_iter().map(pair).collect()
    }

    #[test]
    fn null_members_go_and_digits_stay() {
        let json = r#"{"a":null,"n":12345678901234567890.50}"#;
        let expected = [(
            "/x".to_owned(),
            r#"{"n":12345678901234567890.50}"#.to_owned(),
        )];
        assert_eq!(written("x", json, true), expected);
    }

    #[test]
    fn a_list_for_the_root_becomes_items() {
        let expected = [(String::new(), r#"{"items":[1,{}]}"#.to_owned())];
        assert_eq!(written("/", r#"[1,{"a":null}]"#, true), expected);
    }

    #[test]
    fn a_split_root_is_written_member_by_member_nulls_included() {
        let expected = [
            ("/d".into(), "\"/d\"".into()),
            ("/h%20r".into(), "null".into()),
        ];
        assert_eq!(written("", r#"{"h r":null,"d":"/d"}"#, true), expected);
    }

    #[test]
    fn a_scalar_cannot_be_the_whole_data() {
        let scalar = Document::parse("5").unwrap();
        let error = writes(&DataPath::root(), &scalar, false).unwrap_err();
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            "the document for `/` cannot be stored: only an object or a list can be the whole data"
        );
    }
}
