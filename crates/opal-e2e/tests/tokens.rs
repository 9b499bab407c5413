//! Who may do what, and what the others get: the same from both kinds of server.

use opal_e2e::peer::Peer;
use opal_testing::binaries::Kind;
use opal_testing::http;
use opal_testing::keys::Keys;
use opal_testing::services::Service;
use serde_json::{Value, json};

struct Secured {
    server: Service,
    keys: Keys,
    directory: tempfile::TempDir,
}

impl Secured {
    async fn start(kind: Kind) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let keys = Keys::generate(directory.path(), "phrase")?;
        let server = Service::server(kind, directory.path(), keys.server_settings()).await?;
        Ok(Self {
            server,
            keys,
            directory,
        })
    }

    async fn token(&self, request: Value) -> anyhow::Result<String> {
        let post = http::post(self.server.url("/token")).bearer(&self.keys.master_token);
        let answer = post.json(&request)?.send().await?.expect(200)?.json()?;
        Ok(answer["token"].as_str().unwrap_or_default().to_owned())
    }

    /// A token that is right in everything but the key that signed it.
    async fn foreign_token(&self, kind: Kind) -> anyhow::Result<String> {
        let elsewhere = self.directory.path().join("elsewhere");
        std::fs::create_dir(&elsewhere)?;
        let keys = Keys::generate(&elsewhere, "")?;
        let server = Service::server(kind, &elsewhere, keys.server_settings()).await?;
        let other = Self {
            server,
            keys,
            directory: tempfile::tempdir()?,
        };
        other.token(json!({})).await
    }

    async fn refused_everywhere(&self, token: Option<&str>, why: &str) -> anyhow::Result<()> {
        let mut request = http::get(self.server.url("/data/config"));
        if let Some(token) = token {
            request = request.bearer(token);
        }
        let answer = request.send().await?.expect(401)?;
        anyhow::ensure!(answer.headers["www-authenticate"] == "Bearer");
        let error = answer.json()?["detail"]["error"].clone();
        anyhow::ensure!(error == why, "expected `{why}`, got {error}");
        let status = Peer::refusal(&self.server, token).await?;
        anyhow::ensure!(
            status == 403,
            "{why}: the websocket was refused with {status}"
        );
        Ok(())
    }
}

async fn bad_tokens_are_refused(kind: Kind) -> anyhow::Result<()> {
    let secured = Secured::start(kind).await?;
    let foreign = secured.foreign_token(kind).await?;
    let expired = secured.token(json!({"ttl": -10})).await?;
    let other_audience = secured
        .token(json!({"claims": {"aud": "https://example.com/"}}))
        .await?;
    let no_subject = secured.token(json!({"claims": {"sub": "alice"}})).await?;
    let cases = [
        (None, "access token was not provided"),
        (Some("not-a-token"), "Could not decode access token"),
        (Some(foreign.as_str()), "Could not decode access token"),
        (Some(expired.as_str()), "Access token is expired"),
        (
            Some(other_audience.as_str()),
            "Invalid access token: invalid audience claim",
        ),
        (Some(no_subject.as_str()), "invalid sub claim"),
    ];
    for (token, why) in cases {
        secured.refused_everywhere(token, why).await?;
    }

    let client = secured.token(json!({"type": "client"})).await?;
    Peer::connect(&secured.server, Some(&client))
        .await?
        .subscribe(&["policy:."])
        .await?;
    let publish = http::post(secured.server.url("/data/config")).bearer(&client);
    let refused = publish
        .json(&json!({"entries": []}))?
        .send()
        .await?
        .expect(401)?;
    anyhow::ensure!(
        refused.json()?["detail"]["error"]
            == "Incorrect 'peer_type' claim for OPAL jwt token: PeerType.client, expected: PeerType.datasource",
        "{}",
        refused.text()
    );

    let limited = json!({"type": "datasource", "claims": {"permitted_topics": ["users"]}});
    let limited = secured.token(limited).await?;
    for (topic, status) in [("users", 200), ("other", 401)] {
        let update = json!({"entries": [{"url": "", "topics": [topic], "data": {}}]});
        let publish = http::post(secured.server.url("/data/config")).bearer(&limited);
        publish.json(&update)?.send().await?.expect(status)?;
    }

    let wrong_master = http::post(secured.server.url("/token")).bearer("wrong");
    let refused = wrong_master.json(&json!({}))?.send().await?.expect(401)?;
    anyhow::ensure!(
        refused.json()?["detail"]["error"] == "unauthorized to access this endpoint!",
        "{}",
        refused.text()
    );
    if kind == Kind::Rust {
        let log = secured.server.log();
        for secret in [
            &foreign,
            &expired,
            &client,
            &limited,
            &secured.keys.master_token,
        ] {
            anyhow::ensure!(!log.contains(secret.as_str()), "a token is in the log");
        }
        anyhow::ensure!(
            log.contains("expired"),
            "the reason is not in the log:\n{log}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn our_server_refuses_bad_tokens() -> anyhow::Result<()> {
    bad_tokens_are_refused(Kind::Rust).await
}

#[tokio::test]
async fn a_released_server_refuses_bad_tokens_alike() -> anyhow::Result<()> {
    bad_tokens_are_refused(Kind::Python).await
}
