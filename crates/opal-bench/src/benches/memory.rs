//! Resident memory, and the time to the first answer.

use std::time::{Duration, Instant};

use opal_e2e::{Engine, Setup};
use opal_testing::binaries::Kind;
use opal_testing::wait;

use super::{Sample, ms};
use crate::contender::Contender;
use crate::load::Subscribers;
use crate::process::resident_kb;

const CONNECTIONS: usize = 5_000;

/// What an idle, subscribed connection adds.
pub(super) async fn connections(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let server = contender.server(directory.path(), []).await?;
    let before = resident_kb(&server)?;
    let start = Instant::now();
    let _subscribers = Subscribers::connect(&server, CONNECTIONS).await?;
    let took = start.elapsed();
    let added = resident_kb(&server)? - before;
    let count = f64::from(u32::try_from(CONNECTIONS)?);
    Ok(vec![
        ("connection-memory", added / count),
        ("connect-rate", count / took.as_secs_f64()),
    ])
}

/// A server without a repository, as soon as it answers.
pub(super) async fn start(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let start = Instant::now();
    let server = contender.server(directory.path(), []).await?;
    let took = start.elapsed();
    Ok(vec![
        ("start-time", ms(took)),
        ("start-memory", resident_kb(&server)? / 1e3),
    ])
}

/// A client that has loaded a small repository into an engine elsewhere.
pub(super) async fn client(kind: Kind) -> anyhow::Result<Vec<Sample>> {
    let mut memory = 0.0;
    Setup::new(kind, kind, Engine::OpaElsewhere)
        .run(async |deployment| {
            // What was loaded is there for good; what loading it took may go in a moment.
            let quiet = Duration::from_secs(1);
            wait::throughout(quiet, "a ready client", async || {
                deployment.client.get("/ready").await?.expect(200).map(drop)
            })
            .await?;
            memory = resident_kb(&deployment.client)? / 1e3;
            Ok(())
        })
        .await?;
    Ok(vec![("client-memory", memory)])
}
