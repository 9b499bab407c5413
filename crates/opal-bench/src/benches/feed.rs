//! The feed: its clients after a restart of the server, what it costs, and what it can say.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_testing::binaries::Kind;
use opal_testing::http::{self, Connection, Request};
use opal_testing::services::{Service, setting};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::publish::{settle, update_of_256_bytes};
use super::{Sample, ms};
use crate::load::Subscribers;
use crate::load::feed::FeedClients;
use crate::process::{cpu_time, resident_kb};
use crate::report::median;

/// Clients that have to resume.
const RESUMING: usize = 5_000;
/// Clients that are told, or waited for.
const TOLD: usize = 1_000;
/// Clients that are listed.
const LISTED: usize = 10_000;
/// Changes that are kept.
const KEPT: usize = 100_000;
/// Connections that publish at the same time.
const PUBLISHING: usize = 16;
const ROUNDS: usize = 40;

/// The time from the moment the server listens again until the last client has resumed, after it was
/// asked to end and after it was killed.
pub(super) async fn resume() -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let settings = [setting("OPAL_STATE_DIR", &state.display())];
    let mut server = Service::server(Kind::Rust, directory.path(), settings).await?;
    let mut clients = FeedClients::connect(&server, RESUMING).await?;
    publish(&server).send().await?.expect(200)?;
    clients.all_changed().await?;

    server.stop().await?;
    let (after_stop, anew) = all_resumed(&mut server, &mut clients).await?;
    server.kill()?;
    let (after_kill, anew_too) = all_resumed(&mut server, &mut clients).await?;
    let anew = u32::try_from(anew + anew_too)?;
    Ok(vec![
        ("resume-after-stop", after_stop.as_secs_f64()),
        ("resume-after-kill", after_kill.as_secs_f64()),
        ("resume-snapshots", f64::from(anew)),
    ])
}

async fn all_resumed(
    server: &mut Service,
    clients: &mut FeedClients,
) -> anyhow::Result<(Duration, usize)> {
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let (started, listening, back) =
        tokio::join!(server.start_again(), listens(address), clients.all_back());
    started?;
    let (last, anew) = back?;
    // They are back for good: the next change reaches everyone.
    publish(server).send().await?.expect(200)?;
    clients.all_changed().await?;
    Ok((last.saturating_duration_since(listening), anew))
}

/// When `address` takes its first connection.
async fn listens(address: SocketAddr) -> Instant {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

/// Processor time of a server for one delivery by the feed, and as released clients are told, of the
/// same update to as many.
pub(super) async fn delivery() -> anyhow::Result<Vec<Sample>> {
    let by_feed = delivery_by_feed().await?;
    let released = delivery_released().await?;
    Ok(vec![
        ("feed-delivery-cpu", by_feed),
        ("released-delivery-cpu", released),
        ("feed-delivery-ratio", by_feed / released),
    ])
}

async fn delivery_by_feed() -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let mut clients = FeedClients::connect(&server, TOLD).await?;
    cpu_of_a_delivery(&server, async || clients.all_changed().await).await
}

async fn delivery_released() -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let mut subscribers = Subscribers::connect(&server, TOLD).await?;
    cpu_of_a_delivery(&server, async || subscribers.all_notified().await).await
}

async fn cpu_of_a_delivery(
    server: &Service,
    mut delivered: impl AsyncFnMut() -> anyhow::Result<Instant>,
) -> anyhow::Result<f64> {
    publish(server).send().await?.expect(200)?;
    delivered().await?;
    settle().await;
    let before = cpu_time(server)?;
    for _ in 0..ROUNDS {
        let (published, last) = tokio::join!(publish(server).send(), delivered());
        published?.expect(200)?;
        last?;
        settle().await;
    }
    let used = cpu_time(server)?.saturating_sub(before);
    let deliveries = u32::try_from(ROUNDS * TOLD)?;
    Ok((used / deliveries).as_secs_f64() * 1e6)
}

/// What a full history adds to the resident memory of a server.
pub(super) async fn history() -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let settings = [
        setting("OPAL_FEED_HISTORY_CHANGES", &KEPT),
        setting("OPAL_FEED_HISTORY_BYTES", &(1_u64 << 30)),
    ];
    let server = Service::server(Kind::Rust, directory.path(), settings).await?;
    // What the first requests of each connection take is there for good.
    publish_many(&server, 1_000).await?;
    let before = resident_kb(&server)?;
    publish_many(&server, KEPT).await?;
    let added = resident_kb(&server)? - before;
    Ok(vec![("history-memory", added / 1e3)])
}

async fn publish_many(server: &Service, count: usize) -> anyhow::Result<()> {
    let mut publishing = JoinSet::new();
    for first in 0..PUBLISHING {
        let request = publish(server);
        let url = server.url("");
        publishing.spawn(async move {
            let mut connection = Connection::open(&url).await?;
            for _ in (first..count).step_by(PUBLISHING) {
                connection.send(request.clone()).await?.expect(200)?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = publishing.join_next().await {
        done??;
    }
    Ok(())
}

/// `GET /v1/fleet` of many clients.
pub(super) async fn fleet() -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let _clients = FeedClients::connect(&server, LISTED).await?;
    let mut connection = Connection::open(&server.url("")).await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let answer = connection.send(http::get(server.url("/v1/fleet"))).await?;
        times.push(ms(start.elapsed()));
        let fleet = answer.expect(200)?.json()?;
        let listed = fleet["clients"].as_array().map_or(0, Vec::len);
        ensure!(listed == LISTED, "{listed} clients are listed");
    }
    Ok(vec![("fleet-time", median(&times).context("no request")?)])
}

/// The time of a publish that waits until all have applied it.
pub(super) async fn wait() -> anyhow::Result<Vec<Sample>> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let mut clients = FeedClients::connect(&server, TOLD).await?;
    let mut connection = Connection::open(&server.url("")).await?;
    let url = server.url("/data/config?wait=all&timeout=30");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let answer = connection.send(update(&url)).await?.expect(200)?.json()?;
        times.push(ms(start.elapsed()));
        let applied = answer["applied"].as_array().map_or(0, Vec::len);
        ensure!(applied == TOLD, "{applied} have applied it");
        clients.all_changed().await?;
    }
    Ok(vec![("wait-time", median(&times).context("no publish")?)])
}

fn publish(server: &Service) -> Request {
    update(&server.url("/data/config"))
}

/// Without an id: each is a change of its own.
fn update(url: &str) -> Request {
    let mut update = update_of_256_bytes();
    if let Some(members) = update.as_object_mut() {
        members.remove("id");
    }
    http::post(url)
        .header("content-type", "application/json")
        .body(update.to_string())
}
