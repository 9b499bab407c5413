//! Who subscribed to what, and the delivery of changes to them.
//!
//! [`Hub`] is a state machine: it does no I/O and is told the time. One task owns it (see
//! [`publisher`](crate::publisher)), so that registering a subscriber and appending a change are
//! steps of one order: a subscriber gets every matching change after its registration.
//!
//! A connection holds topics in the released way, follows the feed of a scope, or both. Those that
//! follow say what they applied: `fleet` is what people see of that, `waits` is for those who wait
//! for it.

mod fleet;
mod follower;
mod frames;
mod lost;
mod outstanding;
mod pacing;
mod ranges;
mod resume;
mod subscriber;
mod timeline;
mod topics;
mod wait_target;
mod waiting;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opal_protocol::feed::{AppliedArguments, BaseSnapshot};
use opal_protocol::{Revision, ScopeId, Topic};

use crate::feed::{AppendError, Appended, Change, ChangeDraft, FeedLog};
use crate::outbox::Outbox;
use fleet::Moment;
use follower::ClientKey;
use frames::FrameCache;
use lost::LostClients;
use pacing::Pacing;
use subscriber::Subscriber;
use timeline::Timeline;
use topics::TopicIndex;
use waits::Waits;

pub use fleet::{ClientMode, ClientState, ClientView, Drift, ReportedPolicies};
pub use wait_target::{Missing, NotAWaitTarget, WaitOutcome, WaitTarget};
pub use waits::WaitId;

/// One connection, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u64);

/// How long an outbox may stay over its limit.
pub const SLOW_FOR: Duration = Duration::from_secs(10);

/// So many topics a connection may have.
pub const MOST_TOPICS: usize = 1000;

/// How often those who follow a feed are told where it is, while it moves.
pub const POSITIONS_EVERY: Duration = Duration::from_secs(10);

/// Topics, subscribers, and the feed behind them.
#[derive(Debug)]
pub struct Hub {
    feed: FeedLog,
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    /// Who holds topics in the released way.
    released: TopicIndex,
    /// Who follows the feed of which scope. Never walked where the order would show.
    followed: HashMap<ScopeId, Followed>,
    /// The connections of each client that follows.
    clients: BTreeMap<ClientKey, BTreeSet<SubscriberId>>,
    lost: LostClients,
    waits: Waits,
    frames: FrameCache,
    pacing: Pacing,
    positions_sent: Option<Instant>,
    /// Counts deliveries, to tell each subscriber at most once of each change.
    deliveries: u64,
}

/// Those who follow the feed of one scope.
#[derive(Debug, Default)]
struct Followed {
    topics: TopicIndex,
    timeline: Timeline,
    followers: usize,
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
}

impl Peer {
    /// What to call it: what it calls itself, or its id.
    pub fn name(&self) -> &str {
        self.client_id.as_deref().unwrap_or(&self.channel_id)
    }
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

/// How a change is handed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Who gets no copy.
    pub except: Option<SubscriberId>,
    /// Somebody waits to hear that it was applied: clients are asked to say so at once.
    pub confirm: bool,
}

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what passes on this machine.
    pub instant: Instant,
    /// For others: milliseconds since the Unix epoch.
    pub unix_millis: u64,
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
            subscribers: BTreeMap::new(),
            released: TopicIndex::default(),
            followed: HashMap::new(),
            clients: BTreeMap::new(),
            lost: LostClients::default(),
            waits: Waits::default(),
            frames: FrameCache::default(),
            pacing: Pacing::default(),
            positions_sent: None,
            deliveries: 0,
        }
    }

    /// The feed.
    pub fn feed(&self) -> &FeedLog {
        &self.feed
    }

    /// What the feed of `scope` comes down to at its head, for a client of `topics`.
    pub fn base(&mut self, scope: &ScopeId, topics: &[Topic]) -> BaseSnapshot {
        self.feed.base(scope, topics)
    }

    /// Adds a connection without topics.
    pub fn register(&mut self, id: SubscriberId, outbox: Arc<Outbox>, peer: Peer, now: Instant) {
        let subscriber = Subscriber::new(outbox, peer, now);
        self.subscribers.insert(id, subscriber);
    }

    /// Adds topics to a connection. Those it has already do nothing. Returns whether it was done:
    /// nothing is when the connection would have more than [`MOST_TOPICS`].
    pub fn subscribe(&mut self, id: SubscriberId, topics: Vec<Topic>) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return false;
        };
        if subscriber.topic_count() + topics.len() > MOST_TOPICS {
            return false;
        }
        for topic in topics {
            if subscriber.topics.contains(&topic) {
                continue;
            }
            self.released.add(&topic, id);
            subscriber.topics.push(topic);
        }
        true
    }

    /// Takes topics from a connection. Those it does not have are skipped, as are those that it
    /// follows the feed with.
    pub fn unsubscribe(&mut self, id: SubscriberId, topics: &[Topic]) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        for topic in topics {
            if let Some(at) = subscriber.topics.iter().position(|held| held == topic) {
                subscriber.topics.swap_remove(at);
                self.released.remove(topic, id);
            }
        }
    }

    /// Removes a connection and everything it subscribed to. A client that followed the feed is
    /// remembered for 30 s.
    pub fn remove(&mut self, id: SubscriberId, now: Instant) {
        if let Some((key, view)) = self.unfollow(id, now) {
            // A client that has another connection is not lost.
            let forgotten = match self.clients.contains_key(&key) {
                true => Vec::new(),
                false => self.lost.add(key.clone(), view, now),
            };
            self.reconsider(&key, now);
            forgotten.iter().for_each(|key| self.reconsider(key, now));
        }
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        for topic in &subscriber.topics {
            self.released.remove(topic, id);
        }
    }

    /// Appends a change and hands it to each subscriber of one of its topics.
    ///
    /// A change that was appended before is not delivered again.
    pub fn publish(
        &mut self,
        scope: &ScopeId,
        expected: Option<Revision>,
        draft: ChangeDraft,
        delivery: Delivery,
        now: Now,
    ) -> Result<Published, AppendError> {
        let appended = self.feed.append(scope, expected, draft, now.unix_millis)?;
        let told = match &appended {
            Appended::New(change) => {
                let change = Arc::clone(change);
                self.deliver(&change, delivery, now.instant)
            }
            Appended::Repeated(_) => 0,
        };
        Ok(Published { appended, told })
    }

    /// The feed, to be changed by whoever delivers what becomes part of it.
    pub fn feed_mut(&mut self) -> &mut FeedLog {
        &mut self.feed
    }

    /// Hands a change that was just appended to each subscriber of one of its topics, once.
    /// Returns how many there were.
    pub fn deliver(&mut self, change: &Change, delivery: Delivery, now: Instant) -> usize {
        self.deliveries += 1;
        // Those who follow come first: who also holds a topic in the released way is told once.
        self.tell_followers(change, delivery, now) + self.notify(change, delivery, now)
    }

    fn tell_followers(&mut self, change: &Change, delivery: Delivery, now: Instant) -> usize {
        let Some(followed) = self.followed.get_mut(&change.scope) else {
            return 0;
        };
        let revision = change.position.revision;
        followed.timeline.note(revision, now);
        let mut told = 0;
        let mut frame = None;
        let topics = change.draft.topics.iter();
        let holders = topics.flat_map(|topic| followed.topics.holders(topic));
        for id in holders.filter(|id| Some(**id) != delivery.except) {
            let Some(subscriber) = self.subscribers.get_mut(id) else {
                continue;
            };
            if subscriber.is_first_of(self.deliveries) {
                let frame = frame.get_or_insert_with(|| frames::change(change, delivery.confirm));
                subscriber.tell(revision, frame.clone(), now);
                told += 1;
            }
        }
        told
    }

    fn notify(&mut self, change: &Change, delivery: Delivery, now: Instant) -> usize {
        let mut told = 0;
        for topic in &change.draft.topics {
            // Encoded once for each topic somebody holds; every subscriber shares the bytes.
            let mut frame = None;
            let holders = self.released.holders(topic).iter();
            for id in holders.filter(|id| Some(**id) != delivery.except) {
                let Some(subscriber) = self.subscribers.get_mut(id) else {
                    continue;
                };
                if subscriber.is_first_of(self.deliveries) {
                    let frame = frame.get_or_insert_with(|| frames::notification(topic, change));
                    subscriber.take(frame.clone(), now);
                    told += 1;
                }
            }
        }
        told
    }

    /// Notes what a client says that it holds. After a fault everything is as before.
    pub fn applied(
        &mut self,
        id: SubscriberId,
        report: AppliedArguments,
        now: Instant,
    ) -> Result<(), AppliedFault> {
        let subscriber = self.subscribers.get_mut(&id);
        let follower = subscriber.and_then(|subscriber| subscriber.follower.as_mut());
        let follower = follower.ok_or(AppliedFault::NotResumed)?;
        let head = self.feed.head(&follower.key.scope);
        follower.report(report, head.revision)?;
        if !self.waits.is_empty() {
            let key = follower.key.clone();
            self.reconsider(&key, now);
        }
        Ok(())
    }

    /// To be called about once a second. Returns how many connections were ended because they did
    /// not keep up.
    pub fn tick(&mut self, now: Instant) -> usize {
        self.frames.clear();
        self.send_positions(now);
        for key in self.lost.expire(now) {
            self.reconsider(&key, now);
        }
        self.waits.expire(now);
        let subscribers = self.subscribers.values_mut();
        subscribers
            .filter_map(|one| one.end_if_slow(now).then_some(()))
            .count()
    }

    /// Tells those who follow a feed where it is, if they do not know. Seldom, since nothing that
    /// concerns them has happened.
    fn send_positions(&mut self, now: Instant) {
        let last = *self.positions_sent.get_or_insert(now);
        if now.duration_since(last) < POSITIONS_EVERY {
            return;
        }
        self.positions_sent = Some(now);
        for subscriber in self.subscribers.values_mut() {
            let Some(follower) = &subscriber.follower else {
                continue;
            };
            let head = self.feed.head(&follower.key.scope);
            if follower.told < head.revision {
                let frame = self.frames.head(&follower.key.scope, head);
                subscriber.tell_position(head.revision, frame, now);
            }
        }
    }

    /// Every client that is connected or was lost within the last 30 s, sorted by id.
    pub fn fleet(&self, now: Instant) -> Vec<ClientView> {
        let connected = self.subscribers.values().map(|one| self.view(one, now));
        let mut views: Vec<ClientView> = connected.chain(self.lost.views(now)).collect();
        views.sort_by(|a, b| (&a.id, &a.scope).cmp(&(&b.id, &b.scope)));
        views
    }

    fn view(&self, subscriber: &Subscriber, now: Instant) -> ClientView {
        let peer = &subscriber.peer;
        let followed = subscriber.follower.as_ref();
        let Some((follower, scope)) = followed.and_then(|follower| {
            let scope = self.followed.get(&follower.key.scope)?;
            Some((follower, scope))
        }) else {
            return fleet::released_view(peer, &subscriber.topics, subscriber.since, now);
        };
        let moment = Moment {
            head: self.feed.head(&follower.key.scope),
            timeline: &scope.timeline,
            now,
        };
        follower.view(peer, subscriber.since, &moment)
    }

    /// The policies that connected clients say they hold.
    pub fn reported_policies(&self) -> Vec<ReportedPolicies> {
        let followers = self.subscribers.iter().filter_map(|(id, subscriber)| {
            let follower = subscriber.follower.as_ref()?;
            follower.reported_policies(*id)
        });
        followers.collect()
    }

    /// Notes that the policies of clients are not those of their commit: the fleet view says so
    /// until they report others. Those who are to be told take a snapshot.
    pub fn mark_drift(&mut self, drifted: &[Drift], now: Instant) {
        for Drift { reported, tell } in drifted {
            let Some(subscriber) = self.subscribers.get_mut(&reported.subscriber) else {
                continue;
            };
            if let Some(follower) = &mut subscriber.follower
                && follower.mark_drift(reported)
                && *tell
            {
                let head = self.feed.head(&follower.key.scope);
                let frame = frames::position(&head, true);
                subscriber.tell_position(head.revision, frame, now);
            }
        }
    }

    /// Ends every connection, and every wait with what is known by now.
    pub fn end_all(&mut self) {
        self.waits.finish_all();
        self.subscribers.values().for_each(Subscriber::shut_down);
    }
}

#[cfg(test)]
mod tests;
