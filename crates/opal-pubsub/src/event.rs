//! What a subscription tells its consumer.

use std::time::Duration;

use opal_protocol::{Document, Position, Topic};

/// What a subscription tells its consumer, in order.
///
/// A connection begins with [`Event::Subscribed`] and ends with [`Event::Disconnected`]. With
/// [`Start::Released`] only messages come between them; with the other starts, changes and
/// positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The subscription is live.
    Subscribed(Start),
    /// Something was published to one of our topics, told without a place in a feed.
    Message {
        /// The topic that matched.
        topic: Topic,
        /// What was published.
        data: Document,
    },
    /// One change of the feed. Revisions ascend, and none comes twice, until a snapshot.
    Change(FeedChange),
    /// All changes of our topics up to here have been told.
    Position(Position),
    /// The server found that the policies we reported are not those of their commit: take
    /// everything anew, from at least where we are.
    Drifted,
    /// The connection is gone; what we hold is now of unknown age.
    Disconnected,
}

/// What a live subscription builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The server has no feed for us: take everything anew; positions are void.
    Released,
    /// Anything may have been missed: take everything anew, from at least `head`. Changes after
    /// `head` follow.
    Snapshot {
        /// Where the feed was when we were subscribed.
        head: Position,
        /// Begin at a random moment within this time.
        spread: Duration,
    },
    /// What was missed follows as changes; all of it has been told at the first
    /// [`Event::Position`] that is not below `head`.
    Resumed {
        /// Where the feed was when we were subscribed.
        head: Position,
    },
}

/// One change as a client is told it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedChange {
    /// The point in the feed that this change leads to.
    pub position: Position,
    /// All topics that it was published to, ours among them.
    pub topics: Vec<Topic>,
    /// What was published.
    pub payload: Document,
    /// Somebody waits to hear that it was applied: report it without delay.
    pub confirm: bool,
}
