//! The client's settings, as types. Read once; each part gets its own.

use std::path::PathBuf;
use std::time::Duration;

use opal_protocol::{Callback, HttpFetcherConfig, RepoPath, ScopeId, Topic, UpdateCallback};
use opal_runtime::ConnRetryOptions;
use opal_runtime::config::{ConfigErrors, Json, Reader, Seconds, Settings, Warning};
use opal_runtime::http::{HttpOptions, IdentityFiles};
use opal_runtime::telemetry::LogConfig;
use secrecy::SecretString;
use url::Url;

use crate::data::intake::Interests;
use crate::engine::{EngineLogFormat, InlineOpaConfig};
use crate::fetch::{DEFAULT_ANSWER_LIMIT, FetchLimits};
pub use crate::offline::OfflineConfig;
use crate::policy_store::{IgnoredPaths, OpaAuth, OpaOptions};

/// Everything that a client is told.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The server.
    pub server: ServerConfig,
    /// What is followed.
    pub interests: Interests,
    /// Whether policy is followed.
    pub policy_updater: bool,
    /// Whether data is followed.
    pub data_updater: bool,
    /// How a bundle is asked for in one round.
    pub policy_retry: ConnRetryOptions,
    /// How documents are fetched.
    pub fetch: FetchConfig,
    /// Where everything goes.
    pub store: StoreConfig,
    /// Where what the store holds is saved, and what it is filled from at the start; nowhere if
    /// `None`.
    pub offline: Option<OfflineConfig>,
    /// How the store is watched; not at all if `None`.
    pub probe_interval: Option<Duration>,
    /// Who is told of updates.
    pub callbacks: CallbackConfig,
    /// Address of the client's own API.
    pub host: String,
    /// Its port; 0 takes a free one.
    pub port: u16,
    /// Origins that browsers may call it from.
    pub allowed_origins: Vec<String>,
    /// How long running requests and writes may take to end.
    pub shutdown_grace: Duration,
}

/// The server as the client reaches it.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its REST API.
    pub url: Url,
    /// Its websocket.
    pub pubsub_url: Url,
    /// Where data sources are asked for.
    pub data_sources_url: Url,
    /// What we show it.
    pub token: Option<SecretString>,
    /// Pause between keep-alive calls.
    pub keep_alive: Option<Duration>,
    /// Who we are in the server's view of its clients; one is made if none is set.
    pub client_id: Option<String>,
    /// How it is trusted.
    pub http: HttpOptions,
}

/// How documents are fetched.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// What bounds one round.
    pub limits: FetchLimits,
    /// The longest one HTTP fetch may take.
    pub http_timeout: Duration,
    /// The longest document taken, in bytes.
    pub answer_limit: usize,
}

/// The policy engine.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// In memory, for tests.
    Mock {
        /// Whether a root object is written member by member.
        split_root_data: bool,
    },
    /// In this process.
    Embedded(EmbeddedConfig),
    /// An OPA beside us that we run, or the one in this process if there is none.
    InlineOpa(Box<InlineConfig>),
    /// An OPA elsewhere.
    RemoteOpa(Box<RemoteConfig>),
}

/// An OPA elsewhere.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// How it is written to.
    pub opa: OpaOptions,
    /// How its HTTP is spoken.
    pub http: HttpOptions,
}

/// An OPA that we run.
#[derive(Debug, Clone)]
pub struct InlineConfig {
    /// How it is run.
    pub inline: InlineOpaConfig,
    /// How it is written to.
    pub opa: OpaOptions,
    /// How its HTTP is spoken.
    pub http: HttpOptions,
    /// What runs instead if no `opa` is installed; the option in the way if nothing can.
    pub fallback: Result<EmbeddedConfig, String>,
}

/// The engine in this process.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Where its REST API listens.
    pub addr: String,
    /// Whether policy is taken as OPA before 1.0 did.
    pub v0_compatible: bool,
    /// Policies to leave alone.
    pub ignored: IgnoredPaths,
    /// Whether a root object is written member by member.
    pub split_root_data: bool,
}

/// Who is told of updates, and how.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// Whether anyone is.
    pub enabled: bool,
    /// How targets that do not say are called.
    pub default_config: HttpFetcherConfig,
    /// The targets of every report.
    pub targets: Vec<Callback>,
    /// How often a target is tried.
    pub retry: ConnRetryOptions,
    /// The server's own report route: the one target that gets our token.
    pub server_route: String,
}

impl ClientConfig {
    /// Reads all settings; the log's own come along, since they are needed first.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, together.
    pub fn read(settings: &Settings) -> Result<((Self, LogConfig), Vec<Warning>), ConfigErrors> {
        let mut reader = Reader::new(settings);
        let reader = &mut reader;
        let log = LogConfig::read(reader);
        let server = ServerConfig::read(reader);
        let store = StoreConfig::read(reader);
        let config = Self {
            interests: interests(reader),
            policy_updater: reader.get("POLICY_UPDATER_ENABLED"),
            data_updater: reader.get("DATA_UPDATER_ENABLED"),
            policy_retry: retry(reader, "POLICY_UPDATER_CONN_RETRY"),
            fetch: FetchConfig::read(reader),
            offline: offline(reader, &store),
            store,
            probe_interval: probe_interval(reader),
            callbacks: CallbackConfig::read(reader, &server),
            host: reader.get("CLIENT_API_SERVER_HOST"),
            port: reader.get("CLIENT_API_SERVER_PORT"),
            allowed_origins: reader.get("ALLOWED_ORIGINS"),
            shutdown_grace: duration(reader, "SHUTDOWN_GRACE_SECONDS"),
            server,
        };
        // The reader is finished by value.
        let reader = std::mem::replace(reader, Reader::new(settings));
        reader.finish((config, log))
    }
}

impl ServerConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let nowhere = || Url::parse("http://invalid.invalid").expect("the text is a URL");
        let mut url = |key: &str| reader.optional::<Url>(key).unwrap_or_else(nowhere);
        let (server, pubsub, sources) = (
            url("SERVER_URL"),
            url("SERVER_PUBSUB_URL"),
            url("DEFAULT_DATA_SOURCES_CONFIG_URL"),
        );
        if !matches!(server.scheme(), "http" | "https") {
            reader.expected("SERVER_URL", "an http:// or https:// URL");
        }
        if !matches!(pubsub.scheme(), "ws" | "wss") {
            reader.expected("SERVER_PUBSUB_URL", "a ws:// or wss:// URL");
        }
        Self {
            url: server,
            pubsub_url: pubsub,
            data_sources_url: sources,
            token: reader.non_empty("CLIENT_TOKEN"),
            keep_alive: seconds(reader, "KEEP_ALIVE_INTERVAL"),
            client_id: reader.non_empty("CLIENT_ID"),
            http: HttpOptions {
                ca_file: trusted_ca(reader),
                // Not a limit on the whole: a large bundle over a slow line arrives all the same.
                read_timeout: Some(Duration::from_secs(60)),
                ..HttpOptions::default()
            },
        }
    }
}

/// The authority that the client trusts for its server and its data sources.
fn trusted_ca(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let allowed: bool = reader.get("CLIENT_SELF_SIGNED_CERTIFICATES_ALLOWED");
    let file: Option<PathBuf> = reader.non_empty("CLIENT_SSL_CONTEXT_TRUSTED_CA_FILE");
    file.filter(|_| allowed)
}

fn interests(reader: &mut Reader<'_>) -> Interests {
    let scope: String = reader.get("SCOPE_ID");
    let topics: Vec<String> = reader.get("DATA_TOPICS");
    let directories: Vec<String> = reader.get("POLICY_SUBSCRIPTION_DIRS");
    let directories = directories
        .iter()
        .map(|directory| RepoPath::normalized(directory));
    Interests::new(
        ScopeId::from(scope.as_str()),
        topics.into_iter().map(Topic::from).collect(),
        directories.collect(),
    )
}

fn retry(reader: &mut Reader<'_>, key: &str) -> ConnRetryOptions {
    let Json(retry) = reader.get(key);
    retry
}

fn data_retry(reader: &mut Reader<'_>) -> ConnRetryOptions {
    let current = retry(reader, "DATA_UPDATER_CONN_RETRY");
    let old: Option<Json<ConnRetryOptions>> = reader.optional("DATA_STORE_CONN_RETRY");
    old.map_or(current, |Json(old)| old)
}

/// A number of seconds of which 0 means "none".
fn seconds(reader: &mut Reader<'_>, key: &str) -> Option<Duration> {
    let Seconds(duration) = reader.get(key);
    (!duration.is_zero()).then_some(duration)
}

fn duration(reader: &mut Reader<'_>, key: &str) -> Duration {
    let Seconds(duration) = reader.get(key);
    duration
}

fn offline(reader: &mut Reader<'_>, store: &StoreConfig) -> Option<OfflineConfig> {
    let enabled: bool = reader.get("OFFLINE_MODE_ENABLED");
    let path: PathBuf = reader.get("STORE_BACKUP_PATH");
    let interval = duration(reader, "STORE_BACKUP_INTERVAL");
    if !enabled {
        return None;
    }
    if matches!(store, StoreConfig::RemoteOpa(_)) {
        let message = "is ignored: an OPA elsewhere keeps or loses its data by itself";
        reader.warn("OFFLINE_MODE_ENABLED", message);
        return None;
    }
    if interval.is_zero() {
        reader.expected("STORE_BACKUP_INTERVAL", "at least 1");
    }
    Some(OfflineConfig { path, interval })
}

fn probe_interval(reader: &mut Reader<'_>) -> Option<Duration> {
    let enabled: bool = reader.get("POLICY_STORE_LIVENESS_PROBE_ENABLED");
    let interval = duration(reader, "POLICY_STORE_LIVENESS_PROBE_INTERVAL_SECONDS");
    enabled.then(|| interval.max(Duration::from_secs(1)))
}

impl FetchConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let workers: usize = reader.get("FETCHING_WORKER_COUNT");
        if workers == 0 {
            reader.expected("FETCHING_WORKER_COUNT", "at least 1");
        }
        Self {
            limits: FetchLimits {
                retry: data_retry(reader),
                deadline: duration(reader, "FETCHING_CALLBACK_TIMEOUT"),
                workers,
            },
            http_timeout: duration(reader, "HTTP_FETCHER_TIMEOUT"),
            answer_limit: DEFAULT_ANSWER_LIMIT,
        }
    }
}

impl StoreConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let kind: String = reader.get("POLICY_STORE_TYPE");
        let inline: bool = reader.get("INLINE_OPA_ENABLED");
        let Json(mut inline_config): Json<InlineOpaConfig> = reader.get("INLINE_OPA_CONFIG");
        inline_config.v0_compatible |= reader.get::<bool>("OPA_V0_COMPAT");
        inline_config.exec_path = reader.non_empty("INLINE_OPA_EXEC_PATH");
        inline_config.log_format = log_format(reader);
        let embedded = EmbeddedConfig {
            addr: inline_config.addr.clone(),
            v0_compatible: inline_config.v0_compatible,
            ignored: ignored(reader),
            split_root_data: reader.get("SPLIT_ROOT_DATA"),
        };
        let (opa, http) = opa(reader);
        match kind.as_str() {
            "MOCK" => Self::Mock {
                split_root_data: embedded.split_root_data,
            },
            "EMBEDDED" => Self::Embedded(embedded),
            "OPA" if inline => Self::InlineOpa(Box::new(InlineConfig {
                fallback: match inline_config.unsupported_by_embedded() {
                    None => Ok(embedded),
                    Some(option) => Err(option),
                },
                inline: inline_config,
                opa,
                http,
            })),
            "OPA" => Self::RemoteOpa(Box::new(RemoteConfig { opa, http })),
            _ => {
                reader.expected("POLICY_STORE_TYPE", "OPA, EMBEDDED or MOCK");
                Self::Embedded(embedded)
            }
        }
    }
}

fn log_format(reader: &mut Reader<'_>) -> EngineLogFormat {
    let text: String = reader.get("INLINE_OPA_LOG_FORMAT");
    // Any other text is refused with the settings' own problems, so nothing runs with this default.
    EngineLogFormat::parse(&text).unwrap_or_default()
}

fn ignored(reader: &mut Reader<'_>) -> IgnoredPaths {
    let patterns: Vec<String> = reader.get("POLICY_STORE_POLICY_PATHS_TO_IGNORE");
    IgnoredPaths::new(patterns.iter().filter(|pattern| !pattern.is_empty()))
}

fn opa(reader: &mut Reader<'_>) -> (OpaOptions, HttpOptions) {
    let url: Url = reader.get("POLICY_STORE_URL");
    let (auth, identity) = opa_auth(reader);
    let http = HttpOptions {
        ca_file: reader.non_empty("POLICY_STORE_TLS_CA"),
        identity,
        plain: url.scheme() == "http",
        ..HttpOptions::default()
    };
    let options = OpaOptions {
        auth,
        retry: retry(reader, "POLICY_STORE_CONN_RETRY"),
        probe_timeout: duration(reader, "POLICY_STORE_LIVENESS_PROBE_TIMEOUT_SECONDS"),
        ignored: ignored(reader),
        split_root_data: reader.get("SPLIT_ROOT_DATA"),
        ..OpaOptions::new(url)
    };
    (options, http)
}

fn opa_auth(reader: &mut Reader<'_>) -> (OpaAuth, Option<IdentityFiles>) {
    let kind: String = reader.get("POLICY_STORE_AUTH_TYPE");
    match kind.as_str() {
        "token" => {
            let token: Option<SecretString> = needed(reader, "POLICY_STORE_AUTH_TOKEN");
            (token.map_or(OpaAuth::None, OpaAuth::Token), None)
        }
        "oauth" => (oauth(reader).unwrap_or(OpaAuth::None), None),
        "tls" => {
            let certificate = needed(reader, "POLICY_STORE_TLS_CLIENT_CERT");
            let key = needed(reader, "POLICY_STORE_TLS_CLIENT_KEY");
            let identity = certificate
                .zip(key)
                .map(|(certificate, key)| IdentityFiles { certificate, key });
            (OpaAuth::None, identity)
        }
        _ => (OpaAuth::None, None),
    }
}

fn oauth(reader: &mut Reader<'_>) -> Option<OpaAuth> {
    let server: Option<Url> = needed(reader, "POLICY_STORE_AUTH_OAUTH_SERVER");
    let client_id: Option<String> = needed(reader, "POLICY_STORE_AUTH_OAUTH_CLIENT_ID");
    let secret: Option<SecretString> = needed(reader, "POLICY_STORE_AUTH_OAUTH_CLIENT_SECRET");
    Some(OpaAuth::OAuth {
        server: server?,
        client_id: client_id?,
        client_secret: secret?,
    })
}

/// A setting that the chosen way of authentication cannot do without.
fn needed<T: opal_runtime::config::FromSetting>(reader: &mut Reader<'_>, key: &str) -> Option<T> {
    let value = reader.non_empty(key);
    if value.is_none() {
        reader.problem(
            key,
            "is needed by this POLICY_STORE_AUTH_TYPE and is not set",
        );
    }
    value
}

impl CallbackConfig {
    fn read(reader: &mut Reader<'_>, server: &ServerConfig) -> Self {
        let Json(default_config) = reader.get("DEFAULT_UPDATE_CALLBACK_CONFIG");
        let Json(UpdateCallback { callbacks }) = reader.get("DEFAULT_UPDATE_CALLBACKS");
        let base = server.url.as_str().trim_end_matches('/');
        Self {
            enabled: reader.get("SHOULD_REPORT_ON_DATA_UPDATES"),
            default_config,
            targets: callbacks,
            retry: data_retry(reader),
            server_route: format!("{base}/data/callback_report"),
        }
    }
}
