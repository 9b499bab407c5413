//! Reads a posted update, naming everything that is wrong with it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Callback, DataSourceEntry, DataUpdate, Document, HttpFetcherConfig, PatchOperation, SaveMethod,
    UpdateCallback, default_save_method, default_topics,
};
use crate::id::UpdateId;
use crate::path::DataPath;
use crate::topic::Topic;
use crate::validate::{Checker, Field, Violation};

type Members<'a> = BTreeMap<String, Field<'a>>;

impl DataUpdate {
    /// Reads the body of `POST /data/config`: all defaults are filled in, unknown members
    /// dropped, patch operations normalised.
    ///
    /// Beyond what upstream checks, an unknown `save_method` is refused also without `data`, and
    /// so are a `dst_path` that is no path and an entry that has neither `url` nor `data`.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<Violation>> {
        let body = Field::body(body)?;
        let mut checker = Checker::default();
        let update = update(&mut checker, &body);
        checker.finish(update)
    }
}

fn update(checker: &mut Checker, body: &Field<'_>) -> Option<DataUpdate> {
    let members = checker.object(body)?;
    let id = checker.optional_string(members.get("id"));
    let entries = match members.get("entries") {
        Some(entries) => entries_of(checker, entries),
        None => {
            checker.missing(body, "entries");
            None
        }
    };
    let reason = checker.optional_string(members.get("reason"));
    let callback = match members.get("callback") {
        Some(callback) => update_callback(checker, callback)?,
        None => UpdateCallback::default(),
    };
    Some(DataUpdate {
        id: id.as_deref().map(UpdateId::from),
        entries: entries?,
        reason,
        callback,
    })
}

fn entries_of(checker: &mut Checker, entries: &Field<'_>) -> Option<Vec<DataSourceEntry>> {
    let items = checker.array(entries)?;
    // Every entry is read, so that all violations are found.
    let read: Vec<_> = items.iter().map(|item| entry(checker, item)).collect();
    read.into_iter().collect()
}

fn entry(checker: &mut Checker, field: &Field<'_>) -> Option<DataSourceEntry> {
    let members = checker.object(field)?;
    let save_method = match members.get("save_method") {
        Some(method) => checker.string(method)?,
        None => default_save_method(),
    };
    let method = SaveMethod::parse(&save_method);
    let url = match members.get("url") {
        Some(url) => checker.string(url),
        None if method == Some(SaveMethod::Delete) => Some(String::new()),
        None => {
            checker.missing(field, "url");
            None
        }
    };
    let config = match members.get("config").filter(|config| !config.is_null()) {
        Some(config) => {
            checker.object(config)?;
            Some(document(config))
        }
        None => None,
    };
    let topics = match members.get("topics") {
        Some(topics) => topic_list(checker, topics),
        None => Some(default_topics()),
    };
    let dst_path = destination(checker, &members);
    let data = inline_data(checker, &members, &save_method);
    let entry = DataSourceEntry {
        url: url?,
        config,
        topics: topics?,
        dst_path: dst_path?,
        save_method,
        data: data?,
        periodic_update_interval: None,
    };
    complete(checker, field, entry)
}

/// What can only be said of the whole entry.
fn complete(
    checker: &mut Checker,
    field: &Field<'_>,
    entry: DataSourceEntry,
) -> Option<DataSourceEntry> {
    let Some(method) = entry.method() else {
        let mut loc = field.loc.clone();
        loc.push("save_method".into());
        let message = "'save_method' must be either PUT or PATCH";
        let violation = Violation::new(loc, message, "value_error");
        checker.violations.push(violation);
        return None;
    };
    if method == SaveMethod::Delete {
        return Some(rewrite_delete(entry));
    }
    if entry.url.is_empty() && entry.data.is_none() {
        let message = "either 'url' or 'data' must say what to write";
        checker.add(field, message, "value_error");
        return None;
    }
    Some(entry)
}

/// Released clients know no DELETE: what they understand is a patch that removes the last
/// segment, and `{}` in place of everything.
fn rewrite_delete(entry: DataSourceEntry) -> DataSourceEntry {
    let path = entry.destination().unwrap_or_default();
    let (dst_path, method, data) = match path.split_last() {
        Some((parent, last)) => {
            let operation = PatchOperation {
                op: "remove".to_owned(),
                path: DataPath::from_segments([last]).to_pointer(),
                value: None,
                from: None,
            };
            // A patch at `""` is refused by OPA behind released clients; one at `/` is not.
            let parent = if parent.is_root() {
                "/".to_owned()
            } else {
                parent.to_url_path()
            };
            (parent, SaveMethod::Patch, serde_json::json!([operation]))
        }
        None => (String::new(), SaveMethod::Put, serde_json::json!({})),
    };
    DataSourceEntry {
        url: String::new(),
        config: None,
        dst_path,
        save_method: method.as_str().to_owned(),
        data: Some(Document::from(&data)),
        ..entry
    }
}

fn destination(checker: &mut Checker, members: &Members<'_>) -> Option<String> {
    let Some(field) = members.get("dst_path") else {
        return Some(String::new());
    };
    let text = checker.string(field)?;
    if let Err(error) = DataPath::parse(&text) {
        checker.add(field, &error.to_string(), "value_error");
        return None;
    }
    Some(text)
}

fn topic_list(checker: &mut Checker, field: &Field<'_>) -> Option<Vec<Topic>> {
    let items = checker.array(field)?;
    let topics: Vec<_> = items.iter().map(|item| checker.string(item)).collect();
    topics
        .into_iter()
        .map(|topic| topic.map(Topic::from))
        .collect()
}

/// The inline document: `Some(None)` if there is none.
#[expect(clippy::option_option, reason = "the outer level is: was it valid?")]
fn inline_data(
    checker: &mut Checker,
    members: &Members<'_>,
    save_method: &str,
) -> Option<Option<Document>> {
    let Some(field) = members.get("data").filter(|field| !field.is_null()) else {
        return Some(None);
    };
    if !field.text.starts_with(['[', '{']) {
        for (msg, kind) in [
            ("value is not a valid list", "type_error.list"),
            ("value is not a valid list", "type_error.list"),
            ("value is not a valid dict", "type_error.dict"),
        ] {
            checker.add(field, msg, kind);
        }
        return None;
    }
    match SaveMethod::parse(save_method) {
        Some(SaveMethod::Put | SaveMethod::Delete) => Some(Some(document(field))),
        Some(SaveMethod::Patch) => patch(field).map(Some).or_else(|| {
            let message = "'data' must be of type JSON patch request when save_method is PATCH";
            checker.add(field, message, "type_error");
            None
        }),
        None => {
            let message = "'save_method' must be either PUT or PATCH";
            checker.add(field, message, "value_error");
            None
        }
    }
}

/// A list of operations in the form in which they travel; `None` if it is no such list.
fn patch(field: &Field<'_>) -> Option<Document> {
    let operations: Vec<PatchOperation> = serde_json::from_str(field.text).ok()?;
    let needs_value = |op: &PatchOperation| matches!(op.op.as_str(), "add" | "replace");
    let complete = operations
        .iter()
        .all(|op| !needs_value(op) || op.value.is_some());
    let text = serde_json::to_string(&operations).ok()?;
    complete.then(|| Document::parse(text).ok()).flatten()
}

fn update_callback(checker: &mut Checker, field: &Field<'_>) -> Option<UpdateCallback> {
    let members = checker.object(field)?;
    let Some(callbacks) = members.get("callbacks") else {
        checker.missing(field, "callbacks");
        return None;
    };
    let items = checker.array(callbacks)?;
    let read: Vec<_> = items.iter().map(|item| callback(checker, item)).collect();
    let callbacks = read.into_iter().collect::<Option<_>>()?;
    Some(UpdateCallback { callbacks })
}

fn callback(checker: &mut Checker, field: &Field<'_>) -> Option<Callback> {
    if !field.text.starts_with('[') {
        return checker.string(field).map(Callback::Url);
    }
    if let Ok((url, config)) = serde_json::from_str::<(String, HttpFetcherConfig)>(field.text) {
        return Some(Callback::Configured(url, config));
    }
    checker.add(field, "str type expected", "type_error.str");
    checker.violations.push(Violation {
        loc: field.loc.clone(),
        msg: "value is not a valid tuple of a URL and a fetcher configuration".to_owned(),
        kind: "type_error.tuple".to_owned(),
        ctx: None::<Value>,
    });
    None
}

fn document(field: &Field<'_>) -> Document {
    Document::parse(field.text).expect("a field of a parsed body is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(body: &str) -> String {
        let found = DataUpdate::parse(body.as_bytes()).unwrap_err();
        serde_json::to_string(&found).unwrap()
    }

    #[test]
    fn violations_read_as_pydantic_s() {
        for (body, expected) in [
            (
                r#"{"entries":[{"topics":["x"]}]}"#,
                r#"[{"loc":["body","entries",0,"url"],"msg":"field required","type":"value_error.missing"}]"#,
            ),
            (
                "{bad",
                r#"[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting property name enclosed in double quotes"}}]"#,
            ),
            (
                r#"{"entries":[{"url":"","save_method":"PATCH","data":{"a":1}}]}"#,
                r#"[{"loc":["body","entries",0,"data"],"msg":"'data' must be of type JSON patch request when save_method is PATCH","type":"type_error"}]"#,
            ),
            (
                r#"{"entries":[{"url":"","save_method":"POST","data":{"a":1}}]}"#,
                r#"[{"loc":["body","entries",0,"data"],"msg":"'save_method' must be either PUT or PATCH","type":"value_error"}]"#,
            ),
            (
                r#"{}"#,
                r#"[{"loc":["body","entries"],"msg":"field required","type":"value_error.missing"}]"#,
            ),
            (
                "[]",
                r#"[{"loc":["body"],"msg":"value is not a valid dict","type":"type_error.dict"}]"#,
            ),
        ] {
            assert_eq!(violations(body), expected, "{body}");
        }
        assert_eq!(
            violations(r#"{"entries":[{"url":"","data":5}]}"#)
                .matches("valid list")
                .count(),
            2
        );
    }

    #[test]
    fn every_entry_that_is_wrong_is_named() {
        let found = violations(
            r#"{"entries":[{"url":"","dst_path":"/a/../b","data":{}},{"url":""},{"url":"x","save_method":"POST"},{"url":"ok"}]}"#,
        );
        for at in 0..3 {
            assert!(found.contains(&format!(r#""entries",{at}"#)), "{found}");
        }
        assert!(!found.contains(r#""entries",3"#), "{found}");
    }

    #[test]
    fn a_delete_becomes_what_released_clients_understand() {
        let body = r#"{"entries":[{"save_method":"DELETE","dst_path":"/a/b%2Fc"},{"save_method":"DELETE","dst_path":"/top"},{"save_method":"DELETE"}]}"#;
        let update = DataUpdate::parse(body.as_bytes()).unwrap();
        let told: Vec<_> = update
            .entries
            .iter()
            .map(|e| {
                (
                    e.dst_path.as_str(),
                    e.save_method.as_str(),
                    e.data.as_ref().unwrap().text(),
                )
            })
            .collect();
        let remove =
            |path: &str| format!(r#"[{{"op":"remove","path":"{path}","value":null,"from":null}}]"#);
        assert_eq!(told[0], ("/a", "PATCH", remove("/b~1c").as_str()));
        assert_eq!(told[1], ("/", "PATCH", remove("/top").as_str()));
        assert_eq!(told[2], ("", "PUT", "{}"));
    }

    #[test]
    fn a_list_that_looks_like_a_patch_stays_a_list_under_put() {
        let body = r#"{"entries":[{"url":"","data":[{"op":"x","path":"y","more":1}]}]}"#;
        let update = DataUpdate::parse(body.as_bytes()).unwrap();
        let data = update.entries[0].data.as_ref().unwrap();
        assert_eq!(data.text(), r#"[{"op":"x","path":"y","more":1}]"#);
    }
}
