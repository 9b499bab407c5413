//! How a connection begins to follow the feed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use opal_protocol::feed::{ResumeAnswer, ResumeArguments, ResumeMode};
use opal_protocol::{Position, Revision, Topic};

use super::fleet::ClientView;
use super::follower::{ClientKey, Follower};
use super::{Hub, MOST_TOPICS, Peer, SubscriberId, TooManyTopics, frames};
use crate::feed::{Change, Since};
use crate::outbox::{Ended, Outbox};

/// How a client goes on.
enum Start {
    /// From there, with these changes.
    Replay(Revision, Vec<Arc<Change>>),
    Snapshot,
}

impl Hub {
    /// Makes a connection follow the feed from where its client is, in one step with saying where
    /// the feed is: what the outbox gets from now on belongs after the answer, and nothing that
    /// concerns the client is missing from it. What the connection followed before is over.
    pub fn resume(
        &mut self,
        id: SubscriberId,
        arguments: ResumeArguments,
        now: Instant,
    ) -> Result<ResumeAnswer, TooManyTopics> {
        let ResumeArguments {
            scope,
            topics,
            position,
            client,
        } = arguments;
        let topics = without_repeats(topics);
        let subscriber = self.subscribers.get(&id).ok_or(TooManyTopics)?;
        if topics.len() + subscriber.topics.len() > MOST_TOPICS {
            return Err(TooManyTopics);
        }
        let key = ClientKey {
            id: name(&client.id, &subscriber.peer),
            scope,
        };
        self.follow_no_more(id, &key, now);
        self.supersede(&key, &client.instance, now);
        let start = self.start(&key, &topics, position);
        let floor = match &start {
            Start::Replay(from, _) => (*from, false),
            Start::Snapshot => (self.feed.head(&key.scope).revision, true),
        };
        self.follow(id, Follower::new(key.clone(), client, topics, floor, now));
        let answer = self.begin(id, &key, start, now);
        self.lost.remove(&key);
        self.reconsider(&key, now);
        Ok(answer)
    }

    /// What somebody at `position` needs.
    fn start(&self, key: &ClientKey, topics: &[Topic], position: Option<Position>) -> Start {
        let Some(position) = position else {
            return Start::Snapshot;
        };
        let Since::Changes(mut changes) = self.feed.since(&key.scope, &position) else {
            return Start::Snapshot;
        };
        let topics: HashSet<&Topic> = topics.iter().collect();
        changes.retain(|change| {
            change
                .draft
                .topics
                .iter()
                .any(|topic| topics.contains(topic))
        });
        let sizes = changes.iter().map(|change| frames::size(change));
        // What does not fit into an outbox would end the connection, and again each time.
        match sizes.sum::<usize>() <= Outbox::LIMIT {
            true => Start::Replay(position.revision, changes),
            false => Start::Snapshot,
        }
    }

    /// Hands out what was missed, and where the feed is.
    fn begin(
        &mut self,
        id: SubscriberId,
        key: &ClientKey,
        start: Start,
        now: Instant,
    ) -> ResumeAnswer {
        let head = self.feed.head(&key.scope);
        let (mode, spread_ms, missed) = match start {
            Start::Replay(_, missed) => (ResumeMode::Replay, 0, missed),
            Start::Snapshot => (ResumeMode::Snapshot, self.pacing.grant(now), Vec::new()),
        };
        let waited_for = self.waits.revisions(&key.scope);
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            for change in &missed {
                let revision = change.position.revision;
                let frame = self.frames.change(change, waited_for.contains(&revision));
                subscriber.tell(revision, frame, now);
            }
            if mode == ResumeMode::Replay {
                let frame = self.frames.head(&key.scope, head);
                subscriber.tell_position(head.revision, frame, now);
            } else if let Some(follower) = &mut subscriber.follower {
                // The answer itself says so.
                follower.told = head.revision;
            }
        }
        ResumeAnswer {
            epoch: head.epoch,
            head: head.revision,
            digest: head.digest,
            mode,
            spread_ms,
        }
    }

    fn follow(&mut self, id: SubscriberId, follower: Follower) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        let followed = self.followed.entry(follower.key.scope.clone()).or_default();
        followed.followers += 1;
        for topic in &follower.topics {
            followed.topics.add(topic, id);
        }
        let connections = self.clients.entry(follower.key.clone()).or_default();
        connections.insert(id);
        subscriber.follower = Some(Box::new(follower));
    }

    /// Ends what a connection followed before it follows something else, for `next`.
    fn follow_no_more(&mut self, id: SubscriberId, next: &ClientKey, now: Instant) {
        let Some((key, _)) = self.unfollow(id, now) else {
            return;
        };
        if let Some(subscriber) = self.subscribers.get(&id) {
            // A change that waits may come between others of the new sequence, which would then
            // look as if they had come already.
            subscriber.outbox.drop_events();
        }
        if key != *next {
            self.reconsider(&key, now);
        }
    }

    /// Ends the older connections of the process that has come back: their peer is gone, and nothing
    /// else would tell before they have been silent for long.
    fn supersede(&mut self, key: &ClientKey, instance: &str, now: Instant) {
        if instance.is_empty() {
            return;
        }
        let connections = self.clients.get(key).into_iter().flatten();
        let same = |id: &&SubscriberId| {
            let subscriber = self.subscribers.get(id);
            let follower = subscriber.and_then(|subscriber| subscriber.follower.as_ref());
            follower.is_some_and(|follower| follower.info.instance == instance)
        };
        let older: Vec<SubscriberId> = connections.filter(same).copied().collect();
        for id in older {
            self.unfollow(id, now);
            if let Some(subscriber) = self.subscribers.get(&id) {
                subscriber.outbox.end(Ended::Superseded);
            }
        }
    }

    /// Takes a connection out of what it follows; returns who it was, and how it was.
    pub(super) fn unfollow(
        &mut self,
        id: SubscriberId,
        now: Instant,
    ) -> Option<(ClientKey, ClientView)> {
        let view = self.view(self.subscribers.get(&id)?, now);
        let follower = self.subscribers.get_mut(&id)?.follower.take()?;
        let key = follower.key;
        if let Some(followed) = self.followed.get_mut(&key.scope) {
            followed.followers -= 1;
            for topic in &follower.topics {
                followed.topics.remove(topic, id);
            }
            if followed.followers == 0 {
                self.followed.remove(&key.scope);
            }
        }
        if let Some(connections) = self.clients.get_mut(&key) {
            connections.remove(&id);
            if connections.is_empty() {
                self.clients.remove(&key);
            }
        }
        Some((key, view))
    }
}

fn name(own: &str, peer: &Peer) -> Arc<str> {
    let name = if own.is_empty() { peer.name() } else { own };
    super::follower::cut(name.to_owned(), super::follower::LONGEST_NAME).into()
}

fn without_repeats(topics: Vec<Topic>) -> Vec<Topic> {
    let mut seen = HashSet::new();
    let mut topics = topics;
    topics.retain(|topic| seen.insert(topic.clone()));
    topics
}
