//! `POST /policy/refresh`, and the revision in a webhook's answer.

use opal_testing::http;
use serde_json::json;

use crate::publishing::position;
use crate::support::{TestServer, recorded_repo};

#[tokio::test]
async fn a_refresh_answers_with_the_commit_and_where_it_was_announced() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    repo.force(&ids[1]).unwrap();
    let answer = server.post("/policy/refresh", &json!({})).await;
    let answer = answer.expect(200).unwrap();
    let revision = position(&answer, "x-opal-revision");
    assert_eq!(revision.revision.0, 2);
    assert_eq!(
        answer.json().unwrap(),
        json!({ "status": "ok", "revision": revision, "commit": ids[1] })
    );
    // Nothing new: the same commit, announced where it was.
    let again = server.post("/policy/refresh?wait=all", &json!({})).await;
    let again = again.expect(200).unwrap().json().unwrap();
    assert_eq!(again["revision"], json!(revision));
    assert_eq!(again["commit"], json!(ids[1]));
    assert_eq!(
        (&again["met"], &again["applied"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn a_refresh_that_fails_says_why_without_a_secret() {
    let url = "https://bob:hunter2@git.invalid/acme/policies.git?token=hunter2";
    let server = TestServer::start(&[("OPAL_POLICY_REPO_URL", url)]).await;
    let answer = server.post("/policy/refresh", &json!({})).await;
    assert_eq!(answer.status, 502);
    let text = answer.text();
    assert!(
        text.contains("could not fetch from") && text.contains("git.invalid"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_refresh_needs_a_repository_a_data_source_and_a_wait_that_is_one() {
    let server = TestServer::secured(&[]).await;
    let refresh = async |token: &str, query: &str| {
        let url = server.url(&format!("/policy/refresh{query}"));
        http::post(url)
            .bearer(token)
            .send()
            .await
            .unwrap()
            .status
            .as_u16()
    };
    let (client, source) = (
        server.token_of("client").await,
        server.token_of("datasource").await,
    );
    assert_eq!(refresh("garbage", "").await, 401);
    assert_eq!(refresh(&client, "").await, 401);
    assert_eq!(refresh(&source, "?wait=some").await, 400);
    assert_eq!(refresh(&source, "").await, 503);
}

#[tokio::test]
async fn a_webhook_says_where_the_commit_was_announced_and_does_not_fail_with_the_check() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    repo.force(&ids[1]).unwrap();
    let push = async || {
        let body = json!({ "repository": { "clone_url": repo.url() } });
        let request = http::post(server.url("/webhook")).header("x-github-event", "push");
        let answer = request.json(&body).unwrap().send().await.unwrap();
        answer.expect(200).unwrap()
    };
    let answer = push().await;
    assert_eq!(position(&answer, "x-opal-revision").revision.0, 2);
    let _hidden = repo.hide().unwrap();
    let answer = push().await;
    assert_eq!(answer.json().unwrap()["status"], "ok");
    assert!(!answer.headers.contains_key("x-opal-revision"));
}
