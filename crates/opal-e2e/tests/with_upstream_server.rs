//! Our client against the released server.

use opal_e2e::{Announce, Engine, Setup, scenario};
use opal_testing::binaries::Kind;

fn setup(engine: Engine) -> Setup {
    Setup::new(Kind::Python, Kind::Rust, engine)
}

#[tokio::test]
async fn our_client_with_the_embedded_engine_follows_a_released_server() -> anyhow::Result<()> {
    setup(Engine::Embedded).run(scenario::both_roads).await
}

#[tokio::test]
async fn our_client_with_inline_opa_follows_a_released_server() -> anyhow::Result<()> {
    let setup = setup(Engine::InlineOpa).announced_by(Announce::Webhook);
    setup.run(scenario::both_roads).await
}

#[tokio::test]
async fn our_client_with_an_opa_elsewhere_follows_a_released_server() -> anyhow::Result<()> {
    setup(Engine::OpaElsewhere).run(scenario::both_roads).await
}
