//! Starts the two processes, cuts the line between them again and again while publishing, and judges
//! what they held when.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_testing::cuttable_proxy::CuttableProxy;
use opal_testing::git_repo::TestRepo;
use opal_testing::http;
use opal_testing::ports::free_port;
use opal_testing::process::{Process, ProcessSpec};
use opal_testing::wait;
use serde_json::Value;
use tempfile::TempDir;

use crate::load::{Load, ROUND};
use crate::memory::Held;

/// What live bytes may grow by, in percent.
const LIVE_LIMIT: f64 = 2.0;
/// What resident memory may grow by, in percent.
const RESIDENT_LIMIT: f64 = 10.0;
/// A client that kept its connection for so long counts the next loss as its first, and is not slow
/// to come back.
const STABLE: Duration = Duration::from_millis(10_500);
/// Cuts in a row, before the pauses of the clients grow.
const CUTS: usize = 3;
/// Updates that are published while the line is cut.
const MISSED: usize = 50;

/// How often the history is filled before anything is measured.
const TURNS: usize = 4;

/// How much is done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) reconnects: usize,
    pub(crate) updates: usize,
    /// Changes that the server keeps.
    history: usize,
}

impl Plan {
    /// What is promised, in some minutes.
    pub(crate) fn long() -> Self {
        Self {
            clients: 100,
            reconnects: 10_000,
            updates: 100_000,
            history: 10_000,
        }
    }

    /// The same in half a minute, to see that it works.
    pub(crate) fn short() -> Self {
        Self {
            clients: 40,
            reconnects: 120,
            updates: 10_000,
            history: 1_500,
        }
    }

    /// Does it, prints what was measured, and says whether the processes kept their size.
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut soak = Soak::start(self).await?;
        // The history is turned over some times: what has left it is complete as well, and tables
        // that things come into and leave have the size that they keep.
        soak.publish(TURNS * self.history + 2 * ROUND).await?;
        // What comes with the first reconnects is there for good.
        soak.cuts().await?;
        let cycles = self.reconnects.div_ceil(self.clients * CUTS).max(1);
        let published = soak.load.published();
        let updates = self.updates.saturating_sub(published) / cycles;
        let mut measured = vec![soak.measure().await?];
        for _ in 0..cycles {
            soak.publish(updates.saturating_sub(CUTS * MISSED)).await?;
            soak.cuts().await?;
            measured.push(soak.measure().await?);
        }
        Ok(judge(&measured))
    }
}

/// What both processes held at one moment.
#[derive(Debug, Clone, Copy)]
struct Measured {
    server: Held,
    clients: Held,
}

#[derive(Debug)]
struct Soak {
    load: Load,
    line: CuttableProxy,
    server_url: String,
    server_memory: SocketAddr,
    clients_memory: SocketAddr,
    count: usize,
    reconnects: usize,
    begun: Instant,
    /// When the clients came back last.
    restored: tokio::time::Instant,
    server: Process,
    clients: Process,
    _repo: TestRepo,
    _directory: TempDir,
}

impl Soak {
    async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let directory = TempDir::with_prefix("opal-soak-")?;
        let repo = TestRepo::with_files(&[("soak.rego", "package soaking\nx = 1\n")])?;
        let port = free_port()?;
        let server_memory = loopback(free_port()?);
        let state = directory.path().join("state");
        let server = child(
            &directory,
            "server",
            &[
                &server_memory.port().to_string(),
                &port.to_string(),
                &state.display().to_string(),
                &repo.path().display().to_string(),
                repo.branch(),
                &plan.history.to_string(),
            ],
        )?;
        let server_url = format!("http://127.0.0.1:{port}");
        answers(&server, server_memory).await?;

        let line = CuttableProxy::start(loopback(port)).await?;
        let clients_memory = loopback(free_port()?);
        let clients = child(
            &directory,
            "clients",
            &[
                &clients_memory.port().to_string(),
                &format!("http://{}", line.address()),
                &plan.clients.to_string(),
            ],
        )?;
        answers(&clients, clients_memory).await?;
        let soak = Self {
            load: Load::new(server_url.clone()),
            line,
            server_url,
            server_memory,
            clients_memory,
            count: plan.clients,
            reconnects: 0,
            begun,
            restored: tokio::time::Instant::now(),
            server,
            clients,
            _repo: repo,
            _directory: directory,
        };
        soak.all_current(begun).await?;
        Ok(soak)
    }

    /// Publishes while the line is good, until everyone holds everything.
    async fn publish(&mut self, updates: usize) -> anyhow::Result<()> {
        self.load.publish(updates).await?;
        self.all_current(self.begun).await
    }

    /// Cuts the line some times in a row, not before the clients call it a good one.
    async fn cuts(&mut self) -> anyhow::Result<()> {
        tokio::time::sleep_until(self.restored + STABLE).await;
        for _ in 0..CUTS {
            let cut = Instant::now();
            self.line.cut();
            self.load.publish(MISSED).await?;
            self.line.restore();
            self.all_current(cut).await?;
            self.reconnects += self.count;
        }
        self.restored = tokio::time::Instant::now();
        Ok(())
    }

    /// Waits until every client is connected since later than `after`, and holds everything.
    async fn all_current(&self, after: Instant) -> anyhow::Result<()> {
        let all = wait::until("every client to hold everything", async || {
            let url = format!("{}/v1/fleet", self.server_url);
            let fleet = http::get(url).send().await?.expect(200)?.json()?;
            let clients = fleet["clients"].as_array().context("no clients")?;
            let limit = after.elapsed().as_secs_f64();
            let current = clients.iter().filter(|client| is_current(client, limit));
            let current = current.count();
            ensure!(current == self.count, "{current} of {} do", self.count);
            Ok(())
        });
        all.await
            .with_context(|| format!("{}{}", self.server.log_tail(), self.clients.log_tail()))
    }

    async fn measure(&self) -> anyhow::Result<Measured> {
        let server = Held::at_rest(self.server_memory).await?;
        let clients = Held::at_rest(self.clients_memory).await?;
        println!(
            "[{:>4} s] {:>6} reconnects {:>7} updates | server {server} | clients {clients}",
            self.begun.elapsed().as_secs(),
            self.reconnects,
            self.load.published(),
        );
        Ok(Measured { server, clients })
    }
}

fn is_current(client: &Value, connected_within: f64) -> bool {
    let since = client["connected_since"].as_f64();
    client["state"] == "current" && since.is_some_and(|since| since <= connected_within)
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn child(directory: &TempDir, role: &str, options: &[&str]) -> anyhow::Result<Process> {
    let spec = ProcessSpec::new(role, std::env::current_exe()?, directory.path());
    Process::start(spec.arguments(&[role]).arguments(options))
}

async fn answers(process: &Process, address: SocketAddr) -> anyhow::Result<()> {
    let started = wait::until("a process to start", async || {
        Ok(tokio::net::TcpStream::connect(address).await.map(drop)?)
    });
    started.await.with_context(|| process.log_tail())
}

/// Compares the end with the beginning, when the history was full already.
fn judge(measured: &[Measured]) -> ExitCode {
    let (Some(first), Some(last)) = (measured.first(), measured.last()) else {
        return ExitCode::FAILURE;
    };
    let mut kept = true;
    for (who, before, after) in [
        ("server", first.server, last.server),
        ("clients", first.clients, last.clients),
    ] {
        for (what, before, after, limit) in [
            ("live bytes", before.live, after.live, LIVE_LIMIT),
            (
                "resident memory",
                before.resident,
                after.resident,
                RESIDENT_LIMIT,
            ),
        ] {
            let growth = growth(before, after);
            let verdict = if growth <= limit { "kept" } else { "MISSED" };
            kept &= growth <= limit;
            println!("{who:<8} {what:<16} {growth:>+6.2} % (at most {limit} %) {verdict}");
        }
    }
    if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// In percent.
fn growth(before: u64, after: u64) -> f64 {
    let before = before.max(1) as f64;
    (after as f64 - before) / before * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_by_more_than_the_limit_is_missed() {
        let measured = |live, resident| {
            let held = Held { live, resident };
            let server = Held {
                live: 500,
                resident: 500,
            };
            Measured {
                server,
                clients: held,
            }
        };
        let judged = |last| judge(&[measured(1_000, 1_000), measured(9, 9), last]);
        assert_eq!(judged(measured(1_020, 1_100)), ExitCode::SUCCESS);
        assert_eq!(judged(measured(500, 500)), ExitCode::SUCCESS);
        assert_eq!(judged(measured(1_021, 1_000)), ExitCode::FAILURE);
        assert_eq!(judged(measured(1_000, 1_101)), ExitCode::FAILURE);
        assert_eq!(judge(&[]), ExitCode::FAILURE);
    }
}
