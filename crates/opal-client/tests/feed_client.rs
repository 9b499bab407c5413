//! A whole client over real sockets, with a stand-in for a server with a feed: its offline file,
//! requests that wait for a position, and what its health says.

#[cfg(test)]
#[path = "support/feed_server.rs"]
mod feed_server;
#[cfg(test)]
#[path = "support/opa_program.rs"]
mod opa_program;

#[cfg(test)]
#[expect(dead_code, reason = "other tests look at more of a request")]
#[path = "support/stand_in.rs"]
mod stand_in;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use opal_client::{Client, ClientConfig};
    use opal_protocol::Position;
    use opal_runtime::Tasks;
    use opal_runtime::config::{CommandLine, Environment, Program, Settings};
    use reqwest::header::HeaderMap;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::feed_server::{FeedServer, at, list};
    use super::opa_program::{executable, free_address};
    use super::stand_in::{Answer, Seen, StandIn};

    const LIMIT: Duration = Duration::from_secs(30);

    /// A client with the embedded engine.
    struct Running {
        tasks: Tasks,
        api: String,
        engine: String,
        http: reqwest::Client,
    }

    fn config(server: &str, file: &Path, extra: &[(&str, &str)]) -> ClientConfig {
        let file = file.to_str().expect("the path is text");
        let mut variables = vec![
            ("OPAL_SERVER_URL", server),
            ("OPAL_POLICY_STORE_TYPE", "EMBEDDED"),
            ("OPAL_INLINE_OPA_CONFIG", r#"{"addr": "127.0.0.1:0"}"#),
            ("OPAL_CLIENT_API_SERVER_PORT", "0"),
            ("OPAL_OFFLINE_MODE_ENABLED", "true"),
            ("OPAL_STORE_BACKUP_PATH", file),
        ];
        variables.extend(extra);
        let environment = Environment::of(variables);
        let settings = Settings::collect(Program::Client, &CommandLine::default(), &environment);
        let ((config, _), _) = ClientConfig::read(&settings).expect("the settings are right");
        config
    }

    impl Running {
        async fn start(config: ClientConfig) -> Self {
            let tasks = Tasks::new(CancellationToken::new());
            let client = Client::start(config, &tasks).await.expect("it starts");
            let engine = client.engine_address();
            Self {
                api: format!("http://{}", client.address()),
                engine: engine.map_or_else(String::new, |engine| format!("http://{engine}")),
                http: opal_runtime::http::client(&Default::default()).expect("a client"),
                tasks,
            }
        }

        async fn stop(self) {
            self.tasks.shutdown().cancel();
            self.tasks.join(LIMIT).await.expect("it stops");
        }

        async fn get(&self, url: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Value) {
            let mut request = self.http.get(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = request.send().await.expect("an answer");
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.bytes().await.expect("a body");
            let body = serde_json::from_slice(&body).unwrap_or_default();
            (status, headers, body)
        }

        async fn decision(&self, headers: &[(&str, &str)]) -> (u16, HeaderMap, Value) {
            let url = format!("{}/v1/data", self.engine);
            self.get(&url, headers).await
        }

        async fn log(&self) -> Value {
            self.decision(&[]).await.2["result"]["log"].clone()
        }

        async fn health(&self, path: &str) -> (u16, Value) {
            let (status, _, body) = self.get(&format!("{}{path}", self.api), &[]).await;
            (status, body)
        }

        /// Waits until the list is that after change `revision`.
        async fn wait_for(&self, revision: u64) {
            let wanted = list(revision);
            wait(async || self.log().await == wanted).await;
        }

        async fn wait_until_ready(&self) {
            wait(async || self.health("/ready").await.0 == 200).await;
        }
    }

    async fn wait(condition: impl AsyncFn() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        waited.expect("what the test waits for happens");
    }

    fn read(file: &Path) -> Option<Value> {
        let text = std::fs::read(file).ok()?;
        Some(serde_json::from_slice(&text).expect("a file is whole whenever it is there"))
    }

    fn position(file: &Value) -> Option<Position> {
        let text = file["opal"]["position"].as_str()?;
        Some(text.parse().expect("the position can be read"))
    }

    struct Place {
        _directory: tempfile::TempDir,
        file: PathBuf,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        Place {
            file: directory.path().join("opa.json"),
            _directory: directory,
        }
    }

    #[tokio::test]
    async fn a_restarted_client_resumes_from_its_file_and_fetches_nothing_again() {
        let (server, place) = (FeedServer::start().await, place());
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        let last = server.publish();
        client.wait_for(last).await;
        client.wait_until_ready().await;
        assert_eq!(server.last_resume(), Some(json!(null)));
        client.stop().await;
        let saved = read(&place.file).unwrap();
        assert_eq!(position(&saved), Some(at(last)));
        assert_eq!(saved["data"]["log"], list(last));
        assert_eq!(saved["opal"]["commit"], "c1".repeat(20));

        server.take_asked();
        server.publish();
        let last = server.publish();
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(last).await;
        assert_eq!(server.last_resume().unwrap(), saved["opal"]["position"]);
        let asked = server.take_asked();
        let is_fetched = |path: &String| path == "/policy" || path == "/v1/feed/base";
        assert!(!asked.iter().any(is_fetched), "{asked:?}");
        let result = client.decision(&[]).await.2["result"].clone();
        assert_eq!(result["app"]["length"], last);
        client.stop().await;
        assert_eq!(position(&read(&place.file).unwrap()), Some(at(last)));
    }

    #[tokio::test]
    async fn every_file_that_is_ever_there_holds_what_its_position_stands_for() {
        let (server, place) = (FeedServer::start().await, place());
        let mut config = config(&server.url, &place.file, &[]);
        config.offline.as_mut().unwrap().interval = Duration::from_millis(1);
        let client = Running::start(config).await;
        let mut positions = std::collections::BTreeSet::new();
        let mut last = 1;
        while positions.len() < 20 {
            last = server.publish();
            if let Some(saved) = read(&place.file)
                && let Some(position) = position(&saved)
            {
                // What a client that is killed now would come back to.
                assert_eq!(saved["data"]["log"], list(position.revision.0));
                positions.insert(position.revision);
            }
            client.decision(&[]).await;
        }
        client.wait_for(last).await;
        client.stop().await;
        assert_eq!(position(&read(&place.file).unwrap()), Some(at(last)));
    }

    #[tokio::test]
    async fn a_client_starts_from_its_file_while_the_server_is_away() {
        let (server, place) = (FeedServer::start().await, place());
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        client.stop().await;

        let url = server.url.clone();
        drop(server);
        let client = Running::start(config(&url, &place.file, &[])).await;
        client.wait_until_ready().await;
        let (_, headers, body) = client.decision(&[]).await;
        assert_eq!(body["result"]["log"], list(1));
        assert_eq!(body["result"]["app"]["length"], 1);
        assert_eq!(headers["x-opal-position"], at(1).at_least().to_string());
        let (_, body) = client.health("/ready?verbose").await;
        assert_eq!(body["offline"]["restored"], true);
        assert_eq!(body["online"], false);
        client.stop().await;
        let saved = read(&place.file).unwrap();
        assert_eq!(position(&saved), Some(at(1)), "nothing is new");
    }

    #[tokio::test]
    async fn an_opa_beside_the_client_is_filled_from_the_file_and_resumed_from_there() {
        let (server, place) = (FeedServer::start().await, place());
        let (program, addr) = (executable(), free_address());
        let options = format!(r#"{{"addr": "{addr}"}}"#);
        let url = format!("http://{addr}");
        let inline = [
            ("OPAL_POLICY_STORE_TYPE", "OPA"),
            (
                "OPAL_INLINE_OPA_EXEC_PATH",
                program.to_str().expect("the path is text"),
            ),
            ("OPAL_INLINE_OPA_CONFIG", options.as_str()),
            ("OPAL_POLICY_STORE_URL", url.as_str()),
        ];
        let start = async || {
            let mut client = Running::start(config(&server.url, &place.file, &inline)).await;
            client.engine.clone_from(&url);
            client.wait_until_ready().await;
            client
        };
        let last = server.publish();
        let client = start().await;
        client.wait_for(last).await;
        client.stop().await;
        let saved = read(&place.file).unwrap();
        assert_eq!(position(&saved), Some(at(last)));
        assert!(saved["policies"]["app.rego"].is_string(), "{saved}");

        server.take_asked();
        let last = server.publish();
        let client = start().await;
        client.wait_for(last).await;
        assert_eq!(server.last_resume().unwrap(), saved["opal"]["position"]);
        assert!(!server.take_asked().contains(&"/policy".to_owned()));
        assert_eq!(
            client.decision(&[]).await.2["result"]["app"]["length"],
            last
        );
        client.stop().await;
    }

    #[tokio::test]
    async fn a_file_of_released_opal_serves_until_a_snapshot_takes_its_place() {
        let place = place();
        let text =
            r#"{"policies": {"old.rego": "package old\n\np := data.log"}, "data": {"log": [7]}}"#;
        std::fs::write(&place.file, text).unwrap();
        let client = Running::start(config("http://127.0.0.1:9", &place.file, &[])).await;
        client.wait_until_ready().await;
        let result = client.decision(&[]).await.2["result"].clone();
        assert_eq!(result["old"]["p"], json!([7]));
        client.stop().await;

        let server = FeedServer::start().await;
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        assert_eq!(server.last_resume(), Some(json!(null)));
        wait(async || client.decision(&[]).await.2["result"]["old"].is_null()).await;
        client.stop().await;
    }

    #[tokio::test]
    async fn a_file_of_other_topics_is_no_reason_to_resume() {
        let (server, place) = (FeedServer::start().await, place());
        let topics = [("OPAL_DATA_TOPICS", "policy_data,more")];
        let client = Running::start(config(&server.url, &place.file, &topics)).await;
        client.wait_for(1).await;
        client.stop().await;
        assert!(position(&read(&place.file).unwrap()).is_some());

        let client = Running::start(config(&server.url, &place.file, &[])).await;
        let last = server.publish();
        client.wait_for(last).await;
        assert_eq!(server.last_resume(), Some(json!(null)));
        client.stop().await;
    }

    #[tokio::test]
    async fn a_torn_file_is_no_reason_not_to_start() {
        let (server, place) = (FeedServer::start().await, place());
        std::fs::write(&place.file, r#"{"policies": {"a.rego": "pack"#).unwrap();
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        client.stop().await;
        assert!(position(&read(&place.file).unwrap()).is_some());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_named_and_stops_nothing() {
        let (server, place) = (FeedServer::start().await, place());
        std::fs::write(&place.file, "a file").unwrap();
        let below = place.file.join("opa.json");
        let client = Running::start(config(&server.url, &below, &[])).await;
        client.wait_for(1).await;
        let (status, body) = client.health("/healthy?verbose").await;
        assert_eq!(status, 200, "{body}");
        let error = body["offline"]["error"].as_str().unwrap();
        assert!(error.starts_with("could not write `"), "{error}");
        client.stop().await;
    }

    #[tokio::test]
    async fn whoever_published_a_change_is_answered_from_it() {
        let (server, place) = (FeedServer::start().await, place());
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        for _ in 0..20 {
            let revision = server.publish();
            let wanted = at(revision).at_least().to_string();
            let headers = [("X-Opal-At-Least", wanted.as_str())];
            let (status, headers, body) = client.decision(&headers).await;
            assert_eq!(status, 200);
            assert_eq!(body["result"]["log"], list(revision));
            assert_eq!(headers["x-opal-position"], wanted);
        }
        let never = at(1_000).at_least().to_string();
        let headers = [("X-Opal-At-Least", never.as_str()), ("X-Opal-Timeout", "0")];
        let (status, _, body) = client.decision(&headers).await;
        assert_eq!(status, 503);
        assert_eq!(body["code"], "position_not_reached");
        client.stop().await;
    }

    #[tokio::test]
    async fn health_tells_an_outage_of_the_server_from_one_of_the_client() {
        let (server, place) = (FeedServer::start().await, place());
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_until_ready().await;
        wait(async || {
            client.health("/healthy").await.1 == json!({ "status": "ok", "online": true })
        })
        .await;
        let (_, body) = client.health("/healthy?verbose").await;
        assert_eq!(body["server"]["mode"], "feed");
        assert_eq!(body["position"]["held"], at(1).at_least().to_string());
        assert_eq!(body["policy"]["commit"], "c1".repeat(20));
        assert_eq!(body["behind"], json!({ "changes": 0, "since": null }));
        drop(server);
        wait(async || {
            client.health("/healthy").await.1 == json!({ "status": "ok", "online": false })
        })
        .await;
        assert_eq!(client.health("/ready").await.0, 200);
        client.stop().await;
    }

    #[tokio::test]
    async fn a_store_that_was_never_whole_leaves_no_file() {
        let (server, place) = (FeedServer::start().await, place());
        server.lose_base();
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        wait(async || server.take_asked().contains(&"/v1/feed/base".to_owned())).await;
        wait(async || client.decision(&[]).await.2["result"]["app"].is_object()).await;
        client.stop().await;
        assert_eq!(read(&place.file), None);
    }

    #[tokio::test]
    async fn a_client_that_follows_more_than_its_file_holds_is_not_ready_by_it() {
        let (server, place) = (FeedServer::start().await, place());
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        client.stop().await;
        let url = server.url.clone();
        drop(server);
        let more = [("OPAL_DATA_TOPICS", "policy_data,more")];
        let client = Running::start(config(&url, &place.file, &more)).await;
        client.wait_for(1).await;
        assert_eq!(client.health("/ready").await.0, 503);
        client.stop().await;
    }

    /// A client with an offline file whose engine the test plays, as if it ran beside the client.
    fn config_with(engine: &StandIn, server: &FeedServer, place: &Place) -> ClientConfig {
        let elsewhere = [
            ("OPAL_POLICY_STORE_TYPE", "OPA"),
            ("OPAL_INLINE_OPA_ENABLED", "false"),
            ("OPAL_POLICY_STORE_URL", engine.url.as_str()),
        ];
        ClientConfig {
            offline: config(&server.url, &place.file, &[]).offline,
            ..config(&server.url, &place.file, &elsewhere)
        }
    }

    /// An engine that answers the first `count` requests of a method to a path so, and takes
    /// everything else.
    async fn engine(request: &'static str, count: usize, status: u16) -> StandIn {
        StandIn::start(move |seen: &Seen, before: &[Seen]| {
            let asked = before.iter().filter(|seen| seen.line() == request).count();
            match seen.line().as_str() {
                line if line == request && asked < count => {
                    Answer::status(status).body(r#"{"code":"a_code","message":"no"}"#)
                }
                "GET /v1/policies" => Answer::json(r#"{"result":[]}"#),
                _ => Answer::status(204),
            }
        })
        .await
    }

    /// A file of a client that was at change 1, and its text.
    async fn good_file(server: &FeedServer, place: &Place) -> String {
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        client.wait_for(1).await;
        client.stop().await;
        std::fs::read_to_string(&place.file).expect("it was written")
    }

    #[tokio::test]
    async fn an_engine_that_cannot_take_the_file_just_now_is_asked_again() {
        let (server, place) = (FeedServer::start().await, place());
        good_file(&server, &place).await;
        let engine = engine("PUT /v1/data/log", 2, 401).await;
        let client = Running::start(config_with(&engine, &server, &place)).await;
        client.wait_until_ready().await;
        wait(async || server.last_resume() == Some(json!(at(1).to_string()))).await;
        let tries = engine.lines();
        let tries = tries.iter().filter(|line| *line == "PUT /v1/data/log");
        assert_eq!(tries.count(), 3);
        client.stop().await;
    }

    #[tokio::test]
    async fn a_file_that_the_engine_refuses_is_kept_beside_the_next_one() {
        let (server, place) = (FeedServer::start().await, place());
        let good = good_file(&server, &place).await;
        let engine = engine("PUT /v1/policies/app.rego", 1, 400).await;
        let last = server.publish();
        let client = Running::start(config_with(&engine, &server, &place)).await;
        client.wait_until_ready().await;
        assert_eq!(server.last_resume(), Some(json!(null)));
        client.stop().await;
        assert_eq!(position(&read(&place.file).unwrap()), Some(at(last)));
        let kept = std::fs::read_to_string(place.file.with_extension("json.unusable")).unwrap();
        assert_eq!(kept, good);
    }

    #[tokio::test]
    async fn a_file_that_the_engine_refuses_stays_while_there_is_nothing_better() {
        let (server, place) = (FeedServer::start().await, place());
        let good = good_file(&server, &place).await;
        let engine = engine("PUT /v1/policies/app.rego", usize::MAX, 400).await;
        server.publish();
        let client = Running::start(config_with(&engine, &server, &place)).await;
        let tries = || {
            let lines = engine.lines().into_iter();
            lines.filter(|line| line == "PUT /v1/data/log").count()
        };
        wait(async || tries() > 1).await;
        client.stop().await;
        assert_eq!(std::fs::read_to_string(&place.file).unwrap(), good);
    }

    #[tokio::test]
    async fn a_record_with_more_patches_than_are_kept_is_begun_anew() {
        let (server, place) = (FeedServer::start().await, place());
        let good = good_file(&server, &place).await;
        let mut saved: Value = serde_json::from_str(&good).unwrap();
        let operations = json!([{ "op": "add", "path": "/n", "value": 1 }]);
        // Below the root nothing says which of it a bundle wrote.
        let patch = json!({ "patch": { "path": [], "operations": operations } });
        let changes = saved["opal"]["changes"].as_array_mut().unwrap();
        changes.extend(std::iter::repeat_n(patch, 10_001));
        std::fs::write(&place.file, saved.to_string()).unwrap();

        server.take_asked();
        let client = Running::start(config(&server.url, &place.file, &[])).await;
        let held = at(1).at_least().to_string();
        wait(async || server.take_asked().contains(&"/v1/feed/base".to_owned())).await;
        wait(async || {
            let (_, body) = client.health("/healthy?verbose").await;
            body["position"]["held"] == held
        })
        .await;
        client.stop().await;
        let saved = read(&place.file).unwrap();
        assert_eq!(position(&saved), Some(at(1)));
        let changes = saved["opal"]["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 2, "the bundle and the list");
    }

    /// Kills the processes that were started with `--addr=addr`.
    fn kill(addr: &str) {
        let argument = format!("--addr={addr}");
        for entry in std::fs::read_dir("/proc").expect("there is one").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut line = line.split(|byte| *byte == 0);
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
                && line.any(|each| each == argument.as_bytes())
            {
                // One that has just ended is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    #[tokio::test]
    async fn a_client_whose_engine_is_gone_claims_nothing_until_it_is_filled_again() {
        let (server, place) = (FeedServer::start().await, place());
        let (addr, directory) = (free_address(), tempfile::tempdir().unwrap());
        let (program, broken) = (
            directory.path().join("opa"),
            directory.path().join("broken"),
        );
        let (opa, flag) = (executable(), broken.display());
        let script = format!(
            "#!/bin/sh\n[ -e '{flag}' ] && exit 1\nexec '{}' \"$@\"\n",
            opa.display()
        );
        std::fs::write(&program, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let options = format!(r#"{{"addr": "{addr}"}}"#);
        let url = format!("http://{addr}");
        let inline = [
            ("OPAL_POLICY_STORE_TYPE", "OPA"),
            ("OPAL_INLINE_OPA_EXEC_PATH", program.to_str().unwrap()),
            ("OPAL_INLINE_OPA_CONFIG", options.as_str()),
            ("OPAL_POLICY_STORE_URL", url.as_str()),
        ];
        let client = Running::start(config(&server.url, &place.file, &inline)).await;
        let last = server.publish();
        let low = || server.last_applied().map(|applied| applied["low"].clone());
        wait(async || low() == Some(json!(last))).await;

        std::fs::write(&broken, "").unwrap();
        kill(&addr);
        wait(async || low() == Some(json!(0))).await;
        let applied = server.last_applied().unwrap();
        assert_eq!(applied["failing"][0]["entry"], "engine", "{applied}");
        let (_, body) = client.health("/healthy?verbose").await;
        assert_eq!(body["position"]["held"], json!(null));

        std::fs::remove_file(&broken).unwrap();
        wait(async || low() == Some(json!(last))).await;
        assert_eq!(server.last_applied().unwrap()["failing"], json!(null));
        client.stop().await;
    }
}
