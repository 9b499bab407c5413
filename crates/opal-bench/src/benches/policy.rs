//! Bundles: the same one again and again, and the first after a commit.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_e2e::deployment::until_webhooks_are_heard;
use opal_e2e::peer::Peer;
use opal_testing::git_repo::{Commit, TestRepo};
use opal_testing::http::{self, Connection};
use opal_testing::services::{Service, setting};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{Sample, ms};
use crate::contender::Contender;
use crate::process::cpu_time;
use crate::report::median;

/// Connections that ask at the same time.
const ASKING: usize = 8;

struct Served {
    server: Service,
    repo: TestRepo,
    directory: TempDir,
}

impl Served {
    /// A server that has cloned what `fill` wrote.
    async fn start(
        contender: Contender,
        fill: impl FnOnce(Commit<'_>) -> anyhow::Result<Commit<'_>>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut repo = TestRepo::empty()?;
        fill(repo.commit()?)?.push()?;
        let settings = [
            setting("OPAL_POLICY_REPO_URL", &repo.path().display()),
            setting("OPAL_POLICY_REPO_MAIN_BRANCH", &repo.branch()),
        ];
        let server = contender.server(directory.path(), settings).await?;
        server.wait_for_ok("/policy").await?;
        Ok(Self {
            server,
            repo,
            directory,
        })
    }
}

/// A module of about 1.5 kB.
fn module(number: usize) -> String {
    let mut text =
        format!("package bench.m{number}\n\nallow {{\n    input.role == \"admin\"\n}}\n\n");
    while text.len() < 1_450 {
        let rule = text.len();
        text.push_str(&format!(
            "rule_{rule} {{\n    input.value == {rule}\n}}\n\n"
        ));
    }
    text
}

/// Requests a second for three files, asked for by several connections at once.
pub(super) async fn small(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    let period = Duration::from_secs(2);
    let served = Served::start(contender, |commit| {
        commit
            .file("a/one.rego", &module(1))?
            .file("b/two.rego", &module(2))?
            .file("b/data.json", "{\"users\": {\"alice\": \"admin\"}}\n")
    })
    .await?;
    let url = served.server.url("/policy");
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        let (url, mut connection) = (url.clone(), Connection::open(&url).await?);
        asking.spawn(async move {
            let start = Instant::now();
            let mut answers = 0_u32;
            while start.elapsed() < period {
                connection.send(http::get(&url)).await?.expect(200)?;
                answers += 1;
            }
            anyhow::Ok(f64::from(answers) / start.elapsed().as_secs_f64())
        });
    }
    let mut rate = 0.0;
    while let Some(rate_of_one) = asking.join_next().await {
        rate += rate_of_one??;
    }
    let mut times = Vec::new();
    let mut connection = Connection::open(&url).await?;
    for _ in 0..20 {
        let start = Instant::now();
        connection.send(http::get(&url)).await?.expect(200)?;
        times.push(ms(start.elapsed()));
    }
    Ok(vec![
        ("policy-small-rate", rate),
        ("policy-small-time", median(&times).context("no request")?),
    ])
}

/// The time of one request for 1,150 files, one after the other.
pub(super) async fn large(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    let requests: u32 = match contender {
        Contender::Python => 3,
        Contender::Ours | Contender::Floor => 30,
    };
    let served = Served::start(contender, |commit| {
        commit.many((0..1_150).map(|n| (format!("d{}/m{n}.rego", n % 50), module(n))))
    })
    .await?;
    let url = served.server.url("/policy");
    let mut connection = Connection::open(&url).await?;
    let mut times = Vec::new();
    let before = cpu_time(&served.server)?;
    for _ in 0..requests {
        let start = Instant::now();
        let answer = connection.send(http::get(&url)).await?.expect(200)?;
        times.push(ms(start.elapsed()));
        ensure!(
            answer.body.len() > 1_500_000,
            "only {} bytes",
            answer.body.len()
        );
    }
    let used = cpu_time(&served.server)?.saturating_sub(before);
    Ok(vec![
        ("policy-large-time", median(&times).context("no request")?),
        ("policy-large-cpu", ms(used / requests)),
    ])
}

/// A commit of three files in a repository of 20,000: from the webhook to the diff bundle, and the
/// part of it that is not the fetch.
///
/// Nothing outside shows when a server's fetch ends, so the same fetch is done beside it, into a
/// clone of our own, and taken off.
pub(super) async fn diff(contender: Contender) -> anyhow::Result<Vec<Sample>> {
    let commits = 3;
    let mut served = Served::start(contender, |commit| {
        commit.many((0..20_000).map(|n| (small_path(n), small_module(n, 0))))
    })
    .await?;
    let beside = served.directory.path().join("beside.git");
    let remote = served.repo.path().display().to_string();
    git(
        served.directory.path(),
        &["clone", "-q", "--bare", &remote, "beside.git"],
    )?;
    until_webhooks_are_heard(contender.kind()?, &served.server).await?;
    let mut peer = Peer::connect(&served.server, None).await?;
    peer.subscribe(&["policy:."]).await?;

    let (mut totals, mut fetches) = (Vec::new(), Vec::new());
    for version in 1..=commits {
        let base = served.repo.head()?;
        let mut change = served.repo.commit()?;
        for n in [7, 7_007, 17_007] {
            change = change.file(small_path(n), &small_module(n, version))?;
        }
        let head = change.push()?;
        let start = Instant::now();
        push_webhook(&served).await?;
        let notification = peer.next_notification().await;
        let notification = notification.with_context(|| served.server.log_tail())?;
        let notification = notification.context("the server is gone")?;
        let path = format!("/policy?base_hash={base}");
        let bundle = served.server.get(&path).await?.expect(200)?.json()?;
        totals.push(ms(start.elapsed()));
        check(&bundle, head.as_str())?;
        peer.acknowledge(&notification).await?;

        let start = Instant::now();
        git(&beside, &["fetch", "-q", "origin", "+main:main"])?;
        fetches.push(ms(start.elapsed()));
    }
    let total = median(&totals).context("no commit")?;
    let fetch = median(&fetches).context("no commit")?;
    Ok(vec![
        ("diff-total", total),
        ("diff-fetch", fetch),
        ("diff-after-fetch", (total - fetch).max(0.0)),
    ])
}

fn check(bundle: &Value, head: &str) -> anyhow::Result<()> {
    let modules = bundle["policy_modules"].as_array().map_or(0, Vec::len);
    ensure!(
        bundle["hash"] == head && modules == 3,
        "another bundle: {modules} modules"
    );
    Ok(())
}

async fn push_webhook(served: &Served) -> anyhow::Result<()> {
    let payload = json!({
        "ref": format!("refs/heads/{}", served.repo.branch()),
        "repository": {"git_url": served.repo.path()},
    });
    let hook = http::post(served.server.url("/webhook")).header("x-github-event", "push");
    let answer = hook.json(&payload)?.send().await?.expect(200)?.json()?;
    ensure!(answer["status"] == "ok", "{answer}");
    Ok(())
}

fn small_path(number: usize) -> String {
    format!("d{}/e{}/m{number}.rego", number % 20, number % 200)
}

fn small_module(number: usize, version: u32) -> String {
    format!("package bench.m{number}\n\nversion = {version}\n")
}

fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .status()
        .context("could not run `git`")?;
    ensure!(status.success(), "`git {}` failed", arguments.join(" "));
    Ok(())
}
