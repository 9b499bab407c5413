use super::*;

fn value(json: &str) -> Value {
    Value::from_json_str(json).unwrap()
}

fn path(text: &str) -> Vec<String> {
    path::decode(text).unwrap()
}

fn after(root: &str, edit: impl FnOnce(&mut Value) -> Result<(), EngineError>) -> String {
    let mut root = value(root);
    match edit(&mut root) {
        Ok(()) => root.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn put_makes_the_objects_that_lead_to_it() {
    let result = after("{}", |root| put(root, &path("a/b/c"), value("1")));
    assert_eq!(result, r#"{"a":{"b":{"c":1}}}"#);
}

#[test]
fn put_below_a_scalar_names_what_is_in_the_way() {
    let result = after(r#"{"a":1}"#, |root| put(root, &path("a/b/c"), value("1")));
    assert_eq!(result, "storage_write_conflict_error: /a");
}

#[test]
fn put_on_an_element_inserts_before_it() {
    let result = after(r#"{"a":[1,2]}"#, |root| put(root, &path("a/0"), value("9")));
    assert_eq!(result, r#"{"a":[9,1,2]}"#);
}

#[test]
fn put_beyond_an_array_is_a_conflict() {
    for end in ["a/2", "a/-", "a/x"] {
        let result = after(r#"{"a":[1,2]}"#, |root| put(root, &path(end), value("9")));
        assert_eq!(result, "storage_write_conflict_error: /a", "{end}");
    }
}

#[test]
fn the_root_stays_an_object() {
    let result = after("{}", |root| put(root, &[], value("5")));
    assert_eq!(result, "storage_invalid_patch_error: root must be object");
}

#[test]
fn a_patch_appends_inserts_replaces_and_removes_elements() {
    let edit = |at: &str, operation| after(r#"{"a":[1,2]}"#, |r| apply(r, &path(at), operation));
    assert_eq!(edit("a/-", Operation::Add(value("9"))), r#"{"a":[1,2,9]}"#);
    assert_eq!(edit("a/2", Operation::Add(value("9"))), r#"{"a":[1,2,9]}"#);
    assert_eq!(edit("a/1", Operation::Add(value("9"))), r#"{"a":[1,9,2]}"#);
    assert_eq!(
        edit("a/1", Operation::Replace(value("9"))),
        r#"{"a":[1,9]}"#
    );
    assert_eq!(edit("a/0", Operation::Remove), r#"{"a":[2]}"#);
}

#[test]
fn what_is_missing_cannot_be_replaced_or_removed() {
    let edit = |at: &str, operation| after(r#"{"a":[1]}"#, |r| apply(r, &path(at), operation));
    let missing = "storage_not_found_error: document does not exist";
    assert_eq!(edit("b", Operation::Remove), missing);
    assert_eq!(edit("b", Operation::Replace(value("1"))), missing);
    assert_eq!(
        edit("a/7", Operation::Remove),
        "storage_not_found_error: /a/7: array index out of range"
    );
    assert_eq!(
        edit("a/x", Operation::Remove),
        "storage_not_found_error: /a/x: array index must be integer"
    );
}

#[test]
fn a_path_of_a_hundred_thousand_segments_is_refused() {
    let endless = vec!["a".to_owned(); 100_000];
    let result = after("{}", |root| put(root, &endless, value("1")));
    assert!(
        result.starts_with("storage_invalid_patch_error"),
        "{result}"
    );
}

#[test]
fn a_reader_of_the_old_value_is_undisturbed() {
    let mut root = value(r#"{"a":{"b":1},"c":{"d":2}}"#);
    let before = root.clone();
    put(&mut root, &path("a/b"), value("9")).unwrap();
    assert_eq!(before.to_string(), r#"{"a":{"b":1},"c":{"d":2}}"#);
    assert_eq!(root.to_string(), r#"{"a":{"b":9},"c":{"d":2}}"#);
}
