//! `opal`, as a person uses it: `demo` with the commands that it prints, `up`, `publish`, `status`.

use anyhow::{Context, ensure};
use opal_testing::binaries;
use opal_testing::git_repo::TestRepo;
use opal_testing::http;
use opal_testing::ports::free_port;
use opal_testing::process::{Process, ProcessSpec};
use opal_testing::wait;
use serde_json::json;

#[tokio::test]
async fn the_commands_that_the_demo_prints_do_what_they_say() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let spec = ProcessSpec::new("demo", binaries::ours("opal")?, directory.path());
    let demo = Process::start(spec.arguments(&["demo"]))?;
    wait::until("the demo to end its show", async || {
        ensure!(demo.log().contains("Ctrl-C ends it"), "{}", demo.log());
        Ok(())
    })
    .await?;
    let log = demo.log();
    let command = |title: &str| {
        let line = log.split(title).nth(1).and_then(|rest| rest.lines().nth(1));
        line.map(str::to_owned)
            .with_context(|| format!("no command after `{title}`"))
    };
    let decision = command("# a decision")?;
    let (update, commit) = (command("# a data update")?, command("# a commit")?);

    let answers = async |expected: &str| {
        wait::until("the decision", async || {
            let answer = shell(directory.path(), &decision).await?;
            ensure!(answer.contains(expected), "{answer}");
            Ok(())
        })
        .await
    };
    answers(r#""result":true"#).await?;
    shell(directory.path(), &update).await?;
    answers(r#""result":false"#).await?;
    // An editor again, and the commit says that nobody may write.
    shell(directory.path(), &update.replace("viewer", "editor")).await?;
    answers(r#""result":true"#).await?;
    shell(directory.path(), &commit).await?;
    answers(r#""result":false"#).await?;

    let (_, status) = demo.stop(wait::LIMIT).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn what_is_published_shows_in_exit_code_and_status() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?.to_string();
    let server = ProcessSpec::new("server", binaries::ours("opal-server")?, directory.path());
    let server = server.settings([("OPAL_SERVER_BIND_PORT".to_owned(), port.clone())]);
    let _server = Process::start(server.arguments(&["run"]))?;
    let url = format!("http://127.0.0.1:{port}");
    wait::until("the server to listen", async || {
        http::get(format!("{url}/healthcheck")).send().await
    })
    .await?;
    let opal = async |arguments: &[&str]| {
        // Output is added to the file of the name.
        let place = tempfile::tempdir_in(directory.path())?;
        let spec = ProcessSpec::new("opal", binaries::ours("opal")?, place.path());
        let url = [("OPAL_SERVER_URL".to_owned(), url.clone())];
        let spec = spec.settings(url).arguments(arguments);
        spec.output(wait::LIMIT).await
    };
    let published = opal(&["publish", "--data", r#"{"a":1}"#, "--dst-path", "/x"]).await?;
    ensure!(published.code == Some(0), "{published:#?}");
    ensure!(
        published.stdout.starts_with("Published as "),
        "{published:#?}"
    );
    let all = opal(&[
        "publish",
        "--data",
        "[]",
        "--dst-path",
        "/y",
        "--wait",
        "all",
    ])
    .await?;
    ensure!(all.code == Some(0), "{all:#?}");
    let arguments = [
        "publish",
        "--method",
        "DELETE",
        "--dst-path",
        "/x",
        "--wait",
        "client=edge",
    ];
    let missing = opal(&arguments).await?;
    ensure!(missing.code == Some(1), "{missing:#?}");
    ensure!(
        missing
            .stdout
            .contains("Not applied by edge: not connected"),
        "{missing:#?}"
    );
    for refused in [
        &["publish", "--data", "{}", "--wait", "some"] as &[&str],
        &["publish", "--data", "{}", "--idempotency-key", ""],
        &["publish", "--data", "1", "--dst-path", "/x"],
        &["publish", "--dst-path", "/x"],
        &["publish", "--data", "{", "--dst-path", "/x"],
    ] {
        let refused = opal(refused).await?;
        ensure!(refused.code == Some(2), "{refused:#?}");
        ensure!(!refused.stderr.is_empty(), "{refused:#?}");
    }
    let status = opal(&["status"]).await?;
    ensure!(status.code == Some(0), "{status:#?}");
    ensure!(
        status.stdout.starts_with("scope default at 3; 0 clients"),
        "{status:#?}"
    );
    ensure!(status.stdout.contains("CLIENT"), "{status:#?}");
    let json = opal(&["status", "--json"]).await?;
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    ensure!(json["clients"] == json!([]), "{json}");
    let away = opal(&["status", "--server", "http://127.0.0.1:1"]).await?;
    ensure!(
        away.code == Some(1) && away.stderr.contains("could not reach"),
        "{away:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_tool_quietly() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let opal = binaries::ours("opal")?;
    let opal = opal.display();
    let command = format!("{{ '{opal}' demo 2>err; echo $? >code; }} | head -n 1");
    let shown = shell(directory.path(), &command).await?;
    ensure!(shown.lines().count() == 1, "{shown}");
    let (code, complaints) = (
        std::fs::read_to_string(directory.path().join("code"))?,
        std::fs::read_to_string(directory.path().join("err"))?,
    );
    ensure!(
        code.trim() == "0" && complaints.is_empty(),
        "{code} {complaints}"
    );
    Ok(())
}

async fn shell(directory: &std::path::Path, command: &str) -> anyhow::Result<String> {
    let shell = ProcessSpec::new("shell", "/bin/sh".into(), directory);
    let finished = shell
        .arguments(&["-c", command])
        .output(wait::LIMIT)
        .await?;
    ensure!(finished.code == Some(0), "{finished:#?}");
    Ok(finished.stdout)
}

#[tokio::test]
async fn a_repository_of_ones_own_is_followed_and_kept_across_a_restart() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut repo = TestRepo::with_files(&[
        ("a.rego", "package a\nx = 1\n"),
        ("data.json", "{\"d\": 1}\n"),
    ])?;
    let ports = [free_port()?, free_port()?, free_port()?].map(|port| port.to_string());
    let engine = format!("http://127.0.0.1:{}", ports[2]);
    let path = repo.path().display().to_string();
    let branch = repo.branch().to_owned();
    let arguments = [
        "up",
        "--repo",
        &path,
        "--branch",
        &branch,
        "--poll",
        "1",
        "--state-dir",
        "state",
        "--server-port",
        &ports[0],
        "--client-port",
        &ports[1],
        "--engine-port",
        &ports[2],
    ];
    let spec = ProcessSpec::new("up", binaries::ours("opal")?, directory.path());
    let up = Process::start(spec.arguments(&arguments))?;
    let holds = async |path: &str, expected: serde_json::Value| {
        wait::until(format!("{path} to be {expected}"), async || {
            let answer = http::get(format!("{engine}/v1/data/{path}"))
                .send()
                .await?
                .json()?;
            ensure!(answer["result"] == expected, "{answer}");
            Ok(())
        })
        .await
    };
    holds("a/x", json!(1)).await?;
    holds("d", json!(1)).await?;
    repo.commit()?
        .file("a.rego", "package a\nx = 2\n")?
        .push()?;
    holds("a/x", json!(2)).await?;
    let (spec, status) = up.stop(wait::LIMIT).await?;
    ensure!(status.success(), "{status}");

    let up = Process::start(spec)?;
    holds("a/x", json!(2)).await?;
    let (_, status) = up.stop(wait::LIMIT).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn up_can_be_interrupted_while_its_repository_is_away() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = [free_port()?, free_port()?, free_port()?].map(|port| port.to_string());
    let arguments = [
        "up",
        "--repo",
        "/nowhere/at/all",
        "--state-dir",
        "state",
        "--server-port",
        &ports[0],
        "--client-port",
        &ports[1],
        "--engine-port",
        &ports[2],
    ];
    let spec = ProcessSpec::new("up", binaries::ours("opal")?, directory.path());
    let up = Process::start(spec.arguments(&arguments))?;
    wait::until("the server to listen", async || {
        http::get(format!("http://127.0.0.1:{}/healthcheck", ports[0]))
            .send()
            .await
    })
    .await?;
    let (_, status) = up.stop(wait::LIMIT).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}
