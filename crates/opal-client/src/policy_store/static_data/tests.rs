use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy_store::{MemoryStore, PolicyStore, StoreChange};

/// Directories and their `data.json`, as values.
type Files = BTreeMap<String, Value>;

fn commit(letter: &str) -> opal_protocol::CommitHash {
    opal_protocol::CommitHash::parse(&letter.repeat(40)).unwrap()
}

fn complete(files: &Files) -> PolicyBundle {
    let modules = files.iter().map(|(path, data)| DataModule {
        path: path.as_str().into(),
        data: data.to_string(),
    });
    PolicyBundle {
        manifest: Vec::new(),
        hash: commit("a"),
        old_hash: None,
        data_modules: modules.collect(),
        policy_modules: Vec::new(),
        deleted_files: None,
    }
}

fn diff(old: &Files, new: &Files) -> PolicyBundle {
    let mut changed = new.clone();
    changed.retain(|path, data| old.get(path) != Some(data));
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    PolicyBundle {
        old_hash: Some(commit("a")),
        deleted_files: Some(opal_protocol::DeletedFiles {
            data_modules: gone.map(|path| path.as_str().into()).collect(),
            policy_modules: Vec::new(),
        }),
        ..complete(&changed)
    }
}

async fn data_after(bundles: impl IntoIterator<Item = PolicyBundle>) -> Value {
    let store = MemoryStore::new();
    let changes = bundles
        .into_iter()
        .map(|each| StoreChange::Bundle(Arc::new(each)));
    for outcome in store.apply(changes.collect()).await {
        outcome.unwrap();
    }
    store.data()
}

/// Objects that are empty, and those that hold only such: a removed module leaves its directory.
fn without_empty(value: Value) -> Value {
    let Value::Object(members) = value else {
        return value;
    };
    let kept = members
        .into_iter()
        .map(|(name, value)| (name, without_empty(value)));
    Value::Object(kept.filter(|(_, value)| *value != json!({})).collect())
}

fn files() -> impl Strategy<Value = Files> {
    let directory = prop::sample::select(vec![".", "a", "a/b", "a/b/c", "b", "b/c"]);
    let leaf = prop::sample::select(vec![
        json!(1),
        json!(2),
        json!({"c": 3}),
        json!({"b": {"c": 4, "x": 5}}),
    ]);
    let members = prop::collection::btree_map("[abcx]", leaf, 0..3);
    let data = members.prop_map(|members| json!(members));
    let files = prop::collection::btree_map(directory.prop_map(str::to_owned), data, 0..5);
    // A module below what another says is a number is an error of the repository.
    files.prop_filter("modules do not contradict", |files| {
        let conflicts =
            |path: &String, data: &Value| files.keys().any(|below| is_cut_off(path, data, below));
        !files.iter().any(|(path, data)| conflicts(path, data))
    })
}

fn is_cut_off(path: &str, data: &Value, below: &str) -> bool {
    let (above, below) = (RepoPath::from(path), RepoPath::from(below));
    if above == below || !below.is_within(&above) {
        return false;
    }
    let mut place = data;
    for name in below.components().skip(above.components().count()) {
        match place.get(name) {
            Some(next) if next.is_object() => place = next,
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

proptest! {
    #[test]
    fn base_and_diffs_lead_where_the_complete_bundle_leads(
        first in files(), second in files(), third in files()
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bundles = [complete(&first), diff(&first, &second), diff(&second, &third)];
            let by_diffs = data_after(bundles).await;
            let at_once = data_after([complete(&third)]).await;
            let repeated = data_after([complete(&first), complete(&third)]).await;
            prop_assert_eq!(without_empty(by_diffs), without_empty(at_once.clone()));
            prop_assert_eq!(without_empty(repeated), without_empty(at_once));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_null_member_of_the_root_is_none_whichever_bundle_brings_it() {
    let root = |data: Value| Files::from([(".".to_owned(), data)]);
    let (with, without) = (
        root(json!({"a": 1, "b": 2})),
        root(json!({"a": 1, "b": null})),
    );
    for bundles in [
        vec![complete(&without)],
        vec![complete(&with), complete(&without)],
        vec![complete(&with), diff(&with, &without)],
    ] {
        assert_eq!(data_after(bundles).await, json!({"a": 1}));
    }
}

#[tokio::test]
async fn what_the_module_above_says_comes_back_when_the_one_below_goes() {
    let above = ("a".to_owned(), json!({"b": {"x": 1}}));
    let below = ("a/b".to_owned(), json!({"y": 2}));
    let both = Files::from([above.clone(), below]);
    let one = Files::from([above]);
    assert_eq!(
        data_after([complete(&both)]).await,
        json!({"a": {"b": {"y": 2}}})
    );
    let after = data_after([complete(&both), diff(&both, &one)]).await;
    assert_eq!(after, json!({"a": {"b": {"x": 1}}}));
}

#[tokio::test]
async fn a_document_for_a_place_above_keeps_static_data_that_it_says_nothing_of() {
    let store = MemoryStore::new();
    let files = Files::from([
        (".".to_owned(), json!({"note": 1, "taken": 1})),
        ("app/users".to_owned(), json!({"alice": {}})),
        ("app/roles".to_owned(), json!({"admin": {}})),
    ]);
    let put = |path: &str, document: Value| StoreChange::Put {
        path: DataPath::parse(path).unwrap(),
        document: Document::from(&document),
    };
    let changes = vec![
        StoreChange::Bundle(Arc::new(complete(&files))),
        put("", json!({"taken": 2, "app": {"users": {"bob": {}}}})),
    ];
    for outcome in store.apply(changes).await {
        outcome.unwrap();
    }
    let expected = json!({
        "note": 1,
        "taken": 2,
        "app": {"users": {"bob": {}}, "roles": {"admin": {}}},
    });
    assert_eq!(store.data(), expected);
    store
        .apply(vec![put("/app/users", json!({}))])
        .await
        .remove(0)
        .unwrap();
    assert_eq!(
        store.data()["app"]["users"],
        json!({}),
        "the place itself is replaced"
    );
}
