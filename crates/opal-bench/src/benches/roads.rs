//! Both roads to their end: the engine answers with what was published or committed.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_e2e::{Announce, Deployment, Engine, Setup};
use opal_testing::binaries::Kind;
use opal_testing::http::{self, Connection};
use serde_json::{Value, json};

use super::{Sample, ms};
use crate::report::median;

const LIMIT: Duration = Duration::from_secs(30);

/// One client on loopback: ours with the embedded engine, the released one with inline `opa`.
pub(super) async fn both(kind: Kind) -> anyhow::Result<Vec<Sample>> {
    let engine = match kind {
        Kind::Rust => Engine::Embedded,
        Kind::Python => Engine::InlineOpa,
    };
    let mut samples = Vec::new();
    Setup::new(kind, kind, engine)
        .announced_by(Announce::Webhook)
        .run(async |deployment| {
            let updates = median(&updates(deployment, 40).await?).context("no update")?;
            let commits = median(&commits(deployment, 3).await?).context("no commit")?;
            samples = vec![("update-time", updates), ("commit-time", commits)];
            Ok(())
        })
        .await?;
    Ok(samples)
}

async fn updates(deployment: &Deployment, count: u32) -> anyhow::Result<Vec<f64>> {
    let mut to_server = Connection::open(&deployment.server.url("")).await?;
    let mut to_engine = Connection::open(&deployment.engine_url("")).await?;
    let mut times = Vec::new();
    for n in 0..=count {
        let update = json!({"id": format!("u{n}"), "entries": [
            {"url": "", "topics": ["policy_data"], "dst_path": "/bench", "data": {"n": n}},
        ]});
        let publish = http::post(deployment.server.url("/data/config"));
        let publish = publish.bearer(&deployment.datasource_token).json(&update)?;
        let start = Instant::now();
        to_server.send(publish).await?.expect(200)?;
        answers(&mut to_engine, deployment, "bench/n", &json!(n)).await?;
        if n > 0 {
            times.push(ms(start.elapsed()));
        }
    }
    Ok(times)
}

async fn commits(deployment: &mut Deployment, count: u32) -> anyhow::Result<Vec<f64>> {
    let mut to_engine = Connection::open(&deployment.engine_url("")).await?;
    let mut times = Vec::new();
    for n in 1..=count {
        let module = format!(
            "package rules.bench
n = {n}
"
        );
        deployment
            .repo
            .commit()?
            .file("bench/n.rego", &module)?
            .push()?;
        let start = Instant::now();
        deployment.announce_push().await?;
        answers(&mut to_engine, deployment, "rules/bench/n", &json!(n)).await?;
        times.push(ms(start.elapsed()));
    }
    Ok(times)
}

/// Asks again and again until the engine answers `expected`.
async fn answers(
    to_engine: &mut Connection,
    deployment: &Deployment,
    path: &str,
    expected: &Value,
) -> anyhow::Result<()> {
    let url = deployment.engine_url(&format!("/v1/data/{path}"));
    let start = Instant::now();
    loop {
        let question = http::post(&url).json(&json!({"input": {}}))?;
        let answer = to_engine.send(question).await?.expect(200)?.json()?;
        if answer["result"] == *expected {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LIMIT,
            "`{path}` is still {answer}, not {expected}"
        );
    }
}
