//! The feed: its clients after a restart of the server, what it costs, and what it can say.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_testing::binaries::Kind;
use opal_testing::http::{self, Connection, Request};
use opal_testing::services::{Service, setting};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::publish::{settle, update_of};
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
/// same updates to as many: one at a time, where each is a write to a socket of its own, and many.
pub(super) async fn delivery() -> anyhow::Result<Vec<Sample>> {
    let [feed_alone, feed] = delivery_by_feed().await?;
    let [released_alone, released] = delivery_released().await?;
    Ok(vec![
        ("feed-delivery-alone", feed_alone),
        ("released-delivery-alone", released_alone),
        ("feed-alone-ratio", feed_alone / released_alone),
        ("feed-delivery", feed),
        ("released-delivery", released),
        ("feed-ratio", feed / released),
    ])
}

async fn delivery_by_feed() -> anyhow::Result<[f64; 2]> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let mut clients = FeedClients::connect(&server, TOLD).await?;
    cpu_of_deliveries(&server, async || clients.all_changed().await).await
}

async fn delivery_released() -> anyhow::Result<[f64; 2]> {
    let directory = tempfile::tempdir()?;
    let server = Service::server(Kind::Rust, directory.path(), []).await?;
    let mut subscribers = Subscribers::connect(&server, TOLD).await?;
    cpu_of_deliveries(&server, async || subscribers.all_notified().await).await
}

async fn cpu_of_deliveries(
    server: &Service,
    mut delivered: impl AsyncFnMut() -> anyhow::Result<Instant>,
) -> anyhow::Result<[f64; 2]> {
    // The first time is for what is there for good afterwards.
    cpu_of_a_delivery(server, 1, 1, &mut delivered).await?;
    let alone = cpu_of_a_delivery(server, ROUNDS, 1, &mut delivered).await?;
    let together = cpu_of_a_delivery(server, ROUNDS / 4, PUBLISHING, &mut delivered).await?;
    Ok([alone, together])
}

/// Publishes `together` updates at the same time, `rounds` times; microseconds for each delivery.
async fn cpu_of_a_delivery(
    server: &Service,
    rounds: usize,
    together: usize,
    delivered: &mut impl AsyncFnMut() -> anyhow::Result<Instant>,
) -> anyhow::Result<f64> {
    let before = cpu_time(server)?;
    for _ in 0..rounds {
        let all = async {
            for _ in 0..together {
                delivered().await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(publish_many(server, together), all)?;
        settle().await;
    }
    let used = cpu_time(server)?.saturating_sub(before);
    let deliveries = u32::try_from(rounds * together * TOLD)?;
    Ok((used / deliveries).as_secs_f64() * 1e6)
}

/// What a full history adds to the resident memory of a server: of changes whose payload, as it is
/// sent, has 256 bytes, and of updates with a document of 256 bytes.
pub(super) async fn history() -> anyhow::Result<Vec<Sample>> {
    let small = |url: &str| update_with(51, url);
    Ok(vec![
        ("history-memory", memory_of_history(small).await?),
        ("history-large", memory_of_history(update).await?),
    ])
}

async fn memory_of_history(update: fn(&str) -> Request) -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let settings = [
        setting("OPAL_FEED_HISTORY_CHANGES", &KEPT),
        setting("OPAL_FEED_HISTORY_BYTES", &(1_u64 << 30)),
    ];
    let server = Service::server(Kind::Rust, directory.path(), settings).await?;
    // What the first requests of each connection take is there for good.
    publish_all(&server, 1_000, update).await?;
    let before = resident_kb(&server)?;
    publish_all(&server, KEPT, update).await?;
    let added = resident_kb(&server)? - before;
    Ok(added / 1e3)
}

async fn publish_many(server: &Service, count: usize) -> anyhow::Result<()> {
    publish_all(server, count, update).await
}

async fn publish_all(
    server: &Service,
    count: usize,
    update: fn(&str) -> Request,
) -> anyhow::Result<()> {
    let mut publishing = JoinSet::new();
    for first in 0..PUBLISHING.min(count) {
        let request = update(&server.url("/data/config"));
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

/// A document of 256 bytes. Without an id: each is a change of its own.
fn update(url: &str) -> Request {
    update_with(256, url)
}

fn update_with(bytes: usize, url: &str) -> Request {
    let mut update = update_of(bytes);
    if let Some(members) = update.as_object_mut() {
        members.remove("id");
    }
    http::post(url)
        .header("content-type", "application/json")
        .body(update.to_string())
}
