//! The subcommands of ours beside those of the released programs, on the same input.

use std::path::Path;

use anyhow::{Context, ensure};
use opal_testing::binaries::{self, Kind};
use opal_testing::http;
use opal_testing::keys::Keys;
use opal_testing::process::{Finished, ProcessSpec};
use opal_testing::services::{Service, Setting, setting};
use opal_testing::wait;
use serde_json::{Map, Value, json};

/// Shown masked, or chosen differently on purpose; everything else is shown as released.
const SHOWN_DIFFERENTLY: [&str; 4] = [
    "CLIENT_TOKEN",
    "WS_TOKEN",
    "SERVER_WORKER_COUNT",
    "AUTH_MASTER_TOKEN",
];

async fn run(
    kind: Kind,
    program: &str,
    directory: &Path,
    settings: &[Setting],
    arguments: &[&str],
) -> anyhow::Result<Finished> {
    // The same for both kinds, since it shows in what they print.
    let directory = directory.join(program);
    std::fs::create_dir_all(&directory)?;
    for old in ["command.out", "command.log"] {
        let _not_there = std::fs::remove_file(directory.join(old));
    }
    ProcessSpec::new("command", kind.program(program)?, &directory)
        .arguments(arguments)
        .settings(settings.iter().cloned())
        .output(wait::LIMIT)
        .await
}

struct Secured {
    server: Service,
    keys: Keys,
    directory: tempfile::TempDir,
}

impl Secured {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let keys = Keys::generate(directory.path(), "phrase")?;
        let settings = keys.server_settings();
        // The released server, so that these tests speak of the commands alone.
        let server = Service::server(Kind::Python, directory.path(), settings).await?;
        Ok(Self {
            server,
            keys,
            directory,
        })
    }

    async fn run(&self, kind: Kind, arguments: &[&str]) -> anyhow::Result<Finished> {
        run(kind, "opal-client", self.directory.path(), &[], arguments).await
    }

    async fn obtain(&self, kind: Kind, more: &[&str]) -> anyhow::Result<Finished> {
        let url = self.server.url("");
        let mut arguments = vec![
            "obtain-token",
            self.keys.master_token.as_str(),
            "--server-url",
            &url,
        ];
        arguments.extend(more);
        self.run(kind, &arguments).await
    }
}

/// What a Python dictionary, printed, says.
async fn python_literal(directory: &Path, text: &str) -> anyhow::Result<Value> {
    let code = "import ast, json, sys; print(json.dumps(ast.literal_eval(sys.argv[1])))";
    let directory = directory.join("literal");
    std::fs::create_dir_all(&directory)?;
    let printed = ProcessSpec::new("python", binaries::python("python")?, &directory)
        .arguments(&["-c", code, text])
        .output(wait::LIMIT)
        .await?;
    serde_json::from_str(&printed.stdout).with_context(|| format!("`{text}`: {}", printed.stderr))
}

async fn a_token_is_obtained(kind: Kind) -> anyhow::Result<()> {
    let secured = Secured::start().await?;
    let plain = secured.obtain(kind, &["--type", "datasource"]).await?;
    ensure!(plain.code == Some(0), "{plain:?}");
    let token = plain.stdout.trim_end_matches('\n');
    let update = json!({"entries": []});
    let publish = http::post(secured.server.url("/data/config")).bearer(token);
    publish.json(&update)?.send().await?.expect(200)?;

    let options = [
        "--ttl",
        "5",
        "minutes",
        "--claims",
        r#"{"a": 1}"#,
        "--no-just-the-token",
    ];
    let whole = secured.obtain(kind, &options).await?;
    let answer = python_literal(secured.directory.path(), whole.stdout.trim()).await?;
    let members = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .cloned()
            .collect()
    };
    ensure!(members(&answer) == ["token", "type", "details"], "{answer}");
    ensure!(
        members(&answer["details"]) == ["id", "type", "expired", "claims"],
        "{answer}"
    );
    ensure!(answer["type"] == "bearer", "{answer}");
    ensure!(answer["details"]["type"] == "client", "{answer}");
    ensure!(
        answer["details"]["claims"] == json!({"peer_type": "client", "a": 1}),
        "{answer}"
    );

    let url = secured.server.url("");
    let refused = secured
        .run(kind, &["obtain-token", "wrong", "--server-url", &url])
        .await?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.stdout.is_empty(), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn our_command_obtains_a_token() -> anyhow::Result<()> {
    a_token_is_obtained(Kind::Rust).await
}

#[tokio::test]
async fn the_released_command_obtains_a_token_alike() -> anyhow::Result<()> {
    a_token_is_obtained(Kind::Python).await
}

#[tokio::test]
async fn an_update_is_published_with_the_same_words() -> anyhow::Result<()> {
    let secured = Secured::start().await?;
    let token = secured
        .obtain(Kind::Python, &["--type", "datasource"])
        .await?;
    let token = token.stdout.trim();
    let url = secured.server.url("");
    let to_server = ["publish-data-update", token, "--server-url", &url];
    let cases: [&[&str]; 4] = [
        &[
            "--src-url",
            "http://127.0.0.1:1/x",
            "-t",
            "users",
            "--dst-path",
            "/cli",
            "--reason",
            "why",
        ],
        &[
            "-e",
            r#"[{"url": "", "topics": ["users"], "dst_path": "/a", "data": {"b": 1}}]"#,
        ],
        &[
            "--src-url",
            "",
            "--topic",
            "a",
            "--topic",
            "b",
            "--data",
            r#"{"x": [1]}"#,
            "--save-method",
            "PUT",
        ],
        &[],
    ];
    for case in cases {
        let arguments: Vec<&str> = to_server.into_iter().chain(case.iter().copied()).collect();
        let released = secured.run(Kind::Python, &arguments).await?;
        let ours = secured.run(Kind::Rust, &arguments).await?;
        ensure!(
            ours.stdout == released.stdout,
            "{case:?}\n{ours:#?}\n{released:#?}"
        );
        // Unlike the released command, ours says by its exit code that nothing was published.
        let published = ours.stdout.contains("Published Successfully");
        ensure!((ours.code == Some(0)) == published, "{case:?}: {ours:?}");
    }

    let entries = r#"[{"url": "", "data": {}}]"#;
    let refused = [
        "publish-data-update",
        "bad",
        "--server-url",
        &url,
        "-e",
        entries,
    ];
    let released = secured.run(Kind::Python, &refused).await?;
    let ours = secured.run(Kind::Rust, &refused).await?;
    ensure!(
        released.stdout.contains("Event publishing failed"),
        "{released:?}"
    );
    ensure!(
        ours.stdout
            .contains("Event publishing failed with status-code - "),
        "{ours:?}"
    );
    ensure!(
        ours.code != Some(0),
        "a refused update must not look like a published one: {ours:?}"
    );
    Ok(())
}

async fn secrets_have_the_form_asked_for(kind: Kind, program: &str) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let secret = async |arguments: &[&str]| {
        let arguments: Vec<&str> = ["generate-secret"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let done = run(kind, program, directory.path(), &[], &arguments).await?;
        ensure!(done.code == Some(0), "{done:?}");
        let line = done.stdout.strip_suffix('\n').map(str::to_owned);
        line.context("no line")
    };
    let urlsafe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let default = secret(&[]).await?;
    ensure!(
        default.len() == 43 && default.chars().all(urlsafe),
        "{default}"
    );
    let hex = secret(&["--size", "16", "--format", "hex"]).await?;
    let is_hex = hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    ensure!(hex.len() == 32 && is_hex, "{hex}");
    let bytes = secret(&["--size", "4", "--format", "bytes"]).await?;
    let quoted = bytes.starts_with("b'") || bytes.starts_with("b\"");
    ensure!(quoted && bytes.len() >= 7, "{bytes}");
    Ok(())
}

#[tokio::test]
async fn our_secrets_have_the_size_and_form_asked_for() -> anyhow::Result<()> {
    secrets_have_the_form_asked_for(Kind::Rust, "opal-server").await?;
    secrets_have_the_form_asked_for(Kind::Rust, "opal-client").await
}

#[tokio::test]
async fn released_secrets_have_the_size_and_form_asked_for() -> anyhow::Result<()> {
    secrets_have_the_form_asked_for(Kind::Python, "opal-server").await
}

/// The two objects that `print-config` shows, as one.
fn printed_settings(stdout: &str) -> anyhow::Result<Map<String, Value>> {
    let objects = stdout.strip_prefix("Printing configuration values\n");
    let objects = objects.with_context(|| format!("another first line: {stdout}"))?;
    let mut settings = Map::new();
    for object in serde_json::Deserializer::from_str(objects).into_iter::<Map<String, Value>>() {
        settings.extend(object?);
    }
    Ok(settings)
}

#[tokio::test]
async fn settings_are_printed_alike() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let set = [
        setting("OPAL_POLICY_REPO_POLLING_INTERVAL", &30),
        setting("OPAL_DATA_TOPICS", &"users, tenants"),
        setting("OPAL_POLICY_SUBSCRIPTION_DIRS", &"app:lib"),
        setting("OPAL_STATISTICS_ENABLED", &"TRUE"),
        setting("OPAL_HTTP_FETCHER_TIMEOUT", &"2.5"),
        setting("OPAL_AUTH_MASTER_TOKEN", &"a-secret-of-the-user"),
    ];
    for (program, flag) in [
        ("opal-server", "--server-bind-port"),
        ("opal-client", "--client-api-server-port"),
    ] {
        let arguments = [flag, "7010", "print-config"];
        let released = run(Kind::Python, program, directory.path(), &set, &arguments).await?;
        let ours = run(Kind::Rust, program, directory.path(), &set, &arguments).await?;
        ensure!(ours.code == Some(0), "{ours:?}");
        ensure!(
            !ours.stdout.contains("a-secret-of-the-user"),
            "a secret is shown"
        );

        let expected = printed_settings(&released.stdout)?;
        let shown = printed_settings(&ours.stdout)?;
        let differences: Vec<String> = expected
            .iter()
            .filter(|(name, _)| !SHOWN_DIFFERENTLY.contains(&name.as_str()))
            .filter(|(name, value)| shown.get(*name) != Some(value))
            .map(|(name, value)| format!("{name}: {value}, ours {:?}", shown.get(name)))
            .collect();
        ensure!(
            differences.is_empty(),
            "{program}:\n{}",
            differences.join("\n")
        );
    }
    Ok(())
}
