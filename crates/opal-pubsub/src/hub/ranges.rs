//! Ranges of revisions, as clients report them.

use opal_protocol::Revision;

/// A range that ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backwards;

/// So many ranges are kept of one client. Those beyond count as not done, which is safe.
const MOST_RANGES: usize = 10_000;

/// Disjoint ranges of revisions, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(Revision, Revision)>);

impl Ranges {
    /// Sorts and merges what a client sent, without what lies at or below `low`.
    pub(super) fn normalised(
        mut sent: Vec<(Revision, Revision)>,
        low: Revision,
    ) -> Result<Self, Backwards> {
        if sent.iter().any(|(first, last)| last < first) {
            return Err(Backwards);
        }
        sent.retain(|(_, last)| *last > low);
        sent.sort_unstable();
        let mut merged: Vec<(Revision, Revision)> = Vec::new();
        for (first, last) in sent {
            match merged.last_mut() {
                Some(before) if first.0 <= before.1.0.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        merged.truncate(MOST_RANGES);
        Ok(Self(merged))
    }

    /// Whether `revision` is in one of them.
    pub(super) fn contains(&self, revision: Revision) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= revision);
        let candidate = after.checked_sub(1).and_then(|at| self.0.get(at));
        candidate.is_some_and(|(_, last)| revision <= *last)
    }

    /// The last revision of all.
    pub(super) fn last(&self) -> Option<Revision> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(sent: &[(u64, u64)], low: u64) -> Result<Ranges, Backwards> {
        let sent = sent.iter().map(|(a, b)| (Revision(*a), Revision(*b)));
        Ranges::normalised(sent.collect(), Revision(low))
    }

    #[test]
    fn overlapping_and_adjacent_ranges_become_one_in_any_order() {
        let merged = ranges(&[(9, 9), (4, 6), (5, 7), (8, 8), (12, 13), (1, 2)], 2).unwrap();
        let expected = vec![(Revision(4), Revision(9)), (Revision(12), Revision(13))];
        assert_eq!(merged, Ranges(expected));
        for (revision, inside) in [(3, false), (4, true), (9, true), (10, false), (13, true)] {
            assert_eq!(merged.contains(Revision(revision)), inside, "{revision}");
        }
        assert_eq!(
            ranges(&[(u64::MAX, u64::MAX), (u64::MAX, u64::MAX)], 0)
                .unwrap()
                .0
                .len(),
            1
        );
    }

    #[test]
    fn a_range_that_runs_backwards_is_none_even_below_low() {
        assert_eq!(ranges(&[(1, 2), (4, 3)], 9), Err(Backwards));
    }
}
