//! Settings from the user's words to types and to `print-config`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::ffi::OsString;
use std::path::Path;

use opal_runtime::ConnRetryOptions;
use opal_runtime::config::{
    CommandLine, Effect, Environment, Json, Kind, Program, Reader, Seconds, Settings, Source,
    client, common, print_config, server,
};
use secrecy::{ExposeSecret, SecretString};

const COMMANDS: [&str; 2] = ["run", "print-config"];

fn settings(program: Program, words: &str, variables: &[(&str, &str)]) -> Settings {
    let words = words.split_whitespace().map(OsString::from);
    let line = CommandLine::parse(program, &COMMANDS, words);
    Settings::collect(program, &line, &Environment::of(variables.iter().copied()))
}

fn errors(settings: &Settings) -> String {
    Reader::new(settings).finish(()).unwrap_err().to_string()
}

fn warnings(settings: &Settings) -> Vec<String> {
    let (_, warnings) = Reader::new(settings).finish(()).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn print_config_shows_defaults_byte_for_byte_as_upstream() {
    for (program, recorded) in [
        (
            Program::Server,
            include_str!("fixtures/cli/print-config-server.txt"),
        ),
        (
            Program::Client,
            include_str!("fixtures/cli/print-config-client.txt"),
        ),
    ] {
        let printed = print_config(&settings(program, "", &[]));
        assert_eq!(printed.trim_end(), recorded.trim_end());
    }
}

#[test]
fn print_config_masks_secrets_and_credentials() {
    let variables = [
        ("OPAL_AUTH_MASTER_TOKEN", "hunter2"),
        (
            "OPAL_POLICY_REPO_URL",
            "https://bob:hunter2@git.example.com/a.git",
        ),
        (
            "OPAL_DATA_CONFIG_SOURCES",
            r#"{"config": {"entries": [{"url": "http://a/?token=hunter2", "config": {"headers": {"Authorization": "Bearer hunter2"}}, "topics": ["t"]}]}}"#,
        ),
    ];
    let printed = print_config(&settings(
        Program::Server,
        "--auth-private-key hunter2",
        &variables,
    ));
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains(r#""AUTH_MASTER_TOKEN": "<redacted>""#));
    assert!(printed.contains("https://git.example.com/a.git"));

    let variables = [
        ("OPAL_CLIENT_TOKEN", "hunter2"),
        (
            "OPAL_INLINE_CEDAR_CONFIG",
            r#"{"authentication": "token", "authentication_token": "hunter2"}"#,
        ),
        (
            "OPAL_DEFAULT_UPDATE_CALLBACKS",
            r#"{"callbacks": ["http://u:hunter2@a/", ["http://b/", {"headers": {"x": "hunter2"}}]]}"#,
        ),
    ];
    let printed = print_config(&settings(Program::Client, "", &variables));
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = "OPAL_SERVER_HOST=file\nOPAL_SCOPES=true\nOPAL_ALL_DATA_TOPIC=file\n";
    std::fs::write(directory.path().join(".env"), file).unwrap();
    let variables = [
        ("OPAL_SERVER_HOST", "environment"),
        ("OPAL_SCOPES", "false"),
    ];
    let environment = Environment::of(variables).in_directory(directory.path());
    let words = ["--server-host", "flag"].map(OsString::from);
    let line = CommandLine::parse(Program::Server, &COMMANDS, words);
    let settings = Settings::collect(Program::Server, &line, &environment);

    let of = |key| (settings.text(key).unwrap(), settings.source(key));
    assert_eq!(of("SERVER_HOST"), ("flag".into(), Source::Flag));
    assert_eq!(of("SCOPES"), ("false".into(), Source::Environment));
    let path = directory.path().join(".env");
    assert_eq!(of("ALL_DATA_TOPIC"), ("file".into(), Source::File(path)));
    assert_eq!(of("SERVER_BIND_PORT"), ("7002".into(), Source::Default));
}

#[test]
fn defaults_follow_what_they_derive_from() {
    let client = settings(Program::Client, "-s https://opal.example.com", &[]);
    for (key, text) in [
        ("SERVER_WS_URL", "wss://opal.example.com"),
        ("SERVER_PUBSUB_URL", "wss://opal.example.com/ws"),
        (
            "DEFAULT_DATA_SOURCES_CONFIG_URL",
            "https://opal.example.com/data/config",
        ),
        (
            "DEFAULT_UPDATE_CALLBACKS",
            r#"{"callbacks": ["https://opal.example.com/data/callback_report"]}"#,
        ),
    ] {
        assert_eq!(client.text(key).unwrap(), text);
    }
    let server = settings(Program::Server, "", &[("OPAL_ALL_DATA_ROUTE", "/a\"b")]);
    assert_eq!(
        server.text("ALL_DATA_URL").unwrap(),
        "http://localhost:7002/a\"b"
    );
    let sources = server.text("DATA_CONFIG_SOURCES").unwrap();
    let sources: serde_json::Value = serde_json::from_str(&sources).unwrap();
    assert_eq!(
        sources["config"]["entries"][0]["url"],
        "http://localhost:7002/a\"b"
    );
}

#[test]
fn every_problem_is_reported_at_once_without_a_secret() {
    let settings = settings(
        Program::Server,
        "--scopes maybe --auth-private-key-format hunter1 --policy-repo-polling 60 run",
        &[
            ("OPAL_SERVER_BIND_PORT", "http"),
            ("OPAL_POLICY_SOURCE_TYPE", "git"),
            ("OPAL_SCOPES_GIT_FETCH_TIMEOUT", ""),
            ("OPAL_DATA_CONFIG_SOURCES", "{\"hunter2\""),
        ],
    );
    assert_eq!(
        errors(&settings),
        "--policy-repo-polling: no such option\n\
         OPAL_SERVER_BIND_PORT: expected a whole number, got `http` (environment)\n\
         --auth-private-key-format: expected one of pem, ssh, der, got `hunter1` (command line)\n\
         OPAL_POLICY_SOURCE_TYPE: expected one of GIT, API, got `git` (environment)\n\
         OPAL_DATA_CONFIG_SOURCES: expected a JSON object (environment)\n\
         --scopes: expected true, false, 1 or 0, got `maybe` (command line)\n\
         OPAL_SCOPES_GIT_FETCH_TIMEOUT: expected a number, got `` (environment)"
    );
}

#[test]
fn a_reader_goes_on_after_a_problem_and_finds_the_rest() {
    let settings = settings(
        Program::Client,
        "",
        &[
            ("OPAL_CLIENT_API_SERVER_PORT", "70000"),
            (
                "OPAL_POLICY_UPDATER_CONN_RETRY",
                r#"{"wait_strategy": "hunter2"}"#,
            ),
            ("OPAL_POLICY_STORE_URL", "postgres://u:hunter2@h/x"),
            ("OPAL_CLIENT_TOKEN", "hunter2"),
        ],
    );
    let mut reader = Reader::new(&settings);
    assert_eq!(reader.get::<u16>("CLIENT_API_SERVER_PORT"), 7000);
    reader.get::<Json<ConnRetryOptions>>("POLICY_UPDATER_CONN_RETRY");
    reader.expected("POLICY_STORE_URL", "an `http` URL");
    reader.problem("CLIENT_TOKEN", "is no token");
    let text = reader.finish(()).unwrap_err().to_string();
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains("a whole number from 0 to 65535, got `70000`"),
        "{text}"
    );
    assert!(text.contains("got `postgres://h/x`"), "{text}");
}

#[test]
fn values_become_types() {
    let settings = settings(
        Program::Client,
        "--wait-on-server-load yes --data-topics a,b",
        &[
            ("OPAL_POLICY_SUBSCRIPTION_DIRS", "x:y/z"),
            ("OPAL_CLIENT_TOKEN", "t"),
            ("OPAL_HTTP_FETCHER_TIMEOUT", "2.5"),
            ("OPAL_INLINE_OPA_EXEC_PATH", ""),
        ],
    );
    let mut reader = Reader::new(&settings);
    assert!(reader.get::<bool>("WAIT_ON_SERVER_LOAD"));
    assert_eq!(reader.get::<Vec<String>>("DATA_TOPICS"), ["a", "b"]);
    assert_eq!(
        reader.get::<Vec<String>>("POLICY_SUBSCRIPTION_DIRS"),
        ["x", "y/z"]
    );
    let Seconds(timeout) = reader.get("HTTP_FETCHER_TIMEOUT");
    assert_eq!(timeout.as_millis(), 2500);
    let Json(retry) = reader.get::<Json<ConnRetryOptions>>("POLICY_STORE_CONN_RETRY");
    assert_eq!(retry, ConnRetryOptions::default());
    assert_eq!(
        reader.get::<SecretString>("CLIENT_TOKEN").expose_secret(),
        "t"
    );
    assert_eq!(reader.optional::<String>("POLICY_STORE_TLS_CA"), None);
    assert_eq!(
        reader.optional::<String>("INLINE_OPA_EXEC_PATH"),
        Some(String::new())
    );
    assert_eq!(reader.non_empty::<String>("INLINE_OPA_EXEC_PATH"), None);
    reader.finish(()).unwrap();
}

#[test]
fn a_misspelt_boolean_means_the_default_and_is_warned_about() {
    let settings = settings(
        Program::Server,
        "",
        &[
            ("OPAL_SCOPES", "yes"),
            ("OPAL_REPO_WATCHER_ENABLED", ""),
            ("OPAL_LOG_SERIALIZE", "TRUE"),
        ],
    );
    let mut reader = Reader::new(&settings);
    assert!(!reader.get::<bool>("SCOPES"));
    assert!(reader.get::<bool>("REPO_WATCHER_ENABLED"));
    assert!(reader.get::<bool>("LOG_SERIALIZE"));
    assert_eq!(
        warnings(&settings),
        [
            "OPAL_REPO_WATCHER_ENABLED: `` is neither true nor false; the default, true, is used (environment)",
            "OPAL_SCOPES: `yes` is neither true nor false; the default, false, is used (environment)",
        ]
    );
}

#[test]
fn a_variable_that_looks_like_a_setting_is_warned_about() {
    let variables = [
        ("OPAL_SERVER_BIND_PROT", "1"),
        ("OPAL_DATASOURCE_TOKEN", "x"),
        ("OPAL_MASTER_TOKEN", "x"),
        ("OPAL_CLIENT_TOKEN", "x"),
    ];
    assert_eq!(
        warnings(&settings(Program::Server, "", &variables)),
        ["OPAL_SERVER_BIND_PROT: no such setting; did you mean `OPAL_SERVER_BIND_PORT`?"]
    );
}

#[test]
fn names_that_carry_the_prefix_twice_are_known_in_both_forms() {
    for name in ["OPAL_OPAL_CLIENT_STAT_ID", "OPAL_CLIENT_STAT_ID"] {
        let settings = settings(Program::Client, "", &[(name, "me")]);
        assert_eq!(settings.text("OPAL_CLIENT_STAT_ID").as_deref(), Some("me"));
    }
    for name in ["OPAL_WS_LOCAL_URL", "OPAL_OPAL_WS_LOCAL_URL"] {
        let settings = settings(Program::Server, "", &[(name, "ws://x")]);
        assert_eq!(settings.text("WS_LOCAL_URL").as_deref(), Some("ws://x"));
    }
}

#[test]
fn the_old_name_of_the_data_retry_wins() {
    let variables = [("OPAL_DATA_STORE_CONN_RETRY", r#"{"attempts": 9}"#)];
    let settings = settings(Program::Client, "", &variables);
    assert_eq!(
        settings.text("DATA_UPDATER_CONN_RETRY").unwrap(),
        r#"{"attempts": 9}"#
    );
}

/// [`Reader::get`] counts on it.
#[test]
fn every_default_is_of_its_kind_and_every_name_is_unique() {
    for program in [Program::Server, Program::Client] {
        let settings = settings(program, "", &[]);
        let mut keys: Vec<&str> = Vec::new();
        for setting in program.settings() {
            assert!(!keys.contains(&setting.key), "{} twice", setting.key);
            keys.push(setting.key);
            assert!(
                !setting.help.is_empty() && setting.help.ends_with('.'),
                "{}",
                setting.key
            );
            let Some(text) = settings.text(setting.key) else {
                continue;
            };
            let mut reader = Reader::new(&settings);
            match setting.kind {
                Kind::Bool => drop(reader.get::<bool>(setting.key)),
                Kind::Int => drop(reader.get::<u64>(setting.key)),
                Kind::Float => drop(reader.get::<f64>(setting.key)),
                Kind::Enum(e) => assert!(e.name_of(&text).is_some(), "{}", setting.key),
                Kind::Model(_) => drop(reader.get::<Json<serde_json::Value>>(setting.key)),
                Kind::Text | Kind::List(_) | Kind::Key => {}
            }
            reader.finish(()).unwrap();
        }
    }
}

#[test]
fn a_setting_without_effect_says_why() {
    let all = [server::SETTINGS, client::SETTINGS, common::SETTINGS];
    for setting in all.into_iter().flatten() {
        if let Effect::Never(reason) = setting.effect {
            assert!(!reason.is_empty(), "{}", setting.key);
        }
    }
}

#[test]
fn an_unreadable_settings_file_is_a_problem_not_a_default() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".env"), b"OPAL_SERVER_HOST=\xff\n").unwrap();
    let environment = Environment::of([]).in_directory(Path::new(directory.path()));
    let settings = Settings::collect(Program::Server, &CommandLine::default(), &environment);
    assert!(errors(&settings).contains(".env: cannot be read"));
}
