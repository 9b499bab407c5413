//! The handle and its task, without sockets.

use std::path::Path;

use opal_protocol::feed::ClientInfo;
use opal_protocol::{Document, Epoch, UpdateId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::feed::journal_file::faulty::Faulty;
use crate::feed::{FeedLimits, FeedLog, Payload, new_epoch};
use crate::hub::Missing;
use crate::outbox::{Ended, Next};

const LONG: Duration = Duration::from_secs(60);

/// Runs `test` beside a hub whose feed is in memory.
async fn with_hub<T>(test: impl AsyncFnOnce(Publisher) -> T) -> T {
    let epoch = new_epoch(&mut StdRng::seed_from_u64(1));
    let hub = Hub::new(FeedLog::new(epoch, FeedLimits::default()));
    run_beside(hub, None, test).await
}

async fn run_beside<T>(
    hub: Hub,
    journal: Option<Journal>,
    test: impl AsyncFnOnce(Publisher) -> T,
) -> T {
    let (publisher, task) = Publisher::new(hub, journal);
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
async fn the_base_is_that_of_the_head() {
    with_hub(async |publisher| {
        let scope = ScopeId::default();
        publisher.publish(&scope, draft("1"), None).await.unwrap();
        let base = publisher.base(&scope, vec!["a".into()]).await.unwrap();
        let head = publisher.head(&scope).await.unwrap();
        assert_eq!(base.position, head.position);
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

/// Runs `test` beside a hub whose changes are stored on a disk that fails as it is told.
async fn with_journal<T>(directory: &Path, test: impl AsyncFnOnce(Publisher, Faulty) -> T) -> T {
    let disk = Faulty::default();
    let epoch = new_epoch(&mut StdRng::seed_from_u64(1));
    let (journal, feed) = disk.open(directory, epoch).unwrap();
    run_beside(Hub::new(feed), Some(journal), async |publisher| {
        test(publisher, disk).await
    })
    .await
}

fn frames(outbox: &Outbox) -> usize {
    std::iter::from_fn(|| outbox.try_next()).count()
}

#[tokio::test]
async fn nobody_hears_of_a_change_before_it_is_stored_and_the_hub_goes_on() {
    let directory = TempDir::new().unwrap();
    let head = with_journal(directory.path(), async |publisher, disk| {
        let scope = ScopeId::default();
        let (_client, outbox) = follow(&publisher, "c1").await;
        frames(&outbox);
        let (release, hold) = std::sync::mpsc::channel();
        disk.set(|faults| faults.hold = Some(hold));
        let before = publisher.head(&scope).await.unwrap();
        let meanwhile = async {
            assert_eq!(publisher.head(&scope).await.unwrap(), before);
            assert_eq!(frames(&outbox), 0);
            release.send(()).unwrap();
        };
        let (first, second, repeated, ()) = tokio::join!(
            publisher.publish(&scope, draft("1"), None),
            publisher.publish(&scope, draft("2"), None),
            publisher.publish(&scope, draft("1"), None),
            meanwhile,
        );
        let revisions = [first, second, repeated].map(|published| {
            let published = published.unwrap();
            (published.appended.position().revision.0, published.told)
        });
        assert_eq!(revisions, [(1, 1), (2, 1), (1, 0)]);
        assert_eq!(frames(&outbox), 2);
        publisher.head(&scope).await.unwrap()
    })
    .await;
    let again = with_journal(directory.path(), async |publisher, _| {
        publisher.head(&ScopeId::default()).await.unwrap()
    });
    assert_eq!(again.await, head);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_told_to_nobody() {
    let directory = TempDir::new().unwrap();
    with_journal(directory.path(), async |publisher, disk| {
        let scope = ScopeId::default();
        let (_client, outbox) = follow(&publisher, "c1").await;
        frames(&outbox);
        let before = publisher.head(&scope).await.unwrap();
        disk.set(|faults| faults.space = Some(3));
        let (first, second) = tokio::join!(
            publisher.publish(&scope, draft("1"), None),
            publisher.publish_and_wait(&scope, draft("1"), WaitTarget::All, LONG),
        );
        for refused in [first.map(drop), second.map(drop)] {
            assert!(matches!(refused, Err(PublishError::NotStored { .. })));
        }
        assert_eq!(publisher.head(&scope).await.unwrap(), before);
        disk.set(|faults| faults.space = None);
        let published = publisher.publish(&scope, draft("1"), None).await.unwrap();
        assert_eq!(published.appended.position().revision, Revision(1));
        assert_eq!(frames(&outbox), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_being_stored_at_the_end_is_answered() {
    let directory = TempDir::new().unwrap();
    let disk = Faulty::default();
    let (journal, feed) = disk.open(directory.path(), Epoch(1)).unwrap();
    let (release, hold) = std::sync::mpsc::channel();
    disk.set(|faults| faults.hold = Some(hold));
    let (publisher, task) = Publisher::new(Hub::new(feed), Some(journal));
    let stop = CancellationToken::new();
    let scope = ScopeId::default();
    let end = async {
        publisher.head(&scope).await.unwrap();
        stop.cancel();
        release.send(()).unwrap();
    };
    let publish = publisher.publish(&scope, draft("1"), None);
    let (published, (), ()) = tokio::join!(publish, end, task.run(stop.clone()));
    assert_eq!(published.unwrap().appended.position().revision, Revision(1));
}

#[tokio::test]
async fn the_base_can_be_asked_for() {
    with_hub(async |publisher| {
        let scope = ScopeId::default();
        let update = r#"{"entries":[{"url":"http://x","topics":["a"],"dst_path":"/x"}]}"#;
        let update = ChangeDraft {
            payload: Payload::Data(Document::parse(update).unwrap()),
            ..draft("1")
        };
        publisher.publish(&scope, update, None).await.unwrap();
        let base = publisher.base(&scope, vec!["a".into()]).await.unwrap();
        assert_eq!(base.entries.len(), 1);
        let head = publisher.head(&scope).await.unwrap();
        assert_eq!(base.position, head.position);
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_publishers_and_nobody_else() {
    let directory = TempDir::new().unwrap();
    with_journal(directory.path(), async |publisher, disk| {
        let scope = ScopeId::default();
        let (client, outbox) = follow(&publisher, "c1").await;
        frames(&outbox);
        let (release, hold) = std::sync::mpsc::channel();
        disk.set(|faults| faults.hold = Some(hold));
        let drafts = (0..2000).map(|n| draft(&n.to_string()));
        let publishes = drafts.map(|draft| publisher.publish(&scope, draft, None));
        let publishes = futures_util::future::join_all(publishes);
        let meanwhile = async {
            // Behind all publishes, which more than fill the queue.
            let report = AppliedArguments::default();
            client.applied(report).await.unwrap().unwrap();
            assert_eq!(publisher.head(&scope).await.unwrap().position.revision.0, 0);
            release.send(()).unwrap();
        };
        let (published, ()) = tokio::join!(publishes, meanwhile);
        assert!(published.iter().all(Result::is_ok));
        assert_eq!(frames(&outbox), 2000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn publishers_are_answered_in_time_by_a_disk_that_does_not() {
    let directory = TempDir::new().unwrap();
    with_journal(directory.path(), async |publisher, disk| {
        let scope = ScopeId::default();
        let (_client, outbox) = follow(&publisher, "c1").await;
        frames(&outbox);
        let (release, hold) = std::sync::mpsc::channel();
        disk.set(|faults| faults.hold = Some(hold));
        let time_passes = async {
            publisher.head(&scope).await.unwrap();
            tokio::time::advance(Duration::from_secs(11)).await;
        };
        let (first, second, ()) = tokio::join!(
            publisher.publish_and_wait(&scope, draft("1"), WaitTarget::All, LONG),
            publisher.publish(&scope, draft("2"), None),
            time_passes,
        );
        assert!(matches!(first, Err(PublishError::InDoubt)));
        assert!(matches!(second, Err(PublishError::Busy)));
        release.send(()).unwrap();
        let again = publisher.publish(&scope, draft("1"), None).await.unwrap();
        assert_eq!(again.appended.position().revision.0, 1);
        assert_eq!(again.told, 0, "it was stored and told after all");
        assert_eq!(frames(&outbox), 1);
    })
    .await;
}

#[tokio::test]
async fn a_wait_that_the_end_cuts_short_keeps_the_place_of_its_change() {
    let hub = Hub::new(FeedLog::new(Epoch(1), FeedLimits::default()));
    let (publisher, task) = Publisher::new(hub, None);
    let stop = CancellationToken::new();
    let scope = ScopeId::default();
    let waiting = async {
        let _client = follow(&publisher, "c1").await;
        let end = async {
            while publisher.head(&scope).await.unwrap().position.revision.0 == 0 {}
            stop.cancel();
        };
        let waiting = publisher.publish_and_wait(&scope, draft("1"), WaitTarget::All, LONG);
        tokio::join!(waiting, end).0
    };
    let (waited, ()) = tokio::join!(waiting, task.run(stop.clone()));
    let (published, outcome) = waited.unwrap();
    assert_eq!(published.appended.position().revision.0, 1);
    assert!(!outcome.met);
    assert_eq!(outcome.missing[0].client, "c1");
}
