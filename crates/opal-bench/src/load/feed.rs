//! Clients of the feed without an engine: the subscription is the client's own, and every change
//! counts as applied the moment it comes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use opal_protocol::feed::{AppliedArguments, ClientInfo};
use opal_protocol::{Position, RedactedUrl, ScopeId, Topic};
use opal_pubsub::AppliedSender;
use opal_pubsub::subscriber::{Event, Start, Subscriber, SubscriberConfig};
use opal_testing::services::Service;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Clients that are started before the first of them has to be there.
const AT_ONCE: usize = 50;
/// Events that may wait for a client.
const WAITING: usize = 256;
const LIMIT: Duration = Duration::from_secs(60);

/// Many clients of one server, in this process.
#[derive(Debug)]
pub(crate) struct FeedClients {
    count: usize,
    started: mpsc::UnboundedReceiver<(Instant, Start)>,
    changed: mpsc::UnboundedReceiver<Instant>,
    end: CancellationToken,
    tasks: JoinSet<()>,
}

impl FeedClients {
    /// Connects `count` clients of `policy_data` and waits until each has its snapshot.
    pub(crate) async fn connect(server: &Service, count: usize) -> anyhow::Result<Self> {
        let (start, started) = mpsc::unbounded_channel();
        let (change, changed) = mpsc::unbounded_channel();
        let mut clients = Self {
            count,
            started,
            changed,
            end: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let url = server.url("/ws").replacen("http", "ws", 1);
        for made in 0..count + AT_ONCE {
            if made >= AT_ONCE {
                let first = tokio::time::timeout(LIMIT, clients.started.recv()).await?;
                let (_, how) = first.context("every client is gone")?;
                let is_new = matches!(how, Start::Snapshot { .. });
                ensure!(is_new, "a new client began with {how:?}");
            }
            if made < count {
                let (events, happened) = mpsc::channel(WAITING);
                let subscriber = Subscriber::new(config(&url, made), events);
                let applied = subscriber.applied_sender();
                let client = follow(happened, applied, start.clone(), change.clone());
                clients.tasks.spawn(client);
                clients.tasks.spawn(subscriber.run(clients.end.clone()));
            }
        }
        Ok(clients)
    }

    /// Waits until every client was told one change more, and returns when the last one was.
    pub(crate) async fn all_changed(&mut self) -> anyhow::Result<Instant> {
        let mut last = None;
        let all = async {
            for _ in 0..self.count {
                last = self.changed.recv().await.max(last);
            }
        };
        let all = tokio::time::timeout(LIMIT, all).await;
        all.context("not everyone was told")?;
        last.context("everyone is gone")
    }

    /// Waits until every client is connected once more. Returns when the last one was, and how many
    /// have to take everything anew.
    pub(crate) async fn all_back(&mut self) -> anyhow::Result<(Instant, usize)> {
        let mut last = None;
        let mut anew = 0;
        let all = async {
            for _ in 0..self.count {
                let Some((at, how)) = self.started.recv().await else {
                    break;
                };
                last = Some(at).max(last);
                anew += usize::from(!matches!(how, Start::Resumed { .. }));
            }
        };
        let all = tokio::time::timeout(LIMIT, all).await;
        all.context("not everyone came back")?;
        Ok((last.context("everyone is gone")?, anew))
    }
}

impl Drop for FeedClients {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn config(url: &str, number: usize) -> SubscriberConfig {
    SubscriberConfig {
        url: RedactedUrl::new(url),
        token: None,
        topics: vec![Topic::from("policy_data")],
        keep_alive: None,
        tls: None,
        scope: ScopeId::default(),
        client: ClientInfo {
            id: format!("bench-{number}"),
            host: "bench".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ClientInfo::default()
        },
        position: None,
        feed: true,
    }
}

/// One client: says what happens to it, and reports each change as applied.
async fn follow(
    mut events: mpsc::Receiver<Event>,
    applied: AppliedSender,
    started: mpsc::UnboundedSender<(Instant, Start)>,
    changed: mpsc::UnboundedSender<Instant>,
) {
    let report = |position: Position, urgent: bool| {
        let done = AppliedArguments {
            low: position.revision,
            ..AppliedArguments::default()
        };
        applied.report(position.epoch, done, urgent);
    };
    while let Some(event) = events.recv().await {
        let heard = match event {
            Event::Subscribed(how) => {
                if let Start::Snapshot { head, .. } = how {
                    report(head, false);
                }
                started.send((Instant::now(), how)).is_ok()
            }
            Event::Change(change) => {
                report(change.position, change.confirm);
                changed.send(Instant::now()).is_ok()
            }
            Event::Position(position) => {
                report(position, false);
                true
            }
            Event::Message { .. } | Event::Drifted | Event::Disconnected => true,
        };
        if !heard {
            return;
        }
    }
}
