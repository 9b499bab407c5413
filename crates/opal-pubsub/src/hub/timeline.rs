//! When revisions were told, closely enough for people.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use opal_protocol::Revision;

/// Changes within so long of each other share a moment.
const GRAIN: Duration = Duration::from_millis(100);
/// So many moments are kept: a quarter of an hour of changes without a pause.
const MOST_MOMENTS: usize = 10_000;

/// The moments at which the changes of one scope were told.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The first revision of each moment, ascending.
    moments: VecDeque<(Revision, Instant)>,
}

impl Timeline {
    /// Notes that `revision` is told now; revisions and times ascend.
    pub(super) fn note(&mut self, revision: Revision, now: Instant) {
        let last = self.moments.back();
        if last.is_some_and(|(_, at)| now.duration_since(*at) < GRAIN) {
            return;
        }
        if self.moments.len() >= MOST_MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back((revision, now));
    }

    /// When `revision` was told, or the earliest moment that is still known after that.
    pub(super) fn told_at(&self, revision: Revision) -> Option<Instant> {
        let after = self
            .moments
            .partition_point(|(first, _)| *first <= revision);
        let moment = self.moments.get(after.saturating_sub(1));
        moment.map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_was_told_at_the_beginning_of_its_moment() {
        let start = Instant::now();
        let mut timeline = Timeline::default();
        assert_eq!(timeline.told_at(Revision(3)), None);
        for (revision, ms) in [(3, 0), (4, 50), (5, 100), (6, 1000)] {
            timeline.note(Revision(revision), start + Duration::from_millis(ms));
        }
        for (revision, ms) in [(1, 0), (3, 0), (4, 0), (5, 100), (6, 1000), (9, 1000)] {
            let expected = Some(start + Duration::from_millis(ms));
            assert_eq!(timeline.told_at(Revision(revision)), expected, "{revision}");
        }
    }
}
