//! `opal status`: which client of a server holds what, the worst first.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::console::show;
use crate::remote::{Remote, RemoteOptions};

mod table;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    remote: RemoteOptions,
    /// Look again each second.
    #[arg(long)]
    watch: bool,
    /// Print what the server says, as JSON, one line each time.
    #[arg(long)]
    json: bool,
}

/// What a server says about its clients.
#[derive(Debug, Deserialize)]
struct Fleet {
    #[serde(default)]
    head: std::collections::BTreeMap<String, String>,
    clients: Vec<Client>,
}

/// One client of a server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Client {
    id: String,
    host: String,
    version: String,
    scope: String,
    mode: String,
    state: String,
    position: Option<String>,
    lag_changes: u64,
    lag_seconds: f64,
    failing: Vec<Failing>,
    drift: bool,
    connected_since: Option<f64>,
    lost_since: Option<f64>,
}

/// Something that a client could not apply.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Failing {
    entry: String,
    error: String,
    since: String,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let remote = options.remote.connect(Duration::ZERO)?;
    if !options.watch {
        show(&look(&remote, options.json).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seen = look(&remote, options.json).await;
        // A server that restarts is what one watches for.
        let seen = seen.unwrap_or_else(|error| format!("{error:#}\n"));
        match options.json {
            true => show(&seen)?,
            false => show(&format!("{CLEAR}{seen}"))?,
        }
    }
}

async fn look(remote: &Remote, json: bool) -> anyhow::Result<String> {
    let answer = remote
        .send(remote.request(Method::GET, "/v1/fleet"))
        .await?;
    if !answer.status.is_success() {
        let (url, status, reason) = (remote.name(), answer.status, answer.reason());
        bail!("`{url}` answered {status}: {reason}");
    }
    if json {
        return Ok(format!("{}\n", answer.body));
    }
    let fleet = Fleet::deserialize(&answer.body);
    Ok(table::of(
        &fleet.context("the server's answer cannot be read")?,
    ))
}
