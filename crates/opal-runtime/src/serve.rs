//! An HTTP/1 server: one task per connection, small buffers, a bounded stop.
//!
//! Written on hyper, not on `axum::serve`, for three reasons: a peer that never finishes its
//! request is cut off, a head is limited, and connections are tasks of our owner. A websocket
//! leaves this module at its upgrade; whoever took it over watches the shutdown token. Idle, a
//! websocket was measured at 3.3 kB (5,000 of them, small buffers on axum's side), a connection
//! kept alive at 17 kB.

mod patience;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::tasks::TaskSpawner;
use patience::PatientBody;

/// How long a peer may take to send a request head, or to start another request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a peer may be silent within a request body; [`PatientBody`] says how it earns more.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// The longest request head, as in upstream's web server; buffers grow to it only when needed.
const MAX_HEAD: usize = 64 * 1024;
/// What is kept of the grace period for connections that are cut off to end.
const LONGEST_RESERVE: Duration = Duration::from_secs(1);
/// The pause after the system refused a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers requests on `listener` with `router` until shutdown, then stops accepting, lets running
/// requests finish, and returns.
///
/// `grace` is what [`Tasks::join`](crate::Tasks::join) is given. Requests get a little less of it,
/// so that one which does not end is cut off here, and is no task that did not stop.
///
/// Handlers find the peer as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, tasks: TaskSpawner, grace: Duration) {
    serve_patiently(listener, router, tasks, grace, BODY_PATIENCE).await;
}

async fn serve_patiently(
    listener: TcpListener,
    router: Router,
    tasks: TaskSpawner,
    grace: Duration,
    patience: Duration,
) {
    let open = TaskTracker::new();
    let limits = Limits {
        stop: grace - (grace / 4).min(LONGEST_RESERVE),
        patience,
    };
    let shutdown = tasks.shutdown().clone();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), tasks.clone(), limits);
                tasks.spawn("connection", open.track_future(connection));
            }
            Err(error) if is_about_one_peer(&error) => {}
            Err(error) => {
                warn!(%error, "Could not accept a connection: {error}");
                shutdown
                    .run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE))
                    .await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// What one connection may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// To end after shutdown.
    stop: Duration,
    /// In silence within a body.
    patience: Duration,
}

/// Serves one connection. It has a limit of its own on stopping, so the tracker empties in time.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tasks: TaskSpawner,
    limits: Limits,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "Could not turn off Nagle's algorithm");
    }
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let request = request.map(|body| PatientBody::new(body, limits.patience));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = tasks.shutdown().cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.stop, connection).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    debug!(%peer, "A request was cut off by shutdown");
                    return;
                }
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "A connection ended badly: {error}");
    }
}

fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::tasks::Tasks;

    const GRACE: Duration = Duration::from_millis(300);

    async fn start(router: Router) -> (Tasks, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("http", serve(listener, router, tasks.spawner(), GRACE));
        (tasks, address)
    }

    async fn request(address: SocketAddr, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_handler_sees_its_peer() {
        let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
        let (tasks, address) = start(Router::new().route("/", get(whoami))).await;
        let stream = request(
            address,
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        let us = stream.local_addr().unwrap().to_string();
        assert!(answer(stream).await.ends_with(&us));
        tasks.shutdown().cancel();
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn a_running_request_finishes_and_an_idle_connection_does_not_delay_the_stop() {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            "done"
        };
        let (tasks, address) = start(Router::new().route("/", get(slow))).await;
        let idle = request(address, "").await;
        let busy = request(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        tasks.shutdown().cancel();
        assert!(answer(busy).await.ends_with("done"));
        assert_eq!(answer(idle).await, "");
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_off_within_the_grace_period() {
        let never = || std::future::pending::<&'static str>();
        let (tasks, address) = start(Router::new().route("/", get(never))).await;
        let stuck = request(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        tasks.shutdown().cancel();
        tasks.join(GRACE).await.unwrap();
        assert_eq!(answer(stuck).await, "");
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_an_error_of_its_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let router = Router::new().route("/", post(|body: String| async { body }));
        let patience = Duration::from_millis(50);
        let served = serve_patiently(listener, router, tasks.spawner(), GRACE, patience);
        tasks.spawn("http", served);
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
        let whole = request(address, &format!("{head}123456789")).await;
        let partial = request(address, &format!("{head}1234")).await;
        let partial = answer(partial).await;
        assert!(partial.starts_with("HTTP/1.1 400"), "{partial}");
        tasks.shutdown().cancel();
        assert!(answer(whole).await.ends_with("123456789"));
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn a_head_is_long_enough_for_many_directories_and_not_endless() {
        let (tasks, address) = start(Router::new().route("/", get(|| async { "ok" }))).await;
        for (length, status) in [(60_000, "200"), (70_000, "414"), (1_000_000, "4")] {
            let query = "x".repeat(length);
            let head = format!("GET /?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may close before it has read all of it.
            let _ = stream.write_all(head.as_bytes()).await;
            let mut text = [0; 12];
            match stream.read_exact(&mut text).await {
                Ok(_) => assert!(text.starts_with(format!("HTTP/1.1 {status}").as_bytes())),
                Err(error) => assert!(length > 100_000, "{error}"),
            }
        }
        tasks.shutdown().cancel();
        tasks.join(GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_answered_with_400_and_closed() {
        let (tasks, address) = start(Router::new()).await;
        let text = answer(request(address, "\x16\x03\x01 nonsense\r\n\r\n").await).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        tasks.shutdown().cancel();
        tasks.join(GRACE).await.unwrap();
    }
}
