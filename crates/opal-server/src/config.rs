//! The server's settings, as types. Read once; each part gets its own.

use std::path::PathBuf;
use std::time::Duration;

use opal_protocol::{RedactedUrl, ServerDataSourceConfig};
use opal_pubsub::FeedLimits;
use opal_pubsub::session::SessionLimits;
use opal_runtime::config::{ConfigErrors, Json, Reader, Seconds, Settings, Warning};
use opal_runtime::telemetry::LogConfig;
use opal_runtime::token::ServerSecurity;

use crate::policy::webhook::{WebhookConfig, WebhookParams};
use crate::policy::{GitSettings, Selection};

/// How long a local git operation may take, and how long a remote may be silent.
const GIT_OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How often what clients report is compared with what they should hold.
const DRIFT_CHECK: Duration = Duration::from_secs(10);

/// Everything that a server is told.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Origins that browsers may call from.
    pub allowed_origins: Vec<String>,
    /// Who may do what.
    pub security: ServerSecurity,
    /// Where the public key is served.
    pub jwks_route: String,
    /// The policy source; without one `/policy` answers 503.
    pub policy: Option<PolicyConfig>,
    /// Webhooks of the policy source.
    pub webhook: WebhookConfig,
    /// Where clients find data.
    pub data: DataConfig,
    /// The feed of changes.
    pub feed: FeedConfig,
    /// How patient we are with connections; no setting says otherwise.
    pub connections: SessionLimits,
    /// How often what clients report is compared with what they should hold; no setting says otherwise.
    pub drift_check: Duration,
    /// How long running requests and connections may take to end.
    pub shutdown_grace: Duration,
}

/// The feed of changes, and what is kept of it.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// Where it is kept; in memory if `None`.
    pub directory: Option<PathBuf>,
    /// How much history is kept for clients that were away.
    pub limits: FeedLimits,
}

/// The policy source and what is served of it.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// The repository.
    pub git: GitSettings,
    /// The files.
    pub selection: Selection,
    /// How often to look for new commits; only when triggered if `None`.
    pub polling_interval: Option<Duration>,
}

/// What clients are told about data, and under which routes.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// The answer of the route below.
    pub sources: ServerDataSourceConfig,
    /// Where clients ask for their sources, and where updates are posted.
    pub config_route: String,
    /// The empty default source.
    pub default_source_route: String,
    /// Where clients report.
    pub report_route: String,
}

impl ServerConfig {
    /// Reads all settings; the log's own come along, since they are needed first.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, together.
    pub fn read(settings: &Settings) -> Result<((Self, LogConfig), Vec<Warning>), ConfigErrors> {
        let mut reader = Reader::new(settings);
        let log = LogConfig::read(&mut reader);
        check_routes(&mut reader);
        check_source_type(&mut reader);
        let config = Self {
            host: reader.get("SERVER_HOST"),
            port: port(&mut reader),
            allowed_origins: reader.get("ALLOWED_ORIGINS"),
            security: ServerSecurity::read(&mut reader),
            jwks_route: route(&mut reader, "AUTH_JWKS_URL"),
            policy: PolicyConfig::read(&mut reader),
            webhook: webhook(&mut reader),
            data: DataConfig::read(&mut reader),
            feed: FeedConfig::read(&mut reader),
            connections: SessionLimits::default(),
            drift_check: DRIFT_CHECK,
            shutdown_grace: reader.get::<Seconds>("SHUTDOWN_GRACE_SECONDS").0,
        };
        reader.finish((config, log))
    }
}

/// `OPAL_SERVER_PORT`, the old name, wins if it is a number, which then has to be a port; anything
/// else there is ignored, since some platforms put a URL into it.
fn port(reader: &mut Reader<'_>) -> u16 {
    let port = reader.get("SERVER_BIND_PORT");
    let old: String = reader.optional("SERVER_PORT").unwrap_or_default();
    let old = old.trim();
    match !old.is_empty() && old.bytes().all(|byte| byte.is_ascii_digit()) {
        true => reader.optional("SERVER_PORT").unwrap_or(port),
        false => port,
    }
}

fn check_source_type(reader: &mut Reader<'_>) {
    let source: String = reader.get("POLICY_SOURCE_TYPE");
    if source != "GIT" {
        reader.expected(
            "POLICY_SOURCE_TYPE",
            "GIT; bundle servers are not built yet",
        );
    }
}

impl FeedConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let state: Option<PathBuf> = reader.non_empty("STATE_DIR");
        Self {
            directory: state.map(|state| state.join("feed")),
            limits: FeedLimits {
                changes: reader.get("FEED_HISTORY_CHANGES"),
                bytes: reader.get("FEED_HISTORY_BYTES"),
                age: seconds(reader, "FEED_HISTORY_SECONDS").unwrap_or(Duration::MAX),
            },
        }
    }
}

impl PolicyConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let polling = seconds(reader, "POLICY_REPO_POLLING_INTERVAL");
        let clone_timeout = seconds(reader, "POLICY_REPO_CLONE_TIMEOUT");
        let enabled: bool = reader.get("REPO_WATCHER_ENABLED");
        let selection = Selection::default()
            .with_extensions(reader.get::<Vec<String>>("FILTER_FILE_EXTENSIONS"))
            .with_policy_extensions(reader.get::<Vec<String>>("POLICY_REPO_POLICY_EXTENSIONS"))
            .ignoring(
                reader
                    .optional::<Vec<String>>("BUNDLE_IGNORE")
                    .unwrap_or_default(),
            )
            .with_manifest(reader.get::<String>("POLICY_REPO_MANIFEST_PATH"));
        let git = GitSettings {
            url: RedactedUrl::new(String::new()),
            branch: reader.get("POLICY_REPO_MAIN_BRANCH"),
            ssh_key: reader.non_empty("POLICY_REPO_SSH_KEY"),
            ssh_key_file: reader.get("GIT_SSH_KEY_FILE"),
            clone_parent: reader.get("POLICY_REPO_CLONE_PATH"),
            clone_prefix: reader.get("POLICY_REPO_CLONE_FOLDER_PREFIX"),
            reuse_clone: reader.get("POLICY_REPO_REUSE_CLONE_PATH"),
            clone_timeout,
            operation_timeout: GIT_OPERATION_TIMEOUT,
        };
        let url = reader.non_empty::<String>("POLICY_REPO_URL")?;
        if !enabled {
            reader.warn(
                "REPO_WATCHER_ENABLED",
                "no policy is served while the watcher is off",
            );
            return None;
        }
        if !git.has_valid_branch() {
            reader.expected("POLICY_REPO_MAIN_BRANCH", "a branch name that git accepts");
        }
        Some(Self {
            git: GitSettings {
                url: RedactedUrl::new(url),
                ..git
            },
            selection,
            polling_interval: polling,
        })
    }
}

/// A number of seconds of which 0 means "none".
fn seconds(reader: &mut Reader<'_>, key: &str) -> Option<Duration> {
    let Seconds(duration) = reader.get(key);
    (!duration.is_zero()).then_some(duration)
}

fn webhook(reader: &mut Reader<'_>) -> WebhookConfig {
    let Json(params) = reader
        .optional::<Json<WebhookParams>>("POLICY_REPO_WEBHOOK_PARAMS")
        .unwrap_or(Json(WebhookParams::default()));
    let enforce: bool = reader.get("POLICY_REPO_WEBHOOK_ENFORCE_BRANCH");
    let branch: String = reader.get("POLICY_REPO_MAIN_BRANCH");
    WebhookConfig {
        secret: reader.non_empty("POLICY_REPO_WEBHOOK_SECRET"),
        params,
        enforced_branch: enforce.then_some(branch),
    }
}

impl DataConfig {
    fn read(reader: &mut Reader<'_>) -> Self {
        let Json(sources) = reader.get("DATA_CONFIG_SOURCES");
        Self {
            sources,
            config_route: route(reader, "DATA_CONFIG_ROUTE"),
            default_source_route: route(reader, "ALL_DATA_ROUTE"),
            report_route: route(reader, "DATA_CALLBACK_DEFAULT_ROUTE"),
        }
    }
}

/// A route of one's own choosing. It must be a plain path.
fn route(reader: &mut Reader<'_>, key: &str) -> String {
    let route: String = reader.get(key);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if !route.starts_with('/') || !route.chars().all(is_plain) {
        reader.expected(key, "a path such as `/data/config`");
    }
    route
}

/// Notes a problem with each route that is taken, by one of our own or by another setting.
fn check_routes(reader: &mut Reader<'_>) {
    const OWN: [&str; 9] = [
        "/",
        "/healthcheck",
        "/policy",
        "/policy/refresh",
        "/v1/feed/base",
        "/v1/fleet",
        "/webhook",
        "/token",
        "/ws",
    ];
    const CHOSEN: [&str; 4] = [
        "DATA_CONFIG_ROUTE",
        "ALL_DATA_ROUTE",
        "DATA_CALLBACK_DEFAULT_ROUTE",
        "AUTH_JWKS_URL",
    ];
    let mut taken: Vec<String> = OWN.map(str::to_owned).to_vec();
    for key in CHOSEN {
        let route: String = reader.get(key);
        if taken.contains(&route) {
            reader.expected(key, "a path that no other route has");
        }
        taken.push(route);
    }
}
