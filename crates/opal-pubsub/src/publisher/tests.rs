//! The handle and its task, without sockets.

use opal_protocol::feed::ClientInfo;
use opal_protocol::{Document, UpdateId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::feed::{FeedLimits, FeedLog, Payload, new_epoch};
use crate::hub::Missing;
use crate::outbox::{Ended, Next};

const LONG: Duration = Duration::from_secs(60);

/// Runs `test` beside a hub.
async fn with_hub<T>(test: impl AsyncFnOnce(Publisher) -> T) -> T {
    let epoch = new_epoch(&mut StdRng::seed_from_u64(1));
    let hub = Hub::new(FeedLog::new(epoch, FeedLimits::default()));
    let (publisher, task) = Publisher::new(hub);
    let stop = CancellationToken::new();
    let test = async {
        let outcome = test(publisher).await;
        stop.cancel();
        outcome
    };
    let ((), outcome) = tokio::join!(task.run(stop.clone()), test);
    outcome
}

fn draft(id: &str) -> ChangeDraft {
    ChangeDraft {
        id: UpdateId::from(id),
        topics: vec!["a".into()].into(),
        payload: Payload::Data(Document::parse("1").unwrap()),
    }
}

async fn follow(publisher: &Publisher, client: &str) -> (Registration, Arc<Outbox>) {
    let outbox = Arc::new(Outbox::default());
    let registered = publisher.register(Arc::clone(&outbox), Peer::default());
    let registration = registered.await.unwrap();
    let arguments = ResumeArguments {
        scope: ScopeId::default(),
        topics: vec!["a".into()],
        position: None,
        client: ClientInfo {
            id: client.to_owned(),
            ..ClientInfo::default()
        },
    };
    registration.resume(arguments).await.unwrap().unwrap();
    (registration, outbox)
}

#[tokio::test]
async fn who_waits_is_answered_when_the_client_says_so_and_holds_up_nobody() {
    with_hub(async |publisher| {
        let scope = ScopeId::default();
        let (client, outbox) = follow(&publisher, "c1").await;
        let waiting = publisher.publish_and_wait(&scope, draft("1"), WaitTarget::All, LONG);
        let meanwhile = async {
            let Next::Frame(frame) = outbox.next().await else {
                unreachable!("nothing ends");
            };
            assert!(frame.contains(r#""confirm":true"#), "{frame}");
            let other = publisher.publish(&scope, draft("2"), None).await.unwrap();
            let low = other.appended.position().revision;
            let report = AppliedArguments {
                low,
                ..AppliedArguments::default()
            };
            client.applied(report).await.unwrap().unwrap();
        };
        let (outcome, ()) = tokio::join!(waiting, meanwhile);
        let (published, outcome) = outcome.unwrap();
        assert_eq!(published.told, 1);
        assert_eq!(
            (outcome.met, outcome.applied),
            (true, vec!["c1".to_owned()])
        );
    })
    .await;
}

#[tokio::test]
async fn a_wait_ends_with_its_time_and_says_who_is_missing() {
    with_hub(async |publisher| {
        let scope = ScopeId::default();
        let _client = follow(&publisher, "c1").await;
        publisher.publish(&scope, draft("1"), None).await.unwrap();
        let timeout = Duration::from_millis(1);
        let waited = publisher.wait(&scope, Revision(1), WaitTarget::All, timeout);
        let expected = Missing {
            client: "c1".to_owned(),
            reason: "not applied yet".to_owned(),
        };
        assert_eq!(waited.await.unwrap().missing, [expected]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_publish_waits_for_the_change_that_is_there() {
    with_hub(async |publisher| {
        let scope = ScopeId::default();
        let (client, _outbox) = follow(&publisher, "c1").await;
        publisher.publish(&scope, draft("1"), None).await.unwrap();
        let low = Revision(1);
        let report = AppliedArguments {
            low,
            ..AppliedArguments::default()
        };
        client.applied(report).await.unwrap().unwrap();
        let repeated = publisher.publish_and_wait(&scope, draft("1"), WaitTarget::All, LONG);
        let (published, outcome) = repeated.await.unwrap();
        assert_eq!(
            (published.told, published.appended.position().revision),
            (0, low)
        );
        assert_eq!(outcome.applied, ["c1"]);
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_is_dropped_is_seen_as_lost() {
    with_hub(async |publisher| {
        let (client, _) = follow(&publisher, "c1").await;
        drop(client);
        loop {
            let fleet = publisher.fleet().await.unwrap();
            assert_eq!(fleet.len(), 1);
            if fleet.iter().all(|view| view.lost_since.is_some()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn when_the_hub_stops_connections_end_and_who_asks_hears_of_it() {
    let scope = ScopeId::default();
    let (publisher, _client, outbox) = with_hub(async |publisher| {
        let (client, outbox) = follow(&publisher, "c1").await;
        (publisher, client, outbox)
    })
    .await;
    assert_eq!(outbox.next().await, Next::End(Ended::ShuttingDown));
    let refused = publisher.wait(&scope, Revision(1), WaitTarget::All, LONG);
    assert_eq!(refused.await, Err(HubStopped));
}
