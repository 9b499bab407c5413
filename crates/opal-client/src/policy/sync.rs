//! Which bundle to ask for now. No I/O, no clock.
//!
//! One request runs at a time. Whatever happens while it runs is answered by the next one, which
//! always asks for all of our directories since the commit that the store really holds: asking
//! only for the directories that one announcement named would lose what an announcement that we
//! missed had named.

use std::time::{Duration, Instant};

use opal_protocol::{AtLeast, CommitHash, PolicyUpdateMessage, RepoPath};
use rand::Rng;

use crate::data::queue::round_pause;

/// A bundle to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRequest {
    /// The directories to ask for.
    pub directories: Vec<RepoPath>,
    /// The commit to start from; everything if none.
    pub base: Option<CommitHash>,
    /// Where the server has to be for its answer to count.
    pub at_least: Option<AtLeast>,
}

/// What we want beyond the request that runs, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Nothing,
    SinceApplied,
    Everything,
}

/// Keeps the policy of the store in step with the server's.
#[derive(Debug)]
pub struct PolicySync {
    directories: Vec<RepoPath>,
    /// The commit that the store holds.
    applied: Option<CommitHash>,
    want: Want,
    running: Option<Want>,
    failed_rounds: u32,
    retry_at: Option<Instant>,
    /// When a snapshot begins, whatever is announced meanwhile: others begin theirs before.
    not_before: Option<Instant>,
    /// Whether the first bundle was applied, or a first round of trying ended.
    settled: bool,
    /// Whether the store holds no commit that a difference could start from, though the request that
    /// runs may have asked for one.
    distrusted: bool,
    /// Where the server has to be for a bundle of it to count.
    at_least: Option<AtLeast>,
}

impl PolicySync {
    /// Wants nothing until told to.
    pub fn new(directories: Vec<RepoPath>) -> Self {
        Self {
            directories,
            applied: None,
            want: Want::Nothing,
            running: None,
            failed_rounds: 0,
            retry_at: None,
            not_before: None,
            settled: false,
            distrusted: false,
            at_least: None,
        }
    }

    /// The store holds `commit` from before we started.
    pub fn restored(&mut self, commit: CommitHash) {
        self.applied = Some(commit);
        self.settled = true;
    }

    /// The commit that the store holds.
    pub fn applied(&self) -> Option<&CommitHash> {
        self.applied.as_ref()
    }

    /// From now on bundles count only if the server is there; without a feed there is no telling.
    pub fn needs(&mut self, at_least: Option<AtLeast>) {
        self.at_least = at_least;
    }

    /// Everything is to be taken anew, not before `at`: data waits for it, as at the start.
    pub fn begin_snapshot(&mut self, at: Instant) {
        self.settled = false;
        self.distrusted = true;
        self.wants(Want::Everything);
        self.not_before = Some(at);
    }

    /// Whether the store holds a commit and nothing else is wanted.
    pub fn is_idle(&self) -> bool {
        self.applied.is_some() && self.want == Want::Nothing && self.running.is_none()
    }

    /// The bundle that was applied may not be of the commit that was announced: ask again at `at`,
    /// unless that is wanted already.
    pub fn ask_again(&mut self, at: Instant) {
        if self.want == Want::Nothing {
            self.want = Want::SinceApplied;
            self.retry_at = Some(at);
        }
    }

    /// Whether the first attempt is over, one way or the other: data may be written.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The subscription is live after a gap: anything may have been missed.
    pub fn subscribed(&mut self) {
        self.wants(Want::SinceApplied);
    }

    /// The server announced a commit. Whether a bundle is needed for it.
    pub fn announced(&mut self, message: &PolicyUpdateMessage) -> bool {
        if message.old_policy_hash == message.new_policy_hash {
            // "Take everything": the source is new, though the commit may be one that we hold.
            self.wants(Want::Everything);
        } else if self.running.is_some() || self.applied.as_ref() != Some(&message.new_policy_hash)
        {
            self.wants(Want::SinceApplied);
        } else {
            return self.want != Want::Nothing;
        }
        true
    }

    /// Someone asks for a complete bundle.
    pub fn triggered(&mut self) {
        self.wants(Want::Everything);
    }

    /// The store lost what it held.
    pub fn store_lost(&mut self) {
        self.applied = None;
        self.distrusted = true;
        self.wants(Want::Everything);
    }

    fn wants(&mut self, want: Want) {
        self.want = self.want.max(want);
        // News is a reason to try at once.
        self.retry_at = None;
    }

    /// The request to start now, if any.
    pub fn next_request(&mut self, now: Instant) -> Option<BundleRequest> {
        let times = [self.retry_at, self.not_before];
        let waits = times.into_iter().flatten().any(|at| at > now);
        if self.running.is_some() || self.want == Want::Nothing || waits {
            return None;
        }
        let want = std::mem::replace(&mut self.want, Want::Nothing);
        self.running = Some(want);
        self.distrusted &= want != Want::Everything;
        self.retry_at = None;
        self.not_before = None;
        let base = match want {
            Want::SinceApplied => self.applied.clone(),
            Want::Nothing | Want::Everything => None,
        };
        Some(BundleRequest {
            directories: self.directories.clone(),
            base,
            at_least: self.at_least,
        })
    }

    /// The store took the bundle that leads to `commit`. Whether it holds that commit now: not if the
    /// bundle is a difference to what the store had lost by then.
    pub fn succeeded(&mut self, commit: CommitHash, is_complete: bool) -> bool {
        self.running = None;
        if self.distrusted && !is_complete {
            return false;
        }
        self.applied = Some(commit);
        self.failed_rounds = 0;
        self.retry_at = None;
        self.settled = true;
        true
    }

    /// A store that takes bundles in part holds neither commit now: the next request is for
    /// everything.
    pub fn applied_in_part(&mut self) {
        self.applied = None;
    }

    /// The bundle could not be fetched, or the store did not take it. The next request asks from
    /// the commit that the store holds, after a pause of at least what the server `asked` for.
    pub fn failed(&mut self, asked: Option<Duration>, now: Instant, rng: &mut impl Rng) {
        let Some(wanted) = self.running.take() else {
            return;
        };
        let news = self.want != Want::Nothing;
        self.want = self.want.max(wanted);
        self.failed_rounds += 1;
        self.settled = true;
        let pause = round_pause(self.failed_rounds, asked, rng);
        self.retry_at = (!news).then(|| now + pause);
    }

    /// What the last attempt failed on has changed: try again at once.
    pub fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// When [`PolicySync::next_request`] may have something without anything else happening.
    pub fn next_wake(&self) -> Option<Instant> {
        let is_free = self.running.is_none() && self.want != Want::Nothing;
        self.retry_at.max(self.not_before).filter(|_| is_free)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn hash(c: char) -> CommitHash {
        CommitHash::parse(&c.to_string().repeat(40)).unwrap()
    }

    fn announce(sync: &mut PolicySync, old: char, new: char) {
        sync.announced(&PolicyUpdateMessage {
            old_policy_hash: hash(old),
            new_policy_hash: hash(new),
            changed_directories: vec!["app".into()],
        });
    }

    /// A client that holds commit `a`.
    fn at_a(now: Instant) -> PolicySync {
        let mut sync = PolicySync::new(vec!["app".into(), "lib".into()]);
        sync.subscribed();
        assert_eq!(sync.next_request(now).unwrap().base, None);
        assert!(sync.succeeded(hash('a'), true));
        sync
    }

    #[test]
    fn a_commit_missed_while_disconnected_is_asked_for_on_reconnect() {
        let now = Instant::now();
        let mut sync = at_a(now);
        assert_eq!(sync.next_request(now), None);
        sync.subscribed();
        assert_eq!(sync.next_request(now).unwrap().base, Some(hash('a')));
    }

    #[test]
    fn every_request_is_for_all_our_directories() {
        let now = Instant::now();
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        let request = sync.next_request(now).unwrap();
        assert_eq!(request.directories, ["app", "lib"].map(RepoPath::from));
    }

    #[test]
    fn a_commit_is_remembered_only_once_the_store_holds_it() {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        sync.next_request(now).unwrap();
        sync.failed(None, now, &mut rng);
        assert_eq!(sync.next_request(now), None, "not before its pause");
        let wake = sync.next_wake().unwrap();
        assert_eq!(sync.next_request(wake).unwrap().base, Some(hash('a')));
    }

    #[test]
    fn news_during_a_request_starts_another_and_known_commits_do_not() {
        let now = Instant::now();
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        sync.next_request(now).unwrap();
        announce(&mut sync, 'b', 'c');
        assert_eq!(sync.next_request(now), None, "one at a time");
        assert!(sync.succeeded(hash('b'), false));
        assert_eq!(sync.next_request(now).unwrap().base, Some(hash('b')));
        assert!(sync.succeeded(hash('c'), false));
        announce(&mut sync, 'b', 'c');
        assert_eq!(sync.next_request(now), None);
    }

    #[test]
    fn a_store_that_took_a_part_gets_everything() {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        sync.next_request(now).unwrap();
        sync.applied_in_part();
        sync.failed(None, now, &mut rng);
        announce(&mut sync, 'b', 'c');
        assert_eq!(sync.next_request(now).unwrap().base, None);
    }

    #[test]
    fn a_server_that_asks_for_patience_gets_it_until_there_is_news() {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        sync.next_request(now).unwrap();
        let asked = Duration::from_secs(500);
        sync.failed(Some(asked), now, &mut rng);
        assert_eq!(sync.next_wake(), Some(now + asked));
        announce(&mut sync, 'b', 'c');
        assert!(sync.next_request(now).is_some());
    }

    #[test]
    fn a_store_that_lost_its_content_gets_everything() {
        let now = Instant::now();
        let mut sync = at_a(now);
        sync.store_lost();
        assert_eq!(sync.next_request(now).unwrap().base, None);
    }

    #[test]
    fn a_difference_to_what_the_store_has_lost_leads_nowhere() {
        let now = Instant::now();
        for lose in [PolicySync::store_lost, |sync: &mut PolicySync| {
            sync.begin_snapshot(Instant::now());
        }] {
            let mut sync = at_a(now);
            announce(&mut sync, 'a', 'b');
            assert_eq!(sync.next_request(now).unwrap().base, Some(hash('a')));
            lose(&mut sync);
            assert!(!sync.succeeded(hash('b'), false));
            let later = now + Duration::from_secs(1);
            assert_eq!(sync.next_request(later).unwrap().base, None);
            assert!(sync.succeeded(hash('b'), true));
        }
    }

    #[test]
    fn a_snapshot_that_waits_for_a_request_to_end_calls_for_no_waking() {
        let now = Instant::now();
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        sync.next_request(now).unwrap();
        sync.begin_snapshot(now);
        assert_eq!(sync.next_request(now), None);
        assert_eq!(sync.next_wake(), None);
    }

    #[test]
    fn an_announcement_without_a_difference_means_everything() {
        let now = Instant::now();
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'a');
        assert_eq!(sync.next_request(now).unwrap().base, None);
    }

    #[test]
    fn news_after_a_failure_does_not_wait_for_the_pause() {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let mut sync = at_a(now);
        announce(&mut sync, 'a', 'b');
        for _ in 0..10 {
            let at = sync.next_wake().unwrap_or(now) + Duration::from_secs(1);
            sync.next_request(at).unwrap();
            sync.failed(None, at, &mut rng);
        }
        announce(&mut sync, 'b', 'c');
        assert!(sync.next_request(now).is_some());
    }
}
