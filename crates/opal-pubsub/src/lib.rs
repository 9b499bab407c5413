//! Both ends of OPAL's websocket protocol, and the feed of changes behind it.
//!
//! The road of a publish through a server, module by module:
//!
//! 1. [`publisher`]: a cheap handle; whoever has something to say calls [`Publisher::publish`].
//! 2. [`feed`]: the publish becomes a [`Change`](feed::Change) with a revision of its scope. Nothing is
//!    delivered that did not go through the feed, and with a journal
//!    ([`feed::journal_file`]) nothing that is not on disk. What leaves the history stays in the
//!    [`feed::base`].
//! 3. [`hub`]: a state machine without I/O that knows who subscribed to what. It encodes a change
//!    once for each topic, and once for all who follow the feed, and puts the same bytes into the
//!    [`outbox`] of each subscriber. Those who follow say what they applied; so it can say how every
//!    client stands, and answer whoever waits for a change to be applied.
//! 4. [`session`]: what one connection may ask and still owes us, without I/O;
//!    [`channel`] is the task that moves its frames.
//!
//! On the client, [`subscriber`] keeps one connection alive and yields [`Event`]s: a reconnect is an
//! event like any other. What the frames of a connection mean is decided by [`conversation`], when
//! to try again by [`reconnect`], and when to tell the server what was applied by [`applied`]; none
//! of them has a clock of its own.

pub mod applied;
pub mod channel;
pub mod conversation;
pub mod event;
pub mod feed;
pub mod hub;
pub mod outbox;
pub mod publisher;
pub mod reconnect;
pub mod session;
pub mod subscriber;

pub use applied::AppliedSender;
pub use event::{Event, FeedChange, Start};
pub use feed::{ChangeDraft, FeedLimits, Payload};
pub use publisher::{HubStopped, PublishError, Publisher};
