//! What the hub knows of clients, for those who wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opal_protocol::{Revision, ScopeId, Topic};

use super::Hub;
use super::follower::{ClientKey, Follower, Standing};
use super::wait_target::{WaitOutcome, WaitTarget};
use super::waits::{Concerned, Progress, WaitFor, WaitId};

/// Nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

impl Hub {
    /// Starts to wait for `target` to apply `revision` of `scope`. The clients that count are
    /// those who hold one of its topics by now, connected or lost within the last 30 s. Of a
    /// revision that the feed does not hold any more, or not yet, all clients of the scope count.
    pub fn wait(
        &mut self,
        scope: &ScopeId,
        revision: Revision,
        target: WaitTarget,
        timeout: Duration,
        now: Instant,
    ) -> WaitId {
        let everyone = self.concerned(scope, revision, now);
        let concerned = match &target {
            WaitTarget::All | WaitTarget::Percent(_) => everyone,
            WaitTarget::Client(id) => self.only(scope, id, everyone, now),
        };
        let what = WaitFor {
            scope: scope.clone(),
            revision,
            target,
            deadline: now + timeout.min(LONGEST_WAIT),
        };
        self.waits.start(what, concerned, now)
    }

    /// The waits that ended since this was last asked.
    pub fn finished_waits(&mut self) -> Vec<(WaitId, WaitOutcome)> {
        self.waits.finished()
    }

    /// When the next wait ends at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waits.next_deadline()
    }

    /// Ends the waits whose time is over.
    pub fn expire_waits(&mut self, now: Instant) {
        self.waits.expire(now);
    }

    /// Forgets a wait that nobody waits for any more.
    pub fn cancel_wait(&mut self, id: WaitId) {
        self.waits.cancel(id);
    }

    /// Tells the waits how a client stands by now.
    pub(super) fn reconsider(&mut self, key: &ClientKey, now: Instant) {
        let (clients, subscribers, lost) = (&self.clients, &self.subscribers, &self.lost);
        self.waits.note(key, |revision| {
            let connections = clients.get(key).into_iter().flatten();
            let followers = connections.filter_map(|id| subscribers.get(id)?.follower.as_deref());
            let standings = followers.map(|follower| follower.standing(revision));
            match standings.reduce(Standing::and) {
                Some(standing) => Progress::Connected(standing),
                None if lost.contains(key, now) => Progress::Lost,
                None => Progress::Gone,
            }
        });
    }

    /// Whom a change concerns: by the topics of that revision, or else everyone of the scope.
    fn concerned(&self, scope: &ScopeId, revision: Revision, now: Instant) -> Concerned {
        let change = self.feed.change(scope, revision);
        let topics = change.map(|change| &*change.draft.topics);
        let lost = self.lost.holding(scope, topics, now);
        let mut clients: BTreeMap<Arc<str>, Progress> = lost
            .map(|key| (Arc::clone(&key.id), Progress::Lost))
            .collect();
        for follower in self.holding(scope, topics) {
            let standing = follower.standing(revision);
            let standing = match clients.remove(&follower.key.id) {
                Some(Progress::Connected(other)) => other.and(standing),
                _ => standing,
            };
            let id = Arc::clone(&follower.key.id);
            clients.insert(id, Progress::Connected(standing));
        }
        Concerned {
            clients,
            unconfirmed: self.unconfirmed(topics),
        }
    }

    fn holding<'h>(
        &'h self,
        scope: &'h ScopeId,
        topics: Option<&'h [Topic]>,
    ) -> impl Iterator<Item = &'h Follower> {
        let followers = self.subscribers.values();
        let followers = followers.filter_map(|subscriber| subscriber.follower.as_deref());
        followers.filter(move |follower| {
            follower.key.scope == *scope && holds_one(&follower.topics, topics)
        })
    }

    /// Those who were told in the released way.
    fn unconfirmed(&self, topics: Option<&[Topic]>) -> BTreeSet<Arc<str>> {
        let subscribers = self.subscribers.values();
        let told = subscribers.filter(|subscriber| {
            subscriber.follower.is_none() && holds_one(&subscriber.topics, topics)
        });
        told.map(|subscriber| subscriber.peer.name().into())
            .collect()
    }

    /// The one client that is asked for, among those whom the change concerns or, if it is none of
    /// them, with the reason.
    fn only(&self, scope: &ScopeId, id: &str, everyone: Concerned, now: Instant) -> Concerned {
        let Concerned {
            mut clients,
            mut unconfirmed,
        } = everyone;
        clients.retain(|client, _| **client == *id);
        unconfirmed.retain(|client| **client == *id);
        if clients.is_empty() && unconfirmed.is_empty() {
            let key = ClientKey {
                scope: scope.clone(),
                id: id.into(),
            };
            let is_known = self.clients.contains_key(&key) || self.lost.contains(&key, now);
            let why = match is_known {
                true => "not subscribed to any of its topics",
                false => "not connected",
            };
            clients.insert(id.into(), Progress::Absent(why));
        }
        Concerned {
            clients,
            unconfirmed,
        }
    }
}

/// Whether one of `held` is among `topics`; none stands for every topic.
fn holds_one(held: &[Topic], topics: Option<&[Topic]>) -> bool {
    match topics {
        Some(topics) => held.iter().any(|topic| topics.contains(topic)),
        None => !held.is_empty(),
    }
}
