//! `POST /webhook`: what makes the server look for new commits, and what does not.

use opal_testing::http;
use serde_json::{Value, json};

use crate::support::{TestServer, recorded_repo};

async fn hook(server: &TestServer, event: &str, body: &Value) -> Value {
    let request = http::post(server.url("/webhook")).header("X-GitHub-Event", event);
    let request = request.json(body).unwrap();
    request
        .send()
        .await
        .unwrap()
        .expect(200)
        .unwrap()
        .json()
        .unwrap()
}

#[tokio::test]
async fn only_a_push_to_our_repository_makes_the_server_look() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    let before = server
        .until(|status| status.announced.is_some())
        .await
        .rounds;
    let ours = json!({ "repository": { "clone_url": repo.url() } });
    let theirs = json!({ "repository": { "clone_url": "https://git.example.com/other.git" } });
    assert_eq!(hook(&server, "ping", &ours).await["status"], "ok");
    assert_eq!(
        hook(&server, "push", &theirs).await,
        json!({ "status": "ignored", "event": "push" })
    );
    assert_eq!(server.rounds(), before);

    repo.force(&ids[1]).unwrap();
    let answer = hook(&server, "push", &ours).await;
    let url = repo.url();
    assert_eq!(
        answer,
        json!({ "status": "ok", "event": "push", "repo_url": url })
    );
    let status = server.until(|status| status.rounds > before).await;
    assert_eq!(status.announced.as_ref(), Some(&ids[1]));
}

#[tokio::test]
async fn an_enforced_branch_is_found_where_each_service_puts_it() {
    let (repo, _) = recorded_repo(0);
    let enforce = ("OPAL_POLICY_REPO_WEBHOOK_ENFORCE_BRANCH", "true");
    let server = TestServer::following(&repo, &[enforce]).await;
    let sender = json!({ "clone_url": repo.url() });
    for branch in [
        json!({ "ref": "refs/heads/main" }),
        json!({ "resource": { "refUpdates": [{ "name": "refs/heads/main" }] } }),
        json!({ "push": { "changes": [{ "new": { "name": "main" } }] } }),
    ] {
        let mut body = branch;
        body["repository"] = sender.clone();
        assert_eq!(hook(&server, "push", &body).await["status"], "ok", "{body}");
    }
    let other = json!({ "ref": "refs/heads/dev", "repository": sender });
    assert_eq!(hook(&server, "push", &other).await, Value::Null);
}

#[tokio::test]
async fn a_name_is_enough_for_a_repository_with_an_scp_like_url() {
    let url = ("OPAL_POLICY_REPO_URL", "git@git.invalid:acme/policies.git");
    let server = TestServer::start(&[url]).await;
    let named = json!({ "repository": { "full_name": "acme/policies" } });
    assert_eq!(hook(&server, "ping", &named).await["status"], "ok");
}

#[tokio::test]
async fn no_answer_shows_how_we_log_in_to_the_repository() {
    let url = "https://bob:hunter2@git.invalid/acme/policies.git?token=hunter2";
    let server = TestServer::start(&[("OPAL_POLICY_REPO_URL", url)]).await;
    let named = json!({ "repository": { "clone_url": "https://git.invalid/acme/policies.git" } });
    let answer = hook(&server, "ping", &named).await;
    assert_eq!(answer["repo_url"], "https://git.invalid/acme/policies.git");
}

#[tokio::test]
async fn a_payload_beyond_what_services_send_is_refused() {
    let server = TestServer::start(&[]).await;
    let payload = vec![b' '; 26 << 20];
    let request = http::post(server.url("/webhook")).body(payload);
    match request.send().await {
        Ok(answer) => assert_eq!(answer.status, 413),
        // Refused before all of it was sent.
        Err(_) => assert_eq!(server.get("/").await.status, 200),
    }
}
