//! What a client holds, on its way to the server: a handle for whoever applies changes, and when
//! the connection sends what was reported. No I/O, no clock.

use std::time::{Duration, Instant};

use opal_protocol::Epoch;
use opal_protocol::feed::AppliedArguments;
use tokio::sync::watch;

/// The pause between two reports of which nobody waits for the second.
const EVERY: Duration = Duration::from_secs(1);

/// The pause between two reports if somebody waits for the second.
const URGENT_EVERY: Duration = Duration::from_millis(10);

/// Tells the server what is applied, through whichever connection there is. Cheap to clone.
///
/// Only the newest report counts: it replaces one that was not sent yet.
#[derive(Debug, Clone)]
pub struct AppliedSender(watch::Sender<Outgoing>);

impl AppliedSender {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Outgoing::default()))
    }

    /// Reports what is applied of `epoch`, which is that of the last
    /// [`Start`](crate::event::Start). Sent within a second, or at once if `urgent`, and again to
    /// the next connection; never to a connection of another epoch or without a feed.
    pub fn report(&self, epoch: Epoch, applied: AppliedArguments, urgent: bool) {
        self.0.send_modify(|outgoing| {
            outgoing.reports += 1;
            if urgent {
                outgoing.last_urgent = outgoing.reports;
            }
            outgoing.newest = Some((epoch, applied));
        });
    }

    /// Gives up the position that the connection resumes from, and what was reported: the next
    /// event but those under way is [`Event::Disconnected`](crate::event::Event::Disconnected),
    /// and the next connection starts with everything anew. For a client that cannot trust what
    /// it holds.
    pub fn restart(&self) {
        self.0.send_modify(|outgoing| {
            outgoing.restarts += 1;
            outgoing.newest = None;
        });
    }

    /// Forgets what was reported: it was about what a snapshot replaces.
    pub(crate) fn forget(&self) {
        self.0.send_modify(|outgoing| outgoing.newest = None);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Outgoing> {
        self.0.subscribe()
    }
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    newest: Option<(Epoch, AppliedArguments)>,
    /// How many reports there have been, and which of them was the last urgent one.
    reports: u64,
    last_urgent: u64,
    /// How often a restart was asked for.
    pub(crate) restarts: u64,
}
