//! The `main` that both daemons share: config → build → run → drain, or one of the other commands.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{COMMANDS, Command};
use crate::config::{
    CommandLine, ConfigErrors, Effect, Environment, Program, Reader, Seconds, Settings, Source,
    Warning,
};
use crate::tasks::{BoxError, Tasks};
use crate::telemetry::{self, LogConfig};
use crate::{chain, http, shutdown};

/// A daemon's settings as types, with what is odd about them; or everything that is wrong.
pub type ReadSettings<C> = Result<((C, LogConfig), Vec<Warning>), ConfigErrors>;

/// What differs from one daemon to another.
pub trait Daemon {
    /// Which one it is.
    const PROGRAM: Program;
    /// All of its settings, as types.
    type Config;

    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    fn read(settings: &Settings) -> ReadSettings<Self::Config>;

    /// Builds, binds and spawns everything on `tasks`. After an error nothing runs.
    fn start(config: Self::Config, tasks: &Tasks) -> impl Future<Output = Result<(), BoxError>>;
}

/// The settings are wrong: nothing was started.
const WRONG_SETTINGS: u8 = 2;

/// Does what the command line says. Exit codes: 0 fine, 1 failed, 2 wrong options or settings.
pub fn main<D: Daemon>() -> ExitCode {
    http::install_crypto_provider();
    let words = std::env::args_os().skip(1);
    let line = CommandLine::parse(D::PROGRAM, &COMMANDS, words);
    let environment = Environment::of_process();
    let settings = Settings::collect(D::PROGRAM, &line, &environment);
    let command = match Command::parse(D::PROGRAM, &line, &environment) {
        Ok(command) => command,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    let config = match command {
        Command::Run { .. } => match D::read(&settings) {
            Ok(config) => Some(config),
            Err(errors) => {
                eprintln!("The settings are wrong, nothing was started:\n{errors}");
                return ExitCode::from(WRONG_SETTINGS);
            }
        },
        Command::Show(_) | Command::Version => None,
        _ => match Reader::new(&settings).finish(()) {
            Ok(_) => None,
            Err(errors) => {
                eprintln!("{errors}");
                return ExitCode::from(WRONG_SETTINGS);
            }
        },
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let mut out = std::io::stdout();
        let terminal = out.is_terminal();
        if let Err(error) = command.execute(&settings, &mut out, terminal).await {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
        match config {
            Some(((config, log), warnings)) => run::<D>(&settings, config, &log, &warnings).await,
            None => ExitCode::SUCCESS,
        }
    })
}

async fn run<D: Daemon>(
    settings: &Settings,
    config: D::Config,
    log: &LogConfig,
    warnings: &[Warning],
) -> ExitCode {
    telemetry::init(log);
    for warning in warnings {
        warn!("{warning}");
    }
    for (variable, reason) in without_effect(settings) {
        warn!("{variable} is set and has no effect: {reason}");
    }
    let grace = Reader::new(settings).get::<Seconds>("SHUTDOWN_GRACE_SECONDS");
    match supervise::<D>(config, grace.0).await {
        Ok(()) => {
            info!("Stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!("Stopped: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn supervise<D: Daemon>(config: D::Config, grace: Duration) -> Result<(), BoxError> {
    let tasks = Tasks::new(CancellationToken::new());
    shutdown::on_signal(&tasks)?;
    D::start(config, &tasks).await?;
    Ok(tasks.join(grace).await?)
}

/// What was set and does nothing, and why not.
fn without_effect(settings: &Settings) -> Vec<(String, &'static str)> {
    let program = settings.program();
    let set = program
        .settings()
        .filter(|setting| settings.source(setting.key) != Source::Default);
    set.filter_map(|setting| match setting.effect {
        Effect::Yes => None,
        Effect::NotYet => Some((setting.variable(), "this version does not know it yet")),
        Effect::Never(reason) => Some((setting.variable(), reason)),
    })
    .collect()
}
