//! Builds the client's parts, binds its ports, starts its tasks.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opal_engine::{Engine, EngineOptions};
use opal_protocol::feed::ClientInfo;
use opal_protocol::{RedactedUrl, Topic};
use opal_pubsub::subscriber::{Subscriber, SubscriberConfig};
use opal_runtime::cors::Origins;
use opal_runtime::http::{HttpClientError, HttpOptions};
use opal_runtime::{TaskSpawner, Tasks};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::callbacks::{CallbackRegister, Callbacks, Reporter, ReporterOptions, ServerReports};
use crate::config::{ClientConfig, EmbeddedConfig, InlineConfig, StoreConfig};
use crate::engine::{self, EngineEvent, InlineOpa, InlineOpaConfig};
use crate::engine_api::{self, Held};
use crate::fetch::{Fetcher, HttpFetchProvider};
use crate::offline::{Identity, OfflineFile, OfflineStatus};
use crate::policy_store::{EmbeddedStore, MemoryStore, OpaOptions, OpaStore, PolicyStore};
use crate::probe::Probe;
use crate::router::router;
use crate::server_api::ServerApi;
use crate::standing::Standing;
use crate::transactions::{EnabledUpdaters, TransactionLog};
use crate::updater::{Command, Opening, Progress, Updater, UpdaterParts};

/// Events and commands that may wait for their task.
const WAITING: usize = 256;

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
    /// `addr` of the inline engine is none.
    #[error("`{addr}` in OPAL_INLINE_OPA_CONFIG is not HOST:PORT")]
    Address {
        /// What it is.
        addr: String,
    },
    /// The `opa` that the settings name is not there.
    #[error("no policy engine to run")]
    Executable(#[from] engine::ExecutableError),
    /// No engine can be run as the settings ask.
    #[error(
        "no `opa` was found, and the embedded engine cannot do what OPAL_INLINE_OPA_CONFIG asks for: {option}; install `opa` or set OPAL_INLINE_OPA_EXEC_PATH"
    )]
    NoEngine {
        /// What it asks for.
        option: String,
    },
}

/// What handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(crate) transactions: TransactionLog,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) offline: watch::Receiver<Option<OfflineStatus>>,
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
        let grace = config.shutdown_grace;
        let (listener, address) = bind(&config.host, config.port, "client's API").await?;
        let store = Store::build(&config.store).await?;
        let transactions = TransactionLog::new(EnabledUpdaters {
            policy: config.policy_updater,
            data: config.data_updater,
        });
        let (commands, commanded) = mpsc::channel(WAITING);
        let (events, subscribed) = mpsc::channel(WAITING);
        let progress = Progress::new();
        let landmark = watch::Sender::new(None);
        let subscription = subscription(&config)?;
        let mut parts = updater_parts(&config, http, &store, &transactions, tasks.spawner());
        parts.offline = config.offline.clone().map(|offline| {
            let identity = identity(&config, &subscription.topics);
            let file = OfflineFile::new(offline.path.clone(), identity);
            (offline, Arc::new(file))
        });
        parts.progress = progress.clone();
        parts.landmark = landmark.clone();
        let (runs, subscriber) = oneshot::channel();
        let opening = Opening {
            config: subscription,
            events,
            runs,
        };
        let updater = Updater::new(parts, opening, subscribed, commanded);
        let client = Self {
            address,
            engine_address: store.engine_address,
            transactions: transactions.clone(),
        };

        let shutdown = tasks.shutdown().clone();
        if let Some(interval) = config.probe_interval {
            let probed = Arc::clone(&store.store);
            let supervised = store.is_supervised();
            let log = transactions.clone();
            let landmark = landmark.subscribe();
            let probe = Probe::new(
                probed,
                interval,
                log,
                commands.clone(),
                supervised,
                landmark,
            );
            tasks.spawn("store-probe", probe.run(shutdown.clone()));
        }
        // An engine beside us outlives the updater, which finishes what it is writing.
        let engine_stop = CancellationToken::new();
        let held = progress.held.subscribe();
        store.start(tasks, &commands, engine_stop.clone(), grace, held);
        tasks.spawn("subscription", subscribe(subscriber, shutdown.clone()));
        tasks.spawn("updater", async move {
            let _stops_the_engine = engine_stop.drop_guard();
            updater.run(shutdown).await;
        });
        let app = App {
            transactions,
            standing: progress.standing.subscribe(),
            offline: progress.offline.subscribe(),
            commands,
            policy_updater: config.policy_updater,
            data_updater: config.data_updater,
        };
        let router = router(app, &Origins::new(&config.allowed_origins));
        let serve = opal_runtime::serve(listener, router, tasks.spawner(), grace);
        tasks.spawn("http", serve);
        info!("The client's API listens on {address}");
        Ok(client)
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

async fn bind(
    host: &str,
    port: u16,
    what: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Bind {
        address: format!("{host}:{port}"),
        what,
        source,
    })
}

fn subscription(config: &ClientConfig) -> Result<SubscriberConfig, StartError> {
    let interests = &config.interests;
    let mut topics = Vec::new();
    if config.policy_updater {
        topics.extend(interests.policy_topics());
    }
    if config.data_updater {
        topics.extend(interests.subscribed_data_topics());
    }
    let server = &config.server;
    let tls = match server.pubsub_url.scheme() {
        "wss" => opal_runtime::http::tls_config(server.http.ca_file.as_deref())?,
        _ => None,
    };
    Ok(SubscriberConfig {
        url: RedactedUrl::new(server.pubsub_url.as_str()),
        token: server.token.clone(),
        topics,
        keep_alive: server.keep_alive,
        tls,
        scope: interests.scope().clone(),
        client: client_info(&server.client_id),
        position: None,
        feed: true,
    })
}

/// What the offline file's position holds for.
fn identity(config: &ClientConfig, topics: &[Topic]) -> Identity {
    let interests = &config.interests;
    let scope = interests.scope().clone();
    Identity::new(scope, topics, interests.directories())
}

/// Runs the subscription, once the updater says from where.
async fn subscribe(subscriber: oneshot::Receiver<Subscriber>, shutdown: CancellationToken) {
    if let Some(Ok(subscriber)) = shutdown.run_until_cancelled(subscriber).await {
        subscriber.run(shutdown).await;
    }
}

/// Who we are, for people: the id that is set, or one made for this process.
fn client_info(id: &Option<String>) -> ClientInfo {
    let host = opal_runtime::host_name();
    let made = || {
        let unique = Uuid::new_v4().simple().to_string();
        format!("{host}-{}", unique.get(..8).unwrap_or(&unique))
    };
    ClientInfo {
        id: id.clone().unwrap_or_else(made),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: Uuid::new_v4().simple().to_string(),
        host,
    }
}

fn updater_parts(
    config: &ClientConfig,
    http: reqwest::Client,
    store: &Store,
    transactions: &TransactionLog,
    tasks: TaskSpawner,
) -> UpdaterParts {
    let fetch = &config.fetch;
    let provider = HttpFetchProvider::new(http.clone(), fetch.http_timeout, fetch.answer_limit);
    let server = &config.server;
    UpdaterParts {
        interests: config.interests.clone(),
        policy: config.policy_updater,
        data: config.data_updater,
        api: ServerApi::new(
            http.clone(),
            &server.url,
            server.data_sources_url.clone(),
            config.interests.scope(),
            server.token.clone(),
        ),
        policy_retry: config.policy_retry.clone(),
        fetcher: Arc::new(Fetcher::new(vec![Arc::new(provider)], fetch.limits.clone())),
        workers: fetch.limits.workers,
        store: Arc::clone(&store.store),
        store_is_elsewhere: store.is_elsewhere,
        landmark: watch::Sender::new(None),
        engine_is_up: !store.is_supervised(),
        transactions: transactions.clone(),
        reporter: reporter(config, http, tasks),
        data_topics: config.interests.subscribed_data_topics(),
        offline: None,
        progress: Progress::new(),
    }
}

fn reporter(config: &ClientConfig, http: reqwest::Client, tasks: TaskSpawner) -> Option<Reporter> {
    let callbacks = &config.callbacks;
    if !callbacks.enabled {
        return None;
    }
    let route = url::Url::parse(&callbacks.server_route).ok();
    let server = route
        .zip(config.server.token.clone())
        .map(|(url, token)| ServerReports { url, token });
    let options = ReporterOptions {
        default_config: callbacks.default_config.clone(),
        retry: callbacks.retry.clone(),
        timeout: config.fetch.http_timeout,
        server,
    };
    let register = CallbackRegister::new(callbacks.default_config.clone(), &callbacks.targets);
    Some(Reporter::new(
        http,
        options,
        Callbacks::new(register),
        tasks,
    ))
}

/// The policy store, and the engine that has to run for it.
struct Store {
    store: Arc<dyn PolicyStore>,
    /// Whether it can lose what it holds while we live.
    is_elsewhere: bool,
    engine_address: Option<SocketAddr>,
    runs: Runs,
}

/// What has to run beside the client.
enum Runs {
    Nothing,
    Embedded(TcpListener, Engine),
    Opa(PathBuf, InlineOpaConfig),
}

impl Store {
    async fn build(config: &StoreConfig) -> Result<Self, StartError> {
        match config {
            StoreConfig::Mock { split_root_data } => {
                let store = MemoryStore::new().with_split_root_data(*split_root_data);
                Ok(Self {
                    store: Arc::new(store),
                    is_elsewhere: false,
                    engine_address: None,
                    runs: Runs::Nothing,
                })
            }
            StoreConfig::Embedded(embedded) => Self::embedded(embedded).await,
            StoreConfig::RemoteOpa(config) => Self::opa(&config.opa, &config.http, Runs::Nothing),
            StoreConfig::InlineOpa(config) => {
                let InlineConfig {
                    inline,
                    opa,
                    http,
                    fallback,
                } = config.as_ref();
                let path = opal_runtime::paths::search_path();
                let found = engine::find_executable(inline.exec_path.as_deref(), path.as_deref());
                match (found, fallback) {
                    (Ok(program), _) => Self::opa(opa, http, Runs::Opa(program, inline.clone())),
                    (Err(error), _) if inline.exec_path.is_some() => Err(error.into()),
                    (Err(error), Ok(embedded)) => {
                        warn!("Using the embedded policy engine: {error}");
                        Self::embedded(embedded).await
                    }
                    (Err(_), Err(option)) => Err(StartError::NoEngine {
                        option: option.clone(),
                    }),
                }
            }
        }
    }

    fn opa(opa: &OpaOptions, http: &HttpOptions, runs: Runs) -> Result<Self, StartError> {
        let client = opal_runtime::http::client(http)?;
        Ok(Self {
            store: Arc::new(OpaStore::new(client, opa.clone())),
            is_elsewhere: true,
            engine_address: None,
            runs,
        })
    }

    async fn embedded(config: &EmbeddedConfig) -> Result<Self, StartError> {
        let engine = Engine::new(EngineOptions {
            v0_compatible: config.v0_compatible,
            ..EngineOptions::default()
        });
        let (host, port) = host_and_port(&config.addr)?;
        let (listener, address) = bind(host, port, "embedded policy engine").await?;
        let ignored = config.ignored.clone();
        let store = EmbeddedStore::new(engine.clone(), ignored, config.split_root_data);
        Ok(Self {
            store: Arc::new(store),
            is_elsewhere: false,
            engine_address: Some(address),
            runs: Runs::Embedded(listener, engine),
        })
    }

    /// Whether the engine is a process that we start and watch.
    fn is_supervised(&self) -> bool {
        matches!(self.runs, Runs::Opa(..))
    }

    /// Starts what has to run: until `stop` if it is a process; the engine within answers until
    /// shutdown, and is written to without its REST API.
    fn start(
        self,
        tasks: &Tasks,
        commands: &mpsc::Sender<Command>,
        stop: CancellationToken,
        grace: Duration,
        held: Held,
    ) {
        match self.runs {
            Runs::Nothing => {}
            Runs::Embedded(listener, engine) => {
                let address = self.engine_address;
                info!(
                    "The embedded policy engine listens on {}",
                    address.map_or_else(String::new, |a| a.to_string())
                );
                let router = engine_api::with_positions(engine.router(), held);
                let serve = opal_runtime::serve(listener, router, tasks.spawner(), grace);
                tasks.spawn("engine", serve);
            }
            Runs::Opa(program, config) => {
                if config.v0_compatible {
                    info!(
                        "Running OPA with --v0-compatible; OPAL_OPA_V0_COMPAT=false turns it off"
                    );
                }
                let (events, happened) = mpsc::channel(WAITING);
                let opa = InlineOpa::new(program, config, self.store, events);
                let following = follow_engine(happened, commands.clone(), stop.clone());
                tasks.spawn("engine-events", following);
                tasks.spawn("inline-opa", opa.run(stop));
            }
        }
    }
}

/// Tells the updater when the engine can be written to, and whether it has to be filled again.
async fn follow_engine(
    mut events: mpsc::Receiver<EngineEvent>,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
) {
    let following = async {
        while let Some(event) = events.recv().await {
            let command = match event {
                EngineEvent::Up { restart } => Command::EngineUp { lost: restart },
                EngineEvent::Down { reason } => Command::EngineDown { reason },
            };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(following).await;
    // To end before the engine does would count as a failure.
    stop.cancelled().await;
}

/// Splits `HOST:PORT`; an empty host is every address, as for OPA.
fn host_and_port(addr: &str) -> Result<(&str, u16), StartError> {
    let split = addr.rsplit_once(':');
    let parsed = split.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some(("", port)) => Ok(("0.0.0.0", port)),
        Some((host, port)) => Ok((host.trim_matches(['[', ']']), port)),
        None => Err(StartError::Address {
            addr: addr.to_owned(),
        }),
    }
}
