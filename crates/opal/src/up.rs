//! `opal up`: server, client and engine for a repository of one's own, in one process.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use opal_protocol::RedactedUrl;
use opal_runtime::Tasks;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::console::say;
use crate::stack::{GRACE, Stack, StackOptions};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The policy repository: a URL or a path, as for `git clone`.
    #[arg(long, value_name = "URL", value_parser = |text: &str| Ok::<_, Infallible>(RedactedUrl::from(text)))]
    repo: RedactedUrl,
    /// Its branch.
    #[arg(long, default_value = "main")]
    branch: String,
    /// Where keys and the clone are kept.
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = default_state_directory())]
    state_dir: PathBuf,
    /// How often to look for new commits.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    poll: u64,
    /// Port of the server.
    #[arg(long, default_value_t = 7002)]
    server_port: u16,
    /// Port of the client's API.
    #[arg(long, default_value_t = 7000)]
    client_port: u16,
    /// Port of the engine.
    #[arg(long, default_value_t = 8181)]
    engine_port: u16,
}

fn default_state_directory() -> PathBuf {
    let home = opal_runtime::paths::home().unwrap_or_else(|| PathBuf::from("."));
    home.join(".local/state/opal/up")
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let tasks = Tasks::new(CancellationToken::new());
    opal_runtime::shutdown::on_signal(&tasks)?;
    let shutdown = tasks.shutdown().clone();
    let started = shutdown.run_until_cancelled(start(&options, &tasks)).await;
    // Parts that stop refuse those that still start: that is no failure of its own.
    let interrupted = shutdown.is_cancelled();
    let outcome = started.filter(|_| !interrupted).unwrap_or(Ok(()));
    if outcome.is_err() {
        shutdown.cancel();
    }
    tasks.join(GRACE).await?;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Starts everything, says where, and says when the engine is ready.
async fn start(options: &Options, tasks: &Tasks) -> anyhow::Result<()> {
    let stack = Stack::start(
        &StackOptions {
            repo: &options.repo,
            branch: &options.branch,
            directory: &options.state_dir,
            ports: [
                options.server_port,
                options.client_port,
                options.engine_port,
            ],
            polling: options.poll,
        },
        tasks,
    )
    .await?;
    say!("Following branch `{}` of {}", options.branch, options.repo)?;
    say!(
        "  engine  http://{}   (a page to ask it in a browser)",
        stack.engine
    )?;
    say!("  client  http://{}/healthy", stack.client)?;
    say!("  server  http://{}", stack.server)?;
    say!(
        "Publish data with this token:\n  {}",
        stack.tokens.data_source.expose_secret()
    )?;
    say!(
        "Sign webhooks (POST http://{}/webhook) with this secret:\n  {}",
        stack.server,
        stack.tokens.webhook_secret.expose_secret()
    )?;
    match stack.wait_until_ready(Duration::from_secs(60)).await {
        Ok(()) => say!("The engine is ready."),
        // Nothing gives up: what is missing may still come.
        Err(error) => say!("Still waiting: {error}"),
    }
}
