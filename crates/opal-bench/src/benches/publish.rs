//! One update to many subscribers.

use std::time::{Duration, Instant};

use anyhow::Context;
use opal_testing::http;
use serde_json::{Value, json};

use super::{Sample, ms};
use crate::contender::Contender;
use crate::load::Subscribers;
use crate::process::cpu_time;
use crate::report::median;

const SUBSCRIBERS: usize = 1_000;

/// Processor time for each delivery, the reading of the answer included, and the time until the last
/// of the subscribers has it.
pub(super) async fn delivery(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    // Enough for a second of processor time or so, which the system counts in hundredths.
    let rounds = match contender {
        Contender::Python => 3,
        Contender::Ours | Contender::Floor => 40,
    };
    let directory = tempfile::tempdir()?;
    let server = contender.server(directory.path(), []).await?;
    let mut subscribers = Subscribers::connect(&server, SUBSCRIBERS).await?;
    let update = update_of(256).to_string();
    let publish = async || {
        let request = http::post(server.url("/data/config"));
        let request = request
            .header("content-type", "application/json")
            .body(update.clone());
        request.send().await?.expect(200)
    };
    publish().await?;
    subscribers.all_notified().await?;
    settle().await;

    let mut times = Vec::with_capacity(rounds);
    let before = cpu_time(&server)?;
    for _ in 0..rounds {
        let start = Instant::now();
        let (published, last) = tokio::join!(publish(), subscribers.all_notified());
        published?;
        times.push(ms(last?.duration_since(start)));
        settle().await;
    }
    let used = cpu_time(&server)?.saturating_sub(before);
    let deliveries = u32::try_from(rounds * SUBSCRIBERS)?;
    Ok(vec![
        ("delivery-cpu", (used / deliveries).as_secs_f64() * 1e6),
        ("delivery-all", median(&times).context("no round")?),
    ])
}

/// Lets the server read the answers that are still on their way. Nothing outside shows when it has.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(150)).await;
}

/// An inline update whose document has so many bytes, at least 12.
pub(super) fn update_of(bytes: usize) -> Value {
    let padding = bytes.saturating_sub(json!({"value": ""}).to_string().len());
    json!({"id": "bench", "reason": "bench", "entries": [{
        "url": "",
        "topics": ["policy_data"],
        "dst_path": "/bench",
        "data": {"value": "x".repeat(padding)},
    }]})
}
