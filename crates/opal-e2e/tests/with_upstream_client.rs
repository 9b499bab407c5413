//! The released client against our server.

use opal_e2e::{Announce, Engine, Setup, scenario};
use opal_testing::binaries::Kind;

fn setup(engine: Engine) -> Setup {
    Setup::new(Kind::Rust, Kind::Python, engine)
}

#[tokio::test]
async fn a_released_client_with_inline_opa_follows_our_server() -> anyhow::Result<()> {
    setup(Engine::InlineOpa).run(scenario::both_roads).await
}

#[tokio::test]
async fn a_released_client_is_told_after_a_webhook_to_our_server() -> anyhow::Result<()> {
    let setup = setup(Engine::OpaElsewhere).announced_by(Announce::Webhook);
    setup.run(scenario::both_roads).await
}

#[tokio::test]
async fn a_released_client_takes_our_engine_for_an_opa() -> anyhow::Result<()> {
    setup(Engine::EmbeddedElsewhere)
        .run(scenario::both_roads)
        .await
}
