//! OPA over REST against a stand-in: the requests released OPAL makes, and what failures lead to.

#[cfg(test)]
#[path = "support/bundles.rs"]
mod bundles;
#[cfg(test)]
#[path = "support/stand_in.rs"]
mod stand_in;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opal_client::policy_store::{
        IgnoredPaths, OpaAuth, OpaOptions, OpaStore, PolicyStore, StoreChange, StoreError,
    };
    use opal_protocol::RepoPath;
    use opal_runtime::http::{HttpOptions, client};
    use serde_json::Value;

    use super::bundles::{bundle, complete, delete, diff, patch, put};
    use super::stand_in::{Answer, Seen, StandIn};

    fn options(server: &StandIn) -> OpaOptions {
        let mut options = OpaOptions::new(server.url.parse().unwrap());
        options.retry.wait_time = 0.0;
        options
    }

    fn store(options: OpaOptions) -> OpaStore {
        OpaStore::new(client(&HttpOptions::default()).unwrap(), options)
    }

    async fn apply(options: OpaOptions, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        store(options).apply(batch).await
    }

    /// An OPA that takes everything and holds `policies`.
    async fn willing(policies: &'static [&'static str]) -> StandIn {
        StandIn::start(move |request: &Seen, _: &[Seen]| accept(request, policies)).await
    }

    fn accept(request: &Seen, policies: &[&str]) -> Answer {
        match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/v1/policies") => Answer::json(list(policies)),
            ("GET", "/v1/data/u") => Answer::json(r#"{"result":{"x":1}}"#),
            ("GET", _) => Answer::json("{}"),
            (_, target) if target.starts_with("/v1/policies") => Answer::json("{}"),
            _ => Answer::status(204),
        }
    }

    fn list(ids: &[&str]) -> String {
        let entry = |id: &&str| {
            let package = id.trim_end_matches(".rego").replace('/', ".");
            let path: Vec<Value> = ["data"]
                .into_iter()
                .chain(package.split('.'))
                .map(|term| serde_json::json!({"type": "string", "value": term}))
                .collect();
            serde_json::json!({"id": id, "raw": "", "ast": {"package": {"path": path}}})
        };
        serde_json::json!({"result": ids.iter().map(entry).collect::<Vec<_>>()}).to_string()
    }

    const BAD: &str = r#"{"code":"invalid_parameter","message":"error(s) occurred","errors":[
        {"code":"rego_parse_error","message":"oh","location":{"file":"bad.rego","row":2,"col":3}}]}"#;
    const UNRESOLVED: &str = r#"{"code":"invalid_parameter","message":"error(s) occurred","errors":[
        {"code":"rego_type_error","message":"undefined function","location":{"file":"x","row":1,"col":1}}]}"#;

    fn refuse(body: &str) -> Answer {
        Answer::status(400).body(body)
    }

    /// The recorded requests, without those about the health-check policy and the probe.
    fn recorded(text: &str) -> Vec<Value> {
        let requests = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_about_health = |target: &str| target.contains("healthcheck") || target == "/health";
        requests
            .filter(|request| !is_about_health(request["target"].as_str().unwrap()))
            .collect()
    }

    /// The recorded files as the bundle that brought them.
    fn files(requests: &[Value]) -> Vec<(String, String)> {
        let puts = requests.iter().filter(|request| request["method"] == "PUT");
        puts.map(|request| {
            let target = request["target"].as_str().unwrap();
            let body = request["body"].as_str().unwrap().to_owned();
            match target.strip_prefix("/v1/policies/") {
                Some(id) => (id.to_owned(), body),
                None => {
                    let directory = target
                        .trim_start_matches("/v1/data")
                        .trim_start_matches('/');
                    let directory = RepoPath::normalized(directory);
                    (format!("{}/data.json", directory.as_str()), body)
                }
            }
        })
        .collect()
    }

    fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
        files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect()
    }

    /// Request line, content type, and body with its blanks normalised.
    fn shape(method: &str, target: &str, kind: Option<&str>, body: &str) -> String {
        let body = match serde_json::from_str::<Value>(body) {
            Ok(value) => value.to_string(),
            Err(_) => body.to_owned(),
        };
        format!("{method} {target} {} {body}", kind.unwrap_or("-"))
    }

    fn shapes_of(seen: &[Seen]) -> Vec<String> {
        let shape = |each: &Seen| {
            shape(
                &each.method,
                &each.target,
                each.header("content-type"),
                &each.body,
            )
        };
        seen.iter().map(shape).collect()
    }

    fn shapes_of_recorded(requests: &[Value]) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let shape = |each: &Value| {
            let kind = each["request_headers"].get("Content-Type").map(text);
            shape(
                &text(&each["method"]),
                &text(&each["target"]),
                kind.as_deref(),
                &text(&each["body"]),
            )
        };
        requests.iter().map(shape).collect()
    }

    #[tokio::test]
    async fn a_first_bundle_makes_the_recorded_requests() {
        let mut requests = recorded(include_str!("fixtures/policy-store/opa-first-load.jsonl"));
        // The base data of the server, which raced with the bundle.
        requests.remove(1);
        let files = files(&requests);
        let files: Vec<(String, String)> = files
            .into_iter()
            .map(|(path, text)| (path.trim_start_matches("./").to_owned(), text))
            .collect();
        let server = willing(&[]).await;
        apply(options(&server), vec![bundle(complete(&borrowed(&files)))])
            .await
            .remove(0)
            .unwrap();
        assert_eq!(shapes_of(&server.seen()), shapes_of_recorded(&requests));
    }

    #[tokio::test]
    async fn a_diff_makes_the_recorded_requests_but_removes_first() {
        let requests = recorded(include_str!("fixtures/policy-store/opa-policy-diff.jsonl"));
        let change = diff(
            &borrowed(&files(&requests)),
            &["extra"],
            &["app/old_name.rego", "app/doomed.rego"],
        );
        let server = willing(&[]).await;
        apply(options(&server), vec![bundle(change)])
            .await
            .remove(0)
            .unwrap();

        let mut expected = shapes_of_recorded(&requests);
        let removal = expected.remove(2);
        assert!(removal.starts_with("DELETE /v1/data/extra"));
        expected.insert(0, removal);
        // Parents before children and by name, where upstream keeps the bundle's order.
        expected[1..3].sort();
        assert_eq!(shapes_of(&server.seen()), expected);
    }

    #[tokio::test]
    async fn updates_make_the_recorded_requests() {
        let recorded = recorded(include_str!("fixtures/policy-store/opa-data-updates.jsonl"));
        let by_method = |method: &str| -> Vec<Value> {
            recorded
                .iter()
                .filter(|each| each["method"] == method)
                .cloned()
                .collect()
        };
        let puts = by_method("PUT");
        let batch = puts.iter().map(|request| {
            let path = request["target"]
                .as_str()
                .unwrap()
                .trim_start_matches("/v1/data");
            put(path, request["body"].as_str().unwrap())
        });
        let server = willing(&[]).await;
        for outcome in apply(options(&server), batch.collect()).await {
            outcome.unwrap();
        }
        let expected: Vec<String> = shapes_of_recorded(&puts)
            .iter()
            .map(|shape| shape.replace("/v1/data/ ", "/v1/data "))
            .collect();
        assert_eq!(shapes_of(&server.seen()), expected);
    }

    #[tokio::test]
    async fn plain_patches_go_as_they_are_and_others_resolved_in_one_request() {
        let server = willing(&[]).await;
        let plain = r#"[{"op":"add","path":"/carol","value":{"n":null,"big":12345678901234567890123}},
            {"op":"remove","path":"/a~1b c"},{"op":"replace","path":"","value":null}]"#;
        let other =
            r#"[{"op":"test","path":"/x","value":1},{"op":"move","from":"/x","path":"/y"}]"#;
        let failing = r#"[{"op":"test","path":"/x","value":2}]"#;
        let batch = vec![patch("u", plain), patch("u", other), patch("u", failing)];
        let outcomes = apply(options(&server), batch).await;
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
        assert_eq!(
            outcomes[2].as_ref().unwrap_err().to_string(),
            "the patch for `/u` does not apply: operation 1 (`test` `/x`): the value there is another"
        );
        let bodies: Vec<String> = server.seen().iter().map(|seen| seen.body.clone()).collect();
        assert_eq!(
            bodies[0],
            r#"[{"op":"add","path":"/carol","value":{"n":null,"big":12345678901234567890123}},{"op":"remove","path":"/a~1b%20c"},{"op":"replace","path":"/","value":null}]"#
        );
        assert_eq!(
            bodies[2],
            r#"[{"op":"remove","path":"/x"},{"op":"add","path":"/y","value":1}]"#
        );
        assert_eq!(
            server.lines(),
            [
                "PATCH /v1/data/u",
                "GET /v1/data/u",
                "PATCH /v1/data/u",
                "GET /v1/data/u"
            ]
        );
    }

    #[tokio::test]
    async fn refused_modules_are_tried_again_after_the_others_until_nothing_moves() {
        let server =
            StandIn::start(
                |request: &Seen, before: &[Seen]| match request.target.as_str() {
                    "/v1/policies/bad.rego" => refuse(BAD),
                    "/v1/policies/needs.rego"
                        if !before.iter().any(|seen| seen.target.ends_with("lib.rego")) =>
                    {
                        refuse(UNRESOLVED)
                    }
                    _ => accept(request, &["stale.rego"]),
                },
            )
            .await;
        let files = [("needs.rego", "n"), ("bad.rego", "b"), ("lib.rego", "l")];
        let outcomes = apply(options(&server), vec![bundle(complete(&files))]).await;
        let error = outcomes[0].as_ref().unwrap_err();
        assert_eq!(
            error.to_string(),
            "bundle refused for 1 problem: bad.rego:2:3: rego_parse_error: oh"
        );
        let puts: Vec<String> = server.lines().split_off(1);
        let expected = ["needs", "bad", "lib", "needs", "bad", "bad"];
        assert_eq!(
            puts,
            expected.map(|name| format!("PUT /v1/policies/{name}.rego"))
        );
    }

    #[tokio::test]
    async fn stale_policies_go_last_except_system_ones_and_those_to_be_left_alone() {
        let server = willing(&[
            "a.rego",
            "b/stale.rego",
            "mine/x.rego",
            "system.rego",
            "system/log.rego",
            "systems.rego",
        ])
        .await;
        let mut options = options(&server);
        options.ignored = IgnoredPaths::new(["mine/**", "!mine/not.rego"]);
        let files = [
            ("a.rego", "a"),
            ("mine/y.rego", "y"),
            ("mine/not.rego", "n"),
        ];
        apply(options, vec![bundle(complete(&files))])
            .await
            .remove(0)
            .unwrap();
        assert_eq!(
            server.lines(),
            [
                "GET /v1/policies",
                "PUT /v1/policies/a.rego",
                "PUT /v1/policies/mine/not.rego",
                "DELETE /v1/policies/b/stale.rego",
                "DELETE /v1/policies/systems.rego",
            ]
        );
    }

    #[tokio::test]
    async fn a_write_is_tried_as_often_as_the_settings_say() {
        let server = StandIn::start(|request: &Seen, _: &[Seen]| match request.target.as_str() {
            "/v1/data/failing" => Answer::status(500).body(r#"{"message":"injected failure"}"#),
            _ => accept(request, &[]),
        })
        .await;
        let outcomes = apply(
            options(&server),
            vec![put("failing", r#"{"a":1}"#), put("fine", "1")],
        )
        .await;
        let error = outcomes[0].as_ref().unwrap_err();
        assert!(error.is_transient());
        let url = &server.url;
        assert_eq!(
            error.to_string(),
            format!(
                "the policy store answered 500 Internal Server Error to PUT `{url}/v1/data/failing`: injected failure"
            )
        );
        assert!(outcomes[1].is_ok());
        assert_eq!(
            server.lines(),
            [
                "PUT /v1/data/failing",
                "PUT /v1/data/failing",
                "PUT /v1/data/fine"
            ]
        );
    }

    #[tokio::test]
    async fn a_patch_whose_outcome_is_unknown_is_not_sent_again() {
        let server = StandIn::start(|request: &Seen, _: &[Seen]| match request.method.as_str() {
            "PATCH" => Answer::Hang,
            _ => Answer::status(502),
        })
        .await;
        let mut options = options(&server);
        options.timeout = Duration::from_millis(50);
        let operations = r#"[{"op":"add","path":"/l/-","value":1}]"#;
        let outcomes = apply(options, vec![patch("a", operations)]).await;
        assert!(
            matches!(outcomes[0], Err(StoreError::OutcomeUnknown { .. })),
            "{outcomes:?}"
        );
        assert_eq!(
            outcomes[0].as_ref().unwrap_err().to_string(),
            "it is not known whether the patch for `/a` was applied"
        );
        assert_eq!(server.lines().len(), 1);
    }

    /// An answer of OPA's to a change that it does not take.
    fn refusal(status: u16, code: &str) -> Answer {
        let body = format!(r#"{{"code":"{code}","message":"no"}}"#);
        Answer::status(status).body(body)
    }

    #[tokio::test]
    async fn only_a_verdict_on_the_change_itself_is_final() {
        for (status, body, is_final) in [
            (400, r#"{"code":"invalid_parameter","message":"no"}"#, true),
            (404, r#"{"code":"resource_conflict","message":"no"}"#, true),
            (413, "", true),
            (400, "<html>", false),
            (401, r#"{"code":"unauthorized","message":"no"}"#, false),
            (403, "", false),
            (404, "", false),
            (404, r#"{"message":"no route"}"#, false),
            (405, "<html>", false),
            (302, "", false),
        ] {
            let server =
                StandIn::start(move |_: &Seen, _: &[Seen]| Answer::status(status).body(body)).await;
            let operations = r#"[{"op":"add","path":"/x","value":1}]"#;
            let batch = vec![put("a", "1"), patch("a", operations)];
            for outcome in apply(options(&server), batch).await {
                let error = outcome.unwrap_err();
                assert_eq!(error.is_transient(), !is_final, "{status} {body}: {error}");
                let is_unknown = matches!(error, StoreError::OutcomeUnknown { .. });
                assert!(!is_unknown, "{status} {body}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_deletion_that_never_reached_opa_is_not_done() {
        let server = StandIn::start(|request: &Seen, _: &[Seen]| match request.target.as_str() {
            "/v1/data/gone" => refusal(404, "resource_not_found"),
            _ => Answer::status(404),
        })
        .await;
        let outcomes = apply(options(&server), vec![delete("gone"), delete("unrouted")]).await;
        assert!(outcomes[0].is_ok());
        assert!(outcomes[1].as_ref().unwrap_err().is_transient());
    }

    #[tokio::test]
    async fn a_page_shown_in_opa_s_place_is_no_success() {
        let page = "<html>please log in</html>";
        let server =
            StandIn::start(move |_: &Seen, _: &[Seen]| Answer::text("text/html", page)).await;
        let outcomes = apply(options(&server), vec![put("a", "1"), delete("a")]).await;
        for outcome in outcomes {
            assert!(outcome.unwrap_err().is_transient());
        }
    }

    #[tokio::test]
    async fn a_patch_is_sent_again_only_if_the_answer_proves_that_it_was_not_applied() {
        let operations = r#"[{"op":"add","path":"/l/-","value":1}]"#;
        for (status, answer, is_unknown) in [
            (500, r#"{"code":"internal_error","message":"no"}"#, false),
            (503, "upstream reset before headers", true),
            (200, "<html>please log in</html>", true),
        ] {
            let server =
                StandIn::start(move |_: &Seen, _: &[Seen]| Answer::status(status).body(answer))
                    .await;
            let outcome = apply(options(&server), vec![patch("a", operations)]).await;
            let error = outcome[0].as_ref().unwrap_err();
            let unknown = matches!(error, StoreError::OutcomeUnknown { .. });
            assert_eq!(unknown, is_unknown, "{error}");
            assert_eq!(server.lines().len(), if is_unknown { 1 } else { 2 });
        }
    }

    #[tokio::test]
    async fn an_opa_that_is_not_there_is_unreachable_and_a_patch_for_it_may_be_sent_again() {
        let mut options = OpaOptions::new("http://bob:pw@127.0.0.1:1".parse().unwrap());
        options.retry.wait_time = 0.0;
        let store = store(options);
        let batch = vec![
            put("a", "1"),
            patch("a", r#"[{"op":"remove","path":"/x"}]"#),
            delete("a"),
        ];
        for outcome in store.apply(batch).await {
            let error = outcome.unwrap_err();
            assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
            assert!(error.is_transient());
            assert!(!format!("{error:?}").contains("pw"), "{error:?}");
        }
        assert!(store.is_reachable().await.is_err());
    }

    #[tokio::test]
    async fn a_bearer_token_goes_with_every_request_but_the_probe() {
        let server = willing(&[]).await;
        let mut options = options(&server);
        options.auth = OpaAuth::Token("opa-tok".to_owned().into());
        let store = store(options);
        store.apply(vec![put("a", "1")]).await.remove(0).unwrap();
        store.policies().await.unwrap();
        store.is_reachable().await.unwrap();
        let seen = server.seen();
        let tokens: Vec<Option<&str>> = seen
            .iter()
            .map(|each| each.header("authorization"))
            .collect();
        assert_eq!(
            tokens,
            [Some("Bearer opa-tok"), Some("Bearer opa-tok"), None]
        );
    }

    #[tokio::test]
    async fn an_oauth_token_is_fetched_once_as_recorded_and_again_when_refused() {
        let server =
            StandIn::start(
                |request: &Seen, before: &[Seen]| match request.target.as_str() {
                    "/tok" => {
                        let given = before.iter().filter(|seen| seen.target == "/tok").count();
                        Answer::json(format!(
                            r#"{{"access_token":"t{given}","expires_in":3600}}"#
                        ))
                    }
                    "/v1/data/c" if request.header("authorization") == Some("Bearer t0") => {
                        Answer::status(401)
                    }
                    _ => Answer::status(204),
                },
            )
            .await;
        let mut options = options(&server);
        options.auth = OpaAuth::OAuth {
            server: format!("{}/tok", server.url).parse().unwrap(),
            client_id: "cid".to_owned(),
            client_secret: "sec".to_owned().into(),
        };
        let batch = vec![put("a", "1"), put("b", "1"), put("c", "1")];
        for outcome in apply(options, batch).await {
            outcome.unwrap();
        }
        let lines = [
            "POST /tok",
            "PUT /v1/data/a",
            "PUT /v1/data/b",
            "PUT /v1/data/c",
            "POST /tok",
            "PUT /v1/data/c",
        ];
        assert_eq!(server.lines(), lines);

        let recorded = include_str!("fixtures/policy-store/oauth-token-requests.jsonl")
            .lines()
            .next();
        let recorded: Value = serde_json::from_str(recorded.unwrap()).unwrap();
        let asked = &server.seen()[0];
        assert_eq!(asked.body, recorded["body"]);
        for (name, value) in recorded["headers"].as_object().unwrap() {
            assert_eq!(asked.header(name), value.as_str(), "{name}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_opa_s_is_an_error() {
        let server =
            StandIn::start(|_: &Seen, _: &[Seen]| Answer::text("text/html", "<html>")).await;
        let error = store(options(&server)).policies().await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidAnswer { .. }), "{error}");
    }
}
