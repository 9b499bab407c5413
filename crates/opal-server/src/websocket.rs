//! `/ws`: lets clients in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use opal_protocol::{Claims, rpc};
use opal_pubsub::channel;
use opal_pubsub::hub::Peer;
use opal_pubsub::session::Session;
use uuid::Uuid;

use crate::error::ApiError;
use crate::extract::Bearer;
use crate::server::App;

/// `GET /ws`: 403 before the upgrade for a token that is not valid, else the pub/sub protocol.
pub(crate) async fn connect(State(app): State<App>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection> =
        WebSocketUpgrade::from_request_parts(&mut parts, &app).await;
    // As upstream, what is no upgrade finds no route.
    let Ok(upgrade) = upgrade else {
        return ApiError::not_found().into_response();
    };
    let Ok(bearer) = Bearer::verify(&app.config.security.access, &parts) else {
        return (StatusCode::FORBIDDEN, "").into_response();
    };
    let now = Instant::now();
    let claims = bearer.claims.as_ref();
    let session = Session::new(
        Uuid::new_v4().simple().to_string(),
        claims,
        claims.and_then(|claims| expiry(claims, now)),
        app.config.connections,
        now,
    );
    let peer = Peer::default();
    let tasks = app.tasks.clone();
    upgrade
        // The library's defaults cost a hundred kilobytes for each idle connection.
        .read_buffer_size(2048)
        .write_buffer_size(0)
        .max_message_size(rpc::MAX_FRAME)
        .max_frame_size(rpc::MAX_FRAME)
        .on_upgrade(move |socket| async move {
            let publisher = app.publisher.clone();
            drop(app);
            tasks.spawn(
                "websocket",
                channel::serve(socket, session, publisher, peer),
            );
        })
}

/// When the token ends, by the clock that connections are timed with.
fn expiry(claims: &Claims, now: Instant) -> Option<Instant> {
    let exp = u64::try_from(claims.exp?).ok()?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_add(Duration::from_secs(exp).saturating_sub(since_epoch))
}
