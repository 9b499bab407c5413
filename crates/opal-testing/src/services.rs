//! The daemons and engines of a deployment, as child processes.
//!
//! Each service has a port, a directory and a log of its own, and can be stopped, killed and started
//! again in the same place.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::binaries::{self, Kind};
use crate::http::{self, Answer};
use crate::ports::free_port;
use crate::process::{Process, ProcessSpec};
use crate::wait;

/// How long a daemon may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Name and value of a setting.
pub type Setting = (String, String);

/// A setting, from whatever prints as its value.
pub fn setting(name: &str, value: &dyn Display) -> Setting {
    (name.to_owned(), value.to_string())
}

/// One child that serves HTTP.
#[derive(Debug)]
pub struct Service {
    name: String,
    port: u16,
    /// A path that answers 200 as soon as the service works.
    probe: &'static str,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Process),
    Stopped(ProcessSpec),
}

impl Service {
    /// `opal-server run` with one worker, listening on a port of its own.
    pub async fn server(
        kind: Kind,
        directory: &Path,
        settings: impl IntoIterator<Item = Setting>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let directory = own_directory(directory, "server", port)?;
        let spec = ProcessSpec::new("server", kind.program("opal-server")?, &directory)
            .arguments(&["run"])
            .settings([
                setting("OPAL_SERVER_HOST", &"127.0.0.1"),
                setting("OPAL_SERVER_BIND_PORT", &port),
                setting("OPAL_SERVER_WORKER_COUNT", &1),
                setting("OPAL_LOG_COLORIZE", &false),
                setting("OPAL_LOG_LEVEL", &"INFO"),
                setting(
                    "OPAL_ALL_DATA_URL",
                    &format!("http://127.0.0.1:{port}/policy-data"),
                ),
                setting(
                    "OPAL_LEADER_LOCK_FILE_PATH",
                    &directory.join("leader.lock").display(),
                ),
                setting(
                    "OPAL_POLICY_REPO_CLONE_PATH",
                    &directory.join("clones").display(),
                ),
                setting(
                    "OPAL_AUTH_JWKS_STATIC_DIR",
                    &directory.join("jwks").display(),
                ),
                setting("OPAL_BASE_DIR", &directory.join("base").display()),
            ])
            .settings(settings);
        Self::start("server", port, "/healthcheck", spec).await
    }

    /// `opal-client run` with one worker, its REST API listening on a port of its own.
    ///
    /// Started when its API answers, which is before it has loaded anything.
    pub async fn client(
        kind: Kind,
        directory: &Path,
        settings: impl IntoIterator<Item = Setting>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let directory = own_directory(directory, "client", port)?;
        let spec = ProcessSpec::new("client", kind.program("opal-client")?, &directory)
            .arguments(&["run"])
            .settings([
                setting("OPAL_CLIENT_API_SERVER_HOST", &"127.0.0.1"),
                setting("OPAL_CLIENT_API_SERVER_PORT", &port),
                setting("OPAL_CLIENT_API_SERVER_WORKER_COUNT", &1),
                setting("OPAL_LOG_COLORIZE", &false),
                setting("OPAL_LOG_LEVEL", &"INFO"),
                setting(
                    "OPAL_STORE_BACKUP_PATH",
                    &directory.join("backup.json").display(),
                ),
            ])
            .settings(settings);
        Self::start("client", port, "/opal-server/connectivity", spec).await
    }

    /// The real `opa`, as released clients start it.
    pub async fn opa(directory: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let directory = own_directory(directory, "opa", port)?;
        let address = format!("127.0.0.1:{port}");
        let spec = ProcessSpec::new("opa", binaries::opa()?, &directory).arguments(&[
            "run",
            "--server",
            "--v0-compatible",
            "--addr",
            &address,
        ]);
        Self::start("opa", port, "/health", spec).await
    }

    /// Our embedded engine alone: `opal engine run`.
    pub async fn embedded_engine(directory: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let directory = own_directory(directory, "engine", port)?;
        let address = format!("127.0.0.1:{port}");
        let spec = ProcessSpec::new("engine", binaries::ours("opal")?, &directory)
            .arguments(&["engine", "run", "--addr", &address]);
        Self::start("engine", port, "/health", spec).await
    }

    /// Any program that answers at `probe` on `port` once it works.
    pub async fn start(
        name: &str,
        port: u16,
        probe: &'static str,
        spec: ProcessSpec,
    ) -> anyhow::Result<Self> {
        let mut service = Self {
            name: name.to_owned(),
            port,
            probe,
            state: State::Stopped(spec),
        };
        service.start_again().await?;
        Ok(service)
    }

    /// Starts it where it was, after [`Service::stop`] or [`Service::kill`].
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let State::Stopped(spec) = &self.state else {
            bail!("`{}` is running already", self.name);
        };
        self.state = State::Running(Process::start(spec.clone())?);
        self.wait_until_it_answers()
            .await
            .with_context(|| self.log_tail())
    }

    async fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let url = self.url(self.probe);
        wait::until(format!("`{url}` to answer"), async || {
            if let Some(status) = self.process_mut()?.ended()? {
                return Ok(Err(status));
            }
            let answer = http::get(&url).limit(Duration::from_secs(2)).send().await?;
            ensure!(answer.status.as_u16() < 500, "answered {}", answer.status);
            Ok(Ok(()))
        })
        .await?
        .map_err(|status| anyhow::anyhow!("`{}` ended while starting: {status}", self.name))
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let (spec, _status) = self.take()?.stop(STOP_LIMIT).await?;
        self.state = State::Stopped(spec);
        Ok(())
    }

    /// Kills it and its children with `SIGKILL`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let spec = self.take()?.kill();
        self.state = State::Stopped(spec);
        Ok(())
    }

    fn take(&mut self) -> anyhow::Result<Process> {
        let spec = match &self.state {
            State::Running(process) => process.spec().clone(),
            State::Stopped(_) => bail!("`{}` is not running", self.name),
        };
        match std::mem::replace(&mut self.state, State::Stopped(spec)) {
            State::Running(process) => Ok(process),
            State::Stopped(_) => bail!("`{}` is not running", self.name),
        }
    }

    /// Changes settings for the next start.
    pub fn set(&mut self, settings: impl IntoIterator<Item = Setting>) -> anyhow::Result<()> {
        let State::Stopped(spec) = &mut self.state else {
            bail!("`{}` is running: settings are read at the start", self.name);
        };
        spec.settings.extend(settings);
        Ok(())
    }

    /// The process that runs now.
    pub fn process(&self) -> anyhow::Result<&Process> {
        match &self.state {
            State::Running(process) => Ok(process),
            State::Stopped(_) => bail!("`{}` is not running", self.name),
        }
    }

    fn process_mut(&mut self) -> anyhow::Result<&mut Process> {
        match &mut self.state {
            State::Running(process) => Ok(process),
            State::Stopped(_) => bail!("`{}` is not running", self.name),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of `path`, which begins with a slash or is empty.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// `GET` of one of its paths.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        http::get(self.url(path)).send().await
    }

    /// Waits until `path` answers 200.
    pub async fn wait_for_ok(&self, path: &str) -> anyhow::Result<Answer> {
        wait::until(
            format!("`{path}` of the {} to answer 200", self.name),
            async || self.get(path).await?.expect(200),
        )
        .await
    }

    /// Everything it has logged, also before a restart.
    pub fn log(&self) -> String {
        self.process().map(Process::log).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let tail = self.process().map(Process::log_tail);
        tail.unwrap_or_else(|_| format!("---- `{}` is stopped ----\n", self.name))
    }

    /// Waits until the log holds a line that has all of `parts`.
    pub async fn wait_for_log(&self, parts: &[&str]) -> anyhow::Result<String> {
        wait::until(
            format!("a log line of the {} with {parts:?}", self.name),
            async || {
                let log = self.log();
                let mut lines = log.lines();
                let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
                found.map(str::to_owned).context("no such line yet")
            },
        )
        .await
    }
}

fn own_directory(parent: &Path, name: &str, port: u16) -> anyhow::Result<std::path::PathBuf> {
    let directory = parent.join(format!("{name}-{port}"));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}
