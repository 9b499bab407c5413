//! The same requests to ours and to the released program: the answers are the same.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use opal_e2e::{Deployment, Engine, Setup};
use opal_protocol::CommitHash;
use opal_testing::binaries::Kind;
use opal_testing::git_repo::TestRepo;
use opal_testing::http::{self, Answer, Request};
use opal_testing::keys::Keys;
use opal_testing::services::{Service, Setting, setting};
use serde_json::{Value, json};

/// Both kinds of server, the same settings for both.
struct Pair {
    ours: Service,
    released: Service,
}

impl Pair {
    async fn of_servers(directory: &std::path::Path, settings: &[Setting]) -> anyhow::Result<Self> {
        Ok(Self {
            released: Service::server(Kind::Python, directory, settings.to_vec()).await?,
            ours: Service::server(Kind::Rust, directory, settings.to_vec()).await?,
        })
    }

    /// Sends `request` to both and describes how the answers differ, if they do.
    async fn difference(
        &self,
        name: &str,
        request: impl Fn(&Service) -> anyhow::Result<Request>,
    ) -> anyhow::Result<Option<String>> {
        let ours = request(&self.ours)?.send().await?;
        let released = request(&self.released)?.send().await?;
        Ok(difference(name, &seen(&ours), &seen(&released)))
    }
}

/// What a caller may rely on: status, the headers that carry meaning, and the document, with every
/// loopback port called PORT.
fn seen(answer: &Answer) -> Seen {
    let header = |name: &str| {
        let value = answer.headers.get(name)?.to_str().ok()?;
        Some(without_ports(value))
    };
    let text = without_ports(&String::from_utf8_lossy(&answer.body));
    BTreeMap::from([
        ("status", json!(answer.status.as_u16())),
        ("content-type", json!(header("content-type"))),
        ("www-authenticate", json!(header("www-authenticate"))),
        ("location", json!(header("location"))),
        (
            "body",
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ),
    ])
}

type Seen = BTreeMap<&'static str, Value>;

fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "127.0.0.1:PORT" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

fn difference(name: &str, ours: &Seen, released: &Seen) -> Option<String> {
    let differs = ours != released;
    differs.then(|| format!("{name}\n  released {released:?}\n  ours     {ours:?}"))
}

fn none(differences: &[String]) -> anyhow::Result<()> {
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// A history with everything that a bundle may have to say.
fn history() -> anyhow::Result<(TestRepo, Vec<CommitHash>)> {
    let mut repo = TestRepo::with_files(&[
        (
            "app/rbac.rego",
            "package app.rbac\n\ndefault allow = false\n",
        ),
        (
            "app/users/data.json",
            "{\"alice\": {\"age\": 1.0, \"n\": 10000000000000000000000}}\n",
        ),
        (
            "app/users/more.rego",
            "# A comment first.\npackage app.users\n",
        ),
        ("data.json", "{\"root\": [1, 2, {\"ü\": null}]}\n"),
        ("lib/util/util.rego", "package lib.util # trailing\n"),
        ("lib/quoted.rego", "package lib[\"a.b\"]\n"),
        (
            "lib/doomed.rego",
            "package lib.doomed\n\nx = 1\ny = 2\nz = 3\n",
        ),
        ("other/settings.json", "{}\n"),
        ("secret/hidden.rego", "package secret\n"),
        ("README.md", "no policy\n"),
    ])?;
    let first = repo.head()?;
    let second = repo
        .commit()?
        .file(
            "app/rbac.rego",
            "package app.rbac\n\ndefault allow = true\n",
        )?
        .file("app/new.rego", "package app.new\n")?
        .rename("lib/doomed.rego", "lib/saved.rego")
        .rename("app/users/data.json", "app/people/data.json")
        .remove("lib/quoted.rego")
        .push()?;
    let third = repo
        .commit()?
        .file(
            ".manifest",
            "lib/util/util.rego\napp\nmissing.rego\napp/new.rego\n",
        )?
        .file("app/.manifest", "users/more.rego\n")?
        .remove("data.json")
        .push()?;
    let fourth = repo
        .commit()?
        .file("README.md", "still no policy\n")?
        .push()?;
    Ok((repo, vec![first, second, third, fourth]))
}

#[tokio::test]
async fn bundles_are_the_same() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (repo, commits) = history()?;
    let pair = Pair::of_servers(
        directory.path(),
        &[
            setting("OPAL_POLICY_REPO_URL", &repo.path().display()),
            setting("OPAL_POLICY_REPO_MAIN_BRANCH", &repo.branch()),
            setting("OPAL_BUNDLE_IGNORE", &"secret/**,README.md"),
        ],
    )
    .await?;
    for server in [&pair.released, &pair.ours] {
        server.wait_for_ok("/policy").await?;
    }
    let mut queries: Vec<String> = [
        "",
        "?path=app",
        "?path=/app/",
        "?path=app/users&path=lib",
        "?path=.",
        "?path=app/rbac.rego",
        "?path=not/there",
    ]
    .map(str::to_owned)
    .to_vec();
    // On purpose, a file renamed out of the requested directories is removed here and nothing more,
    // while released servers send its new path too, because its old one was requested. So the last
    // query is asked only from commits after the rename.
    for base in &commits {
        queries.push(format!("?base_hash={base}"));
        queries.push(format!("?path=app&base_hash={base}"));
    }
    for base in commits.iter().skip(1) {
        queries.push(format!("?path=lib&path=app/users&base_hash={base}"));
    }
    let mut differences = Vec::new();
    for query in queries {
        let path = format!("/policy{query}");
        let get = |server: &Service| Ok(http::get(server.url(&path)));
        differences.extend(pair.difference(&path, get).await?);
    }
    none(&differences)
}

#[tokio::test]
async fn routes_of_a_secured_server_answer_the_same() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let keys = Keys::generate(directory.path(), "phrase")?;
    let sources = json!({"config": {"entries": [
        {"url": "http://127.0.0.1:1/users", "dst_path": "/users", "topics": ["users"]},
        {"url": "http://127.0.0.1:1/x", "config": {"headers": {"a": "b"}}, "periodic_update_interval": 5},
    ]}});
    let settings: Vec<Setting> = keys
        .server_settings()
        .into_iter()
        .chain([setting("OPAL_DATA_CONFIG_SOURCES", &sources)])
        .collect();
    let pair = Pair::of_servers(directory.path(), &settings).await?;
    let token = async |peer: &str| {
        let post = http::post(pair.ours.url("/token")).bearer(&keys.master_token);
        let answer = post
            .json(&json!({"type": peer}))?
            .send()
            .await?
            .expect(200)?
            .json()?;
        answer["token"]
            .as_str()
            .map(str::to_owned)
            .context("no token")
    };
    let (client, datasource) = (token("client").await?, token("datasource").await?);

    let mut differences = Vec::new();
    for path in [
        "/",
        "/healthcheck",
        "/policy-data",
        "/nowhere",
        "/.well-known/jwks.json",
    ] {
        let get = |server: &Service| Ok(http::get(server.url(path)));
        differences.extend(pair.difference(path, get).await?);
    }
    for path in ["/policy", "/data/config", "/scopes"] {
        let open = |server: &Service| Ok(http::get(server.url(path)));
        differences.extend(pair.difference(path, open).await?);
        let with_token = |server: &Service| Ok(http::get(server.url(path)).bearer(&client));
        let name = format!("{path} with a token");
        differences.extend(pair.difference(&name, with_token).await?);
    }
    let delete = |server: &Service| Ok(http::request(http::Method::DELETE, server.url("/policy")));
    differences.extend(pair.difference("DELETE /policy", delete).await?);

    let bodies = [
        json!({"entries": []}),
        json!({"entries": [{"url": "http://127.0.0.1:1/a", "topics": ["a/b"]}], "reason": "r"}),
        json!({"entries": [{"url": 5}]}),
        json!({}),
        json!({"entries": [{"topics": ["a"]}]}),
        json!({"entries": [{"url": "", "data": 7}]}),
        json!({"entries": [{"url": "", "data": {}, "save_method": "MERGE"}]}),
        json!({"entries": [{"url": "", "data": {}, "save_method": "PATCH"}]}),
        json!({"entries": [{"url": "", "data": [{"op": "add"}], "save_method": "PATCH"}]}),
    ];
    for body in &bodies {
        let name = format!("POST /data/config {body}");
        let post = |server: &Service| {
            http::post(server.url("/data/config"))
                .bearer(&datasource)
                .json(body)
        };
        differences.extend(pair.difference(&name, post).await?);
    }
    for body in [
        json!({"ttl": "soon"}),
        json!({"type": "king"}),
        json!({"id": "me"}),
    ] {
        let name = format!("POST /token {body}");
        let post = |server: &Service| {
            http::post(server.url("/token"))
                .bearer(&keys.master_token)
                .json(&body)
        };
        differences.extend(pair.difference(&name, post).await?);
    }
    none(&differences)
}

/// Without what depends on the ports, and without the last report, which the released client leaves
/// in its callbacks.
fn of_client(answer: &Answer) -> Seen {
    let mut seen = seen(answer);
    for callback in seen
        .get_mut("body")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        callback["key"].take();
        callback["config"]["data"].take();
    }
    seen
}

#[tokio::test]
async fn routes_of_a_secured_client_answer_the_same() -> anyhow::Result<()> {
    let released = Setup::new(Kind::Python, Kind::Python, Engine::OpaElsewhere);
    let ours = Setup::new(Kind::Python, Kind::Rust, Engine::OpaElsewhere);
    released
        .run(async |released| {
            ours.run(async |ours| compare_clients(ours, released).await)
                .await
        })
        .await
}

async fn compare_clients(ours: &Deployment, released: &Deployment) -> anyhow::Result<()> {
    let requests: [(&str, &str, Option<&Value>); 8] = [
        ("GET", "/", None),
        ("GET", "/healthcheck", None),
        ("GET", "/healthy", None),
        ("GET", "/ready", None),
        ("POST", "/policy-updater/trigger", None),
        ("POST", "/data-updater/trigger", None),
        ("GET", "/connectivity", None),
        ("DELETE", "/ready", None),
    ];
    let mut differences = Vec::new();
    for peer in [None, Some("listener")] {
        for (method, path, body) in requests {
            let ask = async |deployment: &Deployment| {
                let mut request = http::request(method.parse()?, deployment.client.url(path));
                if let Some(peer) = peer {
                    request = request.bearer(&deployment.token(&json!({"type": peer})).await?);
                }
                if let Some(body) = body {
                    request = request.json(body)?;
                }
                anyhow::Ok(of_client(&request.send().await?))
            };
            let name = format!("{method} {path} as {peer:?}");
            let (ours, released) = (ask(ours).await?, ask(released).await?);
            differences.extend(difference(&name, &ours, &released));
        }
    }
    none(&differences)
}
