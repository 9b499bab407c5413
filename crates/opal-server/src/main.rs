//! The `opal-server` program: see the library for what it does.

use std::process::ExitCode;

use opal_runtime::config::{ConfigErrors, Program, Settings, Warning};
use opal_runtime::daemon::{self, Daemon};
use opal_runtime::telemetry::LogConfig;
use opal_runtime::{BoxError, Tasks};
use opal_server::{Server, ServerConfig};

struct ServerDaemon;

impl Daemon for ServerDaemon {
    const PROGRAM: Program = Program::Server;
    type Config = ServerConfig;

    fn read(
        settings: &Settings,
    ) -> Result<((ServerConfig, LogConfig), Vec<Warning>), ConfigErrors> {
        ServerConfig::read(settings)
    }

    async fn start(config: ServerConfig, tasks: &Tasks) -> Result<(), BoxError> {
        Server::start(config, tasks).await?;
        Ok(())
    }
}

fn main() -> ExitCode {
    daemon::main::<ServerDaemon>()
}
