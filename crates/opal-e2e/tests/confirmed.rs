//! Someone always knows: who applied a change, who is behind, who is gone, asked over HTTP and as a
//! person does with `opal`.

use anyhow::ensure;
use opal_e2e::{Deployment, Engine, Setup};
use opal_testing::binaries::{self, Kind};
use opal_testing::http;
use opal_testing::process::{Finished, ProcessSpec};
use opal_testing::services::setting;
use opal_testing::wait;
use serde_json::{Value, json};

fn setup() -> Setup {
    Setup::ours(Engine::Embedded).client_setting("OPAL_CLIENT_ID", "one")
}

fn update(n: u32) -> Value {
    json!({"entries": [
        {"url": "", "topics": ["policy_data"], "dst_path": "/confirmed", "data": {"n": n}},
    ]})
}

async fn publish_and_wait(deployment: &Deployment, n: u32, query: &str) -> anyhow::Result<Value> {
    let url = deployment.server.url(&format!("/data/config?{query}"));
    let request = http::post(url).bearer(&deployment.datasource_token);
    request.json(&update(n))?.send().await?.expect(200)?.json()
}

#[tokio::test]
async fn a_publisher_that_waits_is_told_who_applied_it() -> anyhow::Result<()> {
    setup()
        .run(async |deployment| {
            let id = [setting("OPAL_CLIENT_ID", &"two")];
            let second = deployment
                .add_client(Kind::Rust, Engine::Embedded, id)
                .await?;
            let released = deployment
                .add_client(Kind::Python, Engine::InlineOpa, [])
                .await?;
            let answer = publish_and_wait(deployment, 1, "wait=all&timeout=30").await?;
            ensure!(answer["applied"] == json!(["one", "two"]), "{answer}");
            let unconfirmed = answer["unconfirmed"].as_array().map_or(0, Vec::len);
            ensure!(unconfirmed == 1, "{answer}");
            // Confirmed is applied: nobody has to wait for these two.
            for engine in [&deployment.engine_url(""), &second.engine_url] {
                let held = http::get(format!("{engine}/v1/data/confirmed/n"));
                let held = held.send().await?.expect(200)?.json()?;
                ensure!(held["result"] == 1, "{held}");
            }
            let mut expected = opal_e2e::scenario::first_data();
            expected["confirmed"] = json!({"n": 1});
            released.wait_for_data(&expected).await?;

            let answer = publish_and_wait(deployment, 2, "wait=client%3Dnobody").await?;
            ensure!(answer["missing"][0]["client"] == "nobody", "{answer}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_commit_that_somebody_waits_for_is_applied_when_the_answer_comes() -> anyhow::Result<()> {
    setup()
        .server_setting("OPAL_POLICY_REPO_POLLING_INTERVAL", "0")
        .run(async |deployment| {
            let rule = "package rules.waited\nanswer = 42\n";
            let commit = deployment
                .commit(|commit| commit.file("waited/rule.rego", rule))
                .await?;
            let url = deployment.server.url("/policy/refresh?wait=all&timeout=30");
            let request = http::post(url).bearer(&deployment.datasource_token);
            let answer = request.send().await?.expect(200)?.json()?;
            ensure!(answer["commit"] == commit.as_str(), "{answer}");
            ensure!(answer["applied"] == json!(["one"]), "{answer}");
            let held = deployment
                .decision("rules/waited/answer", &json!({}))
                .await?;
            ensure!(held == Some(json!(42)), "{held:?}");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_killed_client_is_seen_as_disconnected() -> anyhow::Result<()> {
    setup()
        .run(async |deployment| {
            is_called(deployment, "current").await?;
            deployment.client.kill()?;
            is_called(deployment, "disconnected").await?;
            let answer = publish_and_wait(deployment, 1, "wait=all&timeout=0.2").await?;
            ensure!(answer["disconnected"] == json!(["one"]), "{answer}");

            deployment.client.start_again().await?;
            is_called(deployment, "current").await
        })
        .await
}

/// Waits until the server says this of client `one`.
async fn is_called(deployment: &Deployment, state: &str) -> anyhow::Result<()> {
    wait::until(format!("the client to be {state}"), async || {
        let client = deployment.in_fleet("one").await?;
        ensure!(client["state"] == state, "{client}");
        Ok(())
    })
    .await
}

/// Runs the tool in a directory of its own, so that nothing of an earlier run is in the output.
async fn opal(arguments: &[&str]) -> anyhow::Result<Finished> {
    let directory = tempfile::tempdir()?;
    let spec = ProcessSpec::new("opal", binaries::ours("opal")?, directory.path());
    spec.arguments(arguments).output(wait::LIMIT).await
}

#[tokio::test]
async fn the_tool_publishes_waits_and_shows_who_holds_what() -> anyhow::Result<()> {
    setup()
        .run(async |deployment| {
            let server = deployment.server.url("");
            let publisher = deployment.datasource_token.clone();
            let reader = deployment.client_token.clone();
            let publish = async |server: &str, token: &str, wait: &str| {
                let arguments = [
                    "publish",
                    "--server",
                    server,
                    "--token",
                    token,
                    "--data",
                    "{\"n\": 7}",
                    "--dst-path",
                    "/tool",
                    "--wait",
                    wait,
                ];
                opal(&arguments).await
            };
            let done = publish(&server, &publisher, "all").await?;
            ensure!(done.code == Some(0), "{done:#?}");
            ensure!(done.stdout.contains("Applied by (1): one"), "{done:#?}");
            deployment.wait_for_data("/tool", &json!({"n": 7})).await?;

            let missed = publish(&server, &publisher, "client=nobody").await?;
            ensure!(missed.code == Some(1), "{missed:#?}");
            ensure!(missed.stdout.contains("nobody"), "{missed:#?}");
            let refused = publish(&server, &reader, "all").await?;
            ensure!(refused.code == Some(2), "{refused:#?}");
            ensure!(!refused.stderr.contains(&reader), "{refused:#?}");
            let nobody_there = publish("http://127.0.0.1:9", &publisher, "all").await?;
            ensure!(nobody_there.code == Some(1), "{nobody_there:#?}");

            let status = async |server: &str, token: &str| {
                opal(&["status", "--server", server, "--token", token]).await
            };
            let table = status(&server, &reader).await?;
            ensure!(table.code == Some(0), "{table:#?}");
            let line = table.stdout.lines().find(|line| line.starts_with("one "));
            ensure!(
                line.is_some_and(|line| line.contains("current")),
                "{table:#?}"
            );
            let refused = status(&server, "no token").await?;
            ensure!(refused.code == Some(1), "{refused:#?}");
            ensure!(refused.stderr.contains("401"), "{refused:#?}");
            let nobody_there = status("http://127.0.0.1:9", &reader).await?;
            ensure!(nobody_there.code == Some(1), "{nobody_there:#?}");
            Ok(())
        })
        .await
}
