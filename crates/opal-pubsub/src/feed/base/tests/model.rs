//! The base against a model of a client's store: whoever applies the base of some changes and then
//! the rest ends where those are who applied every change.

use opal_protocol::json_text::without_null_members;
use opal_protocol::{PatchOperation, SaveMethod};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// A client's store, with its rules for null members, new objects and the root.
#[derive(Debug, Clone, PartialEq)]
struct Store {
    data: Value,
    split_root: bool,
}

impl Store {
    fn apply(&mut self, entry: &DataSourceEntry) {
        let path = entry.destination().unwrap();
        match entry.method().unwrap() {
            SaveMethod::Put => self.put(&path, entry.data.as_ref().unwrap()),
            SaveMethod::Patch => self.patch(&path, entry.data.as_ref().unwrap()),
            SaveMethod::Delete => self.delete(&path),
        }
    }

    fn put(&mut self, path: &DataPath, document: &Document) {
        let value: Value = serde_json::from_str(&without_null_members(document.text())).unwrap();
        if path.is_root() && self.split_root && value.is_object() {
            let members: Map<String, Value> = serde_json::from_str(document.text()).unwrap();
            for (name, member) in members {
                let text = without_null_members(&member.to_string());
                self.set(&path.join(&name), serde_json::from_str(&text).unwrap());
            }
        } else if path.is_root() && value.is_array() {
            self.data = json!({ "items": value });
        } else {
            self.set(path, value);
        }
    }

    /// Makes the objects that lead to `path`; nothing at all if something else is in the way.
    fn set(&mut self, path: &DataPath, value: Value) {
        let mut data = self.data.clone();
        let mut place = &mut data;
        for name in path.segments() {
            let Some(members) = place.as_object_mut() else {
                return;
            };
            place = members.entry(name).or_insert_with(|| json!({}));
        }
        *place = value;
        if data.is_object() {
            self.data = data;
        }
    }

    fn patch(&mut self, path: &DataPath, operations: &Document) {
        let operations: Vec<PatchOperation> = serde_json::from_str(operations.text()).unwrap();
        let Some(target) = self.data.pointer(&path.to_pointer()).cloned() else {
            return;
        };
        let patch = Patch::parse(path.clone(), &operations).unwrap();
        if let Ok(patched) = patch.apply(target) {
            self.set(path, patched);
        }
    }

    fn delete(&mut self, path: &DataPath) {
        let (above, last) = path.split_last().unwrap();
        let above = self.data.pointer_mut(&above.to_pointer());
        if let Some(members) = above.and_then(Value::as_object_mut) {
            members.remove(last);
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    // Few, so that they meet.
    let paths = vec!["/", "/a", "/a", "/a/b", "/a/b", "/a/b/c", "/e"];
    prop::sample::select(paths).prop_map(str::to_owned)
}

fn pointer() -> impl Strategy<Value = String> {
    let paths = vec!["/a", "/b", "/b", "/b/c", "/x", "/l/0", "/-", "/0"];
    prop::sample::select(paths).prop_map(str::to_owned)
}

fn document() -> impl Strategy<Value = Value> {
    let documents = [
        json!({}),
        json!({"b": {"c": 1}, "n": null}),
        json!({"a": {"b": null, "c": {}}, "e": {}}),
        json!({"a": {}, "e": null}),
        json!({"x": {"y": {"z": null}}, "l": [1, {"m": null}]}),
        json!([1, null, {"c": null, "b": 2}]),
        json!([]),
    ];
    prop::sample::select(documents.to_vec())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(|n| json!(n)),
        Just(Value::Null),
        document()
    ]
}

fn operation() -> impl Strategy<Value = Value> {
    let with_value = (
        prop::sample::select(vec!["add", "add", "replace", "test"]),
        pointer(),
        value(),
    )
        .prop_map(|(op, path, value)| json!({"op": op, "path": path, "value": value}));
    let with_from = (
        prop::sample::select(vec!["move", "copy"]),
        pointer(),
        pointer(),
    )
        .prop_map(|(op, path, from)| json!({"op": op, "path": path, "from": from}));
    let whole = value().prop_map(|value| json!({"op": "replace", "path": "", "value": value}));
    let remove = pointer().prop_map(|path| json!({"op": "remove", "path": path}));
    prop_oneof![6 => with_value, 2 => with_from, 1 => whole, 3 => remove]
}

fn change() -> impl Strategy<Value = DataSourceEntry> {
    let topics = prop::sample::select(vec![vec!["t"], vec!["u"], vec!["t", "u"], vec!["t"]]);
    let write = document().prop_map(|document| ("PUT", document));
    let patch = prop_oneof![
        3 => prop::collection::vec(operation(), 1..2),
        1 => prop::collection::vec(operation(), 2..4),
    ];
    let patch = patch.prop_map(|operations| ("PATCH", json!(operations)));
    let delete = Just(("DELETE", Value::Null));
    (
        topics,
        path(),
        prop_oneof![4 => write, 6 => patch, 1 => delete],
    )
        .prop_map(|(topics, path, (method, data))| {
            // As a server does, since there is no DELETE of everything.
            let whole = method == "DELETE" && path == "/";
            let (method, data) = if whole {
                ("PUT", json!({}))
            } else {
                (method, data)
            };
            entry(&topics, &path, method, &data)
        })
}

fn static_data() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"a": {"b": {"c": {}}, "d": [1]}, "e": {"b": 1}, "l": [{"x": 1}]}),
        json!({"a": [], "e": 5}),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn who_comes_late_ends_where_the_others_are(
        changes in prop::collection::vec(change(), 1..9),
        cut in any::<prop::sample::Index>(),
        limit in 0_usize..3,
        data in static_data(),
        split_root in any::<bool>(),
    ) {
        let (before, after) = changes.split_at(cut.index(changes.len() + 1));
        let base = base_with(limit, before);
        let again = base_with(limit, &base.entries().map(|entry| entry.entry).collect::<Vec<_>>());
        for topics in [&["t"][..], &["u"], &["t", "u"]] {
            let topics: Vec<Topic> = topics.iter().map(|topic| Topic::from(*topic)).collect();
            let ours = |entry: &&DataSourceEntry| entry.topics.iter().any(|t| topics.contains(t));
            let mut early = Store { data: data.clone(), split_root };
            let mut late = early.clone();
            let mut restored = early.clone();
            changes.iter().filter(ours).for_each(|entry| early.apply(entry));
            base.entries_for(&topics).iter().for_each(|entry| late.apply(&entry.entry));
            again.entries_for(&topics).iter().for_each(|entry| restored.apply(&entry.entry));
            after.iter().filter(ours).for_each(|entry| { late.apply(entry); restored.apply(entry); });
            prop_assert_eq!(&early, &late, "for {:?}: {:#?}", topics, shown(&base));
            prop_assert_eq!(&early, &restored, "for {:?}: {:#?}", topics, shown(&again));
        }
    }
}
