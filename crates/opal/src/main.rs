//! One tool for people: `opal demo`, `opal up`, `opal engine`, `opal publish`, `opal status`.
//!
//! [`stack`] runs server, client and engine in this process, over their own sockets; [`demo`] and
//! [`up`] are two ways to use it. [`engine`] is the embedded engine alone. [`publish`] and
//! [`status`] ask a server elsewhere, through [`remote`]. All of them speak through [`console`].

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use opal_runtime::config::{CommandLine, Environment, Program, Reader, Settings};
use opal_runtime::telemetry::{self, LevelFilter, LogConfig, LogLevel};

mod console;
mod demo;
mod engine;
mod publish;
mod remote;
mod stack;
mod status;
mod story;
mod up;

use console::complain;

/// Keep policy engines in step with policy in git and data anywhere.
#[derive(Debug, Parser)]
#[command(name = "opal", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job at work, in a temporary directory.
    Demo(demo::Options),
    /// Run server, client and engine for a policy repository of your own.
    Up(up::Options),
    /// Publish a data update through a server, and see who applied it.
    Publish(Box<publish::Options>),
    /// Show which client of a server holds what, the worst first.
    Status(status::Options),
    /// The embedded policy engine alone.
    #[command(subcommand)]
    Engine(engine::Command),
}

fn main() -> ExitCode {
    opal_runtime::http::install_crypto_provider();
    let arguments = Arguments::parse();
    // What speaks for itself needs no log but of what goes wrong.
    let quiet = !matches!(arguments.command, Command::Up(_) | Command::Engine(_));
    init_log(if quiet {
        LevelFilter::ERROR
    } else {
        LevelFilter::INFO
    });
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("opal: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Demo(options) => demo::run(options).await,
            Command::Up(options) => up::run(options).await,
            Command::Publish(options) => publish::run(*options).await,
            Command::Status(options) => status::run(options).await,
            Command::Engine(command) => engine::run(command).await,
        }
    });
    match outcome {
        Ok(code) => code,
        Err(error) if console::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("opal: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs as the `OPAL_LOG_*` variables say, and at `level` if they do not name one.
fn init_log(level: LevelFilter) {
    let environment = Environment::of_process();
    let settings = Settings::collect(Program::Client, &CommandLine::default(), &environment);
    let mut reader = Reader::new(&settings);
    let mut config = LogConfig::read(&mut reader);
    if !reader.is_set("LOG_LEVEL") {
        config.level = LogLevel(level);
    }
    telemetry::init(&config);
}
