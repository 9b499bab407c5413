//! Reading files as `opa run` does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use opal_engine::{Edit, Engine, EngineOptions, LoadError, load_paths};
use tempfile::TempDir;

fn tree(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let path = directory.path().to_owned();
    (directory, path)
}

fn loaded(paths: &[PathBuf]) -> Engine {
    let engine = Engine::new(EngineOptions::default());
    let outcomes = engine.apply(vec![load_paths(paths).unwrap()]);
    assert_eq!(outcomes, [Ok(())]);
    engine
}

#[test]
fn data_stands_where_its_file_lies() {
    let (_guard, root) = tree(&[
        ("a/data.json", r#"{"x":1}"#),
        ("a/other.json", r#"{"y":{"z":2}}"#),
        ("a/b/q.yaml", "deep: [1, two]"),
        ("top.json", r#"{"a":{"w":4}}"#),
        ("a/rule.rego", "package a.rule\np = data.a.b.deep[1]"),
        ("readme.txt", "not loaded"),
    ]);
    let engine = loaded(&[root]);
    assert_eq!(
        engine.data(&[]).unwrap(),
        r#"{"a":{"b":{"deep":[1,"two"]},"w":4,"x":1,"y":{"z":2}}}"#
    );
    let path = ["a", "rule", "p"].map(str::to_owned);
    assert_eq!(engine.evaluate(&path, None).unwrap().unwrap(), "\"two\"");
    let id = engine.policies().into_keys().next().unwrap();
    assert!(id.ends_with("a/rule.rego") && !id.starts_with('/'), "{id}");
}

#[test]
fn a_file_named_by_itself_stands_at_the_root() {
    let (_guard, root) = tree(&[("deep/er/x.json", r#"{"x":1}"#), ("p.rego", "package p")]);
    let engine = loaded(&[root.join("deep/er/x.json"), root.join("p.rego")]);
    assert_eq!(engine.data(&[]).unwrap(), r#"{"x":1}"#);
    assert_eq!(engine.policies().len(), 1);
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    let (_guard, root) = tree(&[
        ("a.json", r#"{"x":{"y":1}}"#),
        ("b.json", r#"{"x":{"y":1}}"#),
    ]);
    let error = load_paths(&[root]).unwrap_err();
    let expected = "b.json: merge error: conflicting values at data.x.y";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let (_guard, root) = tree(&[("bad.json", "{"), ("list.json", "[]"), ("note.txt", "hi")]);
    for name in ["bad.json", "list.json", "note.txt", "missing.rego"] {
        let error = load_paths(&[root.join(name)]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let missing = load_paths(&[root.join("missing.rego")]).unwrap_err();
    assert!(matches!(missing, LoadError::Read { .. }));
}

#[test]
fn nothing_makes_no_edits() {
    assert_eq!(load_paths(&[]).unwrap(), Vec::<Edit>::new());
}
