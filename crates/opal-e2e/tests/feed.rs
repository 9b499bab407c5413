//! Never silently stale: something fails in the middle of publishing, and at the end everyone holds
//! what was accepted, once and in order.

use std::time::Duration;

use anyhow::{Context, ensure};
use opal_e2e::publisher::position_of;
use opal_e2e::scenario::first_data;
use opal_e2e::{Deployment, Engine, Publisher, Setup};
use opal_testing::binaries::Kind;
use opal_testing::fake_data_source::Reply;
use opal_testing::http;
use opal_testing::wait;
use serde_json::{Value, json};

const ID: &str = "the-first";

fn durable() -> Setup {
    Setup::ours(Engine::Embedded)
        .with_state_directory()
        .client_setting("OPAL_CLIENT_ID", ID)
}

/// Publishes up to `count` changes while `fault` happens, and returns once both are over.
async fn publish_during(
    publisher: &Publisher,
    count: usize,
    fault: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    tokio::try_join!(publisher.publish(count), fault())?;
    Ok(())
}

/// The last commit and all data of the server's feed are in the client, and the server knows it.
async fn equal_at_the_end(deployment: &Deployment, expected: &Value) -> anyhow::Result<()> {
    deployment.wait_for_state(expected).await?;
    deployment.wait_until_ready().await?;
    wait::until("the server to call the client current", async || {
        let client = deployment.in_fleet(ID).await?;
        let is_current = client["state"] == "current" && client["lag_changes"] == 0;
        ensure!(is_current, "{client}");
        Ok(())
    })
    .await
}

/// How often the client took all data, and how often it took a bundle.
fn taken(deployment: &Deployment) -> (usize, usize) {
    let sources = deployment.source.requests("/base").len();
    let log = deployment.client.log();
    let bundles = log.matches("The policy store holds commit").count();
    (sources, bundles)
}

async fn epoch(deployment: &Deployment) -> anyhow::Result<Value> {
    let fleet = deployment.fleet().await?;
    let head = fleet["head"]["default"].as_str();
    let epoch = head.and_then(|head| head.split(':').next());
    Ok(epoch.with_context(|| format!("no head in {fleet}"))?.into())
}

#[tokio::test]
async fn nothing_accepted_is_lost_or_doubled_by_a_server_that_is_killed() -> anyhow::Result<()> {
    durable()
        .run(async |deployment| {
            let released = deployment
                .add_client(Kind::Python, Engine::InlineOpa, [])
                .await?;
            let publisher = Publisher::start(deployment).await?;
            deployment
                .wait_for_data("/log", &json!({"entries": []}))
                .await?;
            let (before, taken_before) = (epoch(deployment).await?, taken(deployment));
            publish_during(&publisher, 1_000, async || {
                for accepted in [250, 600] {
                    publisher.has_published(accepted).await?;
                    deployment.server.kill()?;
                    deployment.server.start_again().await?;
                }
                Ok(())
            })
            .await?;
            publisher.check_positions()?;
            let expected = publisher.add_to(first_data());
            equal_at_the_end(deployment, &expected).await?;
            ensure!(epoch(deployment).await? == before, "another epoch");
            ensure!(
                taken(deployment).1 == taken_before.1,
                "the policy was taken anew"
            );

            // A released client misses what is published while it is away: there is nothing that
            // would tell it. What it is told after that, it holds.
            both_released_connections(deployment).await?;
            publisher.publish_all_again().await?;
            released.wait_for_data(&expected).await?;
            equal_at_the_end(deployment, &expected).await
        })
        .await
}

/// Waits until the released client, which has one connection for policy and one for data, is back.
async fn both_released_connections(deployment: &Deployment) -> anyhow::Result<()> {
    wait::until("the released client to come back", async || {
        let fleet = deployment.fleet().await?;
        let clients = fleet["clients"].as_array().into_iter().flatten();
        let released = clients.filter(|client| client["mode"] == "released");
        let count = released.count();
        ensure!(count >= 2, "{count} released connections in {fleet}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_whose_line_is_cut_and_stalled_resumes_and_fetches_nothing_again()
-> anyhow::Result<()> {
    durable()
        .through_a_proxy()
        .run(async |deployment| {
            let publisher = Publisher::start(deployment).await?;
            deployment
                .wait_for_data("/log", &json!({"entries": []}))
                .await?;
            let line = deployment.line.as_ref().context("a proxy")?;
            let before = taken(deployment);
            publish_during(&publisher, 400, async || {
                for accepted in [40, 80, 120, 160] {
                    publisher.has_published(accepted).await?;
                    line.cut();
                    publisher.has_published(accepted + 20).await?;
                    line.restore();
                }
                publisher.has_published(200).await?;
                line.stall();
                publisher.has_published(250).await?;
                line.restore();
                Ok(())
            })
            .await?;
            let expected = publisher.add_to(first_data());
            equal_at_the_end(deployment, &expected).await?;
            let connected = deployment.client.log().matches("Subscribed at").count();
            ensure!(connected > 1, "the line was never cut");
            ensure!(
                taken(deployment) == before,
                "taken {:?}, before it was {before:?}",
                taken(deployment)
            );
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_source_that_fails_or_hangs_is_reported_and_made_up_for() -> anyhow::Result<()> {
    let retry = json!({"wait_strategy": "fixed", "wait_time": 0.1, "attempts": 2});
    durable()
        .client_setting("OPAL_DATA_UPDATER_CONN_RETRY", &retry.to_string())
        .client_setting("OPAL_FETCHING_CALLBACK_TIMEOUT", "1")
        .run(async |deployment| {
            let publisher = Publisher::start(deployment).await?;
            let url = deployment.source.url("/users");
            let update = json!({"entries": [
                {"url": url, "topics": ["policy_data"], "dst_path": "/users"},
            ]});
            let users = json!({"alice": "admin"});
            deployment.source.set("/users", Reply::status(500));
            deployment.publish(&update).await?;
            is_said_to_fail(deployment, "500").await?;
            publisher.publish(20).await?;
            deployment
                .wait_for_data("/feed/d19", &json!({"n": 19}))
                .await?;

            deployment.source.set("/users", Reply::never());
            is_said_to_fail(deployment, "").await?;
            publisher.publish(40).await?;
            deployment
                .wait_for_data("/feed/d19", &json!({"n": 39}))
                .await?;
            is_said_to_fail(deployment, "").await?;

            deployment.source.set("/users", Reply::json(&users));
            let mut expected = publisher.add_to(first_data());
            expected["users"] = users;
            equal_at_the_end(deployment, &expected).await
        })
        .await
}

/// Waits until client and server say that `/users` fails, for a reason that has `part`.
async fn is_said_to_fail(deployment: &Deployment, part: &str) -> anyhow::Result<()> {
    wait::until("the server to call the client failing", async || {
        let client = deployment.in_fleet(ID).await?;
        let failing = client["failing"].to_string();
        let is_failing = client["state"] == "failing" && failing.contains("/users");
        ensure!(is_failing && failing.contains(part), "{client}");
        Ok(())
    })
    .await?;
    wait::until("the client to call itself unhealthy", async || {
        let health = deployment.client.get("/healthy?verbose").await?;
        let text = health.text();
        let says_why = text.contains("/users") && text.contains(part);
        ensure!(
            health.status == 503 && says_why,
            "{}: {text}",
            health.status
        );
        deployment.client.get("/healthy").await?.expect(503)?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_killed_while_it_writes_ends_equal() -> anyhow::Result<()> {
    durable()
        .client_setting("OPAL_OFFLINE_MODE_ENABLED", "true")
        .client_setting("OPAL_STORE_BACKUP_INTERVAL", "1")
        .run(async |deployment| {
            let publisher = Publisher::start(deployment).await?;
            publish_during(&publisher, 400, async || {
                for accepted in [50, 150, 250] {
                    publisher.has_published(accepted).await?;
                    deployment.client.kill()?;
                    publisher.has_published(accepted + 20).await?;
                    deployment.client.start_again().await?;
                }
                Ok(())
            })
            .await?;
            let expected = publisher.add_to(first_data());
            equal_at_the_end(deployment, &expected).await?;

            // What was saved is enough to resume from: nothing is fetched.
            let before = deployment.source.requests("/base").len();
            deployment.client.stop().await?;
            publisher.publish(420).await?;
            deployment.client.start_again().await?;
            let expected = publisher.add_to(first_data());
            equal_at_the_end(deployment, &expected).await?;
            let fetched = deployment.source.requests("/base").len() - before;
            ensure!(fetched == 0, "the source was asked {fetched} times");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_client_that_missed_more_than_the_history_takes_a_snapshot() -> anyhow::Result<()> {
    durable()
        .server_setting("OPAL_FEED_HISTORY_CHANGES", "10")
        .through_a_proxy()
        .run(async |deployment| {
            let publisher = Publisher::start(deployment).await?;
            let line = deployment.line.as_ref().context("a proxy")?;
            publisher.publish(5).await?;
            equal_at_the_end(deployment, &publisher.add_to(first_data())).await?;
            let before = taken(deployment).0;
            line.cut();
            publisher.publish(200).await?;
            line.restore();
            equal_at_the_end(deployment, &publisher.add_to(first_data())).await?;
            ensure!(taken(deployment).0 == before + 1, "no snapshot was taken");
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_query_sees_what_was_published_before_it() -> anyhow::Result<()> {
    durable()
        .run(async |deployment| {
            let mut position = None;
            for n in 0..30 {
                let update = json!({"entries": [
                    {"url": "", "topics": ["policy_data"], "dst_path": "/own", "data": {"n": n}},
                ]});
                let published = deployment
                    .try_publish(&update, &deployment.datasource_token)
                    .await?;
                let at_least = position_of(&published.expect(200)?, "x-opal-revision")?;
                let query = http::get(deployment.engine_url("/v1/data/own/n"));
                let query = query.header("x-opal-at-least", at_least.at_least().to_string());
                let answer = query.send().await?.expect(200)?;
                ensure!(answer.json()?["result"] == n, "{n}: {}", answer.text());
                position = Some(at_least);
            }
            let mut future = position.context("a position")?.at_least();
            future.revision.0 += 1_000;
            let query = http::get(deployment.engine_url("/v1/data/own/n"))
                .header("x-opal-at-least", future.to_string())
                .header("x-opal-timeout", "0.2")
                .limit(Duration::from_secs(10));
            let answer = query.send().await?.expect(503)?;
            ensure!(answer.headers.contains_key("retry-after"), "{answer:?}");
            let query = http::get(deployment.engine_url("/v1/data/own/n"));
            let answer = query.header("x-opal-at-least", "yesterday").send().await?;
            answer.expect(400)?;
            let answer = http::get(deployment.engine_url("/v1/data/own/n"))
                .send()
                .await?;
            ensure!(
                answer.headers.contains_key("x-opal-position"),
                "{:?}",
                answer.headers
            );
            Ok(())
        })
        .await
}
