//! Which changes a client was told of and has not applied.

use std::collections::VecDeque;

use opal_protocol::Revision;

use super::ranges::Ranges;

/// So many changes are kept of one client.
const MOST_OUTSTANDING: usize = 10_000;

/// The oldest changes that a client was told of and has not applied, ascending.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    changes: VecDeque<Revision>,
    /// The last of those that there was no room for.
    beyond: Option<Revision>,
}

impl Outstanding {
    /// Adds a change after all others.
    pub(super) fn push(&mut self, revision: Revision) {
        if self.beyond.is_some() || self.changes.len() >= MOST_OUTSTANDING {
            self.beyond = Some(revision);
        } else {
            self.changes.push_back(revision);
        }
    }

    /// Takes out everything up to `low`, and what `done` names.
    pub(super) fn settle(&mut self, low: Revision, done: &Ranges) {
        while self.changes.front().is_some_and(|oldest| *oldest <= low) {
            self.changes.pop_front();
        }
        if !done.is_empty() {
            self.changes.retain(|revision| !done.contains(*revision));
        }
        if self.beyond.is_some_and(|last| last <= low) {
            self.beyond = None;
        }
        if self.changes.is_empty() && self.changes.capacity() > 64 {
            self.changes = VecDeque::new();
        }
    }

    /// The oldest of them. After more than were kept it may be one that is done, but never one
    /// that is too new.
    pub(super) fn oldest(&self, low: Revision) -> Option<Revision> {
        let unknown = self.beyond.map(|_| Revision(low.0 + 1));
        self.changes.front().copied().or(unknown)
    }

    /// How many are known, and whether there are more.
    pub(super) fn count(&self) -> (usize, bool) {
        (self.changes.len(), self.beyond.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(revisions: impl IntoIterator<Item = u64>) -> Outstanding {
        let mut outstanding = Outstanding::default();
        revisions
            .into_iter()
            .map(Revision)
            .for_each(|revision| outstanding.push(revision));
        outstanding
    }

    fn done(ranges: &[(u64, u64)]) -> Ranges {
        let sent = ranges.iter().map(|(a, b)| (Revision(*a), Revision(*b)));
        Ranges::normalised(sent.collect(), Revision(0)).unwrap()
    }

    #[test]
    fn what_is_done_leaves_and_the_oldest_of_the_rest_is_known() {
        let mut outstanding = told([2, 5, 6, 9]);
        outstanding.settle(Revision(3), &done(&[(5, 5), (9, 12)]));
        assert_eq!(outstanding.oldest(Revision(3)), Some(Revision(6)));
        assert_eq!(outstanding.count(), (1, false));
        outstanding.settle(Revision(9), &done(&[]));
        assert_eq!(outstanding.oldest(Revision(9)), None);
    }

    #[test]
    fn more_than_are_kept_are_outstanding_until_the_last_is_done() {
        let most = MOST_OUTSTANDING as u64;
        let mut outstanding = told(1..=most + 5);
        assert_eq!(outstanding.count(), (MOST_OUTSTANDING, true));
        outstanding.settle(Revision(most + 2), &done(&[]));
        assert_eq!(outstanding.count(), (0, true));
        assert_eq!(
            outstanding.oldest(Revision(most + 2)),
            Some(Revision(most + 3))
        );
        outstanding.settle(Revision(most + 5), &done(&[]));
        assert_eq!(outstanding.count(), (0, false));
        assert_eq!(outstanding.oldest(Revision(most + 5)), None);
    }
}
