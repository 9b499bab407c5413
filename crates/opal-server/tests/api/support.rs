//! A server that runs for one test, and the repository of the recordings.

use std::sync::LazyLock;

use opal_protocol::CommitHash;
use opal_runtime::Tasks;
use opal_runtime::config::{CommandLine, Environment, Program, Settings};
use opal_runtime::token::GeneratedKey;
use opal_server::policy::WatcherStatus;
use opal_server::{Server, ServerConfig};
use opal_testing::git_repo::TestRepo;
use opal_testing::http::{self, Answer};
use opal_testing::wait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The key pair of every secured server here.
static KEYS: LazyLock<GeneratedKey> = LazyLock::new(|| opal_runtime::token::generate().unwrap());

/// The master token that the recordings were made with.
pub(crate) const MASTER: &str = "master-secret";

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/", $name))
    };
}
pub(crate) use fixture;

/// The lines of a recording.
pub(crate) fn lines<T: DeserializeOwned>(recording: &str) -> Vec<T> {
    let lines = recording.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A running server. Ends with this value.
pub(crate) struct TestServer {
    server: Server,
    tasks: Option<Tasks>,
    shutdown: CancellationToken,
    _clones: TempDir,
}

impl TestServer {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(settings, |_| {}).await
    }

    /// A server with keys and a master token.
    pub(crate) async fn secured(settings: &[(&str, &str)]) -> Self {
        Self::secured_with(settings, |_| {}).await
    }

    pub(crate) async fn secured_with(
        settings: &[(&str, &str)],
        adjust: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let keys = [
            ("OPAL_AUTH_PRIVATE_KEY", KEYS.private_pem.as_str()),
            ("OPAL_AUTH_PUBLIC_KEY", KEYS.public_pem.as_str()),
            ("OPAL_AUTH_PUBLIC_KEY_FORMAT", "pem"),
            ("OPAL_AUTH_MASTER_TOKEN", MASTER),
        ];
        let settings: Vec<_> = keys.iter().chain(settings).copied().collect();
        Self::start_with(&settings, adjust).await
    }

    /// A server that follows `repo`, once it serves the repository's head.
    pub(crate) async fn following(repo: &TestRepo, settings: &[(&str, &str)]) -> Self {
        let url = repo.url();
        let ours = [
            ("OPAL_POLICY_REPO_URL", url.as_str()),
            ("OPAL_POLICY_REPO_MAIN_BRANCH", "main"),
        ];
        let settings: Vec<_> = ours.iter().chain(settings).copied().collect();
        let server = Self::start(&settings).await;
        server.until(|status| status.head.is_some()).await;
        server
    }

    pub(crate) async fn start_with(
        settings: &[(&str, &str)],
        adjust: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let clones = tempfile::tempdir().unwrap();
        let place = clones.path().to_str().unwrap();
        let ours = [
            ("OPAL_SERVER_BIND_PORT", "0"),
            ("OPAL_POLICY_REPO_CLONE_PATH", place),
        ];
        let mut config = config(ours.iter().chain(settings).copied()).unwrap();
        adjust(&mut config);
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let server = Server::start(config, &tasks).await.unwrap();
        Self {
            server,
            tasks: Some(tasks),
            shutdown,
            _clones: clones,
        }
    }

    /// The URL of a path and query.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.server.address())
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        http::get(self.url(target)).send().await.unwrap()
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Answer {
        let request = http::post(self.url(target)).json(body).unwrap();
        request.send().await.unwrap()
    }

    /// A token that the server issues for `request`.
    pub(crate) async fn token(&self, request: &Value) -> String {
        let answer = self.issue(request).await;
        answer["token"].as_str().unwrap().to_owned()
    }

    /// The whole answer of `POST /token`.
    pub(crate) async fn issue(&self, request: &Value) -> Value {
        let request = http::post(self.url("/token"))
            .bearer(MASTER)
            .json(request)
            .unwrap();
        request
            .send()
            .await
            .unwrap()
            .expect(200)
            .unwrap()
            .json()
            .unwrap()
    }

    /// A token of a type that permits everything to its type.
    pub(crate) async fn token_of(&self, peer_type: &str) -> String {
        self.token(&json!({ "type": peer_type })).await
    }

    /// Waits until the watcher's status is as described.
    pub(crate) async fn until(
        &self,
        condition: impl FnMut(&WatcherStatus) -> bool,
    ) -> WatcherStatus {
        let mut status = self.server.watcher().unwrap().status();
        let waited = tokio::time::timeout(wait::LIMIT, status.wait_for(condition)).await;
        waited.expect("in time").unwrap().clone()
    }

    /// Rounds of the watcher so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.server.watcher().unwrap().status().borrow().rounds
    }

    /// Makes the server stop; its connections end.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Returns once the server has stopped and let go of all that it held.
    pub(crate) async fn stopped(mut self) {
        self.stop();
        let tasks = self.tasks.take().unwrap();
        tasks.join(wait::LIMIT).await.unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the server makes of settings, or everything that is wrong with them.
pub(crate) fn config<'a>(
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<ServerConfig, String> {
    match ServerConfig::read(&server_settings(settings)) {
        Ok(((config, _), _)) => Ok(config),
        Err(errors) => Err(errors.to_string()),
    }
}

/// What is odd about settings that are not wrong.
pub(crate) fn warnings<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let (_, warnings) = ServerConfig::read(&server_settings(settings)).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

fn server_settings<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Settings {
    let environment = Environment::of(settings);
    Settings::collect(Program::Server, &CommandLine::default(), &environment)
}

/// The recorded policy repository at its `head`th commit, and all its commits.
pub(crate) fn recorded_repo(head: usize) -> (TestRepo, Vec<CommitHash>) {
    let recorded: Value = serde_json::from_str(fixture!("policy/repo-history.json")).unwrap();
    let mut repo = TestRepo::empty().unwrap();
    let mut ids = Vec::new();
    for recorded in recorded["commits"].as_array().unwrap() {
        let mut commit = repo.commit().unwrap().clear();
        for (path, text) in recorded["files"].as_object().unwrap() {
            commit = commit.file(path, text.as_str().unwrap()).unwrap();
        }
        let message = recorded["message"].as_str().unwrap();
        let date = recorded["commit_date"].as_str().unwrap();
        ids.push(commit.message(message).date(date).push().unwrap());
    }
    repo.force(&ids[head]).unwrap();
    (repo, ids)
}
