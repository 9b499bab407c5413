//! Who subscribed to what, and the delivery of changes to them.
//!
//! [`Hub`] is a state machine: it does no I/O and is told the time. One task owns it (see
//! [`publisher`](crate::publisher)), so that registering a subscriber and appending a change are
//! steps of one order: a subscriber gets every matching change after its registration.

mod fleet;
mod waits;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use opal_protocol::feed::{AppliedArguments, ResumeAnswer, ResumeArguments, ResumeMode};
use opal_protocol::rpc::{self, NotifyArguments, Subscription};
use opal_protocol::{Revision, ScopeId, Topic};

use crate::feed::{AppendError, Appended, Change, ChangeDraft, FeedLog};
use crate::outbox::{Ended, Outbox};

pub use fleet::{ClientMode, ClientState, ClientView, ReportedPolicies};
pub use waits::{Missing, NotAWaitTarget, WaitId, WaitOutcome, WaitTarget};

/// One connection, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u64);

/// How long an outbox may stay over its limit.
pub const SLOW_FOR: Duration = Duration::from_secs(10);

/// So many topics a connection may have.
pub const MOST_TOPICS: usize = 1000;

/// An outbox with more than this is ended at once: its reader is gone in all but name.
const HOPELESS: usize = 8 * Outbox::LIMIT;

/// Topics, subscribers, and the feed behind them.
#[derive(Debug)]
pub struct Hub {
    feed: FeedLog,
    subscribers: HashMap<SubscriberId, Subscriber>,
    by_topic: HashMap<Topic, Vec<SubscriberId>>,
    /// Counts deliveries, to tell each subscriber at most once of each change.
    deliveries: u64,
    finished: Vec<(WaitId, WaitOutcome)>,
}

#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox>,
    topics: Vec<Topic>,
    last_delivery: u64,
    full_since: Option<Instant>,
}

/// What is known of a connection from the moment it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The id that the server gave it.
    pub channel_id: String,
    /// Where it comes from.
    pub host: Option<String>,
    /// What it called itself in the query of its upgrade.
    pub client_id: Option<String>,
    /// Whether the feed was agreed on.
    pub feed: bool,
}

/// A connection asked for more than [`MOST_TOPICS`]. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more topics than a connection may have")]
pub struct TooManyTopics;

/// Why a report of what was applied counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppliedFault {
    /// The connection did not resume.
    #[error("it does not follow the feed")]
    NotResumed,
    /// A range ends before it begins.
    #[error("a range of revisions runs backwards")]
    Backwards,
    /// It names revisions that the connection was not told.
    #[error("it names revisions that it was never told")]
    NeverTold,
}

/// What a publish did.
#[derive(Debug)]
pub struct Published {
    /// The change's place in the feed.
    pub appended: Appended,
    /// How many subscribers it was handed to.
    pub told: usize,
}

impl Hub {
    /// A hub without subscribers over `feed`.
    pub fn new(feed: FeedLog) -> Self {
        Self {
            feed,
            subscribers: HashMap::new(),
            by_topic: HashMap::new(),
            deliveries: 0,
            finished: Vec::new(),
        }
    }

    /// The feed.
    pub fn feed(&self) -> &FeedLog {
        &self.feed
    }

    /// Adds a connection without topics.
    pub fn register(&mut self, id: SubscriberId, outbox: Arc<Outbox>, _peer: Peer, _now: Instant) {
        let subscriber = Subscriber {
            outbox,
            topics: Vec::new(),
            last_delivery: 0,
            full_since: None,
        };
        self.subscribers.insert(id, subscriber);
    }

    /// Adds topics to a connection. Those it has already do nothing. Returns whether it was done:
    /// nothing is when the connection would have more than [`MOST_TOPICS`].
    pub fn subscribe(&mut self, id: SubscriberId, topics: Vec<Topic>) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return false;
        };
        if subscriber.topics.len() + topics.len() > MOST_TOPICS {
            return false;
        }
        for topic in topics {
            if subscriber.topics.contains(&topic) {
                continue;
            }
            self.by_topic.entry(topic.clone()).or_default().push(id);
            subscriber.topics.push(topic);
        }
        true
    }

    /// Takes topics from a connection. Those it does not have are skipped.
    pub fn unsubscribe(&mut self, id: SubscriberId, topics: &[Topic]) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        for topic in topics {
            if let Some(at) = subscriber.topics.iter().position(|held| held == topic) {
                subscriber.topics.swap_remove(at);
                forget(&mut self.by_topic, topic, id);
            }
        }
    }

    /// Removes a connection and everything it subscribed to.
    pub fn remove(&mut self, id: SubscriberId, _now: Instant) {
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        for topic in &subscriber.topics {
            forget(&mut self.by_topic, topic, id);
        }
    }

    /// Appends a change and hands it to each subscriber of one of its topics, but for `except`.
    ///
    /// A change that was appended before is not delivered again.
    pub fn publish(
        &mut self,
        scope: &ScopeId,
        expected: Option<Revision>,
        draft: ChangeDraft,
        except: Option<SubscriberId>,
        now: Instant,
    ) -> Result<Published, AppendError> {
        let appended = self.feed.append(scope, expected, draft)?;
        let told = match &appended {
            Appended::New(change) => {
                let change = Arc::clone(change);
                self.deliver(&change, except, now)
            }
            Appended::Repeated(_) => 0,
        };
        Ok(Published { appended, told })
    }

    fn deliver(&mut self, change: &Change, except: Option<SubscriberId>, now: Instant) -> usize {
        self.deliveries += 1;
        let delivery = self.deliveries;
        let mut told = 0;
        for topic in &change.draft.topics {
            let Some(ids) = self.by_topic.get(topic) else {
                continue;
            };
            // Encoded once for each topic somebody holds; every subscriber shares the bytes.
            let frame = notification(topic, change);
            for id in ids.iter().filter(|id| Some(**id) != except) {
                let Some(subscriber) = self.subscribers.get_mut(id) else {
                    continue;
                };
                if std::mem::replace(&mut subscriber.last_delivery, delivery) != delivery {
                    subscriber.take(frame.clone(), now);
                    told += 1;
                }
            }
        }
        told
    }

    /// Follows the feed from a position.
    pub fn resume(
        &mut self,
        id: SubscriberId,
        arguments: ResumeArguments,
        _now: Instant,
    ) -> Result<ResumeAnswer, TooManyTopics> {
        let head = self.feed.head(&arguments.scope);
        match self.subscribe(id, arguments.topics) {
            true => Ok(ResumeAnswer {
                epoch: head.epoch,
                head: head.revision,
                digest: head.digest,
                mode: ResumeMode::Snapshot,
                spread_ms: 0,
            }),
            false => Err(TooManyTopics),
        }
    }

    /// Notes what a client holds.
    pub fn applied(
        &mut self,
        _id: SubscriberId,
        _arguments: AppliedArguments,
        _now: Instant,
    ) -> Result<(), AppliedFault> {
        Ok(())
    }

    /// Starts a wait.
    pub fn wait(
        &mut self,
        _scope: &ScopeId,
        _revision: Revision,
        target: WaitTarget,
        _timeout: Duration,
        _now: Instant,
    ) -> WaitId {
        self.deliveries += 1;
        let id = WaitId(self.deliveries);
        let outcome = WaitOutcome {
            met: target == WaitTarget::All,
            ..WaitOutcome::default()
        };
        self.finished.push((id, outcome));
        id
    }

    /// The waits that ended since this was last asked.
    pub fn finished_waits(&mut self) -> Vec<(WaitId, WaitOutcome)> {
        std::mem::take(&mut self.finished)
    }

    /// When the next wait ends at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Ends waits whose time is over.
    pub fn expire_waits(&mut self, _now: Instant) {}

    /// Forgets a wait.
    pub fn cancel_wait(&mut self, _id: WaitId) {}

    /// What happens about once a second.
    pub fn tick(&mut self, now: Instant) -> usize {
        self.end_slow_subscribers(now)
    }

    /// Everybody.
    pub fn fleet(&self, _now: Instant) -> Vec<ClientView> {
        Vec::new()
    }

    /// What clients say of their policies.
    pub fn reported_policies(&self) -> Vec<ReportedPolicies> {
        Vec::new()
    }

    /// Tells clients that their policies are not those of their commit.
    pub fn mark_drift(&mut self, _subscribers: &[SubscriberId], _now: Instant) {}

    /// Ends the connections that have not kept up. To be called about once a second.
    pub fn end_slow_subscribers(&mut self, now: Instant) -> usize {
        let mut ended = 0;
        for subscriber in self.subscribers.values_mut() {
            if subscriber.full_since.is_none() {
                continue;
            }
            if subscriber.outbox.bytes() <= Outbox::LIMIT {
                subscriber.full_since = None;
            } else if subscriber
                .full_since
                .is_some_and(|since| now.duration_since(since) >= SLOW_FOR)
            {
                subscriber.outbox.end(Ended::TooSlow);
                subscriber.full_since = None;
                ended += 1;
            }
        }
        ended
    }

    /// Ends every connection.
    pub fn end_all(&mut self) {
        for subscriber in self.subscribers.values() {
            subscriber.outbox.end(Ended::ShuttingDown);
        }
    }
}

impl Subscriber {
    fn take(&mut self, frame: Utf8Bytes, now: Instant) {
        let waiting = self.outbox.push(frame);
        if waiting > HOPELESS {
            self.outbox.end(Ended::TooSlow);
        } else if waiting > Outbox::LIMIT {
            self.full_since.get_or_insert(now);
        }
    }
}

fn forget(by_topic: &mut HashMap<Topic, Vec<SubscriberId>>, topic: &Topic, id: SubscriberId) {
    let Some(ids) = by_topic.get_mut(topic) else {
        return;
    };
    if let Some(at) = ids.iter().position(|held| *held == id) {
        ids.swap_remove(at);
    }
    if ids.is_empty() {
        by_topic.remove(topic);
    }
}

/// The frame that tells of a change. Peers read the topic and echo the call id, and no more, so
/// one text serves all of them.
fn notification(topic: &Topic, change: &Change) -> Utf8Bytes {
    let id = &change.position.digest.to_string();
    let arguments = NotifyArguments {
        subscription: Subscription {
            id: Some(id.clone()),
            subscriber_id: Some(id.clone()),
            topic: topic.clone(),
            notifier_id: None,
        },
        data: Some(change.draft.payload.data().clone()),
    };
    rpc::request_text(rpc::NOTIFY, &arguments, id).into()
}

#[cfg(test)]
mod tests {
    use opal_protocol::Document;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::feed::{FeedLimits, Payload, new_epoch};
    use crate::outbox::Next;

    struct Bench {
        hub: Hub,
        now: Instant,
        published: u32,
    }

    impl Bench {
        fn new() -> Self {
            let epoch = new_epoch(&mut StdRng::seed_from_u64(1));
            Self {
                hub: Hub::new(FeedLog::new(epoch, FeedLimits::default())),
                now: Instant::now(),
                published: 0,
            }
        }

        fn join(&mut self, id: u64, topics: &[&str]) -> Arc<Outbox> {
            let outbox = Arc::new(Outbox::default());
            self.hub.register(
                SubscriberId(id),
                Arc::clone(&outbox),
                Peer::default(),
                self.now,
            );
            let topics = topics.iter().copied().map(Topic::from).collect();
            assert!(self.hub.subscribe(SubscriberId(id), topics));
            outbox
        }

        fn publish(&mut self, topics: &[&str], data: &str, except: Option<u64>) -> usize {
            self.published += 1;
            let draft = ChangeDraft {
                id: self.published.to_string().as_str().into(),
                topics: topics.iter().copied().map(Topic::from).collect(),
                payload: Payload::Data(Document::parse(data).unwrap()),
            };
            let except = except.map(SubscriberId);
            self.hub
                .publish(&ScopeId::default(), None, draft, except, self.now)
                .unwrap()
                .told
        }
    }

    fn topics(outbox: &Outbox) -> Vec<String> {
        let mut topics = Vec::new();
        while let Some(Next::Frame(frame)) = outbox.try_next() {
            let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
            let topic = &frame["request"]["arguments"]["subscription"]["topic"];
            topics.push(topic.as_str().unwrap().to_owned());
        }
        topics
    }

    #[test]
    fn a_subscriber_is_told_once_of_each_change_that_matches() {
        let mut bench = Bench::new();
        let both = bench.join(1, &["a", "b"]);
        let other = bench.join(2, &["c"]);
        assert_eq!(bench.publish(&["a", "b"], "1", None), 1);
        assert_eq!(bench.publish(&["b", "c"], "2", None), 2);
        assert_eq!(topics(&both), ["a", "b"]);
        assert_eq!(topics(&other), ["c"]);
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
        assert!(topics(&publisher).is_empty() && topics(&gone).is_empty());
        assert!(bench.hub.by_topic.is_empty());
    }

    #[test]
    fn subscribing_twice_is_subscribing_once() {
        let mut bench = Bench::new();
        let outbox = bench.join(1, &["a", "a"]);
        assert_eq!(bench.publish(&["a"], "1", None), 1);
        assert_eq!(topics(&outbox).len(), 1);
    }

    #[test]
    fn a_connection_has_so_many_topics_and_no_more() {
        let mut bench = Bench::new();
        bench.join(1, &["a"]);
        let many = (0..MOST_TOPICS)
            .map(|n| Topic::from(n.to_string()))
            .collect();
        assert!(!bench.hub.subscribe(SubscriberId(1), many));
        assert_eq!(bench.publish(&["0"], "1", None), 0, "none of them");
    }

    #[test]
    fn who_stays_behind_is_ended_and_who_catches_up_is_not() {
        let mut bench = Bench::new();
        let (slow, fast) = (bench.join(1, &["a"]), bench.join(2, &["a"]));
        let large = format!("\"{}\"", "x".repeat(Outbox::LIMIT));
        bench.publish(&["a"], &large, None);
        assert_eq!(topics(&fast).len(), 1);
        bench.now += SLOW_FOR;
        assert_eq!(bench.hub.end_slow_subscribers(bench.now), 1);
        assert_eq!(slow.try_next(), Some(Next::End(Ended::TooSlow)));
        assert_eq!(fast.try_next(), None);
    }
}
