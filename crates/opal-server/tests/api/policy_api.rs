//! `GET /policy`, and the road of a commit through sockets only.

use opal_testing::git_repo::TestRepo;
use serde_json::Value;

use crate::peer::Peer;
use crate::support::{TestServer, fixture, lines, recorded_repo};

fn compact(pretty: &str) -> String {
    serde_json::from_str::<Value>(pretty).unwrap().to_string()
}

#[tokio::test]
async fn bundles_are_the_recorded_ones() {
    let (repo, ids) = recorded_repo(0);
    let server = TestServer::following(&repo, &[]).await;
    for (target, recorded) in [
        ("/policy", fixture!("policy/bundle-complete-c1.json")),
        ("/policy?path=.", fixture!("policy/bundle-complete-c1.json")),
        (
            "/policy?path=app",
            fixture!("policy/bundle-complete-c1-path-app.json"),
        ),
        (
            "/policy?path=/app/",
            fixture!("policy/bundle-complete-c1-path-app.json"),
        ),
        (
            "/policy?path=app&path=lib",
            fixture!("policy/bundle-complete-c1-path-app-lib.json"),
        ),
        (
            "/policy?path=app%2F&other=x&path=lib",
            fixture!("policy/bundle-complete-c1-path-app-lib.json"),
        ),
    ] {
        let answer = server.get(target).await.expect(200).unwrap();
        assert_eq!(answer.body, compact(recorded), "{target}");
    }
    for (head, base, recorded) in [
        (1, 0, fixture!("policy/bundle-diff-c1-c2.json")),
        (3, 2, fixture!("policy/bundle-diff-c3-c4.json")),
    ] {
        let (repo, _) = recorded_repo(head);
        let server = TestServer::following(&repo, &[]).await;
        let answer = server
            .get(&format!("/policy?path=.&base_hash={}", ids[base]))
            .await;
        assert_eq!(answer.expect(200).unwrap().body, compact(recorded));
    }
}

#[tokio::test]
async fn a_commit_is_announced_and_fetched_as_recorded() {
    let (repo, ids) = recorded_repo(0);
    let anyone = r#"{"match_sender_url": false}"#;
    let server = TestServer::following(&repo, &[("OPAL_POLICY_REPO_WEBHOOK_PARAMS", anyone)]).await;
    let mut client = Peer::subscribed(&server, &["policy:."]).await;
    repo.force(&ids[1]).unwrap();
    let mut done = 0;
    for line in lines::<Value>(fixture!("websocket/connection-policy-update.jsonl")) {
        done += 1;
        let body =
            || -> Value { serde_json::from_str(line["request_body"].as_str().unwrap()).unwrap() };
        match (line["target"].as_str(), line["dir"].as_str()) {
            (Some("/webhook"), _) => {
                // Its sender and ours differ: the body names the recorded repository.
                let request = opal_testing::http::post(server.url("/webhook"));
                let request = request.header("X-GitHub-Event", "push").json(&body());
                request.unwrap().send().await.unwrap().expect(200).unwrap();
            }
            (Some("/data/callback_report"), _) => {
                let answer = server.post("/data/callback_report", &body()).await;
                assert_eq!(answer.text(), line["response_body"].as_str().unwrap());
            }
            (Some(policy), _) => {
                let answer = server.get(policy).await;
                assert_eq!(answer.body, line["response_body"].as_str().unwrap());
            }
            (None, Some("server_to_client")) => {
                let recorded: Value = serde_json::from_str(line["text"].as_str().unwrap()).unwrap();
                let recorded = &recorded["request"]["arguments"];
                let told = client.notified().await;
                assert_eq!(told["data"].to_string(), recorded["data"].to_string());
                assert_eq!(
                    told["subscription"]["topic"],
                    recorded["subscription"]["topic"]
                );
            }
            _ => {} // The answer to the notification, which `notified` gave.
        }
    }
    assert_eq!(done, 5);
}

#[tokio::test]
async fn without_a_clone_or_a_branch_there_is_503() {
    let server = TestServer::start(&[]).await;
    let answer = server.get("/policy").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), r#"{"detail":"policy repo was not found"}"#);

    let empty = TestRepo::empty().unwrap();
    let url = empty.url();
    let server = TestServer::start(&[("OPAL_POLICY_REPO_URL", &url)]).await;
    server.until(|status| status.rounds > 0).await;
    let answer = server.get("/policy").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), r#"{"detail":"policy repo is not ready"}"#);
}
