//! Builds the server's parts, binds its port, starts its tasks.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::FromRef;
use opal_protocol::ScopeId;
use opal_pubsub::Publisher;
use opal_runtime::token::Access;
use opal_runtime::{TaskSpawner, Tasks};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::base::Bases;
use crate::config::ServerConfig;
use crate::drift::DriftCheck;
use crate::policy::{PolicyRepo, PolicyWatcher, WatcherHandle};
use crate::publish::Publications;
use crate::router::router;
use crate::store::{self, StoreError};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or is not ours to have.
    #[error("could not listen on {host}:{port}")]
    Bind {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The feed that an earlier server kept cannot be used, or there is no place to keep one.
    #[error("could not open the feed in `{}` (OPAL_STATE_DIR)", directory.display())]
    State {
        /// Where it is kept.
        directory: PathBuf,
        /// Why not.
        source: StoreError,
    },
}

/// What handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) publisher: Publisher,
    pub(crate) publications: Publications,
    pub(crate) policy: Option<Policy>,
    pub(crate) bases: Bases,
    pub(crate) tasks: TaskSpawner,
}

/// The policy source, for handlers.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) repo: PolicyRepo,
    pub(crate) watcher: WatcherHandle,
}

impl FromRef<App> for Access {
    fn from_ref(app: &App) -> Self {
        app.config.security.access.clone()
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    watcher: Option<WatcherHandle>,
}

impl Server {
    /// Builds everything, then binds, then starts the tasks. After an error nothing runs.
    pub async fn start(config: ServerConfig, tasks: &Tasks) -> Result<Self, StartError> {
        let listener = bind(&config.host, config.port).await?;
        let address = listener.local_addr().map_err(|source| StartError::Bind {
            host: config.host.clone(),
            port: config.port,
            source,
        })?;
        let (publisher, hub) = store::open(&config).await?;
        let publications = Publications::new(publisher.clone(), ScopeId::default());
        let (policy, watcher) = policy(&config, &publications).unzip();
        let app = App {
            bases: Bases::new(publisher.clone()),
            publisher,
            publications,
            policy: policy.clone(),
            tasks: tasks.spawner(),
            config: Arc::new(config),
        };
        if !app.config.security.access.is_secured() {
            warn!("No keys are set: everyone may do everything");
        }
        let grace = app.config.shutdown_grace;
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("hub", hub.run(shutdown.clone()));
        if let (Some(watcher), Some(policy)) = (watcher, &app.policy) {
            let every = app.config.drift_check;
            let drift = DriftCheck::new(app.publisher.clone(), policy.repo.clone(), every);
            tasks.spawn("policy-watcher", watcher.run(shutdown.clone()));
            tasks.spawn("drift-check", drift.run(shutdown));
        }
        let serve = opal_runtime::serve(listener, router(app), tasks.spawner(), grace);
        tasks.spawn("http", serve);
        info!("Listening on {address}");
        Ok(Self {
            address,
            watcher: policy.map(|policy| policy.watcher),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The watcher of its policy source, if it has one.
    pub fn watcher(&self) -> Option<&WatcherHandle> {
        self.watcher.as_ref()
    }
}

async fn bind(host: &str, port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind((host, port))
        .await
        .map_err(|source| StartError::Bind {
            host: host.to_owned(),
            port,
            source,
        })
}

fn policy(config: &ServerConfig, publications: &Publications) -> Option<(Policy, PolicyWatcher)> {
    let Some(policy) = &config.policy else {
        warn!("No policy repository is set (OPAL_POLICY_REPO_URL): clients get no policy");
        return None;
    };
    let repo = PolicyRepo::new(policy.git.clone(), policy.selection.clone());
    let announce = Arc::new(publications.clone());
    let (task, watcher) = PolicyWatcher::new(repo.clone(), policy.polling_interval, announce);
    Some((Policy { repo, watcher }, task))
}
