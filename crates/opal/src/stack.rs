//! Server, client and embedded engine in one process, in secure mode, over their own sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use opal_client::transactions::TransactionState;
use opal_client::{Client, ClientConfig};
use opal_protocol::RedactedUrl;
use opal_runtime::Tasks;
use opal_runtime::admin::{GenerateSecret, SecretFormat};
use opal_runtime::config::{CommandLine, Environment, Program, Settings};
use opal_server::{Server, ServerConfig};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// How long running work may take to end.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What differs from one stack to another.
#[derive(Debug)]
pub(crate) struct StackOptions<'a> {
    /// The policy repository, in any form that `git` takes.
    pub(crate) repo: &'a RedactedUrl,
    /// Its branch.
    pub(crate) branch: &'a str,
    /// Where keys and the clone are kept.
    pub(crate) directory: &'a Path,
    /// Ports of server, client and engine; 0 takes a free one.
    pub(crate) ports: [u16; 3],
    /// How often to look for new commits, in seconds; 0 waits for webhooks.
    pub(crate) polling: u64,
}

/// A running stack.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) server: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) engine: SocketAddr,
    pub(crate) tokens: Tokens,
    client_handle: Client,
}

/// What one needs to know to talk to a stack.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// For those who publish data.
    pub(crate) data_source: SecretString,
    /// What webhooks are signed with.
    pub(crate) webhook_secret: SecretString,
}

/// Keys of one stack, made at its first start.
#[derive(Debug)]
struct Keys {
    private: SecretString,
    public: String,
    master: SecretString,
    webhook: SecretString,
}

impl Stack {
    /// Starts everything. The client fills the engine by itself; see [`Stack::wait_until_ready`].
    pub(crate) async fn start(options: &StackOptions<'_>, tasks: &Tasks) -> anyhow::Result<Self> {
        let keys = Keys::load_or_make(options.directory)?;
        let server = Server::start(server_config(options, &keys)?, tasks).await?;
        let url = format!("http://{}", server.address());
        let http = opal_runtime::http::client(&Default::default())?;
        let client_token = obtain_token(&http, &url, &keys.master, "client").await?;
        let data_source = obtain_token(&http, &url, &keys.master, "datasource").await?;
        let config = client_config(options, &url, &client_token)?;
        let client = Client::start(config, tasks).await?;
        let engine = client
            .engine_address()
            .context("the embedded engine was not started")?;
        Ok(Self {
            server: server.address(),
            client: client.address(),
            engine,
            tokens: Tokens {
                data_source,
                webhook_secret: keys.webhook,
            },
            client_handle: client,
        })
    }

    /// Waits until the engine holds policy and data. What fails meanwhile is said on each change.
    pub(crate) async fn wait_until_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let mut changes = self.client_handle.transactions().changes();
        let ready = changes.wait_for(TransactionState::ready);
        if let Ok(Ok(_)) = tokio::time::timeout(limit, ready).await {
            return Ok(());
        }
        let missing = self
            .client_handle
            .transactions()
            .read(TransactionState::unhealthy);
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        bail!(
            "the engine is not ready after {limit:?}: {}",
            missing.join("; ")
        );
    }
}

fn settings(program: Program, variables: &[(&str, String)]) -> Settings {
    let variables = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    let environment = Environment::of(variables);
    Settings::collect(program, &CommandLine::default(), &environment)
}

fn server_config(options: &StackOptions<'_>, keys: &Keys) -> anyhow::Result<ServerConfig> {
    let clones = options.directory.join("clones");
    let variables = [
        ("OPAL_SERVER_BIND_PORT", options.ports[0].to_string()),
        ("OPAL_POLICY_REPO_URL", options.repo.expose().to_owned()),
        ("OPAL_POLICY_REPO_MAIN_BRANCH", options.branch.to_owned()),
        ("OPAL_POLICY_REPO_CLONE_PATH", clones.display().to_string()),
        ("OPAL_POLICY_REPO_REUSE_CLONE_PATH", "true".to_owned()),
        (
            "OPAL_POLICY_REPO_POLLING_INTERVAL",
            options.polling.to_string(),
        ),
        (
            "OPAL_POLICY_REPO_WEBHOOK_SECRET",
            keys.webhook.expose_secret().to_owned(),
        ),
        (
            "OPAL_AUTH_PRIVATE_KEY",
            keys.private.expose_secret().to_owned(),
        ),
        ("OPAL_AUTH_PUBLIC_KEY", keys.public.clone()),
        ("OPAL_AUTH_PUBLIC_KEY_FORMAT", "pem".to_owned()),
        (
            "OPAL_AUTH_MASTER_TOKEN",
            keys.master.expose_secret().to_owned(),
        ),
        // The default source is an empty document in place of everything; here there is no source.
        (
            "OPAL_DATA_CONFIG_SOURCES",
            json!({"config": {"entries": []}}).to_string(),
        ),
    ];
    let ((config, _), _) = ServerConfig::read(&settings(Program::Server, &variables))?;
    Ok(config)
}

fn client_config(
    options: &StackOptions<'_>,
    server: &str,
    token: &SecretString,
) -> anyhow::Result<ClientConfig> {
    let engine = json!({ "addr": format!("127.0.0.1:{}", options.ports[2]) });
    let variables = [
        ("OPAL_SERVER_URL", server.to_owned()),
        ("OPAL_CLIENT_TOKEN", token.expose_secret().to_owned()),
        ("OPAL_CLIENT_API_SERVER_PORT", options.ports[1].to_string()),
        ("OPAL_POLICY_STORE_TYPE", "EMBEDDED".to_owned()),
        ("OPAL_INLINE_OPA_CONFIG", engine.to_string()),
        ("OPAL_SHOULD_REPORT_ON_DATA_UPDATES", "true".to_owned()),
    ];
    let ((config, _), _) = ClientConfig::read(&settings(Program::Client, &variables))?;
    Ok(config)
}

async fn obtain_token(
    http: &reqwest::Client,
    server: &str,
    master: &SecretString,
    peer_type: &str,
) -> anyhow::Result<SecretString> {
    let answer: Value = http
        .post(format!("{server}/token"))
        .bearer_auth(master.expose_secret())
        .json(&json!({ "type": peer_type }))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let token = answer["token"].as_str();
    token.map(Into::into).context("the server issued no token")
}

impl Keys {
    /// The keys in `directory`, made and written there, for us alone, if there are none.
    fn load_or_make(directory: &Path) -> anyhow::Result<Self> {
        let file = directory.join("keys.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = new_keys()?.to_string();
                std::fs::create_dir_all(directory)?;
                write_for_us_alone(&file, &text)?;
                text
            }
            Err(error) => {
                return Err(error).context(format!("could not read `{}`", file.display()));
            }
        };
        let keys: Value = serde_json::from_str(&text)
            .with_context(|| format!("`{}` is not what we wrote; remove it", file.display()))?;
        let member = |name: &str| {
            let text = keys[name].as_str().map(str::to_owned);
            text.with_context(|| format!("`{}` lacks `{name}`; remove it", file.display()))
        };
        Ok(Self {
            private: member("private")?.into(),
            public: member("public")?,
            master: member("master")?.into(),
            webhook: member("webhook")?.into(),
        })
    }
}

fn new_keys() -> anyhow::Result<Value> {
    let pair = opal_runtime::token::generate()?;
    Ok(json!({
        "private": pair.private_pem,
        "public": pair.public_pem,
        "master": new_secret(),
        "webhook": new_secret(),
    }))
}

fn new_secret() -> String {
    let secret = GenerateSecret {
        size: 32,
        format: SecretFormat::UrlSafe,
    };
    secret.generate()
}

fn write_for_us_alone(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
