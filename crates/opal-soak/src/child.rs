//! What the two processes do: a server, and many clients, each until it is asked to end.

use std::time::Duration;

use anyhow::{Context, bail};
use opal_client::{Client, ClientConfig};
use opal_runtime::Tasks;
use opal_runtime::config::{CommandLine, Environment, Program, Settings};
use opal_server::{Server, ServerConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::load::topic_of_client;
use crate::memory::tell;

const GRACE: Duration = Duration::from_secs(10);

/// `server MEMORY-PORT PORT STATE-DIRECTORY REPOSITORY BRANCH HISTORY`
pub(crate) async fn server(options: &[&str]) -> anyhow::Result<()> {
    let [memory, port, state, repo, branch, history] = options else {
        bail!("six options are needed");
    };
    let clones = format!("{state}/clones");
    let sources = json!({"config": {"entries": []}}).to_string();
    let settings = settings(
        Program::Server,
        &[
            ("OPAL_SERVER_HOST", "127.0.0.1"),
            ("OPAL_SERVER_BIND_PORT", port),
            ("OPAL_STATE_DIR", state),
            ("OPAL_FEED_HISTORY_CHANGES", history),
            ("OPAL_POLICY_REPO_URL", repo),
            ("OPAL_POLICY_REPO_MAIN_BRANCH", branch),
            ("OPAL_POLICY_REPO_CLONE_PATH", &clones),
            ("OPAL_DATA_CONFIG_SOURCES", &sources),
        ],
    );
    let tasks = Tasks::new(CancellationToken::new());
    opal_runtime::shutdown::on_signal(&tasks)?;
    let ((config, _), _) = ServerConfig::read(&settings)?;
    let _server = Server::start(config, &tasks).await?;
    until_the_end(memory, tasks).await
}

/// `clients MEMORY-PORT SERVER-URL COUNT`
pub(crate) async fn clients(options: &[&str]) -> anyhow::Result<()> {
    let [memory, url, count] = options else {
        bail!("three options are needed");
    };
    let tasks = Tasks::new(CancellationToken::new());
    opal_runtime::shutdown::on_signal(&tasks)?;
    let mut clients = Vec::new();
    for number in 0..count.parse()? {
        let id = format!("soak-{number}");
        let engine = json!({"addr": "127.0.0.1:0"}).to_string();
        let settings = settings(
            Program::Client,
            &[
                ("OPAL_SERVER_URL", url),
                ("OPAL_CLIENT_ID", &id),
                ("OPAL_CLIENT_API_SERVER_HOST", "127.0.0.1"),
                ("OPAL_CLIENT_API_SERVER_PORT", "0"),
                ("OPAL_DATA_TOPICS", &topic_of_client(number)),
                ("OPAL_POLICY_STORE_TYPE", "EMBEDDED"),
                ("OPAL_INLINE_OPA_CONFIG", &engine),
            ],
        );
        let ((config, _), _) = ClientConfig::read(&settings)?;
        let client = Client::start(config, &tasks).await;
        clients.push(client.with_context(|| format!("`{id}` did not start"))?);
    }
    until_the_end(memory, tasks).await
}

async fn until_the_end(memory: &str, tasks: Tasks) -> anyhow::Result<()> {
    let shutdown = tasks.shutdown().clone();
    let told = shutdown.run_until_cancelled(tell(memory.parse()?)).await;
    shutdown.cancel();
    tasks.join(GRACE).await?;
    told.unwrap_or(Ok(()))
}

fn settings(program: Program, variables: &[(&str, &str)]) -> Settings {
    let environment = Environment::of(variables.iter().copied());
    Settings::collect(program, &CommandLine::default(), &environment)
}
