//! Something is taken away in the middle and put back: the state at the end is the same.

use anyhow::Context;
use opal_e2e::scenario::{both_roads_still_work, first_commit, first_data};
use opal_e2e::{Announce, Deployment, Engine, Setup};
use opal_testing::binaries::Kind;
use opal_testing::wait;
use serde_json::json;

/// The history is rewritten: a commit that clients hold is no longer in it.
async fn force_push(deployment: &mut Deployment) -> anyhow::Result<()> {
    let first = deployment.repo.head()?;
    let answer = "package rules.extra\nanswer = 42\n";
    deployment
        .commit(|commit| commit.file("extra/answer.rego", answer))
        .await?;
    deployment.wait_for_state(&first_data()).await?;

    let other = "package rules.other\nother = 1\n";
    first_commit(deployment.repo.unrelated_commit())?
        .file("other/other.rego", other)?
        .push()?;
    deployment.announce_push().await?;
    deployment.wait_for_state(&first_data()).await?;

    deployment.repo.force(&first)?;
    deployment.announce_push().await?;
    deployment.wait_for_state(&first_data()).await?;
    both_roads_still_work(deployment, 1).await
}

/// The server ends, a commit is pushed meanwhile, and the server comes back.
async fn restart_the_server(deployment: &mut Deployment) -> anyhow::Result<()> {
    both_roads_still_work(deployment, 1).await?;
    deployment.server.stop().await?;
    let mark = "package rules.mark
mark = 2
";
    deployment
        .repo
        .commit()?
        .file("mark/mark.rego", mark)?
        .push()?;
    deployment.server.start_again().await?;
    both_roads_still_work(deployment, 3).await?;
    deployment.server.kill()?;
    deployment.server.start_again().await?;
    both_roads_still_work(deployment, 4).await
}

/// The client ends, a commit is pushed meanwhile, and the client comes back.
async fn restart_the_client(deployment: &mut Deployment) -> anyhow::Result<()> {
    both_roads_still_work(deployment, 1).await?;
    deployment.client.stop().await?;
    let mark = "package rules.mark
mark = 2
";
    deployment
        .commit(|commit| commit.file("mark/mark.rego", mark))
        .await?;
    deployment.client.start_again().await?;
    deployment.wait_until_ready().await?;
    both_roads_still_work(deployment, 3).await?;
    deployment.client.kill()?;
    deployment.client.start_again().await?;
    deployment.wait_until_ready().await?;
    both_roads_still_work(deployment, 4).await
}

/// The inline engine is killed with all that it held; a commit comes while it is down.
async fn kill_the_engine(deployment: &mut Deployment) -> anyhow::Result<()> {
    for mark in 1..3 {
        deployment.kill_inline_engine()?;
        both_roads_still_work(deployment, mark).await?;
        deployment.wait_until_ready().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_force_push_leads_to_the_new_history() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded).run(force_push).await
}

#[tokio::test]
async fn a_force_push_announced_by_webhook_reaches_an_inline_opa() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::InlineOpa).announced_by(Announce::Webhook);
    setup.run(force_push).await
}

#[tokio::test]
async fn a_force_push_reaches_a_released_client() -> anyhow::Result<()> {
    Setup::new(Kind::Rust, Kind::Python, Engine::InlineOpa)
        .run(force_push)
        .await
}

#[tokio::test]
async fn our_client_survives_a_restart_of_our_server() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded).run(restart_the_server).await
}

#[tokio::test]
async fn our_client_survives_a_restart_of_a_released_server() -> anyhow::Result<()> {
    let setup = Setup::new(Kind::Python, Kind::Rust, Engine::Embedded);
    setup.run(restart_the_server).await
}

#[tokio::test]
async fn a_released_client_survives_a_restart_of_our_server() -> anyhow::Result<()> {
    let setup = Setup::new(Kind::Rust, Kind::Python, Engine::InlineOpa);
    setup.run(restart_the_server).await
}

#[tokio::test]
async fn a_restarted_client_with_the_embedded_engine_is_complete_again() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded).run(restart_the_client).await
}

#[tokio::test]
async fn a_restarted_client_takes_up_an_opa_that_stayed() -> anyhow::Result<()> {
    Setup::ours(Engine::OpaElsewhere)
        .run(restart_the_client)
        .await
}

#[tokio::test]
async fn a_killed_inline_opa_is_started_and_filled_again() -> anyhow::Result<()> {
    Setup::ours(Engine::InlineOpa).run(kill_the_engine).await
}

#[tokio::test]
async fn a_branch_deleted_and_made_anew_is_followed_again() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::Embedded);
    setup
        .run(async |deployment| {
            let head = deployment.repo.head()?;
            deployment.repo.delete_branch()?;
            // Long enough for a poll or two to meet the missing branch.
            let period = std::time::Duration::from_secs(3);
            wait::throughout(period, "a healthy server", async || {
                deployment
                    .server
                    .get("/healthcheck")
                    .await?
                    .expect(200)
                    .map(drop)
            })
            .await?;
            deployment.repo.force(&head)?;
            both_roads_still_work(deployment, 1).await
        })
        .await
}

#[tokio::test]
async fn a_repository_that_goes_away_and_comes_back_is_followed_again() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::Embedded);
    setup
        .run(async |deployment| {
            let hidden = deployment.repo.hide()?;
            deployment.server.stop().await?;
            // Unreachable already at the start: the server runs and waits for it.
            deployment.server.start_again().await?;
            deployment.server.wait_for_ok("/healthcheck").await?;
            drop(hidden);
            both_roads_still_work(deployment, 1).await
        })
        .await
}

/// An OPA that somebody else runs loses everything, what was published inline included.
async fn restart_the_opa_elsewhere(deployment: &mut Deployment) -> anyhow::Result<()> {
    let update = json!({"entries": [
        {"url": "", "topics": ["policy_data"], "dst_path": "/inline", "data": {"n": 1}},
    ]});
    deployment.publish(&update).await?;
    let mut expected = first_data();
    expected["inline"] = json!({"n": 1});
    deployment.wait_for_state(&expected).await?;

    let engine = deployment.engine.as_mut().context("an OPA elsewhere")?;
    engine.kill()?;
    engine.start_again().await?;
    deployment.wait_for_state(&expected).await?;
    deployment.wait_until_ready().await
}

#[tokio::test]
async fn an_opa_elsewhere_that_restarts_is_filled_again() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::OpaElsewhere);
    let often = ("OPAL_POLICY_STORE_LIVENESS_PROBE_INTERVAL_SECONDS", "1");
    let setup = setup.client_setting(often.0, often.1);
    setup.run(restart_the_opa_elsewhere).await
}

/// OPA takes what it can of a commit that does not compile; the next commit takes it back.
async fn revert_a_broken_commit(deployment: &mut Deployment) -> anyhow::Result<()> {
    let answer = |n: u8| format!("package rules.extra\nanswer = {n}\n");
    let is = async |deployment: &Deployment, n: u8| {
        let path = "rules/extra/answer";
        deployment
            .wait_for_decision(path, &json!({}), &json!(n))
            .await
    };
    deployment
        .commit(|commit| commit.file("extra/answer.rego", &answer(1)))
        .await?;
    is(deployment, 1).await?;
    deployment
        .commit(|commit| {
            commit
                .file("extra/answer.rego", &answer(2))?
                .file("extra/broken.rego", "package rules.broken\nx = = 1\n")
        })
        .await?;
    is(deployment, 2).await?;
    deployment
        .commit(|commit| {
            let commit = commit.file("extra/answer.rego", &answer(1))?;
            Ok(commit.remove("extra/broken.rego"))
        })
        .await?;
    is(deployment, 1).await?;
    deployment.wait_for_state(&first_data()).await
}

#[tokio::test]
async fn nothing_stays_in_opa_of_a_broken_commit_that_was_reverted() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::OpaElsewhere);
    setup.run(revert_a_broken_commit).await
}
