//! Ours at both ends.

use opal_e2e::{Announce, Engine, Setup, scenario};
use opal_testing::binaries;
use opal_testing::process::ProcessSpec;
use opal_testing::wait;

#[tokio::test]
async fn both_roads_reach_the_embedded_engine() -> anyhow::Result<()> {
    Setup::ours(Engine::Embedded)
        .run(scenario::both_roads)
        .await
}

#[tokio::test]
async fn both_roads_reach_an_inline_opa() -> anyhow::Result<()> {
    let setup = Setup::ours(Engine::InlineOpa).announced_by(Announce::Webhook);
    setup.run(scenario::both_roads).await
}

#[tokio::test]
async fn both_roads_reach_an_opa_elsewhere() -> anyhow::Result<()> {
    Setup::ours(Engine::OpaElsewhere)
        .run(scenario::both_roads)
        .await
}

#[tokio::test]
async fn without_an_opa_the_embedded_engine_takes_its_place_and_says_so() -> anyhow::Result<()> {
    Setup::ours(Engine::NoneInstalled)
        .run(async |deployment| {
            scenario::both_roads(deployment).await?;
            deployment
                .client
                .wait_for_log(&["embedded"])
                .await
                .map(drop)
        })
        .await
}

#[tokio::test]
async fn the_demo_shows_what_it_promises() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let demo = ProcessSpec::new("demo", binaries::ours("opal")?, directory.path())
        .arguments(&["demo", "--once"])
        .output(wait::LIMIT)
        .await?;
    anyhow::ensure!(demo.code == Some(0), "{demo:#?}");
    anyhow::ensure!(demo.stdout.contains(" ms"), "no figures: {}", demo.stdout);
    Ok(())
}
