//! Builds the client's parts, binds its ports, starts its tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opal_engine::{Engine, EngineOptions};
use opal_protocol::RedactedUrl;
use opal_pubsub::subscriber::{Subscriber, SubscriberConfig};
use opal_runtime::http::{HttpClientError, HttpOptions};
use opal_runtime::{TaskSpawner, Tasks};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::callbacks::Reporter;
use crate::config::{ClientConfig, EmbeddedConfig, StoreConfig};
use crate::engine::{self, InlineOpa};
use crate::fetch::{Fetcher, HttpFetchProvider};
use crate::policy_store::{EmbeddedStore, MemoryStore, MirroredStore, OpaOptions, OpaStore, PolicyStore};
use crate::probe::Probe;
use crate::router::router;
use crate::server_api::ServerApi;
use crate::transactions::TransactionLog;
use crate::updater::{Command, Updater, UpdaterParts};

/// How long running requests and writes may take to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Events and commands that may wait for the updater.
const WAITING_EVENTS: usize = 256;

/// Why a client did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or is not ours to have.
    #[error("could not listen on {address} for the {what}")]
    Bind {
        /// The address.
        address: String,
        /// Who wanted to listen.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file cannot be used.
    #[error(transparent)]
    Http(#[from] HttpClientError),
    /// No engine can be run as the settings ask.
    #[error("no `opa` was found, and the embedded engine cannot do what OPAL_INLINE_OPA_CONFIG asks for: {option}; install `opa` or set OPAL_INLINE_OPA_EXEC_PATH")]
    NoEngine {
        /// What it asks for.
        option: String,
    },
}

/// What handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(crate) transactions: TransactionLog,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) policy_updater: bool,
    pub(crate) data_updater: bool,
}

/// A client that runs.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    engine_address: Option<SocketAddr>,
    transactions: TransactionLog,
}

impl Client {
    /// Builds everything, then binds, then starts the tasks. After an error nothing runs.
    pub async fn start(config: ClientConfig, tasks: &Tasks) -> Result<Self, StartError> {
        let http = opal_runtime::http::client(&config.server.http)?;
        let (commands, commanded) = mpsc::channel(WAITING_EVENTS);
        let listener = bind(&format!("{}:{}", config.host, config.port), "client's API").await?;
        let address = local_address(&listener);
        let transactions = TransactionLog::new(config.policy_updater, config.data_updater);
        let built = Store::build(&config.store).await?;
        let engine_address = built.engine_address();
        let store = built.store();

        let (events, subscribed) = mpsc::channel(WAITING_EVENTS);
        let subscriber = Subscriber::new(subscription(&config), events);
        let parts = updater_parts(&config, &http, &store, &transactions, tasks.spawner())?;
        let updater = Updater::new(parts, subscribed, commanded);
        let probe = config.probe_interval.map(|interval| {
            Probe::new(store, interval, transactions.clone(), commands.clone())
        });
        let app = App {
            transactions: transactions.clone(),
            commands: commands.clone(),
            policy_updater: config.policy_updater,
            data_updater: config.data_updater,
        };

        let shutdown = tasks.shutdown().clone();
        built.start(tasks, &commands).await;
        if let Some(probe) = probe {
            tasks.spawn("store-probe", probe.run(shutdown.clone()));
        }
        tasks.spawn("subscription", subscriber.run(shutdown.clone()));
        tasks.spawn("updater", updater.run(shutdown));
        let serve = opal_runtime::serve(listener, router(app), tasks.spawner(), SHUTDOWN_GRACE);
        tasks.spawn("http", serve);
        info!("The client's API listens on {}", text(address));
        Ok(Self {
            address: address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            engine_address,
            transactions,
        })
    }

    /// Where its own API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the engine in this process listens, if that one is used.
    pub fn engine_address(&self) -> Option<SocketAddr> {
        self.engine_address
    }

    /// What succeeded and what fails.
    pub fn transactions(&self) -> &TransactionLog {
        &self.transactions
    }
}
