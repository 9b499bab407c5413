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
        assert!(patch(&operations).unwrap().apply_to(&mut document).is_err());
        assert_eq!(document, before);
    }
}
