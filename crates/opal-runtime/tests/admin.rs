//! The commands besides `run`, with upstream's output.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opal_runtime::admin::{COMMANDS, Command};
use opal_runtime::config::{CommandLine, Environment, Program, Settings};
use opal_runtime::{Tasks, serve};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn command(words: &[&str], variables: &[(&str, &str)]) -> Result<(Command, Settings), String> {
    let program = Program::Client;
    let environment = Environment::of(variables.iter().copied());
    let line = CommandLine::parse(program, &COMMANDS, words.iter().map(OsString::from));
    let settings = Settings::collect(program, &line, &environment);
    let command = Command::parse(program, &line, &environment);
    command
        .map(|command| (command, settings))
        .map_err(|e| e.to_string())
}

/// What the command prints, and its error with all causes.
async fn run(words: &[&str], variables: &[(&str, &str)]) -> (String, Option<String>) {
    let (command, settings) = command(words, variables).unwrap();
    let mut out = Vec::new();
    let outcome = command.execute(&settings, &mut out, false).await;
    let error = outcome.err().map(|error| format!("{error} {error:?}"));
    (String::from_utf8(out).unwrap(), error)
}

/// A server that answers everything alike and remembers what it was asked.
struct FakeServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: Tasks,
}

impl FakeServer {
    async fn answering(status: StatusCode, answer: Value) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let handler = move |headers: HeaderMap, body: String| async move {
            let header = headers
                .get("authorization")
                .map(|h| h.to_str().unwrap().to_owned());
            let body = serde_json::from_str(&body).unwrap();
            record
                .lock()
                .unwrap()
                .push((header.unwrap_or_default(), body));
            (status, answer.to_string())
        };
        let routes = Router::new().fallback(post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn(
            "http",
            serve(listener, routes, tasks.spawner(), Duration::ZERO),
        );
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> (String, Value) {
        self.seen.lock().unwrap().pop().unwrap()
    }
}

#[tokio::test]
async fn secrets_have_the_size_and_the_form_asked_for() {
    let (urlsafe, _) = run(&["generate-secret"], &[]).await;
    assert_eq!(urlsafe.trim_end().len(), 43);
    let (hex, _) = run(&["generate-secret", "--size", "16", "--format", "hex"], &[]).await;
    assert!(hex.trim_end().len() == 32 && hex.trim_end().bytes().all(|b| b.is_ascii_hexdigit()));
    let (bytes, _) = run(&["generate-secret", "--size=4", "--format=bytes"], &[]).await;
    assert!(
        bytes.starts_with("b'") || bytes.starts_with("b\""),
        "{bytes}"
    );
    assert_eq!(run(&["generate-secret", "--size", "0"], &[]).await.0, "\n");
    assert_ne!(run(&["generate-secret"], &[]).await.0, urlsafe);
}

#[tokio::test]
async fn version_is_the_one_we_are_a_drop_in_for() {
    assert_eq!(run(&["version"], &[]).await.0, "0.9.9\n");
}

#[tokio::test]
async fn a_token_is_asked_for_as_upstream_does_and_printed_alone() {
    let server = FakeServer::answering(StatusCode::OK, json!({"token": "T"})).await;
    let url = server.url();
    let words = [
        "obtain-token",
        "master",
        "--server-url",
        &url,
        "--ttl",
        "5",
        "minutes",
    ];
    let words = [
        &words[..],
        &["--type", "datasource", "--claims", r#"{"a": 1}"#],
    ]
    .concat();
    assert_eq!(run(&words, &[]).await, ("T\n".to_owned(), None));
    let (header, body) = server.seen();
    assert_eq!(header, "bearer master");
    assert_eq!(body["type"], "datasource");
    assert_eq!(body["ttl"], 300.0);
    assert_eq!(body["claims"], json!({"a": 1}));
    assert!(opal_protocol::token::parse_uuid(body["id"].as_str().unwrap()).is_some());

    run(
        &["obtain-token", "--server-url", &url],
        &[("OPAL_MASTER_TOKEN", "m")],
    )
    .await;
    let (header, body) = server.seen();
    assert_eq!(
        (header.as_str(), &body["ttl"]),
        ("bearer m", &json!(31_536_000.0))
    );
}

#[tokio::test]
async fn the_whole_answer_is_printed_as_a_python_dict() {
    let answer = json!({"token": "<JWT>", "type": "bearer", "details": {
        "id": "4c167e3a-0144-4e31-b328-bb3274cdc611", "type": "datasource",
        "expired": "2026-11-24T03:50:25.030757", "claims": {"peer_type": "datasource", "a": 1}}});
    let server = FakeServer::answering(StatusCode::OK, answer).await;
    let words = [
        "obtain-token",
        "m",
        "--server-url",
        &server.url(),
        "--no-just-the-token",
    ];
    let recorded = include_str!("fixtures/cli/commands.txt");
    let expected = recorded
        .lines()
        .find(|line| line.starts_with("{'token'"))
        .unwrap();
    assert_eq!(run(&words, &[]).await.0.trim_end(), expected);
}

#[tokio::test]
async fn a_refused_token_is_an_error_that_shows_no_secret() {
    let answer =
        json!({"detail": {"error": "unauthorized to access this endpoint!", "token": "hunter2"}});
    let server = FakeServer::answering(StatusCode::UNAUTHORIZED, answer).await;
    for switch in ["--just-the-token", "--no-just-the-token"] {
        let words = [
            "obtain-token",
            "hunter2",
            "--server-url",
            &server.url(),
            switch,
        ];
        let (out, error) = run(&words, &[]).await;
        let error = error.unwrap();
        assert_eq!(out, "");
        assert!(
            error.contains("401 Unauthorized: unauthorized to access"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_that_shows_no_secret() {
    let url = "http://user:hunter2@127.0.0.1:9";
    for words in [
        &["obtain-token", "hunter2", "--server-url", url][..],
        &[
            "publish-data-update",
            "hunter2",
            "--server-url",
            url,
            "-e",
            r#"[{"url": "http://a"}]"#,
        ],
    ] {
        let error = run(words, &[]).await.1.unwrap();
        assert!(
            error.contains("could not reach `http://127.0.0.1:9/"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_single_entry_is_published_and_described_as_upstream_does() {
    let server = FakeServer::answering(StatusCode::OK, json!({"status": "ok"})).await;
    let url = server.url();
    let source = "http://127.0.0.1:17002/policy-data";
    let words = [
        "publish-data-update",
        "T",
        "--server-url",
        &url,
        "--src-url",
        source,
    ];
    let rest = [
        "-t",
        "users",
        "--dst-path",
        "/cli",
        "--reason",
        "why",
        "--data",
        r#"{"a": 1}"#,
    ];
    let (out, error) = run(&[&words[..], &rest].concat(), &[]).await;
    let recorded = include_str!("fixtures/cli/commands.txt");
    let start = recorded.find("Publishing event:").unwrap();
    let end = recorded.find("$ publish entries").unwrap();
    assert_eq!(out, recorded[start..end]);
    assert_eq!(error, None);
    let (header, body) = server.seen();
    assert_eq!(header, "bearer T");
    assert_eq!(
        body,
        json!({"id": null, "reason": "why", "callback": {"callbacks": []}, "entries": [{
            "url": source, "config": {}, "topics": ["users"], "dst_path": "/cli",
            "save_method": "PUT", "data": {"a": 1}}]})
    );
}

#[tokio::test]
async fn the_token_may_come_from_the_environment_and_is_optional() {
    let server = FakeServer::answering(StatusCode::OK, json!({})).await;
    let url = server.url();
    let words = [
        "publish-data-update",
        "--server-url",
        &url,
        "-e",
        r#"[{"url": "http://a"}]"#,
    ];
    run(&words, &[("OPAL_CLIENT_TOKEN", "E")]).await;
    assert_eq!(server.seen().0, "bearer E");
    run(&words, &[]).await;
    assert_eq!(server.seen().0, "");
}

#[tokio::test]
async fn a_refused_update_prints_upstream_s_line_and_fails_without_showing_the_token() {
    let answer = json!({"detail": {"error": "Could not decode access token", "token": "hunter2"}});
    let server = FakeServer::answering(StatusCode::UNAUTHORIZED, answer).await;
    let entries = r#"[{"url": "http://u:hunter2@a", "config": {"headers": {"x": "hunter2"}}, "data": {"p": "hunter2"}}]"#;
    let words = [
        "publish-data-update",
        "hunter2",
        "--server-url",
        &server.url(),
        "-e",
        entries,
    ];
    let (out, error) = run(&words, &[]).await;
    assert!(
        out.contains("failed with status-code - {res.status}\n{\"detail\""),
        "{out}"
    );
    let all = format!("{out}{}", error.unwrap());
    assert!(all.contains("401") && !all.contains("hunter2"), "{all}");
}

#[test]
fn wrong_options_are_all_reported_and_show_no_plain_word() {
    for (words, expected) in [
        (
            &[
                "obtain-token",
                "--ttl",
                "5",
                "years",
                "--type",
                "zz",
                "--claims",
                "[",
                "--foo",
            ][..],
            "--foo: no such option\n\
             the master token is missing (or set OPAL_MASTER_TOKEN)\n\
             --type: expected one of client, datasource, listener\n\
             --claims: expected a JSON object\n\
             --ttl: expected a whole number and one of weeks, days, hours, minutes, seconds, milliseconds, microseconds",
        ),
        (
            &["obtain-token", "m", "hunter2"],
            "1 unexpected argument(s)",
        ),
        (
            &["obtain-token", "m", "--ttl", "5"],
            "--ttl: needs two values",
        ),
        (
            &["generate-secret", "--size", "-1", "--format"],
            "--format: needs a value\n--size: expected a number of bytes up to 1048576",
        ),
        (
            &["publish-data-update", "--src-url", "http://a"],
            "--topic: needed with --src-url",
        ),
        (
            &["publish-data-update", "-e", "[1"],
            "--entries: expected JSON",
        ),
        (
            &["publish-data-update", "-e", r#"[{"dst_path": "/a"}]"#],
            "entries.0.url: field required",
        ),
        (&["version", "hunter2"], "1 unexpected argument(s)"),
    ] {
        assert_eq!(command(words, &[]).map(drop).unwrap_err(), expected);
    }
}

#[test]
fn help_lists_every_setting_and_every_command() {
    let show = |words: &[&str]| match command(words, &[]).unwrap().0 {
        Command::Show(text) => text,
        other => panic!("{other:?}"),
    };
    let help = show(&["--help"]);
    for setting in Program::Client.settings() {
        assert!(help.contains(&setting.long_flag()), "{}", setting.key);
    }
    for name in COMMANDS {
        assert!(help.contains(&format!("\n  {name}")), "{name}");
        assert!(show(&[name, "--help"]).starts_with(&format!("Usage: opal-client {name}")));
    }
    assert!(show(&[]).contains("OPAL-CLIENT"));
}

#[tokio::test]
async fn run_prints_a_header_and_ignores_the_engine() {
    let (out, _) = run(&["run", "--engine-type", "gunicorn"], &[]).await;
    assert!(out.contains("OPAL-CLIENT"));
    assert!(
        out.ends_with("-- Starting OPAL client (with gunicorn) --\n"),
        "{out}"
    );
}
