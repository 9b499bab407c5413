//! SSH and HTTP as `git` speaks them, with keys, options and credentials.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use opal_protocol::RedactedUrl;
use opal_server::policy::{PolicyRepo, Selection};
use opal_testing::git_repo::TestRepo;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::{bundle, settings};

/// Tells the test below what to clone, and with which key.
const URL: &str = "TEST_REPOSITORY";
const KEY: &str = "TEST_KEY";
const CLONES: &str = "TEST_CLONES";

/// Notes how it was called, then does what the remote end would do.
const FAKE_SSH: &str = r#"#!/bin/sh
place=$(dirname "$0")
printf '%s\n' "$@" > "$place/arguments"
env > "$place/environment"
for last; do :; done
exec sh -c "$last"
"#;

/// An `ssh` that reaches this machine only.
struct FakeSsh {
    directory: TempDir,
}

impl FakeSsh {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("ssh");
        std::fs::write(&program, FAKE_SSH).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("ssh")
    }

    /// A search path on which it is the first.
    fn search_path(&self) -> OsString {
        let others = std::env::var_os("PATH").unwrap_or_default();
        let ours = self.directory.path().to_owned();
        std::env::join_paths([ours].into_iter().chain(std::env::split_paths(&others))).unwrap()
    }

    fn noted(&self, what: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(what)).unwrap()
    }
}

/// Runs [`one_sync`] as a process of its own: its environment is what these tests are about.
fn sync_apart(url: &str, clones: &TempDir) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "transports::one_sync", "--ignored"])
        .env(URL, url)
        .env(CLONES, clones.path())
        .env_remove("GIT_SSH")
        .env_remove("GIT_SSH_VARIANT")
        .env_remove("GIT_SSH_COMMAND")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn succeed(mut command: Command) {
    let output = command.output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
#[ignore = "run by the tests of this file, in an environment of its own"]
async fn one_sync() {
    let Some(url) = std::env::var_os(URL) else {
        return;
    };
    let mut settings = settings(url.to_str().unwrap(), &tempfile::tempdir().unwrap());
    let clones = PathBuf::from(std::env::var_os(CLONES).unwrap());
    settings.clone_parent = clones.join("clones");
    settings.ssh_key_file = clones.join("it's a key");
    settings.ssh_key =
        std::env::var_os(KEY).map(|key| SecretString::from(key.into_string().unwrap()));
    let repo = PolicyRepo::new(settings, Selection::default());
    repo.sync().await.unwrap();
    assert_eq!(bundle(&repo, &[], None).await.manifest.len(), 1);
}

fn one_file() -> TestRepo {
    TestRepo::with_files(&[("a.rego", "package a\n")]).unwrap()
}

fn ssh_url(remote: &TestRepo) -> String {
    format!(
        "ssh://git@policies.example.com:2222{}",
        remote.path().display()
    )
}

#[tokio::test]
async fn the_configured_key_and_its_options_reach_ssh_and_our_secrets_do_not() {
    let (remote, ssh, clones) = (one_file(), FakeSsh::new(), tempfile::tempdir().unwrap());
    let mut sync = sync_apart(&ssh_url(&remote), &clones);
    sync.env("PATH", ssh.search_path())
        .env(KEY, "BEGIN_key_END")
        .env("GIT_SSH_COMMAND", "false")
        .env("OPAL_POLICY_REPO_SSH_KEY", "hunter2")
        .env("OPAL_AUTH_PRIVATE_KEY", "hunter2")
        .env("OPAL_AUTH_MASTER_TOKEN", "hunter2")
        .env("OPAL_POLICY_REPO_CLONE_TIMEOUT", "5");
    succeed(sync).await;

    let key = clones.path().join("it's a key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "BEGIN\nkey\nEND\n");
    let arguments = ssh.noted("arguments");
    let expected = format!(
        "-o\nBatchMode=yes\n-o\nStrictHostKeyChecking=no\n-o\nIdentitiesOnly=yes\n-i\n{}\n",
        key.display()
    );
    assert!(arguments.starts_with(&expected), "{arguments}");
    let target = format!(
        "-p\n2222\ngit@policies.example.com\ngit-upload-pack '{}'\n",
        remote.path().display()
    );
    assert!(arguments.ends_with(&target), "{arguments}");
    let environment = ssh.noted("environment");
    let secrets: Vec<&str> = environment
        .lines()
        .filter(|line| line.contains("hunter2"))
        .collect();
    assert_eq!(secrets, [""; 0]);
    assert!(environment.contains("OPAL_POLICY_REPO_CLONE_TIMEOUT=5"));
}

#[tokio::test]
async fn without_a_key_ssh_is_the_user_s_own() {
    let (remote, ssh, clones) = (one_file(), FakeSsh::new(), tempfile::tempdir().unwrap());
    let mut sync = sync_apart(&ssh_url(&remote), &clones);
    let own = format!("'{}' -F /etc/our_ssh_config", ssh.program().display());
    sync.env("GIT_SSH_COMMAND", own);
    succeed(sync).await;

    let arguments = ssh.noted("arguments");
    assert!(
        arguments.starts_with("-F\n/etc/our_ssh_config\n"),
        "{arguments}"
    );
    for ours in ["BatchMode", "StrictHostKeyChecking", "-i"] {
        assert!(
            !arguments.lines().any(|line| line.contains(ours)),
            "{arguments}"
        );
    }
    assert!(!clones.path().join("it's a key").exists());
}

/// The repository as plain files over HTTP, for `bob` with the password `hunter2!`.
struct FileServer {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl FileServer {
    async fn start(remote: &TestRepo) -> Self {
        remote.git(&["update-server-info"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let files = remote.path().to_owned();
        let router = Router::new().fallback(serve_file).with_state(files);
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            _task: task,
        }
    }

    fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}{}/policies.git", self.address)
    }
}

async fn serve_file(State(files): State<PathBuf>, request: Request) -> Response {
    let expected = base64::engine::general_purpose::STANDARD.encode("bob:hunter2!");
    let given = request.headers().get(header::AUTHORIZATION);
    if given.is_none_or(|given| given.as_bytes() != format!("Basic {expected}").as_bytes()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"policies\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let file = request.uri().path().strip_prefix("/policies.git/");
    match file.map(|file| std::fs::read(files.join(file))) {
        Some(Ok(content)) => content.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether a file below `directory` holds `text`.
fn is_written(text: &str, directory: &Path) -> bool {
    let mut entries = std::fs::read_dir(directory).unwrap();
    entries.any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_written(text, &path),
            false => String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(text),
        }
    })
}

#[tokio::test]
async fn credentials_in_the_url_are_used_and_not_kept() {
    let mut remote = one_file();
    let server = FileServer::start(&remote).await;
    let clones = tempfile::tempdir().unwrap();
    let url = server.url("bob:hunter2%21@");
    let repo = PolicyRepo::new(settings(&url, &clones), Selection::default());
    assert_eq!(repo.sync().await.unwrap(), remote.head().unwrap());

    let commit = remote.commit().unwrap();
    let second = commit
        .file("b.rego", "package b\n")
        .unwrap()
        .push()
        .unwrap();
    remote.git(&["update-server-info"]).unwrap();
    assert_eq!(repo.sync().await.unwrap(), second);

    assert_eq!(bundle(&repo, &[], None).await.manifest.len(), 2);
    assert!(!is_written("hunter2", clones.path()));
    assert!(is_written(&server.address.to_string(), clones.path()));
    assert!(!format!("{repo:?}").contains("hunter2"));
}

#[tokio::test]
async fn credentials_that_are_refused_are_not_printed() {
    let remote = one_file();
    let server = FileServer::start(&remote).await;
    for credentials in ["", "bob:hunter3%21@", "a-token-of-hunter3@"] {
        let clones = tempfile::tempdir().unwrap();
        let url = server.url(credentials);
        let repo = PolicyRepo::new(settings(&url, &clones), Selection::default());
        let error = repo.sync().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        let shown = format!("{error} {cause} {error:?} {repo:?}");
        assert!(!shown.contains("hunter3"), "{shown}");
        assert!(cause.starts_with("`git ls-remote` failed: "), "{cause}");
        assert_eq!(
            error.to_string(),
            format!("could not fetch from `{}`", RedactedUrl::from(url.as_str()))
        );
    }
}
