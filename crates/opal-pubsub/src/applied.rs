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
    /// A way back that no connection reads yet.
    pub fn new() -> Self {
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

    /// What waits to be sent, and whether a restart is asked for, for the connection.
    pub fn subscribe(&self) -> watch::Receiver<Outgoing> {
        self.0.subscribe()
    }
}

impl Default for AppliedSender {
    fn default() -> Self {
        Self::new()
    }
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct Outgoing {
    newest: Option<(Epoch, AppliedArguments)>,
    /// How many reports there have been, and which of them was the last urgent one.
    reports: u64,
    last_urgent: u64,
    restarts: u64,
}

impl Outgoing {
    /// How often [`AppliedSender::restart`] was called.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }
}

/// When one connection with a feed sends what waits: the newest report, once, as soon as the pause
/// after the one before allows it.
#[derive(Debug)]
pub struct Pacing {
    epoch: Epoch,
    /// Reports up to this one are settled: sent, or not for this connection.
    settled: u64,
    /// What the server knows from this connection, and since when.
    sent: Option<(AppliedArguments, Instant)>,
}

impl Pacing {
    /// For a connection that goes on where we are: what was reported of its epoch is sent at once.
    pub fn resumed(epoch: Epoch) -> Self {
        Self {
            epoch,
            settled: 0,
            sent: None,
        }
    }

    /// For a connection that starts with a snapshot: what was reported before is about what the
    /// snapshot replaces, and never sent.
    pub fn anew(epoch: Epoch, outgoing: &Outgoing) -> Self {
        Self {
            settled: outgoing.reports,
            ..Self::resumed(epoch)
        }
    }

    /// When the newest report is to be sent; `None` if nothing waits.
    pub fn due(&self, outgoing: &Outgoing, now: Instant) -> Option<Instant> {
        let applied = self.news(outgoing)?;
        match &self.sent {
            None => Some(now),
            Some((known, _)) if known == applied => None,
            Some((_, at)) if outgoing.last_urgent > self.settled => Some(*at + URGENT_EVERY),
            Some((_, at)) => Some(*at + EVERY),
        }
    }

    /// What to send now, noted as sent; `None` if nothing is due.
    pub fn take(&mut self, outgoing: &Outgoing, now: Instant) -> Option<AppliedArguments> {
        self.due(outgoing, now).filter(|at| *at <= now)?;
        let applied = self.news(outgoing)?.clone();
        self.sent = Some((applied.clone(), now));
        self.settled = outgoing.reports;
        Some(applied)
    }

    fn news<'o>(&self, outgoing: &'o Outgoing) -> Option<&'o AppliedArguments> {
        let (epoch, applied) = outgoing.newest.as_ref()?;
        let is_news = *epoch == self.epoch && outgoing.reports > self.settled;
        is_news.then_some(applied)
    }
}

#[cfg(test)]
mod tests {
    use opal_protocol::Revision;

    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn low(revision: u64) -> AppliedArguments {
        AppliedArguments {
            low: Revision(revision),
            ..AppliedArguments::default()
        }
    }

    /// What is sent at `now`.
    fn take(pacing: &mut Pacing, sender: &AppliedSender, now: Instant) -> Option<u64> {
        let outgoing = sender.subscribe();
        let taken = pacing.take(&outgoing.borrow(), now);
        taken.map(|applied| applied.low.0)
    }

    #[test]
    fn the_first_report_goes_at_once_and_the_newest_after_a_second() {
        let (sender, mut pacing, now) = start();
        sender.report(EPOCH, low(1), false);
        assert_eq!(take(&mut pacing, &sender, now), Some(1));
        sender.report(EPOCH, low(2), false);
        sender.report(EPOCH, low(3), false);
        assert_eq!(pacing.due(&sender.0.borrow(), now), Some(now + EVERY));
        assert_eq!(take(&mut pacing, &sender, now + EVERY / 2), None);
        assert_eq!(take(&mut pacing, &sender, now + EVERY), Some(3));
    }

    #[test]
    fn an_urgent_report_waits_ten_milliseconds_at_most_and_stays_urgent() {
        let (sender, mut pacing, now) = start();
        sender.report(EPOCH, low(1), true);
        assert_eq!(take(&mut pacing, &sender, now), Some(1));
        sender.report(EPOCH, low(2), true);
        sender.report(EPOCH, low(3), false);
        assert_eq!(take(&mut pacing, &sender, now), None);
        assert_eq!(take(&mut pacing, &sender, now + URGENT_EVERY), Some(3));
        sender.report(EPOCH, low(4), false);
        assert_eq!(take(&mut pacing, &sender, now + URGENT_EVERY * 2), None);
    }

    #[test]
    fn what_the_server_knows_is_not_said_again_but_to_the_next_connection() {
        let (sender, mut pacing, now) = start();
        sender.report(EPOCH, low(1), false);
        assert_eq!(take(&mut pacing, &sender, now), Some(1));
        sender.report(EPOCH, low(1), true);
        assert_eq!(pacing.due(&sender.0.borrow(), now + EVERY), None);
        let mut next = Pacing::resumed(EPOCH);
        assert_eq!(take(&mut next, &sender, now), Some(1));
    }

    #[test]
    fn a_report_of_another_epoch_is_never_sent() {
        let (sender, mut pacing, now) = start();
        sender.report(Epoch(2), low(1), true);
        assert_eq!(take(&mut pacing, &sender, now), None);
    }

    #[test]
    fn what_was_reported_before_a_snapshot_or_a_restart_is_never_sent() {
        let (sender, mut pacing, now) = start();
        sender.report(EPOCH, low(7), false);
        let mut anew = Pacing::anew(EPOCH, &sender.0.borrow());
        assert_eq!(take(&mut anew, &sender, now), None);
        sender.report(EPOCH, low(2), false);
        assert_eq!(take(&mut anew, &sender, now), Some(2));
        sender.restart();
        assert_eq!(sender.0.borrow().restarts(), 1);
        assert_eq!(take(&mut pacing, &sender, now), None);
    }

    fn start() -> (AppliedSender, Pacing, Instant) {
        (AppliedSender::new(), Pacing::resumed(EPOCH), Instant::now())
    }
}
