//! What a caller of [`Engine`] may rely on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opal_engine::{Edit, Engine, EngineError, EngineOptions, PatchOperation, ProblemCode};

fn engine() -> Engine {
    Engine::new(EngineOptions::default())
}

fn policy(id: &str, source: &str) -> Edit {
    Edit::PutPolicy {
        id: id.to_owned(),
        source: Arc::from(source),
    }
}

fn segments(path: &str) -> Vec<String> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.map(str::to_owned).collect()
}

fn data(path: &str, json: impl Into<Bytes>) -> Edit {
    Edit::PutData {
        path: segments(path),
        document: json.into(),
    }
}

fn apply(engine: &Engine, edits: Vec<Edit>) -> Result<(), EngineError> {
    engine.apply(vec![edits]).remove(0)
}

fn answer(engine: &Engine, path: &str) -> Option<String> {
    engine.evaluate(&segments(path), None).unwrap()
}

#[test]
fn a_broken_bundle_leaves_the_last_good_one() {
    let engine = engine();
    let good = vec![policy("a.rego", "package a\np = data.v"), data("v", "1")];
    apply(&engine, good).unwrap();

    let broken = vec![
        data("v", "2"),
        data("new/deep", "3"),
        policy("a.rego", "package a\np = 2"),
        policy("b.rego", "package b\n\nq {\n  missing.builtin(1)\n}"),
    ];
    let error = apply(&engine, broken).unwrap_err();

    assert_eq!(
        error.to_string(),
        "b.rego:4:3: rego_type_error: undefined function missing.builtin"
    );
    assert_eq!(answer(&engine, "a/p").unwrap(), "1");
    assert_eq!(engine.data(&[]).unwrap(), r#"{"v":1}"#);
    assert_eq!(engine.policies().len(), 1);
}

#[test]
fn every_file_that_does_not_parse_is_named() {
    let bundle = vec![
        policy("one.rego", "package one\np = {"),
        policy("two.rego", "package two\np = 1"),
        policy("three.rego", "package three\n\n]"),
    ];
    let Err(EngineError::Policies(problems)) = apply(&engine(), bundle) else {
        panic!("accepted");
    };
    let places: Vec<_> = problems.iter().map(|p| (p.file.as_str(), p.row)).collect();
    assert_eq!(places, [("one.rego", 2), ("three.rego", 3)]);
    assert!(problems.iter().all(|p| p.code == ProblemCode::Parse));
}

#[test]
fn what_the_engine_lacks_is_refused_by_name() {
    for (name, body) in [
        (
            "http.send",
            "http.send({\"method\": \"get\", \"url\": \"http://x\"})",
        ),
        ("io.jwt.decode", "io.jwt.decode(input.token, [_, _, _])"),
        ("crypto.sha256", "crypto.sha256(\"x\") == \"y\""),
        ("opa.runtime", "opa.runtime().env.HOME == \"/\""),
        ("data.other.f", "data.other.f(1)"),
    ] {
        let source = format!("package p\nallow {{ {body} }}\nf(x) {{ x == 1; {body} }}");
        let error = apply(&engine(), vec![policy("p.rego", &source)]).unwrap_err();
        let expected = format!("p.rego:2:9: rego_type_error: undefined function {name}");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn keywords_and_syntax_of_later_versions_are_refused() {
    for source in [
        "package p\nimport future.keywords.not\np { not {false} }",
        "package p\nimport rego.v1\nx := $\"a {1}\"",
        "package p\np if { true }",
        "package p\nimport rego.v1\np contains x if { [path, x] := walk(input); count(path) > 1 }",
    ] {
        let error = apply(&engine(), vec![policy("p.rego", source)]).unwrap_err();
        assert!(error.to_string().starts_with("p.rego:"), "{error}");
    }
}

#[test]
fn versions_stand_side_by_side() {
    let engine = engine();
    let modules = vec![
        policy(
            "v0",
            "package v0\np[x] { x = data.v1.p[_] }\nold { re_match(\"a\", \"a\") }",
        ),
        policy(
            "v1",
            "package v1\nimport rego.v1\np contains x if some x in [1, 2]",
        ),
        policy(
            "kw",
            "package kw\nimport future.keywords\np contains 3 if true",
        ),
    ];
    apply(&engine, modules).unwrap();
    assert_eq!(answer(&engine, "v0").unwrap(), r#"{"old":true,"p":[1,2]}"#);
    assert_eq!(answer(&engine, "kw/p").unwrap(), "[3]");
}

#[test]
fn without_compatibility_modules_are_v1() {
    let engine = Engine::new(EngineOptions {
        v0_compatible: false,
        ..EngineOptions::default()
    });
    apply(
        &engine,
        vec![policy("a", "package a\np contains 1 if true")],
    )
    .unwrap();
    assert_eq!(answer(&engine, "a/p").unwrap(), "[1]");
    apply(&engine, vec![policy("b", "package b\np[x] { x = 1 }")]).unwrap_err();
}

#[test]
fn transactions_of_a_batch_succeed_or_fail_alone() {
    let engine = engine();
    let remove = PatchOperation::Remove {
        path: segments("nothing"),
    };
    let add = PatchOperation::Add {
        path: segments("list/0"),
        document: Bytes::from("0"),
    };
    let outcomes = engine.apply(vec![
        vec![data("list", "[1]"), data("a/b/c", "1")],
        vec![
            data("a/b", "{}"),
            data("fresh/x", "1"),
            Edit::PatchData {
                path: vec![],
                operations: vec![add, remove],
            },
        ],
        vec![data("last", "true")],
        vec![Edit::DeletePolicy {
            id: "none".to_owned(),
        }],
        vec![data("bad", "{")],
    ]);
    let good: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, false, false]);
    assert_eq!(
        engine.data(&[]).unwrap(),
        r#"{"a":{"b":{"c":1}},"last":true,"list":[1]}"#
    );
}

#[test]
fn a_module_that_others_need_cannot_be_removed_alone() {
    let engine = engine();
    let both = vec![
        policy("lib", "package lib\nf(x) = x"),
        policy("main", "package main\np = data.lib.f(1)"),
    ];
    apply(&engine, both).unwrap();
    let delete = |id: &str| Edit::DeletePolicy { id: id.to_owned() };
    apply(&engine, vec![delete("lib")]).unwrap_err();
    assert_eq!(answer(&engine, "main/p").unwrap(), "1");
    apply(&engine, vec![delete("lib"), delete("main")]).unwrap();
    assert_eq!(engine.policies().len(), 0);
}

#[test]
fn a_query_sees_one_revision() {
    let engine = engine();
    let rule = "package p\nsame { data.left == data.right }";
    apply(
        &engine,
        vec![policy("p", rule), data("left", "0"), data("right", "0")],
    )
    .unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..300 {
                let both = vec![data("left", n.to_string()), data("right", n.to_string())];
                apply(&engine, both).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        while !is_done.load(Ordering::Relaxed) {
            assert_eq!(answer(&engine, "p/same").unwrap(), "true");
        }
    });
}

#[test]
fn an_evaluation_ends_at_its_limit() {
    let engine = Engine::new(EngineOptions {
        evaluation_limit: Duration::from_millis(100),
        ..EngineOptions::default()
    });
    let rule = "package p\nn = numbers.range(1, 3000)\n\
                endless = count([1 | n[_] + n[_] + n[_] == 0])\nquick = 1";
    apply(&engine, vec![policy("p", rule)]).unwrap();
    let began = Instant::now();
    let error = engine.evaluate(&segments("p/endless"), None).unwrap_err();
    assert_eq!(error, EngineError::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(answer(&engine, "p/quick").unwrap(), "1");
}

#[test]
fn a_long_chain_of_rules_is_evaluated_or_refused() {
    for length in [900, 5_000] {
        let mut source = String::from("package p\nr0 = 1\n");
        for n in 1..length {
            source += &format!("r{n} = x {{ x := r{} }}\n", n - 1);
        }
        let engine = engine();
        match apply(&engine, vec![policy("p", &source)]) {
            Ok(()) => {
                let last = format!("p/r{}", length - 1);
                assert_eq!(answer(&engine, &last).unwrap(), "1");
            }
            Err(error) => assert!(error.to_string().contains("chain of more than"), "{error}"),
        }
    }
}

#[test]
fn a_rule_cannot_stand_where_a_document_does() {
    let engine = engine();
    apply(&engine, vec![data("a/b", "1")]).unwrap();
    let error = apply(&engine, vec![policy("a", "package a\nb = 2")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a:2:1: rego_compile_error: conflicting rule for data path a/b found"
    );
    let moved = vec![
        Edit::DeleteData {
            path: segments("a/b"),
        },
        policy("a", "package a\nb = 2"),
    ];
    apply(&engine, moved).unwrap();
    let error = apply(&engine, vec![data("a", r#"{"b":1}"#)]).unwrap_err();
    assert!(matches!(error, EngineError::PolicyDataConflict(_)));
    assert_eq!(answer(&engine, "a").unwrap(), r#"{"b":2}"#);
}

#[test]
fn input_is_undefined_unless_given() {
    let engine = engine();
    apply(
        &engine,
        vec![policy("p", "package p\nnone { not input }\ni = input")],
    )
    .unwrap();
    assert_eq!(answer(&engine, "p").unwrap(), r#"{"none":true}"#);
    let given = engine.evaluate(&segments("p"), Some("{}")).unwrap();
    assert_eq!(given.unwrap(), r#"{"i":{}}"#);
    let error = engine.evaluate(&segments("p"), Some("{")).unwrap_err();
    assert!(matches!(error, EngineError::InvalidJson(_)));
}

#[test]
fn of_two_who_create_a_document_one_does() {
    let engine = engine();
    let create = |json: &'static str| Edit::CreateData {
        path: segments("a/b"),
        document: Bytes::from(json),
    };
    let outcomes = engine.apply(vec![vec![create("1")], vec![create("2")]]);
    assert_eq!(outcomes, [Ok(()), Err(EngineError::DocumentExists)]);
    assert_eq!(engine.data(&[]).unwrap(), r#"{"a":{"b":1}}"#);
}
