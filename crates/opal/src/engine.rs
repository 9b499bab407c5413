//! `opal engine run`: the embedded engine alone, for any program that speaks to an OPA.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use opal_engine::{Engine, EngineOptions, load_paths};
use opal_runtime::Tasks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::console::say;
use crate::stack::GRACE;

/// What to do with the engine.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve OPA's REST API, with these policies and documents to begin with.
    Run(Options),
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8181", value_name = "HOST:PORT")]
    addr: String,
    /// Take policy as OPA 1.x does by itself, not as with `--v0-compatible`.
    #[arg(long)]
    v1: bool,
    /// `.rego` and `.json` files, or directories of them.
    files: Vec<PathBuf>,
}

pub(crate) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Run(options) = command;
    let engine = Engine::new(EngineOptions {
        v0_compatible: !options.v1,
        ..EngineOptions::default()
    });
    let edits = load_paths(&options.files)?;
    engine
        .apply(vec![edits])
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let listener = TcpListener::bind(&options.addr)
        .await
        .with_context(|| format!("could not listen on `{}`", options.addr))?;
    say!("The engine listens on http://{}", listener.local_addr()?)?;
    let tasks = Tasks::new(CancellationToken::new());
    opal_runtime::shutdown::on_signal(&tasks)?;
    let serve = opal_runtime::serve(listener, engine.router(), tasks.spawner(), GRACE);
    tasks.spawn("engine", serve);
    tasks.join(GRACE).await?;
    Ok(ExitCode::SUCCESS)
}
