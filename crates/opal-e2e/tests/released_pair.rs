//! The baseline: the released server and client with each other. What fails here is wrong in the
//! scenario, not in us.

use opal_e2e::{Announce, Engine, Setup, scenario};
use opal_testing::binaries::Kind;

#[tokio::test]
async fn the_released_pair_passes_the_scenarios() -> anyhow::Result<()> {
    let setup = Setup::new(Kind::Python, Kind::Python, Engine::InlineOpa);
    setup
        .announced_by(Announce::Webhook)
        .run(scenario::both_roads)
        .await
}
