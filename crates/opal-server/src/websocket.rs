//! `/ws`: lets clients in.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use opal_protocol::feed::{FEED_HEADER, FEED_VERSION};
use opal_protocol::{Claims, rpc};
use opal_pubsub::channel;
use opal_pubsub::hub::Peer;
use opal_pubsub::session::Session;
use uuid::Uuid;

use crate::error::ApiError;
use crate::extract::Bearer;
use crate::server::App;

/// The query parameter in which a peer may say who it is.
const CLIENT_ID: &str = "__opal_client_id";
const LONGEST_CLIENT_ID: usize = 200;

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
    let channel_id = Uuid::new_v4().simple().to_string();
    let peer = peer(&parts, channel_id.clone());
    let mut session = Session::new(
        channel_id,
        claims,
        claims.and_then(|claims| expiry(claims, now)),
        app.config.connections,
        now,
    );
    let feed = asks_for_feed(&parts);
    if feed {
        session = session.with_feed();
    }
    let tasks = app.tasks.clone();
    let mut response = upgrade
        // The library's defaults cost a hundred kilobytes for each idle connection.
        .read_buffer_size(2048)
        // Room for a few small frames to be one write; it is not taken before.
        .write_buffer_size(4096)
        .max_message_size(rpc::MAX_FRAME)
        .max_frame_size(rpc::MAX_FRAME)
        .on_upgrade(move |socket| async move {
            let publisher = app.publisher.clone();
            drop(app);
            tasks.spawn(
                "websocket",
                channel::serve(socket, session, publisher, peer),
            );
        });
    if feed {
        let version = HeaderValue::from_static(FEED_VERSION);
        response.headers_mut().insert(FEED_HEADER, version);
    }
    response
}

/// Whether the peer knows the feed. What it does not know it never sees.
fn asks_for_feed(parts: &Parts) -> bool {
    let header = parts.headers.get(FEED_HEADER);
    header.is_some_and(|value| value.as_bytes() == FEED_VERSION.as_bytes())
}

/// What is known of the peer, for people.
fn peer(parts: &Parts, channel_id: String) -> Peer {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let named = pairs.find(|(name, value)| name == CLIENT_ID && !value.is_empty());
    Peer {
        channel_id,
        host: address.map(|ConnectInfo(address)| address.ip().to_string()),
        client_id: named.map(|(_, id)| id.chars().take(LONGEST_CLIENT_ID).collect()),
    }
}

/// When the token ends, by the clock that connections are timed with.
fn expiry(claims: &Claims, now: Instant) -> Option<Instant> {
    let exp = u64::try_from(claims.exp?).ok()?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_add(Duration::from_secs(exp).saturating_sub(since_epoch))
}
