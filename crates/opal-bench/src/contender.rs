//! Who is measured.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use opal_testing::binaries::Kind;
use opal_testing::ports::free_port;
use opal_testing::process::ProcessSpec;
use opal_testing::services::{Service, Setting};

/// One of those whose figures stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// This workspace.
    Ours,
    /// Python OPAL 0.9.9, one worker.
    Python,
    /// A websocket server without any logic.
    Floor,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Python, Self::Floor];

    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|contender| contender.to_string() == name);
        found.with_context(|| format!("no contender is called `{name}`"))
    }

    /// Ours or the released one; the floor has no daemons.
    pub(crate) fn kind(self) -> anyhow::Result<Kind> {
        match self {
            Self::Ours => Ok(Kind::Rust),
            Self::Python => Ok(Kind::Python),
            Self::Floor => bail!("the floor is a websocket server only"),
        }
    }

    /// A server that has just answered for the first time.
    pub(crate) async fn server(
        self,
        directory: &Path,
        settings: impl IntoIterator<Item = Setting>,
    ) -> anyhow::Result<Service> {
        if self != Self::Floor {
            return Service::server(self.kind()?, directory, settings).await;
        }
        let port = free_port()?;
        let spec = ProcessSpec::new("floor", std::env::current_exe()?, directory);
        let spec = spec.arguments(&["floor-server", &port.to_string()]);
        Service::start("floor", port, "/healthcheck", spec).await
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ours => "ours",
            Self::Python => "python",
            Self::Floor => "floor",
        })
    }
}
