//! One server, one client, one engine, and what they depend on.

use std::collections::BTreeSet;

use anyhow::{Context, anyhow, bail, ensure};
use hmac::{Hmac, Mac};
use opal_protocol::CommitHash;
use opal_testing::binaries::{self, Kind};
use opal_testing::cuttable_proxy::CuttableProxy;
use opal_testing::fake_data_source::{FakeDataSource, Reply};
use opal_testing::git_repo::{Commit, TestRepo};
use opal_testing::http::{self, Answer};
use opal_testing::keys::Keys;
use opal_testing::ports::free_port;
use opal_testing::process;
use opal_testing::services::{Service, Setting, setting};
use opal_testing::wait;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use crate::follower::{Follower, engine_data};

const WEBHOOK_SECRET: &str = "webhook-secret";
/// What the data source wants to see before it gives the base data.
const SOURCE_KEY: &str = "key-of-the-base-data";

/// Where the policy engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Inside our client.
    Embedded,
    /// The real `opa`, started by the client.
    InlineOpa,
    /// The client looks for an `opa` to start, as by default, and there is none.
    NoneInstalled,
    /// The real `opa`, started by somebody else.
    OpaElsewhere,
    /// Our engine alone (`opal engine run`), which a client takes for an OPA elsewhere.
    EmbeddedElsewhere,
}

/// How the server learns of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// It asks every second.
    Polling,
    /// It is told, as GitHub does.
    Webhook,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    server: Kind,
    client: Kind,
    engine: Engine,
    announce: Announce,
    state_directory: bool,
    through_a_proxy: bool,
    server_settings: Vec<Setting>,
    client_settings: Vec<Setting>,
}

impl Setup {
    /// A secured deployment whose server polls.
    pub fn new(server: Kind, client: Kind, engine: Engine) -> Self {
        Self {
            server,
            client,
            engine,
            announce: Announce::Polling,
            state_directory: false,
            through_a_proxy: false,
            server_settings: Vec::new(),
            client_settings: Vec::new(),
        }
    }

    /// Both ends ours.
    pub fn ours(engine: Engine) -> Self {
        Self::new(Kind::Rust, Kind::Rust, engine)
    }

    /// How commits are announced.
    #[must_use]
    pub fn announced_by(self, announce: Announce) -> Self {
        Self { announce, ..self }
    }

    /// The server keeps its feed in a state directory.
    #[must_use]
    pub fn with_state_directory(self) -> Self {
        Self {
            state_directory: true,
            ..self
        }
    }

    /// The client reaches the server through [`Deployment::line`].
    #[must_use]
    pub fn through_a_proxy(self) -> Self {
        Self {
            through_a_proxy: true,
            ..self
        }
    }

    /// Adds a setting of the server.
    #[must_use]
    pub fn server_setting(mut self, name: &str, value: &str) -> Self {
        self.server_settings.push(setting(name, &value));
        self
    }

    /// Adds a setting of the client.
    #[must_use]
    pub fn client_setting(mut self, name: &str, value: &str) -> Self {
        self.client_settings.push(setting(name, &value));
        self
    }

    /// Starts it, runs `scenario` on it, and adds the logs of all processes to a failure.
    pub async fn run(
        self,
        scenario: impl AsyncFnOnce(&mut Deployment) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut deployment = Deployment::start(self).await?;
        let outcome = scenario(&mut deployment).await;
        outcome.map_err(|error| anyhow!("{}\n{error:#}", deployment.logs()))
    }
}

/// A running deployment; everything ends and disappears with it.
#[derive(Debug)]
pub struct Deployment {
    /// The policy repository.
    pub repo: TestRepo,
    /// Gives the base data at `/base`, takes reports at `/report`, answers whatever else a test sets.
    pub source: FakeDataSource,
    /// `opal-server`.
    pub server: Service,
    /// `opal-client`.
    pub client: Service,
    /// Between client and server, if the setup asks for it.
    pub line: Option<CuttableProxy>,
    /// An engine of its own, if there is one.
    pub engine: Option<Service>,
    /// A token that may publish.
    pub datasource_token: String,
    /// A token that may subscribe.
    pub client_token: String,
    /// The keys of the server.
    pub keys: Keys,
    server_kind: Kind,
    engine_url: String,
    announce: Announce,
    directory: TempDir,
}

impl Deployment {
    /// Starts everything; returns when the client is ready and healthy.
    pub async fn start(setup: Setup) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("opal-e2e-")?;
        let keys = Keys::generate(directory.path(), "pass phrase of the key")?;
        let source = FakeDataSource::start().await?;
        source.set(
            "/base",
            Reply::json(&base_data()).needing("x-source-key", SOURCE_KEY),
        );
        let mut repo = TestRepo::empty()?;
        crate::scenario::first_commit(repo.commit()?)?.push()?;

        let state = directory.path().join("state");
        let settings = server_settings(&setup, &keys, &repo, &source).into_iter();
        let state = setup
            .state_directory
            .then(|| setting("OPAL_STATE_DIR", &state.display()));
        let server = Service::server(setup.server, directory.path(), settings.chain(state)).await?;
        let client_token = obtain_token(&server, &keys, "client").await?;
        let datasource_token = obtain_token(&server, &keys, "datasource").await?;
        let line = match setup.through_a_proxy {
            true => Some(CuttableProxy::start(([127, 0, 0, 1], server.port()).into()).await?),
            false => None,
        };
        let server_url = match &line {
            Some(line) => format!("http://{}", line.address()),
            None => server.url(""),
        };

        let engine = match setup.engine {
            Engine::Embedded | Engine::InlineOpa | Engine::NoneInstalled => None,
            Engine::OpaElsewhere => Some(Service::opa(directory.path()).await?),
            Engine::EmbeddedElsewhere => Some(Service::embedded_engine(directory.path()).await?),
        };
        let engine_port = match &engine {
            Some(engine) => engine.port(),
            None => free_port()?,
        };
        let settings = client_settings(&server_url, &client_token, &source, engine_port)
            .into_iter()
            .chain(keys.client_settings())
            .chain(engine_settings(setup.engine, engine_port)?)
            .chain(setup.client_settings);
        let client = Service::client(setup.client, directory.path(), settings)
            .await
            .with_context(|| server.log_tail())?;

        let deployment = Self {
            repo,
            source,
            server,
            client,
            line,
            engine,
            datasource_token,
            client_token,
            keys,
            server_kind: setup.server,
            engine_url: format!("http://127.0.0.1:{engine_port}"),
            announce: setup.announce,
            directory,
        };
        let ready = deployment.wait_until_ready().await;
        ready.map_err(|error| anyhow!("{}\n{error:#}", deployment.logs()))?;
        Ok(deployment)
    }

    /// Waits until the client says that it is ready and healthy.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.client.wait_for_ok("/ready").await?;
        self.client.wait_for_ok("/healthy").await?;
        Ok(())
    }

    /// Starts one more client, with an engine of its own; returns when it is ready and healthy.
    pub async fn add_client(
        &self,
        kind: Kind,
        engine: Engine,
        settings: impl IntoIterator<Item = Setting>,
    ) -> anyhow::Result<Follower> {
        if !matches!(engine, Engine::Embedded | Engine::InlineOpa) {
            bail!("an engine elsewhere belongs to the first client");
        }
        let port = free_port()?;
        let url = self.server.url("");
        let settings = client_settings(&url, &self.client_token, &self.source, port)
            .into_iter()
            .chain(self.keys.client_settings())
            .chain(engine_settings(engine, port)?)
            .chain(settings);
        let service = Service::client(kind, self.directory(), settings).await?;
        service.wait_for_ok("/ready").await?;
        service.wait_for_ok("/healthy").await?;
        let engine_url = format!("http://127.0.0.1:{port}");
        Ok(Follower {
            service,
            engine_url,
        })
    }

    /// What the server says about its clients.
    pub async fn fleet(&self) -> anyhow::Result<Value> {
        let request = http::get(self.server.url("/v1/fleet")).bearer(&self.client_token);
        request.send().await?.expect(200)?.json()
    }

    /// What the server says about the client that calls itself `id`.
    pub async fn in_fleet(&self, id: &str) -> anyhow::Result<Value> {
        let fleet = self.fleet().await?;
        let clients = fleet["clients"].as_array().into_iter().flatten();
        let mut found = clients.filter(|client| client["id"] == id);
        let client = found.next().cloned();
        client.with_context(|| format!("`{id}` is not in {fleet}"))
    }

    /// A directory of this deployment's for more services and files.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Tells the server that something was pushed, if it waits to be told.
    pub async fn announce_push(&self) -> anyhow::Result<()> {
        if self.announce == Announce::Polling {
            return Ok(());
        }
        until_webhooks_are_heard(self.server_kind, &self.server).await?;
        let payload = json!({
            "ref": format!("refs/heads/{}", self.repo.branch()),
            "repository": {"git_url": self.repo.path()},
        })
        .to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
        mac.update(payload.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let answer = http::post(self.server.url("/webhook"))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(payload)
            .send()
            .await?
            .expect(200)?
            .json()?;
        ensure!(
            answer["status"] == "ok",
            "the webhook was not taken: {answer}"
        );
        Ok(())
    }

    /// Pushes a commit and announces it.
    pub async fn commit(
        &mut self,
        change: impl FnOnce(Commit<'_>) -> anyhow::Result<Commit<'_>>,
    ) -> anyhow::Result<CommitHash> {
        let commit = change(self.repo.commit()?)?.push()?;
        self.announce_push().await?;
        Ok(commit)
    }

    /// Publishes a data update; it must be accepted.
    pub async fn publish(&self, update: &Value) -> anyhow::Result<()> {
        self.try_publish(update, &self.datasource_token)
            .await?
            .expect(200)
            .map(drop)
    }

    /// Publishes a data update with some token, whatever the answer.
    pub async fn try_publish(&self, update: &Value, token: &str) -> anyhow::Result<Answer> {
        let request = http::post(self.server.url("/data/config")).bearer(token);
        request.json(update)?.send().await
    }

    /// A token of the server's, with claims of one's own.
    pub async fn token(&self, request: &Value) -> anyhow::Result<String> {
        request_token(&self.server, &self.keys, request).await
    }

    /// The address of a path of the engine.
    pub fn engine_url(&self, path: &str) -> String {
        format!("{}{path}", self.engine_url)
    }

    /// What the engine answers to `input` at a path below `/v1/data`; none if undefined.
    pub async fn decision(&self, path: &str, input: &Value) -> anyhow::Result<Option<Value>> {
        let request = http::post(self.engine_url(&format!("/v1/data/{path}")));
        let answer = request
            .json(&json!({"input": input}))?
            .send()
            .await?
            .expect(200)?;
        Ok(answer.json()?.get("result").cloned())
    }

    /// Waits until the engine gives `expected` for `input`.
    pub async fn wait_for_decision(
        &self,
        path: &str,
        input: &Value,
        expected: &Value,
    ) -> anyhow::Result<()> {
        wait::until(
            format!("`{path}` to be {expected} for {input}"),
            async || {
                let answer = self.decision(path, input).await?.unwrap_or(Value::Null);
                ensure!(answer == *expected, "it is {answer}");
                Ok(())
            },
        )
        .await
    }

    /// Waits until the engine's document at `path` is `expected`; null stands for undefined.
    pub async fn wait_for_data(&self, path: &str, expected: &Value) -> anyhow::Result<()> {
        wait::until(
            format!("the document `{path}` to be {expected}"),
            async || {
                let answer = http::get(self.engine_url(&format!("/v1/data{path}")))
                    .send()
                    .await?;
                let document = answer
                    .expect(200)?
                    .json()?
                    .get("result")
                    .cloned()
                    .unwrap_or_default();
                ensure!(document == *expected, "it is {document}");
                Ok(())
            },
        )
        .await
    }

    /// The paths of all policy modules in the head commit.
    pub fn policies(&self) -> anyhow::Result<BTreeSet<String>> {
        let head = self.repo.head()?;
        let listing = self
            .repo
            .git(&["ls-tree", "-r", "--name-only", head.as_str()])?;
        let modules = listing.lines().filter(|path| path.ends_with(".rego"));
        Ok(modules.map(str::to_owned).collect())
    }

    /// The ids of all policies in the engine.
    pub async fn policy_ids(&self) -> anyhow::Result<BTreeSet<String>> {
        let answer = http::get(self.engine_url("/v1/policies"))
            .send()
            .await?
            .expect(200)?
            .json()?;
        let policies = answer["result"]
            .as_array()
            .context("`result` is no array")?;
        Ok(policies
            .iter()
            .filter_map(|policy| policy["id"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// All base documents in the engine: everything but what rules define, without empty objects.
    pub async fn data(&self) -> anyhow::Result<Value> {
        engine_data(&self.engine_url).await
    }

    /// Waits until the engine holds the policies of the head commit, and `data`, and nothing else.
    pub async fn wait_for_state(&self, data: &Value) -> anyhow::Result<()> {
        let policies = self.policies()?;
        wait::until("the engine to hold what it should", async || {
            let held = self.policy_ids().await?;
            ensure!(
                held == policies,
                "policies are {held:?}, expected {policies:?}"
            );
            let held = self.data().await?;
            ensure!(held == *data, "data are {held}, expected {data}");
            Ok(())
        })
        .await
    }

    /// Kills the inline engine as a machine short of memory does, behind the client's back.
    pub fn kill_inline_engine(&self) -> anyhow::Result<()> {
        let engines = self.client.process()?.descendants_called("opa");
        ensure!(!engines.is_empty(), "the client runs no `opa`");
        engines.into_iter().try_for_each(process::kill_now)
    }

    /// The last lines of every process's log.
    pub fn logs(&self) -> String {
        let services = [Some(&self.server), Some(&self.client), self.engine.as_ref()];
        services
            .into_iter()
            .flatten()
            .map(Service::log_tail)
            .collect()
    }
}

/// Waits until a webhook leads to a fetch. A released server without polling accepts webhooks, and
/// forgets them, until its clone is checked out, although it serves bundles before; ours must not.
pub async fn until_webhooks_are_heard(kind: Kind, server: &Service) -> anyhow::Result<()> {
    match kind {
        Kind::Rust => Ok(()),
        Kind::Python => server
            .wait_for_log(&["Polling task is off"])
            .await
            .map(drop),
    }
}

/// The document that every client of these deployments loads at the start.
pub fn base_data() -> Value {
    json!({"limits": {"files": 10}, "names": ["ä", "b"]})
}

fn server_settings(
    setup: &Setup,
    keys: &Keys,
    repo: &TestRepo,
    source: &FakeDataSource,
) -> Vec<Setting> {
    let polling_interval = match setup.announce {
        Announce::Polling => 1,
        Announce::Webhook => 0,
    };
    // On a path of its own: released clients race the base data against the first bundle.
    let sources = json!({"config": {"entries": [{
        "url": source.url("/base"),
        "config": {"headers": {"x-source-key": SOURCE_KEY}},
        "topics": ["policy_data"],
        "dst_path": "/base",
    }]}});
    [
        setting("OPAL_POLICY_REPO_URL", &repo.path().display()),
        setting("OPAL_POLICY_REPO_MAIN_BRANCH", &repo.branch()),
        setting("OPAL_POLICY_REPO_POLLING_INTERVAL", &polling_interval),
        setting("OPAL_POLICY_REPO_WEBHOOK_SECRET", &WEBHOOK_SECRET),
        setting("OPAL_DATA_CONFIG_SOURCES", &sources),
    ]
    .into_iter()
    .chain(keys.server_settings())
    .chain(setup.server_settings.clone())
    .collect()
}

fn client_settings(
    server_url: &str,
    token: &str,
    source: &FakeDataSource,
    engine_port: u16,
) -> [Setting; 5] {
    let engine_url = format!("http://127.0.0.1:{engine_port}");
    let callbacks = json!({"callbacks": [source.url("/report")]});
    [
        setting("OPAL_SERVER_URL", &server_url),
        setting("OPAL_CLIENT_TOKEN", &token),
        setting("OPAL_POLICY_STORE_URL", &engine_url),
        setting("OPAL_SHOULD_REPORT_ON_DATA_UPDATES", &true),
        setting("OPAL_DEFAULT_UPDATE_CALLBACKS", &callbacks),
    ]
}

fn engine_settings(engine: Engine, port: u16) -> anyhow::Result<Vec<Setting>> {
    let listen = setting(
        "OPAL_INLINE_OPA_CONFIG",
        &json!({"addr": format!("127.0.0.1:{port}")}),
    );
    Ok(match engine {
        Engine::Embedded => vec![setting("OPAL_POLICY_STORE_TYPE", &"EMBEDDED"), listen],
        Engine::InlineOpa => {
            let opa = binaries::opa()?;
            vec![setting("OPAL_INLINE_OPA_EXEC_PATH", &opa.display()), listen]
        }
        Engine::NoneInstalled => vec![setting("PATH", &"/nonexistent"), listen],
        Engine::OpaElsewhere | Engine::EmbeddedElsewhere => {
            vec![setting("OPAL_INLINE_OPA_ENABLED", &false)]
        }
    })
}

async fn obtain_token(server: &Service, keys: &Keys, peer: &str) -> anyhow::Result<String> {
    request_token(server, keys, &json!({"type": peer})).await
}

async fn request_token(server: &Service, keys: &Keys, body: &Value) -> anyhow::Result<String> {
    let request = http::post(server.url("/token")).bearer(&keys.master_token);
    let answer = request.json(body)?.send().await?.expect(200)?.json()?;
    let token = answer["token"]
        .as_str()
        .context("`POST /token` gave no token")?;
    Ok(token.to_owned())
}
