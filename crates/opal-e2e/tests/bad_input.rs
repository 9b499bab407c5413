//! What is wrong gets a clear error; what is right beside it still works.

use std::time::Duration;

use anyhow::ensure;
use opal_e2e::peer::Peer;
use opal_e2e::scenario::{asks, first_data};
use opal_e2e::{Deployment, Engine, Setup};
use opal_testing::fake_data_source::Reply;
use opal_testing::wait;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_commit_that_does_not_parse_leaves_the_embedded_engine_as_it_was() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded)
        .run(async |deployment| {
            let held = deployment.policy_ids().await?;
            // Right, but part of the same bundle: refused whole, it must not be half there.
            let answer = "package rules.extra\nanswer = 42\n";
            deployment
                .commit(|commit| {
                    commit
                        .file("broken/broken.rego", BROKEN)?
                        .file("extra/answer.rego", answer)
                })
                .await?;
            deployment
                .client
                .wait_for_log(&["broken/broken.rego:4:"])
                .await?;
            let health = deployment.client.get("/healthy").await?.text();
            ensure!(
                health.contains("broken/broken.rego"),
                "`/healthy` says {health}"
            );
            still_the_first_decisions(deployment).await?;
            let now = deployment.policy_ids().await?;
            ensure!(now == held, "half of the bundle was applied: {now:?}");

            let mended = "package rules.broken
allow = 1
";
            deployment
                .commit(|commit| commit.file("broken/broken.rego", mended))
                .await?;
            deployment.wait_for_state(&first_data()).await?;
            deployment
                .wait_for_decision("rules/extra/answer", &json!({}), &json!(42))
                .await
        })
        .await
}

#[tokio::test]
async fn a_module_that_opa_refuses_is_named_and_the_rest_applied() -> anyhow::Result<()> {
    Setup::ours(Engine::InlineOpa)
        .run(async |deployment| {
            let answer = "package rules.extra\nanswer = 42\n";
            deployment
                .commit(|commit| {
                    commit
                        .file("broken/broken.rego", BROKEN)?
                        .file("extra/answer.rego", answer)
                })
                .await?;
            deployment
                .client
                .wait_for_log(&["broken/broken.rego"])
                .await?;
            deployment
                .wait_for_decision("rules/extra/answer", &json!({}), &json!(42))
                .await?;

            let mended = "package rules.broken
allow = 1
";
            deployment
                .commit(|commit| commit.file("broken/broken.rego", mended))
                .await?;
            deployment.wait_for_state(&first_data()).await
        })
        .await
}

#[tokio::test]
async fn a_data_file_that_is_not_json_leaves_the_last_good_data() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded)
        .run(async |deployment| {
            let text = "{\"alice\": \"admin\",}";
            deployment
                .commit(|commit| commit.file("app/roles/data.json", text))
                .await?;
            deployment.client.wait_for_log(&["app/roles"]).await?;
            still_the_first_decisions(deployment).await?;

            let text = "{\"bob\": \"admin\"}";
            deployment
                .commit(|commit| commit.file("app/roles/data.json", text))
                .await?;
            let (allowed, question) = (json!(true), asks("bob", "write"));
            deployment
                .wait_for_decision("rules/app/allow", &question, &allowed)
                .await
        })
        .await
}

async fn still_the_first_decisions(deployment: &Deployment) -> anyhow::Result<()> {
    wait::throughout(
        Duration::from_secs(2),
        "the last good decisions",
        async || {
            let allowed = deployment
                .decision("rules/app/allow", &asks("alice", "write"))
                .await?;
            ensure!(allowed == Some(json!(true)), "alice: {allowed:?}");
            let denied = deployment
                .decision("rules/app/allow", &asks("bob", "write"))
                .await?;
            ensure!(denied == Some(json!(false)), "bob: {denied:?}");
            Ok(())
        },
    )
    .await
}

/// Does not parse; the fault is in line 4.
const BROKEN: &str = "package rules.broken\n\nallow {\n    x := := 1\n}\n";

/// An entry with inline data for the clients of these tests.
fn inline(path: &str, data: &Value) -> Value {
    json!({"url": "", "topics": ["policy_data"], "dst_path": path, "data": data})
}

fn by_url(deployment: &Deployment, name: &str) -> Value {
    let url = deployment.source.url(&format!("/{name}"));
    json!({"url": url, "topics": ["policy_data"], "dst_path": format!("/kept/{name}")})
}

#[tokio::test]
async fn a_bad_entry_of_an_update_does_not_stop_the_others() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded)
        .client_setting(
            "OPAL_DATA_UPDATER_CONN_RETRY",
            r#"{"wait_strategy": "fixed", "wait_time": 0.1, "attempts": 2}"#,
        )
        .client_setting("OPAL_FETCHING_CALLBACK_TIMEOUT", "5")
        .client_setting("OPAL_HTTP_FETCHER_TIMEOUT", "2")
        .run(bad_entries_among_good_ones)
        .await
}

async fn bad_entries_among_good_ones(deployment: &mut Deployment) -> anyhow::Result<()> {
    let bad = [
        ("missing", Reply::status(404)),
        ("failing", Reply::status(500)),
        ("login", Reply::html()),
        ("torn", Reply::broken_json()),
        ("huge", Reply::huge(200 << 20)),
        ("silent", Reply::never()),
    ];
    let names: Vec<&str> = bad
        .iter()
        .map(|(name, _)| *name)
        .chain(["patched"])
        .collect();
    let last_good: Vec<Value> = names
        .iter()
        .map(|name| inline(&format!("/kept/{name}"), &json!({"value": name})))
        .collect();
    deployment.publish(&json!({"entries": last_good})).await?;
    for name in &names {
        let path = format!("/kept/{name}");
        deployment
            .wait_for_data(&path, &json!({"value": name}))
            .await?;
    }

    let mut entries = vec![inline("/good/first", &json!({"n": 1}))];
    for (name, reply) in bad {
        deployment.source.set(&format!("/{name}"), reply);
        entries.push(by_url(deployment, name));
    }
    let mut patch = inline(
        "/kept/patched",
        &json!([{"op": "remove", "path": "/not/there"}]),
    );
    patch["save_method"] = json!("PATCH");
    entries.push(patch);
    entries.push(inline("/good/last", &json!({"n": 2})));
    deployment
        .publish(&json!({"id": "good-and-bad", "entries": entries}))
        .await?;

    deployment
        .wait_for_data("/good/first", &json!({"n": 1}))
        .await?;
    deployment
        .wait_for_data("/good/last", &json!({"n": 2}))
        .await?;
    let is_it = |report: &Value| report["update_id"] == "good-and-bad";
    let what = "the report of the update";
    let report = deployment
        .source
        .wait_for_json("/report", what, is_it)
        .await?;
    for entry in report["reports"].as_array().into_iter().flatten() {
        let path = entry["entry"]["dst_path"].as_str().unwrap_or_default();
        let expected = path.starts_with("/good/");
        ensure!(
            entry["saved"] == expected,
            "`{path}` is reported as {entry}"
        );
    }
    for name in &names {
        let path = format!("/kept/{name}");
        deployment
            .wait_for_data(&path, &json!({"value": name}))
            .await?;
        deployment.client.wait_for_log(&[&path]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_entry_that_makes_no_sense_changes_nothing() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded)
        .run(async |deployment| {
            let senseless = [
                ("method", json!({"save_method": "MERGE", "data": {"x": 1}})),
                ("nothing", json!({"url": "", "data": null})),
                (
                    "upwards",
                    json!({"dst_path": "/base/../app", "data": {"x": 1}}),
                ),
                (
                    "no-patch",
                    json!({"save_method": "PATCH", "data": {"x": 1}}),
                ),
            ];
            for (id, members) in senseless {
                let mut entry = inline("/base", &json!({}));
                if let (Some(entry), Some(members)) = (entry.as_object_mut(), members.as_object()) {
                    entry.extend(members.clone());
                }
                refused_or_reported(deployment, id, entry).await?;
            }
            deployment
                .publish(&json!({"entries": [inline("/after", &json!({"n": 1}))]}))
                .await?;
            let mut expected = first_data();
            expected["after"] = json!({"n": 1});
            deployment.wait_for_state(&expected).await
        })
        .await
}

/// Either the server refuses the update with 422, or the client reports the entry as not saved.
async fn refused_or_reported(
    deployment: &Deployment,
    id: &str,
    entry: Value,
) -> anyhow::Result<()> {
    let update = json!({"id": id, "entries": [entry]});
    let answer = deployment
        .try_publish(&update, &deployment.datasource_token)
        .await?;
    if answer.status == 422 {
        ensure!(
            answer.json()?["detail"].is_array(),
            "{id}: {}",
            answer.text()
        );
        return Ok(());
    }
    answer.expect(200)?;
    let is_it = |report: &Value| report["update_id"] == id;
    let report = deployment
        .source
        .wait_for_json("/report", id, is_it)
        .await?;
    ensure!(report["reports"][0]["saved"] == false, "{id}: {report}");
    Ok(())
}

#[tokio::test]
async fn peers_that_misbehave_do_not_disturb_the_others() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded).run(misbehaving_peers).await
}

async fn misbehaving_peers(deployment: &mut Deployment) -> anyhow::Result<()> {
    let token = Some(deployment.client_token.clone());
    let connect = async || Peer::connect(&deployment.server, token.as_deref()).await;
    let mut mute = connect().await?;
    mute.subscribe(&["policy_data"]).await?;
    let mut polite = connect().await?;
    polite.subscribe(&["policy_data"]).await?;

    let too_big = "x".repeat(17 << 20);
    for garbage in [
        Message::text("this is no JSON"),
        Message::binary(vec![0, 159, 146, 150]),
        Message::text(too_big),
    ] {
        let mut peer = connect().await?;
        // The server may end the connection while we are still sending.
        let _cut_while_sending = peer.send(garbage).await;
        peer.wait_for_the_end(Duration::from_secs(20)).await?;
    }

    for n in 1..=3 {
        let update = json!({"entries": [inline("/count", &json!({"n": n}))]});
        deployment.publish(&update).await?;
        deployment.wait_for_data("/count", &json!({"n": n})).await?;
        let notification = polite.next_notification().await?;
        let notification =
            notification.ok_or_else(|| anyhow::anyhow!("the polite peer was cut"))?;
        let entries = &notification["arguments"]["data"]["entries"];
        ensure!(
            entries[0]["data"]["n"] == n,
            "update {n} arrived as {entries}"
        );
        polite.acknowledge(&notification).await?;
    }
    mute.wait_for_the_end(wait::LIMIT).await?;
    let update = json!({"entries": [inline("/count", &json!({"n": 4}))]});
    deployment.publish(&update).await?;
    deployment.wait_for_data("/count", &json!({"n": 4})).await
}
