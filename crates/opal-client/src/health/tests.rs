use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::get;
use opal_protocol::{ChainDigest, Epoch, Position, Revision};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::*;
use crate::replica::ReplicaStatus;
use crate::standing::PATIENCE;
use crate::transactions::{EnabledUpdaters, TransactionLog};

/// A client whose engine was filled and which lacks what came `ago`.
fn app(held: u64, ago: std::time::Duration) -> App {
    let now = Moment::now();
    let then = Moment {
        instant: now.instant.checked_sub(ago).unwrap(),
        utc: now.utc - ago,
    };
    let mut standing = Standing::new(then);
    standing.restored();
    let epoch = Epoch(0xab);
    let status = ReplicaStatus {
        is_connected: true,
        received: Some(Position {
            epoch,
            revision: Revision(7),
            digest: ChainDigest::default(),
        }),
        held: Some((epoch, Revision(held))),
        awaits_snapshot: false,
        outstanding: usize::try_from(7 - held).unwrap(),
        failing: Vec::new(),
        policy_needed: None,
        commit: None,
    };
    standing.update(status, then);
    let transactions = TransactionLog::new(EnabledUpdaters {
        policy: true,
        data: true,
    });
    transactions.restored();
    App {
        transactions,
        standing: watch::Sender::new(standing).subscribe(),
        offline: watch::Sender::new(None).subscribe(),
        commands: mpsc::channel(1).0,
        policy_updater: true,
        data_updater: true,
    }
}

async fn ask(app: App, target: &str) -> (u16, Value) {
    let router = Router::new()
        .route("/healthy", get(healthy))
        .route("/ready", get(ready))
        .with_state(app);
    let request = Request::get(target).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn without_verbose_the_answers_are_those_of_released_opal() {
    let in_step = app(7, PATIENCE);
    let body = json!({ "status": "ok", "online": true });
    for target in ["/healthy", "/healthy?verbose=false", "/healthy?verbosely"] {
        assert_eq!(ask(in_step.clone(), target).await, (200, body.clone()));
    }
    let body = json!({ "status": "ok" });
    assert_eq!(ask(in_step, "/ready").await, (200, body));
}

#[tokio::test]
async fn verbose_says_where_the_client_is() {
    for target in ["/healthy?verbose", "/ready?verbose=true"] {
        let (status, body) = ask(app(5, std::time::Duration::ZERO), target).await;
        assert_eq!(status, 200);
        assert_eq!(body["status"], "ok");
        assert_eq!(body["reasons"], json!([]));
        assert_eq!(body["server"]["mode"], "feed");
        assert_eq!(body["position"]["held"], "00000000000000ab:5");
        assert_eq!(body["position"]["received"], "00000000000000ab:7");
        assert_eq!(body["behind"]["changes"], 2);
        assert!(body["behind"]["since"].is_string(), "{body}");
        assert_eq!(body["snapshot_pending"], false);
        assert_eq!(body["engine"]["reachable"], true);
    }
}

#[tokio::test]
async fn a_client_that_is_behind_for_too_long_is_ready_and_not_healthy_and_says_why() {
    let behind = app(5, PATIENCE * 2);
    let (status, _) = ask(behind.clone(), "/ready").await;
    assert_eq!(status, 200);
    let (status, body) = ask(behind, "/healthy").await;
    assert_eq!(status, 503);
    assert_eq!(body["reasons"][0]["reason"], "behind");
    assert_eq!(body["reasons"][0]["changes"], 2);
}
