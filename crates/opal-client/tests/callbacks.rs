//! Reports against a stand-in for their targets.

#[cfg(test)]
#[path = "support/stand_in.rs"]
mod stand_in;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opal_client::callbacks::{
        CallbackRegister, Callbacks, Reporter, ReporterOptions, ServerReports,
    };
    use opal_protocol::{Callback, DataUpdateReport, HttpFetcherConfig, UpdateCallback};
    use opal_runtime::http::{HttpOptions, client};
    use opal_runtime::{ConnRetryOptions, Tasks};
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;

    use super::stand_in::{Answer, Seen, StandIn};

    fn default_config() -> HttpFetcherConfig {
        let text = r#"{"method":"post","headers":{"content-type":"application/json"},"process_data":false}"#;
        serde_json::from_str(text).unwrap()
    }

    /// Sends the report to the callbacks of the update and to the registered ones, to the end.
    async fn report(server: &StandIn, report: &Value, of_update: &str, registered: &[Callback]) {
        let tasks = Tasks::new(CancellationToken::new());
        let callbacks = Callbacks::new(CallbackRegister::new(default_config(), registered));
        let options = ReporterOptions {
            default_config: default_config(),
            retry: ConnRetryOptions {
                wait_time: 0.0,
                attempts: 3,
                ..ConnRetryOptions::default()
            },
            timeout: Duration::from_secs(5),
            server: Some(ServerReports {
                url: format!("{}/data/callback_report", server.url)
                    .parse()
                    .unwrap(),
                token: "the-token".to_owned().into(),
            }),
        };
        let client = client(&HttpOptions::default()).unwrap();
        let reporter = Reporter::new(client, options, callbacks, tasks.spawner());
        let of_update: UpdateCallback = serde_json::from_str(of_update).unwrap();
        let report = serde_json::from_value::<DataUpdateReport>(report.clone()).unwrap();
        reporter.report(report, of_update);
        reporter.idle().await;
    }

    #[tokio::test]
    async fn reports_are_those_of_released_opal() {
        for line in include_str!("fixtures/data/callback-reports.jsonl").lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let server = StandIn::start(|_: &Seen, _: &[Seen]| Answer::json("{}")).await;
            let url = format!("{}{}", server.url, recorded["target"].as_str().unwrap());
            let callback = match recorded["target"].as_str().unwrap() {
                "/cb2" => format!(r#"["{url}",{{"method":"put","headers":{{"X-CB":"1"}}}}]"#),
                _ => format!("\"{url}\""),
            };
            let callbacks = format!(r#"{{"callbacks":[{callback}]}}"#);
            let mut sent = recorded["body"].clone();
            restore(&mut sent);
            report(&server, &sent, &callbacks, &[]).await;

            let [seen] = <[Seen; 1]>::try_from(server.seen()).unwrap();
            assert_eq!(seen.method, recorded["method"]);
            for name in ["Content-Type", "Accept", "X-CB"] {
                let value = recorded["request_headers"]
                    .get(name)
                    .and_then(Value::as_str);
                assert_eq!(seen.header(name), value, "{name}");
            }
            let mut body = recorded["body"].clone();
            // An entry shows its polling interval only if it has one.
            for entry in body["reports"].as_array_mut().unwrap() {
                let entry = entry["entry"].as_object_mut().unwrap();
                entry.retain(|name, value| name != "periodic_update_interval" || !value.is_null());
            }
            assert_eq!(serde_json::from_str::<Value>(&seen.body).unwrap(), body);
        }
    }

    /// A report as we hold it: operations have `from`, not yet `from_field`.
    fn restore(report: &mut Value) {
        for entry in report["reports"].as_array_mut().unwrap() {
            for operation in entry["entry"]["data"].as_array_mut().into_iter().flatten() {
                let operation = operation.as_object_mut();
                if let Some((operation, from)) =
                    operation.and_then(|each| each.remove("from_field").map(|from| (each, from)))
                {
                    operation.insert("from".to_owned(), from);
                }
            }
        }
    }

    fn small() -> Value {
        serde_json::json!({"update_id": "u1", "reports": []})
    }

    #[tokio::test]
    async fn only_the_server_s_own_route_gets_our_token() {
        let server = StandIn::start(|_: &Seen, _: &[Seen]| Answer::json("{}")).await;
        let at = |path: &str| Callback::Url(format!("{}{path}", server.url));
        let registered = [at("/data/callback_report"), at("/elsewhere")];
        report(&server, &small(), r#"{"callbacks":[]}"#, &registered).await;
        let mut tokens: Vec<(String, bool)> = server
            .seen()
            .iter()
            .map(|seen| {
                (
                    seen.target.clone(),
                    seen.header("authorization") == Some("Bearer the-token"),
                )
            })
            .collect();
        tokens.sort();
        assert_eq!(
            tokens,
            [
                ("/data/callback_report".into(), true),
                ("/elsewhere".into(), false)
            ]
        );
    }

    #[tokio::test]
    async fn a_target_that_fails_is_tried_again_and_disturbs_no_other() {
        let server = StandIn::start(|request: &Seen, before: &[Seen]| {
            let tries = before
                .iter()
                .filter(|seen| seen.target == request.target)
                .count();
            match request.target.as_str() {
                "/flaky" if tries == 1 => Answer::json("{}"),
                "/flaky" | "/broken" => Answer::status(500),
                _ => Answer::json("{}"),
            }
        })
        .await;
        let callbacks = format!(
            r#"{{"callbacks":["{0}/flaky","{0}/broken","not a url","{0}/good"]}}"#,
            server.url
        );
        report(&server, &small(), &callbacks, &[]).await;
        let mut lines = server.lines();
        lines.sort();
        assert_eq!(
            lines,
            [
                "POST /broken",
                "POST /broken",
                "POST /broken",
                "POST /flaky",
                "POST /flaky",
                "POST /good"
            ]
        );
    }
}
