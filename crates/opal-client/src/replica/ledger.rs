//! How far the store is: which changes it holds, which it lacks, which fail. No I/O, no clock.
//!
//! A change that arrives is *open* until the store holds all that it asks for; everything up to the
//! first open one is done. What a snapshot brings is open in the same way, under the revision of the
//! change that made it, and data sources are open under revision 0, which is part of no change.

use std::collections::{BTreeMap, BTreeSet};

use opal_protocol::feed::{AppliedArguments, FailingEntry};
use opal_protocol::{CommitHash, DataPath, Epoch, Position, Revision};

/// One entry on its way into the store: the change that it is part of, and a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The change; 0 for a data source.
    pub revision: Revision,
    /// Given once, so that what an older load left behind is not taken for a newer one's.
    pub part: u64,
}

/// A failure, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What, without secrets.
    pub(super) entry: String,
    /// Why, most recently.
    pub(super) error: String,
    /// Since when: RFC 3339.
    pub(super) since: String,
}

/// An entry that is not tried again.
#[derive(Debug)]
struct Refused {
    revision: Revision,
    path: Option<DataPath>,
    trouble: Trouble,
}

/// What is to be told to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The feed that the revisions are of.
    pub epoch: Epoch,
    /// What the store holds.
    pub applied: AppliedArguments,
    /// Whether somebody waits for it.
    pub urgent: bool,
}

/// Which changes the store holds.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The last change that is in our hands; none without a feed.
    received: Option<Position>,
    /// What the data of the last snapshot is of. It may be further than what was received since.
    base: Option<Position>,
    /// Whether a snapshot is still to come: what we hold is of no position.
    awaits_snapshot: bool,
    data: BTreeMap<Place, Option<Trouble>>,
    /// Those of them that came with the base. Each may stand for any number of changes up to the
    /// base's position, so nothing up to there is claimed before all of them were written.
    of_base: BTreeSet<Place>,
    /// Entries that are not fetched any more, since a newer one fetches the same: done when it is.
    heirs: BTreeMap<Place, Vec<Place>>,
    policy: BTreeSet<Revision>,
    policy_trouble: Option<Trouble>,
    /// Entries that are not tried again, newest last.
    refused: Vec<Refused>,
    /// Somebody waits to hear of these.
    confirm: BTreeSet<Revision>,
    policies: Option<(CommitHash, String)>,
    /// Whether a failure of something that somebody waits for was not told yet.
    urgent: bool,
    reported: Option<(Epoch, AppliedArguments)>,
}

/// So many entries that are not tried again are told of.
const MOST_REFUSED: usize = 16;
/// So many ranges are told of; what is left out is told once the ones before are done.
const MOST_RANGES: usize = 64;
/// So many failures are told of.
const MOST_FAILING: usize = 64;

impl Ledger {
    /// The last change that is in our hands.
    pub(super) fn received(&self) -> Option<Position> {
        self.received
    }

    /// Whether the position stands for nothing until a snapshot was taken.
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.awaits_snapshot
    }

    /// There is no feed: positions are void.
    pub(super) fn void(&mut self) {
        let policies = self.policies.take();
        *self = Self {
            policies,
            ..Self::default()
        };
    }

    /// Whether the data of a change at this revision came with the last snapshot.
    pub(super) fn is_in_base(&self, revision: Revision) -> bool {
        self.base.is_some_and(|base| revision <= base.revision)
    }

    /// The furthest position that we know of.
    pub(super) fn furthest(&self) -> Option<Position> {
        let known = [self.received, self.base];
        known
            .into_iter()
            .flatten()
            .max_by_key(|known| known.revision)
    }

    /// Everything up to `position` is in the store, as a file says that was written with it.
    pub(super) fn restored(&mut self, position: Position) {
        self.received = Some(position);
    }

    /// The server's history may be another one than ours, even in the same epoch: what was announced
    /// to us counts for nothing.
    pub(super) fn forget_history(&mut self) {
        self.policy.clear();
        self.confirm.clear();
        self.received = None;
        self.base = None;
    }

    /// Everything is to be taken anew, as of `head` or later.
    pub(super) fn begin_snapshot(&mut self, head: Position, follows_policy: bool) {
        self.received = Some(head);
        // What was told before does not count on the connection that asked for this.
        self.reported = None;
        self.policies = None;
        self.reload_data();
        self.base = None;
        if follows_policy {
            self.policy.insert(head.revision);
        }
    }

    /// All data is to be taken anew, below a bundle that stays.
    pub(super) fn reload_data(&mut self) {
        self.awaits_snapshot = true;
        self.data.clear();
        self.of_base.clear();
        self.heirs.clear();
        self.refused.clear();
    }

    /// The base at `position` is in our hands; its entries are opened one by one.
    pub(super) fn snapshot_taken(&mut self, position: Position) {
        self.awaits_snapshot = false;
        self.base = Some(position);
    }

    /// A change, or word that there is none for us up to here.
    pub(super) fn receive(&mut self, position: Position, confirm: bool) {
        let is_news = self
            .received
            .is_none_or(|held| held.revision < position.revision);
        if is_news {
            self.received = Some(position);
        }
        if confirm {
            self.confirm.insert(position.revision);
        }
    }

    pub(super) fn open_policy(&mut self, revision: Revision) {
        self.policy.insert(revision);
    }

    pub(super) fn open_data(&mut self, place: Place) {
        self.data.insert(place, None);
    }

    pub(super) fn open_base(&mut self, place: Place) {
        self.open_data(place);
        self.of_base.insert(place);
    }

    /// How many entries of changes after the base are open.
    pub(super) fn open_beyond_base(&self) -> usize {
        self.data.len() - self.of_base.len()
    }

    /// The policy that the feed asks for, if the store lacks some of it.
    pub(super) fn needed_policy(&self) -> Option<Revision> {
        self.policy.last().copied()
    }

    /// The store holds the policy as of `revision`.
    pub(super) fn policy_applied(&mut self, revision: Revision) {
        self.policy = self.policy.split_off(&Revision(revision.0 + 1));
        self.policy_trouble = None;
    }

    pub(super) fn policy_failing(&mut self, trouble: Trouble) {
        let since = self.policy_trouble.take().map(|before| before.since);
        self.policy_trouble = Some(Trouble {
            since: since.unwrap_or_else(|| trouble.since.clone()),
            ..trouble
        });
        self.urgent |= self.policy.iter().any(|open| self.confirm.contains(open));
    }

    /// What the engine's policies are, once it has taken a commit.
    pub(super) fn policies_are(&mut self, commit: CommitHash, digest: String) {
        self.policies = Some((commit, digest));
    }

    /// `old` is not fetched any more, since `heir` fetches the same. So are those that `old` was the
    /// heir of.
    pub(super) fn inherit(&mut self, heir: Place, old: Place) {
        let mut olds = self.heirs.remove(&old).unwrap_or_default();
        // Of one that is part of no change, or of the same one, the heir's own state tells all.
        if old.revision == Revision(0) || old.revision == heir.revision {
            self.data.remove(&old);
            if self.of_base.remove(&old) {
                self.of_base.insert(heir);
            }
        } else if let Some(trouble) = self.data.get_mut(&old) {
            // Its failure is the heir's from now on.
            *trouble = None;
            olds.push(old);
        }
        if !olds.is_empty() {
            self.heirs.entry(heir).or_default().append(&mut olds);
        }
    }

    /// The store holds the entry, or a newer one in its place.
    pub(super) fn data_done(&mut self, place: Place) {
        let olds = self.heirs.remove(&place).unwrap_or_default();
        for done in olds.into_iter().chain([place]) {
            self.data.remove(&done);
            self.of_base.remove(&done);
        }
    }

    /// The entry for `path`, if it has one, will not be in the store.
    pub(super) fn data_refused(&mut self, place: Place, path: Option<DataPath>, trouble: Trouble) {
        let was_open = self.data.contains_key(&place);
        self.data_done(place);
        if !was_open {
            return;
        }
        if self.refused.len() == MOST_REFUSED {
            self.refused.remove(0);
        }
        self.refused.push(Refused {
            revision: place.revision,
            path,
            trouble,
        });
    }

    /// A document was written at `path`: what had been refused there or below is history.
    pub(super) fn written_over(&mut self, path: &DataPath) {
        let is_below = |refused: &Refused| {
            let at = refused.path.as_ref();
            at.is_some_and(|at| path.contains(at))
        };
        self.refused.retain(|refused| !is_below(refused));
    }

    /// The entry is tried again. It may have been in the store before, and no longer is.
    pub(super) fn data_failing(&mut self, place: Place, trouble: Trouble) {
        if self.awaits_snapshot || self.received.is_none() {
            return;
        }
        let before = self.data.get(&place).cloned().flatten();
        let since = before.map_or_else(|| trouble.since.clone(), |before| before.since);
        self.data.insert(place, Some(Trouble { since, ..trouble }));
        let olds = self.heirs.get(&place).into_iter().flatten();
        let mut concerned = olds.chain([&place]).map(|place| place.revision);
        self.urgent |= concerned.any(|revision| self.confirm.contains(&revision));
    }

    fn is_open(&self, revision: Revision) -> bool {
        let parts = Place { revision, part: 0 }..=Place {
            revision,
            part: u64::MAX,
        };
        self.floor().is_some_and(|floor| revision <= floor)
            || self.policy.contains(&revision)
            || self.data.range(parts).next().is_some()
    }

    /// Up to here nothing is claimed, since the base is not written yet.
    fn floor(&self) -> Option<Revision> {
        let base = self.base.filter(|_| !self.of_base.is_empty())?;
        Some(base.revision)
    }

    /// Where the store is, if it holds everything up to there and nothing beyond.
    pub(super) fn low(&self) -> Option<Position> {
        let received = self.received.filter(|_| !self.awaits_snapshot)?;
        if self
            .base
            .is_some_and(|base| base.revision > received.revision)
        {
            return None;
        }
        let is_whole = self.of_base.is_empty() && self.open_from(Revision(1)).is_none();
        is_whole.then_some(received)
    }

    /// Whether the store holds everything that is in our hands, data sources included.
    pub(super) fn is_clean(&self) -> bool {
        self.low().is_some() && self.data.is_empty() && self.policy.is_empty()
    }

    /// The first open change at or after `revision`.
    fn open_from(&self, revision: Revision) -> Option<Revision> {
        let data = self.data.range(Place { revision, part: 0 }..).next();
        let data = data.map(|(place, _)| place.revision);
        let policy = self.policy.range(revision..).next().copied();
        data.into_iter().chain(policy).min()
    }

    /// Where the store is: the last revision up to which it holds everything.
    pub(super) fn held(&self) -> Option<(Epoch, Revision)> {
        let received = self.received.filter(|_| !self.awaits_snapshot)?;
        if self.floor().is_some() {
            return Some((received.epoch, Revision(0)));
        }
        let first_open = self.open_from(Revision(1));
        // The base may have brought changes that were not announced yet: of those we claim nothing.
        let low = first_open.map_or(received.revision, |first| Revision(first.0 - 1));
        Some((received.epoch, low.min(received.revision)))
    }

    /// What to tell the server, if it is not what was told last. Nothing before a snapshot was taken.
    pub(super) fn take_report(&mut self) -> Option<Report> {
        let (epoch, low) = self.held()?;
        let applied = AppliedArguments {
            low,
            done: self.done_beyond(),
            failing: self.failing(),
            commit: self.policies.as_ref().map(|(commit, _)| commit.clone()),
            digest_of_policies: self.policies.as_ref().map(|(_, digest)| digest.clone()),
        };
        let now = Some((epoch, applied));
        let urgent = self.take_urgent();
        if self.reported == now {
            return None;
        }
        self.reported.clone_from(&now);
        let (epoch, applied) = now?;
        Some(Report {
            epoch,
            applied,
            urgent,
        })
    }

    /// Whether somebody waits for news that there is.
    fn take_urgent(&mut self) -> bool {
        let all = self.confirm.len();
        let open = std::mem::take(&mut self.confirm);
        self.confirm = open
            .into_iter()
            .filter(|revision| self.is_open(*revision))
            .collect();
        std::mem::take(&mut self.urgent) || self.confirm.len() < all
    }

    fn done_beyond(&self) -> Vec<(Revision, Revision)> {
        let Some(received) = self.received else {
            return Vec::new();
        };
        let mut ranges = Vec::new();
        let mut open = self.floor().or_else(|| self.open_from(Revision(1)));
        while let Some(Revision(before)) = open.filter(|_| ranges.len() < MOST_RANGES) {
            open = self.open_from(Revision(before + 1));
            let last = open.map_or(received.revision.0, |next| next.0 - 1);
            let last = last.min(received.revision.0);
            if last > before {
                ranges.push((Revision(before + 1), Revision(last)));
            }
        }
        ranges
    }

    fn failing(&self) -> Vec<FailingEntry> {
        let told = |revision: Revision, trouble: &Trouble, is_final: bool| FailingEntry {
            revision,
            entry: trouble.entry.clone(),
            error: trouble.error.clone(),
            since: trouble.since.clone(),
            is_final,
        };
        let policy = self.policy_trouble.iter().flat_map(|trouble| {
            let open = self.policy.iter().copied();
            open.map(|revision| told(revision, trouble, false))
        });
        let data = self.data.iter().filter_map(|(place, trouble)| {
            let trouble = trouble.as_ref()?;
            Some(told(place.revision, trouble, false))
        });
        let refused = self.refused.iter();
        let refused = refused.map(|refused| told(refused.revision, &refused.trouble, true));
        policy
            .chain(data)
            .chain(refused)
            .take(MOST_FAILING)
            .collect()
    }

    /// What fails now, in words.
    pub(super) fn troubles(&self) -> Vec<FailingEntry> {
        self.failing()
    }

    /// How many entries and commits are open.
    pub(super) fn open_count(&self) -> usize {
        let open = Place {
            revision: Revision(1),
            part: 0,
        };
        self.data.range(open..).count() + self.policy.len()
    }
}

#[cfg(test)]
mod tests {
    use opal_protocol::ChainDigest;

    use super::*;

    fn at(revision: u64) -> Position {
        Position {
            epoch: Epoch(1),
            revision: Revision(revision),
            digest: ChainDigest::default(),
        }
    }

    fn place(revision: u64) -> Place {
        Place {
            revision: Revision(revision),
            part: 0,
        }
    }

    fn trouble(error: &str) -> Trouble {
        Trouble {
            entry: "/x".into(),
            error: error.into(),
            since: "now".into(),
        }
    }

    fn with_open(revisions: &[u64], received: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for revision in revisions {
            ledger.receive(at(*revision), false);
            ledger.open_data(place(*revision));
        }
        ledger.receive(at(received), false);
        ledger
    }

    fn done(ledger: &mut Ledger) -> (u64, Vec<(u64, u64)>) {
        let report = ledger.take_report().expect("news");
        let ranges = report.applied.done.iter().map(|(a, b)| (a.0, b.0));
        (report.applied.low.0, ranges.collect())
    }

    #[test]
    fn low_ends_before_the_first_open_change_and_ranges_follow() {
        let mut ledger = with_open(&[3, 4, 7], 9);
        assert_eq!(done(&mut ledger), (2, vec![(5, 6), (8, 9)]));
        ledger.data_done(place(3));
        assert_eq!(done(&mut ledger), (3, vec![(5, 6), (8, 9)]));
        ledger.data_done(place(7));
        ledger.data_done(place(4));
        assert_eq!(done(&mut ledger), (9, vec![]));
        assert_eq!(ledger.low(), Some(at(9)));
        assert_eq!(ledger.take_report(), None, "told already");
    }

    #[test]
    fn a_change_that_has_to_be_written_again_is_open_again() {
        let mut ledger = with_open(&[3, 4], 4);
        ledger.data_done(place(4));
        assert_eq!(done(&mut ledger), (2, vec![(4, 4)]));
        ledger.data_failing(place(4), trouble("away"));
        assert_eq!(done(&mut ledger), (2, vec![]));
    }

    #[test]
    fn a_refused_entry_is_told_of_and_holds_up_nothing() {
        let mut ledger = with_open(&[3], 3);
        ledger.data_refused(place(3), None, trouble("no such path"));
        let report = ledger.take_report().unwrap();
        assert_eq!(report.applied.low, Revision(3));
        assert!(report.applied.failing[0].is_final);
    }

    #[test]
    fn nothing_is_told_before_a_snapshot_was_taken() {
        let mut ledger = with_open(&[3], 3);
        ledger.begin_snapshot(at(5), true);
        assert_eq!(ledger.take_report(), None);
        ledger.snapshot_taken(at(6));
        ledger.open_data(place(2));
        ledger.open_data(place(6));
        assert_eq!(done(&mut ledger), (1, vec![(3, 4)]));
        ledger.data_done(place(6));
        ledger.receive(at(6), false);
        assert_eq!(done(&mut ledger), (1, vec![(3, 4), (6, 6)]));
        ledger.policy_applied(Revision(6));
        ledger.data_done(place(2));
        assert_eq!(done(&mut ledger), (6, vec![]));
    }

    #[test]
    fn a_failing_source_is_no_revision_and_yet_not_clean() {
        let ledger = with_open(&[0], 3);
        assert_eq!(ledger.low(), Some(at(3)));
        assert!(!ledger.is_clean());
    }

    #[test]
    fn a_snapshot_of_an_empty_feed_is_not_clean_before_its_policy_is_there() {
        let mut ledger = Ledger::default();
        ledger.begin_snapshot(at(0), true);
        ledger.snapshot_taken(at(0));
        assert!(!ledger.is_clean());
        ledger.policy_applied(Revision(0));
        assert!(ledger.is_clean());
    }

    #[test]
    fn who_waits_hears_of_success_and_failure_at_once() {
        let mut ledger = Ledger::default();
        ledger.receive(at(1), true);
        ledger.open_data(place(1));
        assert!(!ledger.take_report().unwrap().urgent);
        ledger.data_failing(place(1), trouble("away"));
        assert!(ledger.take_report().unwrap().urgent);
        ledger.data_done(place(1));
        assert!(ledger.take_report().unwrap().urgent);
    }
}
