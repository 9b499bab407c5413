use std::sync::Arc;

use opal_protocol::{CommitHash, DataModule, PolicyBundle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::policy_store::MemoryStore;

fn path(text: &str) -> DataPath {
    DataPath::parse(text).unwrap()
}

fn put(at: &str, json: &str) -> StoreChange {
    StoreChange::Put {
        path: path(at),
        document: Document::parse(json).unwrap(),
    }
}

fn patch(at: &str, operations: Value) -> StoreChange {
    StoreChange::Patch {
        path: path(at),
        operations: serde_json::from_value(operations).unwrap(),
    }
}

fn add(at: &str, place: &str, value: &Value) -> StoreChange {
    patch(at, json!([{ "op": "add", "path": place, "value": value }]))
}

fn shown(changes: &[StoreChange]) -> Vec<String> {
    let changes = changes.iter().map(|change| match change {
        StoreChange::Put { path, document } => format!("put {path} {}", document.text()),
        StoreChange::Patch { path, operations } => {
            format!(
                "patch {path} {}",
                serde_json::to_string(operations).unwrap()
            )
        }
        other => format!("{other:?}"),
    });
    changes.collect()
}

fn fold_all(changes: Vec<StoreChange>) -> Vec<String> {
    shown(&folded(changes, |path| !path.is_root()))
}

#[test]
fn patches_become_part_of_the_document_they_were_applied_to() {
    let changes = vec![
        put("/users", r#"{"bob":{"roles":[]}}"#),
        put("/other", "1"),
        add("/users", "/bob/roles/-", &json!("admin")),
        add("/users/bob", "/age", &json!(7)),
    ];
    let wanted = [
        r#"put /users {"bob":{"roles":["admin"],"age":7}}"#,
        "put /other 1",
    ];
    assert_eq!(fold_all(changes), wanted);
}

#[test]
fn a_null_that_a_patch_made_stays_and_one_of_a_put_goes() {
    let changes = vec![
        put("/users", r#"{"bob":null,"eve":{}}"#),
        add("/users", "/eve/left", &json!(null)),
    ];
    let wanted = [
        r#"put /users {"eve":{}}"#,
        r#"patch /users [{"op":"add","path":"/eve/left","value":null,"from":null}]"#,
    ];
    assert_eq!(fold_all(changes), wanted);
}

#[test]
fn what_would_lose_something_is_left_as_it_was() {
    let of = |document: &str, then: Vec<StoreChange>| {
        let mut changes = vec![put("/a", document)];
        changes.extend(then);
        changes
    };
    let digits = r#"{"n":12345678901234567890123}"#;
    for changes in [
        of(digits, vec![add("/a", "/b", &json!(1))]),
        of("{}", vec![add("/a", "", &json!(1))]),
        of("{}", vec![add("/a", "/x/y", &json!(1))]),
        of("{}", vec![put("/a/b", "1"), add("/a", "/c", &json!(1))]),
        of("[[1]]", vec![add("/a/0", "/-", &json!(1))]),
        vec![put("/", "{}"), add("/", "/b", &json!(1))],
        vec![add("/a", "/b", &json!(1))],
    ] {
        assert_eq!(fold_all(changes.clone()), shown(&changes));
    }
}

/// A bundle and random changes of few places, those that a store took.
fn history(rng: &mut StdRng) -> (StoreChange, Vec<StoreChange>) {
    let bundle = StoreChange::Bundle(Arc::new(PolicyBundle {
        manifest: Vec::new(),
        hash: CommitHash::parse(&"a".repeat(40)).unwrap(),
        old_hash: None,
        data_modules: vec![DataModule {
            path: "a/static".into(),
            data: r#"{"b":{}}"#.into(),
        }],
        policy_modules: Vec::new(),
        deleted_files: None,
    }));
    let store = MemoryStore::new();
    store.apply_now(vec![bundle.clone()]);
    let mut taken = Vec::new();
    for _ in 0..200 {
        let change = any_change(rng);
        if matches!(store.apply_now(vec![change.clone()]).pop(), Some(Ok(()))) {
            taken.push(change);
        }
    }
    (bundle, taken)
}

fn any_change(rng: &mut StdRng) -> StoreChange {
    const PLACES: [&str; 8] = [
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/static",
        "/a/static/b",
        "/d",
        "/d/b",
    ];
    const MEMBERS: [&str; 7] = ["/b", "/c", "/b/c", "/static", "/l", "/l/-", "/l/0/b"];
    let at = PLACES[rng.random_range(0..PLACES.len())];
    let mut member = || MEMBERS[rng.random_range(0..MEMBERS.len())];
    let (from, to) = (member(), member());
    let value = match rng.random_range(0..6) {
        0 => json!({ "b": { "c": 1 } }),
        1 => json!({ "b": null, "l": [] }),
        2 => json!([{ "b": null }]),
        3 => json!(null),
        4 => json!(rng.random_range(0..9)),
        _ => json!({}),
    };
    match rng.random_range(0..12) {
        0 => put(at, &value.to_string()),
        1 => StoreChange::Delete { path: path(at) },
        2 => patch(at, json!([{ "op": "move", "from": from, "path": to }])),
        3 => patch(at, json!([{ "op": "copy", "from": from, "path": to }])),
        4 | 5 => patch(at, json!([{ "op": "remove", "path": to }])),
        _ => add(at, to, &value),
    }
}

#[test]
fn a_history_leads_to_the_same_folded_or_not() {
    let mut fewer = 0;
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (bundle, changes) = history(&mut rng);
        let (long, short) = (MemoryStore::new(), MemoryStore::new());
        let static_data = path("/a/static");
        let is_whole = |path: &DataPath| !path.is_root() && !path.contains(&static_data);
        let less = folded(changes.clone(), is_whole);
        fewer += usize::from(less.len() < changes.len());
        for (store, changes) in [(&long, changes), (&short, less.clone())] {
            store.apply_now(vec![bundle.clone()]);
            let outcomes = store.apply_now(changes);
            assert!(outcomes.iter().all(Result::is_ok), "{seed}: {outcomes:?}");
        }
        assert_eq!(long.data(), short.data(), "{seed}: {:#?}", shown(&less));
    }
    assert!(fewer > 30, "{fewer}");
}
