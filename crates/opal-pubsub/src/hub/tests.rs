//! The hub's promises. Frames are looked at as JSON, and no time passes by itself.

mod feed;
mod fleet;
mod waits;

use opal_protocol::feed::{ClientInfo, FailingEntry, ResumeAnswer, ResumeArguments};
use opal_protocol::{Document, Position};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::*;
use crate::feed::{FeedLimits, Payload, new_epoch};
use crate::outbox::{Ended, Next};

/// A hub, a clock that stands still, and frames as they would be written.
struct Bench {
    hub: Hub,
    now: Instant,
    published: u32,
    /// What the next client that follows calls its process.
    instance: String,
}

impl Bench {
    fn new() -> Self {
        Self::with(FeedLimits::default())
    }

    fn with(limits: FeedLimits) -> Self {
        let epoch = new_epoch(&mut StdRng::seed_from_u64(1));
        Self {
            hub: Hub::new(FeedLog::new(epoch, limits)),
            now: Instant::now(),
            published: 0,
            instance: String::new(),
        }
    }

    fn connect(&mut self, id: u64) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let peer = Peer {
            channel_id: format!("channel{id}"),
            host: Some("10.0.0.1".to_owned()),
            client_id: None,
        };
        self.hub
            .register(SubscriberId(id), Arc::clone(&outbox), peer, self.now);
        outbox
    }

    /// Connects in the released way.
    fn join(&mut self, id: u64, topics: &[&str]) -> Arc<Outbox> {
        let outbox = self.connect(id);
        assert!(self.hub.subscribe(SubscriberId(id), self::topics(topics)));
        outbox
    }

    /// Connects and follows, as client `c<id>`.
    fn follow(&mut self, id: u64, topics: &[&str], position: Option<Position>) -> Arc<Outbox> {
        self.follow_as(&format!("c{id}"), id, topics, position)
    }

    fn follow_as(
        &mut self,
        client: &str,
        id: u64,
        topics: &[&str],
        position: Option<Position>,
    ) -> Arc<Outbox> {
        let outbox = self.connect(id);
        self.resume(client, id, topics, position);
        outbox
    }

    fn resume(
        &mut self,
        client: &str,
        id: u64,
        topics: &[&str],
        position: Option<Position>,
    ) -> ResumeAnswer {
        let arguments = ResumeArguments {
            scope: ScopeId::default(),
            topics: self::topics(topics),
            position,
            client: ClientInfo {
                id: client.to_owned(),
                host: String::new(),
                version: "1".to_owned(),
                instance: self.instance.clone(),
            },
        };
        let answer = self.hub.resume(SubscriberId(id), arguments, self.now);
        answer.unwrap()
    }

    /// A client that follows, and has said that it holds everything.
    fn settled(&mut self, id: u64, topics: &[&str]) -> Arc<Outbox> {
        let outbox = self.follow(id, topics, None);
        let head = self.head().revision;
        self.applied(id, head.0, &[]).unwrap();
        outbox
    }

    fn applied(&mut self, id: u64, low: u64, done: &[(u64, u64)]) -> Result<(), AppliedFault> {
        self.report(id, low, done, Vec::new())
    }

    fn report(
        &mut self,
        id: u64,
        low: u64,
        done: &[(u64, u64)],
        failing: Vec<FailingEntry>,
    ) -> Result<(), AppliedFault> {
        let done = done.iter().map(|(a, b)| (Revision(*a), Revision(*b)));
        let report = AppliedArguments {
            low: Revision(low),
            done: done.collect(),
            failing,
            ..AppliedArguments::default()
        };
        self.hub.applied(SubscriberId(id), report, self.now)
    }

    fn publish(&mut self, topics: &[&str], data: &str, except: Option<u64>) -> usize {
        let delivery = Delivery {
            except: except.map(SubscriberId),
            confirm: false,
        };
        self.deliver(&ScopeId::default(), topics, data, delivery)
    }

    fn deliver(
        &mut self,
        scope: &ScopeId,
        topics: &[&str],
        data: &str,
        delivery: Delivery,
    ) -> usize {
        self.published += 1;
        let draft = ChangeDraft {
            id: self.published.to_string().as_str().into(),
            topics: self::topics(topics).into(),
            payload: Payload::Data(Document::parse(data).unwrap()),
        };
        let now = Now {
            instant: self.now,
            unix_millis: 0,
        };
        let published = self.hub.publish(scope, None, draft, delivery, now);
        published.unwrap().told
    }

    fn head(&self) -> Position {
        self.hub.feed().head(&ScopeId::default())
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn view(&self, client: &str) -> Option<ClientView> {
        let views = self.hub.fleet(self.now).into_iter();
        let mut views = views.filter(|view| view.id == client);
        let view = views.next();
        assert!(views.next().is_none(), "{client} is there twice");
        view
    }
}

fn topics(topics: &[&str]) -> Vec<Topic> {
    topics.iter().copied().map(Topic::from).collect()
}

fn failing(revision: u64, is_final: bool) -> Vec<FailingEntry> {
    vec![FailingEntry {
        revision: Revision(revision),
        entry: "/users".to_owned(),
        error: "the source answered 500".to_owned(),
        since: "2026-01-01T00:00:00Z".to_owned(),
        is_final,
    }]
}

/// The requests that wait, in order.
fn requests(outbox: &Outbox) -> Vec<Value> {
    let mut requests = Vec::new();
    while let Some(Next::Frame(frame)) = outbox.try_next() {
        let mut frame: Value = serde_json::from_str(&frame).unwrap();
        requests.push(frame["request"].take());
    }
    requests
}

/// The topics of the notifications that wait.
fn notified(outbox: &Outbox) -> Vec<String> {
    let requests = requests(outbox).into_iter();
    let topics = requests.map(|request| {
        let topic = &request["arguments"]["subscription"]["topic"];
        topic.as_str().unwrap().to_owned()
    });
    topics.collect()
}

/// What waits, in short: method and revision.
fn told(outbox: &Outbox) -> Vec<String> {
    let requests = requests(outbox).into_iter();
    let told = requests.map(|request| {
        assert!(request["call_id"].is_null(), "{request}");
        let revision = &request["arguments"]["revision"];
        format!("{} {revision}", request["method"].as_str().unwrap())
    });
    told.collect()
}

#[test]
fn a_subscriber_is_told_once_of_each_change_that_matches() {
    let mut bench = Bench::new();
    let both = bench.join(1, &["a", "b"]);
    let other = bench.join(2, &["c"]);
    assert_eq!(bench.publish(&["a", "b"], "1", None), 1);
    assert_eq!(bench.publish(&["b", "c"], "2", None), 2);
    assert_eq!(notified(&both), ["a", "b"]);
    assert_eq!(notified(&other), ["c"]);
}

#[test]
fn the_publisher_gets_no_copy_and_who_left_gets_nothing() {
    let mut bench = Bench::new();
    let publisher = bench.join(1, &["a"]);
    let gone = bench.join(2, &["a"]);
    bench
        .hub
        .unsubscribe(SubscriberId(2), &["a".into(), "never".into()]);
    assert_eq!(bench.publish(&["a"], "1", Some(1)), 0);
    bench.hub.remove(SubscriberId(1), bench.now);
    assert_eq!(bench.publish(&["a"], "2", None), 0);
    assert!(notified(&publisher).is_empty() && notified(&gone).is_empty());
    assert_eq!(bench.hub.released, TopicIndex::default());
}

#[test]
fn subscribing_twice_is_subscribing_once() {
    let mut bench = Bench::new();
    let outbox = bench.join(1, &["a", "a"]);
    assert_eq!(bench.publish(&["a"], "1", None), 1);
    assert_eq!(notified(&outbox).len(), 1);
}

#[test]
fn a_connection_has_so_many_topics_and_no_more() {
    let mut bench = Bench::new();
    bench.join(1, &["a"]);
    let many: Vec<Topic> = (0..MOST_TOPICS)
        .map(|n| Topic::from(n.to_string()))
        .collect();
    assert!(!bench.hub.subscribe(SubscriberId(1), many.clone()));
    assert_eq!(bench.publish(&["0"], "1", None), 0, "none of them");
    let arguments = ResumeArguments {
        scope: ScopeId::default(),
        topics: many,
        position: None,
        client: ClientInfo::default(),
    };
    let resumed = bench.hub.resume(SubscriberId(1), arguments, bench.now);
    assert_eq!(resumed, Err(TooManyTopics));
    assert_eq!(bench.publish(&["0"], "1", None), 0, "none of them");
}

#[test]
fn who_stays_behind_is_ended_and_who_catches_up_is_not() {
    let mut bench = Bench::new();
    let (slow, fast) = (bench.join(1, &["a"]), bench.join(2, &["a"]));
    let large = format!("\"{}\"", "x".repeat(Outbox::LIMIT));
    bench.publish(&["a"], &large, None);
    assert_eq!(notified(&fast).len(), 1);
    bench.now += SLOW_FOR;
    assert_eq!(bench.hub.tick(bench.now), 1);
    assert_eq!(slow.try_next(), Some(Next::End(Ended::TooSlow)));
    assert_eq!(fast.try_next(), None);
}
