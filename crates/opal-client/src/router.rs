//! Every route of the client's own API, one line each.

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use opal_runtime::cors::{Origins, cors};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::client::App;
use crate::health;
use crate::updater::Command;
use opal_runtime::chain;

/// The client's HTTP interface, for browsers on these origins too.
pub(crate) fn router(app: App, origins: &Origins) -> Router {
    Router::new()
        .route("/", get(health::healthy))
        .route("/healthcheck", get(health::healthy))
        .route("/healthy", get(health::healthy))
        .route("/ready", get(health::ready))
        .route("/policy-updater/trigger", post(trigger_policy))
        .route("/data-updater/trigger", post(trigger_data))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(from_fn_with_state(origins.clone(), cors))
        .with_state(app)
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

fn ok() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `POST /policy-updater/trigger`: asks for a complete bundle; answers at once.
async fn trigger_policy(State(app): State<App>) -> Response {
    if !app.policy_updater {
        let text = "Policy Updater is currently disabled.";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    match app.commands.send(Command::TriggerPolicy).await {
        Ok(()) => ok().into_response(),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the client is stopping"),
    }
}

/// `POST /data-updater/trigger`: loads the data sources again; answers once the server has named
/// them.
async fn trigger_data(State(app): State<App>) -> Response {
    if !app.data_updater {
        let text = "Data Updater is currently disabled. Dynamic data updates are not available.";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let (answer, answered) = oneshot::channel();
    // A client that stops drops the other end, which is an answer too.
    let _ = app.commands.send(Command::TriggerData(answer)).await;
    match answered.await {
        Ok(Ok(())) => ok().into_response(),
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &chain(&error)),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the server did not answer"),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, header};
    use tokio::sync::{mpsc, watch};
    use tower::ServiceExt;

    use super::*;
    use crate::standing::{Moment, Standing};
    use crate::transactions::{EnabledUpdaters, TransactionLog};

    #[tokio::test]
    async fn browsers_on_listed_origins_may_call_every_route() {
        let (commands, _commanded) = mpsc::channel(1);
        let app = App {
            transactions: TransactionLog::new(EnabledUpdaters {
                policy: true,
                data: true,
            }),
            standing: watch::Sender::new(Standing::new(Moment::now())).subscribe(),
            offline: watch::Sender::new(None).subscribe(),
            commands,
            policy_updater: true,
            data_updater: true,
        };
        let router = router(app, &Origins::new(&["https://ours.example".to_owned()]));
        for (path, origin, allowed) in [
            ("/healthy", "https://ours.example", true),
            ("/no-such-route", "https://ours.example", true),
            ("/healthy", "https://theirs.example", false),
        ] {
            let request = Request::get(path).header(header::ORIGIN, origin);
            let request = request.body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let marked = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(
                marked.is_some_and(|m| m == origin),
                allowed,
                "{path} {origin}"
            );
        }
    }
}
