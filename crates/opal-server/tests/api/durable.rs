//! A feed that outlives its server, in `OPAL_STATE_DIR`.

use std::path::Path;

use opal_protocol::Position;
use opal_runtime::Tasks;
use opal_server::Server;
use opal_testing::git_repo::TestRepo;
use opal_testing::http::{self, Answer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::publishing::position;
use crate::support::{TestServer, config, recorded_repo};

async fn publish(server: &TestServer, key: &str) -> Answer {
    let entry = json!({ "url": "", "dst_path": format!("/{key}"), "data": { "a": 1 } });
    let request = http::post(server.url("/data/config")).header("idempotency-key", key);
    let request = request.json(&json!({ "entries": [entry] })).unwrap();
    request.send().await.unwrap().expect(200).unwrap()
}

/// A place for the state of a server, and for its clone, which is kept.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn start(&self, repo: Option<&TestRepo>) -> TestServer {
        self.start_with(repo, "http://sources.example/one").await
    }

    async fn start_with(&self, repo: Option<&TestRepo>, source: &str) -> TestServer {
        let sources = json!({ "config": { "entries": [{ "url": source }] } }).to_string();
        let of = |name: &str| self.0.path().join(name).to_str().unwrap().to_owned();
        let url = repo.map(TestRepo::url).unwrap_or_default();
        let (state, clones) = (of("state"), of("clones"));
        TestServer::start(&[
            ("OPAL_STATE_DIR", &state),
            ("OPAL_DATA_CONFIG_SOURCES", &sources),
            ("OPAL_POLICY_REPO_CLONE_PATH", &clones),
            ("OPAL_POLICY_REPO_REUSE_CLONE_PATH", "true"),
            ("OPAL_POLICY_REPO_MAIN_BRANCH", "main"),
            ("OPAL_POLICY_REPO_URL", &url),
        ])
        .await
    }
}

async fn head(server: &TestServer) -> Position {
    let fleet = server
        .get("/v1/fleet")
        .await
        .expect(200)
        .unwrap()
        .json()
        .unwrap();
    fleet["head"]["default"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn changed_data_sources_make_every_position_void_and_lose_nothing() {
    let place = Place::new();
    let server = place.start(None).await;
    let first = position(&publish(&server, "one").await, "x-opal-revision");
    server.stopped().await;

    let server = place.start_with(None, "http://sources.example/two").await;
    let renewed = head(&server).await;
    assert_ne!(renewed.epoch, first.epoch);
    let repeated = position(&publish(&server, "one").await, "x-opal-revision");
    assert_eq!(repeated, renewed, "the key is still known");
    server.stopped().await;

    let server = place.start_with(None, "http://sources.example/two").await;
    assert_eq!(head(&server).await, renewed, "nothing changed since");
    server.stopped().await;
}

#[tokio::test]
async fn a_feed_with_a_state_directory_goes_on_where_it_was() {
    let place = Place::new();
    let server = place.start(None).await;
    let first = publish(&server, "one").await;
    assert_eq!(first.headers["x-opal-durable"], "true");
    let first = position(&first, "x-opal-revision");
    let before = position(&publish(&server, "two").await, "x-opal-revision");
    server.stopped().await;

    let server = place.start(None).await;
    assert_eq!(head(&server).await, before);
    let repeated = publish(&server, "one").await;
    assert_eq!(position(&repeated, "x-opal-revision"), first);
    let next = position(&publish(&server, "three").await, "x-opal-revision");
    assert_eq!((next.epoch, next.revision.0), (first.epoch, 3));
    let base = server
        .get("/v1/feed/base?topic=policy_data")
        .await
        .json()
        .unwrap();
    let paths: Vec<&Value> = base["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["entry"]["dst_path"])
        .collect();
    assert_eq!(paths, ["/one", "/two", "/three"]);
}

#[tokio::test]
async fn a_commit_is_announced_once_however_often_the_server_restarts() {
    let (repo, ids) = recorded_repo(0);
    let place = Place::new();
    let server = place.start(Some(&repo)).await;
    server.until(|status| status.rounds > 0).await;
    let first = head(&server).await;
    assert_eq!(first.revision.0, 1);
    let last = position(&publish(&server, "one").await, "x-opal-revision");
    server.stopped().await;

    let server = place.start(Some(&repo)).await;
    let status = server.until(|status| status.rounds > 0).await;
    assert_eq!(status.announced.as_ref(), Some(&ids[0]));
    assert_eq!(head(&server).await, last);
    // Whom a wait concerns depends on the topics of that change.
    let refreshed = server.post("/policy/refresh?wait=all", &json!({})).await;
    let refreshed = refreshed.expect(200).unwrap();
    assert_eq!(position(&refreshed, "x-opal-revision"), first);
    server.stopped().await;

    repo.force(&ids[1]).unwrap();
    let server = place.start(Some(&repo)).await;
    let status = server.until(|status| status.rounds > 0).await;
    assert_eq!(status.announced.as_ref(), Some(&ids[1]));
    let answer = server.get("/policy").await.expect(200).unwrap();
    let now = position(&answer, "x-opal-position");
    assert_eq!((now.epoch, now.revision.0), (first.epoch, 3));
}

#[tokio::test]
async fn a_clone_that_may_be_older_than_the_feed_answers_nobody_who_knows_better() {
    let (repo, ids) = recorded_repo(0);
    let place = Place::new();
    let server = place.start(Some(&repo)).await;
    server.until(|status| status.rounds > 0).await;
    server.stopped().await;
    let (clones, aside) = (place.0.path().join("clones"), place.0.path().join("aside"));
    copy(&clones, &aside);

    repo.force(&ids[1]).unwrap();
    let server = place.start(Some(&repo)).await;
    server.until(|status| status.rounds > 0).await;
    let known = head(&server).await;
    server.stopped().await;

    std::fs::remove_dir_all(&clones).unwrap();
    std::fs::rename(&aside, &clones).unwrap();
    let hidden = repo.hide().unwrap();
    let server = place.start(Some(&repo)).await;
    server.until(|status| status.rounds > 0).await;
    let released = server.get("/policy").await.expect(200).unwrap();
    assert!(!released.headers.contains_key("x-opal-position"));
    let ask = async || {
        let request = http::get(server.url("/policy"));
        let request = request.header("x-opal-at-least", known.to_string());
        request.send().await.unwrap()
    };
    assert_eq!(ask().await.status, 503);
    assert_eq!(head(&server).await, known);

    drop(hidden);
    server
        .post("/policy/refresh", &json!({}))
        .await
        .expect(200)
        .unwrap();
    let answer = ask().await.expect(200).unwrap();
    assert_eq!(answer.json().unwrap()["hash"], json!(ids[1]));
    assert_eq!(head(&server).await, known);
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_stops_the_start_and_says_why() {
    let place = Place::new();
    let refused = async |state: &Path| {
        let state = state.to_str().unwrap();
        let config = config([("OPAL_STATE_DIR", state), ("OPAL_SERVER_BIND_PORT", "0")]);
        let tasks = Tasks::new(CancellationToken::new());
        let error = Server::start(config.unwrap(), &tasks).await.unwrap_err();
        opal_runtime::chain(&error)
    };
    let file = place.0.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refused(&file).await;
    assert!(
        error.contains("could not open the feed in") && error.contains("OPAL_STATE_DIR"),
        "{error}"
    );

    let server = place.start(None).await;
    let error = refused(&place.0.path().join("state")).await;
    assert!(error.contains("could not open the feed in"), "{error}");
    publish(&server, "still").await;
}
