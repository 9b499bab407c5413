use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use opal_protocol::{
    ChainDigest, CommitHash, DataModule, DataPath, Document, Epoch, PatchOperation, PolicyBundle,
    PolicyModule, Position, Revision, ScopeId, Topic,
};
use serde_json::{Value, json};

use super::*;
use crate::policy_store::StoreChange;
use opal_runtime::chain;

fn identity(topic: &str) -> Identity {
    let topics = [Topic::from("policy:."), Topic::from(topic)];
    Identity::new(ScopeId::default(), &topics, &[".".into()])
}

fn file(directory: &Path) -> OfflineFile {
    OfflineFile::new(directory.join("deep/opa.json"), identity("users"))
}

fn commit() -> CommitHash {
    CommitHash::parse(&"a".repeat(40)).unwrap()
}

fn position() -> Position {
    Position {
        epoch: Epoch(0xab),
        revision: Revision(7),
        digest: ChainDigest([3; 16]),
    }
}

fn bundle() -> PolicyBundle {
    PolicyBundle {
        manifest: vec!["app.rego".into()],
        hash: commit(),
        old_hash: None,
        data_modules: vec![DataModule {
            path: "static".into(),
            data: r#"{"of": "git"}"#.to_owned(),
        }],
        policy_modules: vec![PolicyModule {
            path: "app.rego".into(),
            package_name: "app".to_owned(),
            rego: "package app".to_owned(),
        }],
        deleted_files: None,
    }
}

fn changes() -> Vec<StoreChange> {
    let operation = |value: &str| PatchOperation {
        op: "add".to_owned(),
        path: "/amount".to_owned(),
        value: Some(Document::parse(value).unwrap()),
        from: None,
    };
    vec![
        StoreChange::Bundle(Arc::new(bundle())),
        StoreChange::Put {
            path: DataPath::from_segments(["users", "a/b"]),
            document: Document::parse(r#"{"z": 1, "a": 12345678901234567890.50}"#).unwrap(),
        },
        StoreChange::Patch {
            path: DataPath::from_segments(["users", "a/b"]),
            operations: vec![operation("1.50")],
        },
        StoreChange::Delete {
            path: DataPath::from_segments(["gone"]),
        },
    ]
}

fn copy() -> Copy {
    Copy {
        policies: [("app.rego".to_owned(), "package app".to_owned())].into(),
        changes: changes(),
        position: Some(position()),
        commit: Some(commit()),
    }
}

fn written(file: &OfflineFile) -> Value {
    serde_json::from_slice(&fs::read(&file.path).unwrap()).unwrap()
}

fn put_there(file: &OfflineFile, text: &str) {
    fs::create_dir_all(file.directory()).unwrap();
    fs::write(&file.path, text).unwrap();
}

#[test]
fn what_is_read_is_exactly_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    assert!(file.load().unwrap().is_none());
    file.save(copy()).unwrap();
    let saved = file.load().unwrap().unwrap();
    assert_eq!(saved.position, Some(position()));
    assert_eq!(saved.commit, Some(commit()));
    let shown = |changes: &[StoreChange]| format!("{changes:?}");
    assert_eq!(shown(&saved.changes), shown(&changes()));
    let StoreChange::Put { document, .. } = &saved.changes[1] else {
        panic!("the second change is a PUT");
    };
    assert_eq!(document.text(), r#"{"z": 1, "a": 12345678901234567890.50}"#);
    let StoreChange::Patch { operations, .. } = &saved.changes[2] else {
        panic!("the third change is a PATCH");
    };
    assert_eq!(operations[0].value.as_ref().unwrap().text(), "1.50");
}

#[test]
fn released_opal_finds_what_it_reads() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    file.save(copy()).unwrap();
    let written = written(&file);
    assert_eq!(written["policies"], json!({ "app.rego": "package app" }));
    assert_eq!(written["data"]["static"], json!({ "of": "git" }));
    assert_eq!(written["data"]["users"]["a/b"]["amount"], 1.5);
}

#[test]
fn a_file_of_released_opal_is_read_and_is_of_no_position() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    put_there(
        &file,
        r#"{"policies": {"app.rego": "package app"}, "data": {"users": {"bob": 1}}}"#,
    );
    let saved = file.load().unwrap().unwrap();
    assert_eq!((saved.position, saved.commit), (None, None));
    assert!(saved.is_whole);
    let [
        StoreChange::Bundle(bundle),
        StoreChange::Put { path, document },
    ] = saved.changes.as_slice()
    else {
        panic!("{:?}", saved.changes);
    };
    assert_eq!(bundle.policy_modules[0].rego, "package app");
    assert!(path.is_root() && document.text().contains("bob"));
}

#[test]
fn a_position_holds_only_for_who_follows_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let ours = file(directory.path());
    ours.save(copy()).unwrap();
    let of = |identity: Identity| OfflineFile::new(ours.path.clone(), identity);
    let other_topics = of(identity("groups")).load().unwrap().unwrap();
    assert_eq!((other_topics.position, other_topics.commit), (None, None));
    assert!(!other_topics.is_whole, "something may be missing");
    assert_eq!(other_topics.changes.len(), changes().len());

    let directories = Identity {
        directories: vec!["app".into()],
        ..identity("users")
    };
    assert_eq!(of(directories).load().unwrap().unwrap().position, None);

    let scope = Identity {
        scope: "tenant".into(),
        ..identity("users")
    };
    let error = of(scope).load().unwrap_err();
    assert!(
        error.to_string().ends_with("belongs to scope `default`"),
        "{error}"
    );
}

#[test]
fn what_is_no_file_of_ours_is_named_and_kept_when_the_next_one_is_written() {
    let whole = {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        file.save(copy()).unwrap();
        fs::read_to_string(&file.path).unwrap()
    };
    let torn = whole.get(..whole.len() / 2).unwrap();
    let foreign = whole.replace(r#""format":1"#, r#""format":2"#);
    let secret = r#"{"policies": "hunter2", "data": {}}"#;
    for (text, problem) in [
        (torn, "is damaged at line 1, column"),
        (secret, "is damaged at line 1, column"),
        ("", "is damaged at line 1, column 0"),
        (r#"{"policies": {}, "data": []}"#, "is damaged"),
        (&foreign, "has format 2, and this version reads format 1"),
        (
            r#"{"policies":{},"data":{},"opal":{"format":1}}"#,
            "is damaged",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        put_there(&file, text);
        let error = chain(&file.load().unwrap_err());
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(fs::read_to_string(&file.path).unwrap(), text, "untouched");

        file.save(copy()).unwrap();
        let kept = fs::read_to_string(beside(&file.path, ".unusable")).unwrap();
        assert_eq!(kept, text);
        assert!(file.load().unwrap().is_some());
    }
}

#[test]
fn only_we_may_read_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    put_there(&file, "{}");
    file.save(copy()).unwrap();
    let mode = fs::metadata(&file.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_was_left_half_written_is_in_nobody_s_way() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    file.save(copy()).unwrap();
    let before = written(&file);
    fs::write(file.temporary_path(), "{\"policies\": {\"").unwrap();
    assert!(file.load().unwrap().is_some());
    assert_eq!(written(&file), before);
    file.save(copy()).unwrap();
    assert!(!file.temporary_path().exists());
}

#[test]
fn a_directory_that_cannot_be_written_is_named_before_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("deep"), "a file").unwrap();
    let file = file(directory.path());
    for error in [file.check().unwrap_err(), file.save(copy()).unwrap_err()] {
        let path = file.path.display();
        assert_eq!(error.to_string(), format!("could not write `{path}`"));
    }
}

#[test]
fn a_check_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path());
    file.check().unwrap();
    assert_eq!(fs::read_dir(file.directory()).unwrap().count(), 0);
}
