//! What every policy store must do, run on each: in memory, embedded, and the real OPA over REST.

#[cfg(test)]
#[path = "support/bundles.rs"]
mod bundles;
#[cfg(test)]
#[path = "support/opa_program.rs"]
mod opa_program;
#[cfg(test)]
#[path = "support/real_opa.rs"]
mod real_opa;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opal_client::policy_store::{
        EmbeddedStore, IgnoredPaths, MemoryStore, OpaOptions, OpaStore, PolicyStore, StoreChange,
        StoreError,
    };
    use opal_engine::{Engine, EngineOptions};
    use opal_runtime::http::{HttpOptions, client};
    use serde_json::{Value, json};

    use super::bundles::{bundle, complete, delete, diff, patch, put};
    use super::real_opa::RealOpa;

    /// A store and a way to look into it.
    enum Subject {
        Memory(MemoryStore),
        Embedded(EmbeddedStore),
        Opa(Box<OpaStore>, RealOpa),
    }

    impl Subject {
        async fn opa(split: bool) -> Self {
            let opa = RealOpa::start().await;
            let mut options = OpaOptions::new(opa.url.parse().unwrap());
            options.split_root_data = split;
            let client = client(&HttpOptions::default()).unwrap();
            Self::Opa(Box::new(OpaStore::new(client, options)), opa)
        }

        fn embedded(split: bool) -> Self {
            let engine = Engine::new(EngineOptions::default());
            Self::Embedded(EmbeddedStore::new(engine, IgnoredPaths::default(), split))
        }

        async fn all(split: bool) -> Vec<(&'static str, Self)> {
            vec![
                (
                    "memory",
                    Self::Memory(MemoryStore::new().with_split_root_data(split)),
                ),
                ("embedded", Self::embedded(split)),
                ("opa", Self::opa(split).await),
            ]
        }

        fn store(&self) -> &dyn PolicyStore {
            match self {
                Self::Memory(store) => store,
                Self::Embedded(store) => store,
                Self::Opa(store, _) => store.as_ref(),
            }
        }

        async fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
            self.store().apply(batch).await
        }

        async fn data(&self) -> Value {
            match self {
                Self::Memory(store) => store.data(),
                Self::Embedded(store) => {
                    serde_json::from_str(&store.engine().data(&[]).unwrap()).unwrap()
                }
                Self::Opa(_, opa) => {
                    // Modules without rules show as empty objects in OPA's answer: tests that look
                    // at data use none.
                    let client = client(&HttpOptions::default()).unwrap();
                    let answer = client
                        .get(format!("{}/v1/data", opa.url))
                        .send()
                        .await
                        .unwrap();
                    answer.json::<Value>().await.unwrap()["result"].take()
                }
            }
        }

        async fn policies(&self) -> BTreeMap<String, String> {
            self.store().policies().await.unwrap()
        }
    }

    /// Applies the batch to every store, where all of it must succeed, and compares the data.
    async fn all_hold(split: bool, batch: Vec<StoreChange>, expected: Value) {
        for (name, subject) in Subject::all(split).await {
            for (at, outcome) in subject.apply(batch.clone()).await.into_iter().enumerate() {
                outcome.unwrap_or_else(|error| panic!("{name}: change {at}: {error}"));
            }
            assert_eq!(subject.data().await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn documents_are_put_replaced_and_deleted_in_order() {
        let batch = vec![
            put("a/b", r#"{"x":1,"y":2}"#),
            put("a/b", r#"{"z":3}"#),
            put("a/c", "[1]"),
            put("/p q/é/x%2Fy", "true"),
            delete("a/c"),
            delete("never/there"),
        ];
        let expected = json!({"a": {"b": {"z": 3}}, "p q": {"é": {"x/y": true}}});
        all_hold(false, batch, expected).await;
    }

    #[tokio::test]
    async fn put_drops_null_members_and_patch_keeps_them() {
        let batch = vec![
            put("a", r#"{"n":null,"l":[null,{"m":null}],"o":{"p":null}}"#),
            patch(
                "a",
                r#"[{"op":"add","path":"/k","value":{"n":null}},{"op":"add","path":"/z"}]"#,
            ),
        ];
        let expected = json!({"a": {"l": [null, {}], "o": {}, "k": {"n": null}, "z": null}});
        all_hold(false, batch, expected).await;
    }

    #[tokio::test]
    async fn the_root_is_replaced_whole_or_split_and_a_list_is_wrapped() {
        let batch = || vec![put("a", "1"), put("", r#"{"b":{"n":null},"c":null}"#)];
        all_hold(false, batch(), json!({"b": {}})).await;
        all_hold(true, batch(), json!({"a": 1, "b": {}, "c": null})).await;
        all_hold(
            false,
            vec![put("a", "1"), put("/", "[1,2]")],
            json!({"items": [1, 2]}),
        )
        .await;
        all_hold(false, vec![put("a", "1"), delete("")], json!({})).await;
    }

    #[tokio::test]
    async fn all_operations_of_rfc_6902_work() {
        let batch = vec![
            put("u", r#"{"alice":{"role":"admin"},"l":[1,3],"old":true}"#),
            patch(
                "u",
                r#"[{"op":"add","path":"/l/1","value":2},{"op":"add","path":"/l/-","value":4},
                {"op":"replace","path":"/alice/role","value":"x~y"},{"op":"remove","path":"/old"}]"#,
            ),
            patch(
                "u",
                r#"[{"op":"test","path":"/alice","value":{"role":"x~y"}},
                {"op":"copy","from":"/alice","path":"/b~1ob"},
                {"op":"move","from":"/l","path":"/alice/list"},{"op":"remove","path":"/alice/list/0"}]"#,
            ),
            patch(
                "",
                r#"[{"op":"move","from":"/u/b~1ob","path":"/bob"},{"op":"add","path":"/top","value":1}]"#,
            ),
            patch("top", r#"[{"op":"replace","path":"","value":2}]"#),
        ];
        let expected = json!({
            "u": {"alice": {"role": "x~y", "list": [2, 3, 4]}}, "bob": {"role": "x~y"}, "top": 2
        });
        all_hold(false, batch, expected).await;
    }

    #[tokio::test]
    async fn a_patch_that_does_not_apply_changes_nothing_and_the_rest_goes_on() {
        for (name, subject) in Subject::all(false).await {
            let bad = [
                r#"[{"op":"add","path":"/new","value":1},{"op":"remove","path":"/nope"}]"#,
                r#"[{"op":"add","path":"/new","value":1},{"op":"test","path":"/x","value":2}]"#,
                r#"[{"op":"add","path":"/new","value":1},{"op":"move","from":"/nope","path":"/y"}]"#,
                r#"[{"op":"add","path":"/new","value":1},{"op":"frobnicate","path":"/x"}]"#,
                r#"[{"op":"add","path":"/no/parent","value":1}]"#,
                r#"[{"op":"copy","path":"/y"}]"#,
            ];
            let mut batch = vec![put("a", r#"{"x":1}"#)];
            batch.extend(bad.map(|operations| patch("a", operations)));
            batch.push(patch("missing", r#"[{"op":"add","path":"/x","value":1}]"#));
            batch.push(patch("missing", r#"[{"op":"test","path":"/x","value":1}]"#));
            batch.push(put("b", "2"));

            let outcomes = subject.apply(batch).await;
            let failed: Vec<usize> = (0..outcomes.len())
                .filter(|at| outcomes[*at].is_err())
                .collect();
            assert_eq!(failed, [1, 2, 3, 4, 5, 6, 7, 8], "{name}");
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert!(
                    matches!(error, StoreError::PatchFailed { .. }),
                    "{name}: {error}"
                );
                assert!(!error.is_transient());
            }
            assert_eq!(
                subject.data().await,
                json!({"a": {"x": 1}, "b": 2}),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_document_that_cannot_be_stored_is_refused_and_the_rest_goes_on() {
        for (name, subject) in Subject::all(false).await {
            let deep = "[".repeat(20_000) + &"]".repeat(20_000);
            let batch = vec![
                put("a", "1"),
                put("a/b", "2"),
                put("", "5"),
                put("d", &deep),
                put("c", "3"),
            ];
            let outcomes = subject.apply(batch).await;
            let failed: Vec<usize> = (0..outcomes.len())
                .filter(|at| outcomes[*at].is_err())
                .collect();
            assert_eq!(failed, [1, 2, 3], "{name}");
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert!(
                    matches!(error, StoreError::InvalidDocument { .. }),
                    "{name}: {error}"
                );
            }
            assert_eq!(subject.data().await, json!({"a": 1, "c": 3}), "{name}");
        }
    }

    #[tokio::test]
    async fn a_complete_bundle_brings_its_files_and_removes_stale_ones() {
        for (name, subject) in Subject::all(false).await {
            let system = ("system/log.rego", "package system.log\n\nmask = 1\n");
            let first = complete(&[
                ("old.rego", "package old\n\nx = 1\n"),
                ("old/data.json", r#"{"k":1}"#),
                ("keep.rego", "package keep\n\nx = 1\n"),
                system,
            ]);
            let second = complete(&[
                ("keep.rego", "package keep\n\nx = 2\n"),
                ("new/data.json", "{}"),
            ]);
            for outcome in subject
                .apply(vec![bundle(first), put("mine", "1"), bundle(second)])
                .await
            {
                outcome.unwrap();
            }
            let policies = subject.policies().await;
            assert_eq!(policies.keys().collect::<Vec<_>>(), ["keep.rego"], "{name}");
            assert_eq!(policies["keep.rego"], "package keep\n\nx = 2\n", "{name}");
            let mut data = subject.data().await;
            data.as_object_mut()
                .unwrap()
                .retain(|key, _| key != "keep" && key != "system");
            assert_eq!(data, json!({"new": {}, "mine": 1}), "{name}");
        }
    }

    #[tokio::test]
    async fn a_diff_changes_only_what_it_names() {
        for (name, subject) in Subject::all(false).await {
            let base = complete(&[
                ("a.rego", "package a\n\nx = 1\n"),
                ("b.rego", "package b\n\nx = 1\n"),
                ("d/data.json", r#"{"k":1}"#),
            ]);
            let change = diff(
                &[("c.rego", "package c\n\nx = 1\n")],
                &["d", "absent"],
                &["a.rego", "absent.rego"],
            );
            for outcome in subject
                .apply(vec![bundle(base), put("mine", "1"), bundle(change)])
                .await
            {
                outcome.unwrap();
            }
            let policies = subject.policies().await;
            assert_eq!(
                policies.keys().collect::<Vec<_>>(),
                ["b.rego", "c.rego"],
                "{name}"
            );
            let data = subject.data().await;
            assert_eq!(
                (&data["d"], &data["mine"]),
                (&Value::Null, &json!(1)),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn moved_data_ends_where_a_complete_bundle_would_put_it() {
        // As recorded: `deep/er/data.json` moves up and the root's `data.json` goes.
        let base = complete(&[
            ("data.json", r#"{"version":1,"deep":{"x":1}}"#),
            ("deep/er/data.json", r#"{"deep":true}"#),
        ]);
        let moved = diff(
            &[("deep/data.json", r#"{"deep":true}"#)],
            &[".", "deep/er"],
            &[],
        );
        let batch = vec![bundle(base), put("mine", "1"), bundle(moved)];
        all_hold(false, batch, json!({"deep": {"deep": true}, "mine": 1})).await;
    }

    #[tokio::test]
    async fn a_changed_root_module_leaves_other_data_alone() {
        let base = complete(&[
            ("data.json", r#"{"version":1,"note":"x"}"#),
            ("app/users/data.json", r#"{"alice":1}"#),
        ]);
        let change = diff(&[("data.json", r#"{"version":2,"app":{"y":1}}"#)], &[], &[]);
        let batch = vec![bundle(base), put("mine", "1"), bundle(change)];
        let expected = json!({"version": 2, "app": {"y": 1, "users": {"alice": 1}}, "mine": 1});
        all_hold(false, batch, expected).await;
    }

    #[tokio::test]
    async fn a_module_that_does_not_parse_is_named_with_line_and_column() {
        for (name, subject) in Subject::all(false).await {
            let bad = complete(&[
                ("good.rego", "package good\n\nx = 1\n"),
                ("app/bad.rego", "\npakage x\n"),
            ]);
            let outcomes = subject.apply(vec![bundle(bad), put("b", "2")]).await;
            let error = outcomes[0].as_ref().unwrap_err();
            assert!(!error.is_transient());
            let problem = &error.problems()[0];
            assert_eq!(
                (problem.file.as_str(), problem.row, problem.col),
                ("app/bad.rego", 2, 1),
                "{name}: {error}"
            );
            assert_eq!(problem.code, "rego_parse_error", "{name}");
            outcomes[1].as_ref().unwrap();
            assert!(!subject.policies().await.contains_key("app/bad.rego"));
        }
    }

    #[tokio::test]
    async fn static_data_that_is_not_json_is_named_and_the_old_stays() {
        for (name, subject) in Subject::all(false).await {
            let good = complete(&[("a/data.json", r#"{"k":1}"#)]);
            let bad = complete(&[("a/data.json", "{\n  oops")]);
            let outcomes = subject.apply(vec![bundle(good), bundle(bad)]).await;
            let problem = &outcomes[1].as_ref().unwrap_err().problems()[0];
            assert_eq!(
                (problem.file.as_str(), problem.row),
                ("a/data.json", 2),
                "{name}"
            );
            assert_eq!(subject.data().await, json!({"a": {"k": 1}}), "{name}");
        }
    }

    #[tokio::test]
    async fn dependent_and_renamed_modules_apply_in_any_order() {
        let default = "package app\n\ndefault allow = false\n";
        for (name, subject) in Subject::all(false).await {
            let base = complete(&[
                ("main.rego", "package main\n\nallow { data.lib.f(1) }\n"),
                ("lib.rego", "package lib\n\nf(x) { x == 1 }\n"),
                ("old.rego", default),
            ]);
            let renamed = diff(&[("new.rego", default)], &[], &["old.rego"]);
            let again = complete(&[("newest.rego", default)]);
            for outcome in subject.apply(vec![bundle(base), bundle(renamed)]).await {
                outcome.unwrap();
            }
            let ids: Vec<String> = subject.policies().await.into_keys().collect();
            assert_eq!(ids, ["lib.rego", "main.rego", "new.rego"], "{name}");
            subject.apply(vec![bundle(again)]).await.remove(0).unwrap();
            let ids: Vec<String> = subject.policies().await.into_keys().collect();
            assert_eq!(ids, ["newest.rego"], "{name}");
        }
    }

    #[tokio::test]
    async fn an_atomic_store_keeps_the_last_good_bundle_whole() {
        for subject in [
            Subject::Memory(MemoryStore::new()),
            Subject::embedded(false),
        ] {
            let good = complete(&[("a.rego", "package a\n\nx = 1\n"), ("d/data.json", "{}")]);
            let bad = complete(&[
                ("b.rego", "package b\n\nx = 1\n"),
                ("c.rego", "nonsense"),
                ("e/data.json", "{}"),
            ]);
            let outcomes = subject.apply(vec![bundle(good), bundle(bad)]).await;
            assert!(outcomes[0].is_ok() && outcomes[1].is_err());
            assert_eq!(
                subject.policies().await.keys().collect::<Vec<_>>(),
                ["a.rego"]
            );
            assert_eq!(subject.data().await["e"], Value::Null);
        }
    }

    #[tokio::test]
    async fn every_store_says_that_it_is_there() {
        for (_, subject) in Subject::all(false).await {
            subject.store().is_reachable().await.unwrap();
        }
    }
}
