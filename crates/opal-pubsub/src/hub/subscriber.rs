//! One connection, as the hub sees it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::Utf8Bytes;
use opal_protocol::{Revision, Topic};

use super::follower::Follower;
use super::{Peer, SLOW_FOR};
use crate::outbox::{Ended, Outbox};

/// An outbox with more than this is ended at once: its reader is gone in all but name.
const HOPELESS: usize = 8 * Outbox::LIMIT;

/// One connection.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) outbox: Arc<Outbox>,
    pub(super) peer: Peer,
    pub(super) since: Instant,
    /// What it holds in the released way.
    pub(super) topics: Vec<Topic>,
    /// What it follows. In a box: most connections of a released fleet have none.
    pub(super) follower: Option<Box<Follower>>,
    last_delivery: u64,
    full_since: Option<Instant>,
}

impl Subscriber {
    /// A connection without topics.
    pub(super) fn new(outbox: Arc<Outbox>, peer: Peer, now: Instant) -> Self {
        Self {
            outbox,
            peer,
            since: now,
            topics: Vec::new(),
            follower: None,
            last_delivery: 0,
            full_since: None,
        }
    }

    /// How many topics it has, in either way.
    pub(super) fn topic_count(&self) -> usize {
        let followed = self.follower.as_ref().map_or(0, |one| one.topics.len());
        self.topics.len() + followed
    }

    /// Whether it gets something of this delivery for the first time.
    pub(super) fn is_first_of(&mut self, delivery: u64) -> bool {
        std::mem::replace(&mut self.last_delivery, delivery) != delivery
    }

    /// Hands out a change of the feed that it follows.
    pub(super) fn tell(&mut self, revision: Revision, frame: Utf8Bytes, now: Instant) {
        if let Some(follower) = &mut self.follower {
            follower.tell(revision);
        }
        self.take(frame, now);
    }

    /// Says where the feed is that it follows.
    pub(super) fn tell_position(&mut self, head: Revision, frame: Utf8Bytes, now: Instant) {
        if let Some(follower) = &mut self.follower {
            follower.told = head;
        }
        self.take(frame, now);
    }

    /// Hands out a frame.
    pub(super) fn take(&mut self, frame: Utf8Bytes, now: Instant) {
        let waiting = self.outbox.push(frame);
        if waiting > HOPELESS {
            self.outbox.end(Ended::TooSlow);
        } else if waiting > Outbox::LIMIT {
            self.full_since.get_or_insert(now);
        }
    }

    /// Ends the connection if it has not kept up for too long. Returns whether it was ended.
    pub(super) fn end_if_slow(&mut self, now: Instant) -> bool {
        let Some(since) = self.full_since else {
            return false;
        };
        let caught_up = self.outbox.bytes() <= Outbox::LIMIT;
        let is_too_slow = !caught_up && now.duration_since(since) >= SLOW_FOR;
        if caught_up || is_too_slow {
            self.full_since = None;
        }
        if is_too_slow {
            self.outbox.end(Ended::TooSlow);
        }
        is_too_slow
    }

    /// Ends the connection since the server stops.
    pub(super) fn shut_down(&self) {
        self.outbox.end(Ended::ShuttingDown);
    }
}
