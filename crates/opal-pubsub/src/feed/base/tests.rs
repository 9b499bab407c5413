use opal_protocol::{Document, Epoch, SaveMethod, ScopeId};
use serde_json::{Value, json};

use super::*;
use crate::feed::{ChangeDraft, FeedLimits, FeedLog};

mod model;

fn entry(topics: &[&str], path: &str, method: &str, data: &Value) -> DataSourceEntry {
    DataSourceEntry {
        topics: topics.iter().map(|topic| Topic::from(*topic)).collect(),
        dst_path: path.to_owned(),
        save_method: method.to_owned(),
        data: (!data.is_null()).then(|| Document::from(data)),
        ..DataSourceEntry::from_url("")
    }
}

fn put(path: &str, data: &Value) -> DataSourceEntry {
    entry(&["t"], path, "PUT", data)
}

fn patch(path: &str, operations: &Value) -> DataSourceEntry {
    entry(&["t"], path, "PATCH", operations)
}

fn source(path: &str, url: &str) -> DataSourceEntry {
    DataSourceEntry {
        url: url.to_owned(),
        ..put(path, &Value::Null)
    }
}

/// What a server makes of a DELETE.
fn removal(path: &str, name: &str) -> DataSourceEntry {
    patch(path, &json!([{"op": "remove", "path": format!("/{name}")}]))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a list is written where it is used"
)]
fn base_of(entries: Vec<DataSourceEntry>) -> Base {
    base_with(2, &entries)
}

fn base_with(limit: usize, entries: &[DataSourceEntry]) -> Base {
    let mut base = Base::new(limit);
    for (at, entry) in entries.iter().enumerate() {
        base.fold_entry(Revision(at as u64 + 1), entry);
    }
    base
}

/// Each entry as `revision METHOD path url data`.
fn shown(base: &Base) -> Vec<String> {
    let show = |BaseEntry { revision, entry }: BaseEntry| {
        let data = entry.data.as_ref().map_or("", Document::text);
        let text = format!(
            "{revision} {} {} {} {data}",
            entry.save_method, entry.dst_path, entry.url
        );
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    base.entries().map(show).collect()
}

#[test]
fn a_document_replaces_those_at_and_below_its_path_and_no_others() {
    let document = json!({});
    let base = base_of(vec![
        put("/a/b", &document),
        put("/ab", &document),
        put("/a/b/c", &document),
        put("/a", &document),
        put("/a/b", &document),
    ]);
    assert_eq!(
        shown(&base),
        ["2 PUT /ab {}", "4 PUT /a {}", "5 PUT /a/b {}"]
    );
}

#[test]
fn what_others_got_stays_for_them() {
    let document = json!({});
    let base = base_of(vec![
        entry(&["t", "u"], "/a", "PUT", &document),
        entry(&["t"], "/a", "PUT", &json!({"new": 1})),
        entry(&["u", "v", "t"], "/b", "PUT", &document),
        entry(&["t", "v", "w", "u"], "/b", "PUT", &json!({"new": 1})),
    ]);
    let expected = [
        "1 PUT /a {}",
        "2 PUT /a {\"new\":1}",
        "4 PUT /b {\"new\":1}",
    ];
    assert_eq!(shown(&base), expected);
    assert_eq!(base.entries_for(&["u".into()]).len(), 2);
    assert_eq!(base.entries_for(&["w".into()]).len(), 1);
    assert!(base.entries_for(&["x".into()]).is_empty());
}

#[test]
fn a_root_document_replaces_only_one_of_which_it_has_every_member() {
    let base = base_of(vec![
        put("/a/x", &json!({})),
        put("", &json!({"a": 1, "b": null})),
        put("/", &json!({"a": 2})),
        put("/", &json!({"a": 3, "b": 1})),
        source("", "http://x/1"),
        source("", "http://x/2"),
        source("", "http://x/1"),
    ]);
    let expected = [
        "1 PUT /a/x {}",
        "4 PUT / {\"a\":3,\"b\":1}",
        "6 PUT / http://x/2",
        "7 PUT / http://x/1",
    ];
    assert_eq!(shown(&base), expected);
}

#[test]
fn patches_stand_on_their_document_until_they_are_many() {
    let add = |name: &str, value: Value| {
        patch(
            "/",
            &json!([{"op": "add", "path": format!("/a/{name}"), "value": value}]),
        )
    };
    let mut entries = vec![
        put("/a", &json!({"x": 1, "dropped": null})),
        add("y", json!({"kept": null})),
        patch("/a", &json!([{"op": "remove", "path": "/nothing"}])),
    ];
    let standing = shown(&base_of(entries.clone()));
    assert_eq!(standing.len(), 3);
    assert_eq!(standing[0], "1 PUT /a {\"x\":1,\"dropped\":null}");
    assert!(
        standing[1].starts_with("2 PATCH /a [{\"op\":\"add\",\"path\":\"/y\""),
        "{standing:?}"
    );
    entries.push(add("x", json!(2)));
    assert_eq!(
        shown(&base_of(entries)),
        [
            "4 PUT /a {\"x\":2,\"y\":{}}",
            r#"4 PATCH /a [{"op":"add","path":"/y/kept","value":null,"from":null}]"#,
        ]
    );
}

#[test]
fn a_document_whose_digits_would_be_lost_is_not_folded() {
    let document = Document::parse(r#"{"n":123456789012345678901234567890}"#).unwrap();
    let large = DataSourceEntry {
        data: Some(document.clone()),
        ..put("/a", &Value::Null)
    };
    let add = patch("/a", &json!([{"op": "add", "path": "/x", "value": 1}]));
    let base = base_with(0, &[large, add]);
    let written: Vec<BaseEntry> = base.entries().collect();
    assert_eq!(written[0].entry.data.as_ref(), Some(&document));
    assert_eq!(written[1].entry.method(), Some(SaveMethod::Patch));
}

#[test]
fn a_source_is_current_so_patches_of_what_it_has_go() {
    let add = || patch("/a/b", &json!([{"op": "add", "path": "/x", "value": 1}]));
    let base = base_of(vec![
        add(),
        source("/a", "http://x"),
        add(),
        removal("/a/b", "c"),
        source("/a/b/c", "http://y"),
        removal("/a/b", "c"),
    ]);
    assert_eq!(
        shown(&base),
        ["2 PUT /a http://x", "5 PUT /a/b/c {}", "6 DELETE /a/b/c"]
    );
}

#[test]
fn a_removal_is_a_delete_that_stays() {
    let base = base_of(vec![
        put("/a", &json!({})),
        removal("/", "a"),
        put("/b/c", &json!({"x": 1})),
        removal("/b", "c"),
        removal("/b", "c"),
        removal("/l", "0"),
        entry(&["t"], "/d", "DELETE", &Value::Null),
    ]);
    assert_eq!(
        shown(&base),
        [
            "2 DELETE /a",
            "3 PUT /b/c {}",
            "5 DELETE /b/c",
            r#"6 PATCH /l [{"op":"remove","path":"/0","value":null,"from":null}]"#,
            "7 DELETE /d",
        ]
    );
}

#[test]
fn of_patches_that_write_the_same_members_the_last_stays() {
    let set = |op: &str, path: &str, value: u64| {
        patch("/s", &json!([{"op": op, "path": path, "value": value}]))
    };
    let both = |value: u64| {
        let add = |name: &str| json!({"op": "add", "path": name, "value": value});
        patch("/m", &json!([add("/x"), add("/y")]))
    };
    let base = base_of(vec![
        set("add", "/a/b", 1),
        set("add", "/c", 1),
        set("replace", "/a/b", 2),
        set("add", "/a", 3),
        both(1),
        both(2),
        set("add", "/l/-", 1),
        set("add", "/l/-", 1),
    ]);
    let paths: Vec<String> = shown(&base)
        .iter()
        .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(paths, ["2", "4", "6", "7", "8"], "{:?}", shown(&base));
}

#[test]
fn a_member_that_was_added_is_there_to_be_replaced() {
    let set = |op: &str| patch("/s", &json!([{"op": op, "path": "/x", "value": 1}]));
    let base = base_of(vec![set("add"), set("replace"), set("replace")]);
    let made_by: Vec<u64> = base.entries().map(|entry| entry.revision.0).collect();
    assert_eq!(made_by, [1, 3]);
}

#[test]
fn a_patch_stays_behind_what_others_wrote_in_its_place() {
    let add = json!([{"op": "add", "path": "/b", "value": 1}]);
    let of_others = [
        entry(&["u"], "/a/b", "PUT", &json!({})),
        entry(&["u"], "/a", "PATCH", &add),
    ];
    for of_others in of_others {
        let base = base_of(vec![put("/a", &json!({})), of_others, patch("/a", &add)]);
        let made_by: Vec<u64> = base.entries().map(|entry| entry.revision.0).collect();
        assert_eq!(made_by, [1, 2, 3]);
    }
}

#[test]
fn what_a_patch_in_between_needs_stays() {
    let base = base_of(vec![
        put("/a/b", &json!({"v": 1})),
        patch(
            "/",
            &json!([{"op": "copy", "from": "/a/b", "path": "/seen"}]),
        ),
        put("/a/b", &json!({"v": 2})),
    ]);
    assert_eq!(shown(&base).len(), 3);
}

#[test]
fn documents_do_not_pile_up_between_patches_of_their_neighbours() {
    let entries = (0..50).flat_map(|n| {
        let member = format!("/a/user{n}");
        [
            put("/a/config", &json!({ "n": n })),
            patch("/", &json!([{"op": "add", "path": member, "value": n}])),
        ]
    });
    let base = base_of(entries.collect());
    assert_eq!(shown(&base).len(), 51);
    assert_eq!(shown(&base)[0], "99 PUT /a/config {\"n\":49}");
}

#[test]
fn entries_that_no_client_could_take_are_skipped() {
    let base = base_of(vec![
        put("/a/../b", &json!({})),
        entry(&["t"], "/a", "POST", &json!({})),
        put("/a", &Value::Null),
        patch("/a", &json!({"op": "add"})),
        patch("/a", &json!([{"op": "grow", "path": "/x"}])),
        patch("/a", &json!([])),
        put("/", &json!(5)),
    ]);
    assert_eq!(shown(&base), [""; 0]);
}

#[test]
fn patches_that_double_a_document_are_kept_and_not_folded() {
    let doubled = |at| json!({"op": "copy", "from": "/a", "path": format!("/a/k{at}")});
    let operations: Vec<Value> = (0..40).map(doubled).collect();
    let base = base_of(vec![
        put("/doc", &json!({"a": {}})),
        patch("/doc", &json!(operations)),
        patch("/doc", &json!([{"op": "add", "path": "/x", "value": 1}])),
        patch("/doc", &json!([{"op": "add", "path": "/y", "value": 1}])),
    ]);
    let bytes: usize = shown(&base).iter().map(String::len).sum();
    assert_eq!(shown(&base).len(), 4);
    assert!(bytes < 4096, "{bytes} bytes");
}

#[test]
fn patches_that_copy_a_little_are_folded() {
    let base = base_of(vec![
        put("/doc", &json!({"a": {"b": 1}})),
        patch("/doc", &json!([{"op": "copy", "from": "/a", "path": "/c"}])),
        patch(
            "/doc",
            &json!([{"op": "test", "path": "/c/b", "value": 1}, {"op": "remove", "path": "/a"}]),
        ),
        patch("/doc", &json!([{"op": "add", "path": "/d", "value": 1}])),
    ]);
    assert_eq!(shown(&base), [r#"4 PUT /doc {"c":{"b":1},"d":1}"#]);
}

#[test]
fn entries_count_for_the_topics_that_their_change_was_published_to() {
    let entries = [(&["secret"][..], "/a"), (&["mine", "secret"], "/b")];
    let entries = entries.map(|(topics, path)| entry(topics, path, "PUT", &json!({})));
    let unnamed = json!({"url": "", "dst_path": "/c", "data": {}});
    for text in [
        json!({ "entries": entries }),
        json!({ "entries": [unnamed] }),
    ] {
        let mut log = FeedLog::new(Epoch(1), FeedLimits::default());
        let scope = ScopeId::default();
        let draft = ChangeDraft {
            id: "m".into(),
            topics: vec!["mine".into()].into(),
            payload: Payload::Message(Document::from(&text)),
        };
        log.append(&scope, None, draft, 0).unwrap();
        let mut base = |topic: &str| log.base(&scope, &[topic.into()]).entries.len();
        assert_eq!([base("secret"), base("policy_data")], [0, 0]);
    }
}

#[test]
fn members_are_set_again_whatever_their_neighbours_do() {
    let set = |name: &str, n: usize| {
        let path = |suffix| format!("/{name}{suffix}");
        let operations = ["a", "b"].map(|end| json!({"op": "add", "path": path(end), "value": n}));
        patch("/users", &json!(operations))
    };
    let entries = (0..10).flat_map(|n| [set("x", n), set("y", n)]);
    assert_eq!(shown(&base_of(entries.collect())).len(), 2);
}
