use super::*;

fn patch(operations: &str) -> Result<Patch, PatchError> {
    let operations: Vec<PatchOperation> = serde_json::from_str(operations).unwrap();
    Patch::parse(DataPath::parse("users").unwrap(), &operations)
}

fn apply(document: Value, operations: &str) -> Result<Value, String> {
    let applied = patch(operations).and_then(|patch| patch.apply(document));
    applied.map_err(|error| error.to_string())
}

#[test]
fn only_patches_that_look_at_the_document_have_to_be_resolved() {
    let plain = r#"[{"op":"add","path":"/a","value":1},{"op":"remove","path":"/b"}]"#;
    assert_eq!(patch(plain).unwrap().plain().unwrap().len(), 2);
    let other = r#"[{"op":"add","path":"/a","value":1},{"op":"test","path":"/b"}]"#;
    assert_eq!(patch(other).unwrap().plain(), None);
}

#[test]
fn each_operation_sees_what_those_before_it_did() {
    let operations = r#"[{"op":"add","path":"/a","value":{"l":[1]}},{"op":"copy","from":"/a/l","path":"/m"},
        {"op":"add","path":"/m/-","value":2},{"op":"move","from":"/m/0","path":"/first"},
        {"op":"test","path":"/m","value":[2]},{"op":"remove","path":"/a"},{"op":"test","path":"/first","value":1}]"#;
    assert_eq!(
        apply(json!({}), operations).unwrap(),
        json!({"m": [2], "first": 1})
    );
}

#[test]
fn paths_are_read_as_opa_reads_them() {
    let operations =
        r#"[{"op":"add","path":"/a%20b","value":1},{"op":"add","path":"/c~1d~0","value":null}]"#;
    assert_eq!(
        apply(json!({}), operations).unwrap(),
        json!({"a b": 1, "c/d~": null})
    );
    for whole in ["", "/"] {
        let operations = format!(r#"[{{"op":"replace","path":"{whole}","value":[1]}}]"#);
        assert_eq!(apply(json!({}), &operations).unwrap(), json!([1]));
    }
}

#[test]
fn what_does_not_apply_is_named() {
    for (operations, problem) in [
        (
            r#"[{"op":"add","path":"/a"},{"op":"test","path":"/a","value":1}]"#,
            "operation 2 (`test` `/a`): the value there is another",
        ),
        (
            r#"[{"op":"copy","from":"/x","path":"/a"}]"#,
            "operation 1 (`copy` `/a`): there is nothing at `/x`",
        ),
        (
            r#"[{"op":"move","from":"/o","path":"/o/p"}]"#,
            "operation 1 (`move` `/o/p`): a value cannot be moved into itself",
        ),
        (
            r#"[{"op":"move","path":"/a"}]"#,
            "operation 1 (`move` `/a`): `from` is missing",
        ),
        (
            r#"[{"op":"x","path":"/a"}]"#,
            "operation 1 (`x` `/a`): unknown operation",
        ),
        (
            r#"[{"op":"add","path":"a"}]"#,
            "operation 1 (`add` `a`): `a` does not start with `/`",
        ),
    ] {
        let error = apply(json!({"o": {}}), operations).unwrap_err();
        assert_eq!(
            error,
            format!("the patch for `/users` does not apply: {problem}")
        );
    }
}

#[test]
fn an_operation_survives_its_form_on_the_wire() {
    let operations = r#"[{"op":"add","path":"/a%2541~1b/-","value":1.50},{"op":"move","from":"/x","path":"/y"},
        {"op":"remove","path":""},{"op":"test","path":"/z","value":null}]"#;
    let read = patch(operations).unwrap();
    let wire: Vec<PatchOperation> = read.operations().iter().map(Operation::to_wire).collect();
    let again = Patch::parse(read.target().clone(), &wire).unwrap();
    assert_eq!(again, read);
}

#[test]
fn a_document_stays_as_it_was_if_the_patch_fails_half_way() {
    let before = json!({"a": [1], "b": 2});
    for last in [
        r#"{"op":"remove","path":"/x"}"#,
        r#"{"op":"test","path":"/b","value":3}"#,
    ] {
        let operations = format!(
            r#"[{{"op":"remove","path":"/a/0"}},{{"op":"replace","path":"","value":{{"b":2}}}},{last}]"#
        );
        let mut document = before.clone();
        let mut budget = CopyBudget::new(0);
        let applied = patch(&operations)
            .unwrap()
            .apply_to(&mut document, &mut budget);
        assert!(applied.is_err() && !budget.is_exceeded());
        assert_eq!(document, before);
    }
}

#[test]
fn copies_that_double_a_document_do_not_apply() {
    let doubled =
        (0..40).map(|at| json!({"op": "copy", "from": "/a", "path": format!("/a/k{at}")}));
    let operations = Value::Array(doubled.collect()).to_string();
    let patch = patch(&operations).unwrap();
    let before = json!({"a": {"text": "x".repeat(1 << 16)}});

    let error = patch.resolve(before.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch for `/users` does not apply: operation 10 (`copy` `/a/k9`): \
         the patch copies and moves more than it may"
    );
    let (mut document, mut budget) = (before.clone(), CopyBudget::new(1 << 18));
    assert!(patch.apply_to(&mut document, &mut budget).is_err());
    assert!(budget.is_exceeded());
    assert_eq!(document, before);
}

#[test]
fn a_large_document_may_be_copied_once_and_patched_at_will() {
    let document = json!({"a": "x".repeat(30 << 20), "b": 1});
    let operations = r#"[{"op":"replace","path":"/b","value":2},{"op":"copy","from":"/b","path":"/c"},
        {"op":"move","from":"/a","path":"/d"}]"#;
    let patched = patch(operations).unwrap().apply(document).unwrap();
    assert_eq!(patched["c"], json!(2));
    assert_eq!(patched["d"].as_str().unwrap().len(), 30 << 20);
}

#[test]
fn nothing_is_nested_deeper_than_json_is_read_back() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let add = |depth| format!(r#"[{{"op":"add","path":"/a","value":{}}}]"#, nested(depth));
    assert!(patch(&add(125)).is_ok());
    let error = patch(&add(126)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch for `/users` does not apply: operation 1 (`add` `/a`): \
         the value would be nested too deep"
    );
    // Moves could otherwise put one inside another again and again, until no stack suffices.
    let (a, b) = (nested(100), nested(80));
    let inner = "/0".repeat(99);
    let operations = format!(
        r#"[{{"op":"add","path":"/a","value":{a}}},{{"op":"add","path":"/b","value":{b}}},
            {{"op":"move","from":"/b","path":"/a{inner}/-"}}]"#
    );
    let error = apply(json!({}), &operations).unwrap_err();
    assert!(error.ends_with("nested too deep"), "{error}");
}
