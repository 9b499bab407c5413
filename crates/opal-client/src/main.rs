//! The `opal-client` program: see the library for what it does.

use std::process::ExitCode;

use opal_client::{Client, ClientConfig};
use opal_runtime::config::{ConfigErrors, Program, Settings, Warning};
use opal_runtime::daemon::{self, Daemon};
use opal_runtime::telemetry::LogConfig;
use opal_runtime::{BoxError, Tasks};

struct ClientDaemon;

impl Daemon for ClientDaemon {
    const PROGRAM: Program = Program::Client;
    type Config = ClientConfig;

    fn read(
        settings: &Settings,
    ) -> Result<((ClientConfig, LogConfig), Vec<Warning>), ConfigErrors> {
        ClientConfig::read(settings)
    }

    async fn start(config: ClientConfig, tasks: &Tasks) -> Result<(), BoxError> {
        Client::start(config, tasks).await?;
        Ok(())
    }
}

fn main() -> ExitCode {
    daemon::main::<ClientDaemon>()
}
