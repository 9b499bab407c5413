use opal_protocol::feed::BaseEntry;
use opal_protocol::{ChainDigest, Topic};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::data::queue::Retry;

struct Bench {
    replica: Replica,
    now: Instant,
    rng: StdRng,
}

fn at(epoch: u64, revision: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        revision: Revision(revision),
        digest: ChainDigest::default(),
    }
}

fn entry(path: &str, method: &str, data: Option<&str>) -> DataSourceEntry {
    DataSourceEntry {
        dst_path: path.to_owned(),
        save_method: method.to_owned(),
        data: data.map(|text| Document::parse(text).unwrap()),
        topics: vec!["t".into()],
        ..DataSourceEntry::from_url(if data.is_some() { "" } else { "http://source" })
    }
}

fn update(entries: Vec<DataSourceEntry>) -> Document {
    let update = DataUpdate {
        id: None,
        entries,
        reason: None,
        callback: UpdateCallback::default(),
    };
    Document::parse(serde_json::to_string(&update).unwrap()).unwrap()
}

fn hash(c: char) -> CommitHash {
    CommitHash::parse(&c.to_string().repeat(40)).unwrap()
}

impl Bench {
    fn new(policy: bool) -> Self {
        let now = Instant::now();
        let topics = vec![Topic::from("t")];
        let interests = Interests::new("default".into(), topics, vec![".".into()]);
        Self {
            replica: Replica::new(ReplicaOptions {
                interests,
                policy,
                data: true,
                workers: 4,
                id_seed: 1,
                started: (now, DateTime::UNIX_EPOCH),
            }),
            now,
            rng: StdRng::seed_from_u64(1),
        }
    }

    /// Connected, with a snapshot of nothing taken at this position.
    fn following(head: Position) -> Self {
        let mut bench = Self::new(false);
        bench.snapshot(head);
        bench.load(head, vec![]);
        bench
    }

    fn event(&mut self, event: Event) {
        self.replica.on_event(event, self.now, &mut self.rng);
    }

    fn snapshot(&mut self, head: Position) {
        let spread = Duration::ZERO;
        self.event(Event::Subscribed(Start::Snapshot { head, spread }));
    }

    fn load(&mut self, position: Position, entries: Vec<BaseEntry>) {
        self.replica.next_load(self.now).expect("a load is wanted");
        let base = BaseSnapshot { position, entries };
        self.replica
            .loaded(DataSourceConfig::default(), Some(base), self.now);
    }

    fn change(&mut self, position: Position, entries: Vec<DataSourceEntry>) {
        self.change_on("t", position, entries);
    }

    fn change_on(&mut self, topic: &str, position: Position, entries: Vec<DataSourceEntry>) {
        self.event(Event::Change(FeedChange {
            position,
            topics: vec![topic.into()],
            payload: update(entries),
            confirm: false,
        }));
    }

    fn announce(&mut self, position: Position, old: char, new: char) {
        let message = PolicyUpdateMessage {
            old_policy_hash: hash(old),
            new_policy_hash: hash(new),
            changed_directories: vec![".".into()],
        };
        self.event(Event::Change(FeedChange {
            position,
            topics: vec!["policy:.".into()],
            payload: Document::parse(serde_json::to_string(&message).unwrap()).unwrap(),
            confirm: false,
        }));
    }

    /// Writes what may be written; what it was, by path.
    fn write(&mut self) -> Vec<String> {
        let batch = self.replica.next_batch(self.now);
        let paths = batch.iter().map(|write| write.path.to_string()).collect();
        let outcomes = batch.iter().map(|write| (write.seq, Ok(()))).collect();
        self.replica.written(outcomes, self.now, &mut self.rng);
        paths
    }

    /// Fetches the one document that is to be fetched.
    fn fetch(&mut self, text: &str) {
        let fetch = self.replica.next_fetch(self.now).expect("a fetch");
        let document = Document::parse(text).unwrap();
        self.replica
            .fetched(fetch.seq, Ok(document), self.now, &mut self.rng);
    }

    /// Fails to.
    fn fail_fetch(&mut self) {
        let fetch = self.replica.next_fetch(self.now).expect("a fetch");
        let failure = Failure {
            error: "nobody is there".into(),
            retry: Retry::After(None),
        };
        self.replica
            .fetched(fetch.seq, Err(failure), self.now, &mut self.rng);
    }

    fn low(&self) -> Option<u64> {
        self.replica.held().map(|(_, revision)| revision.0)
    }
}

#[test]
fn a_change_counts_as_held_once_it_is_written_and_not_before() {
    let mut bench = Bench::following(at(1, 4));
    assert_eq!(bench.low(), Some(4));
    bench.change(at(1, 5), vec![entry("/a", "PUT", Some("1"))]);
    assert_eq!(bench.low(), Some(4));
    assert_eq!(bench.replica.clean_position(), None);
    assert_eq!(bench.write(), ["/a"]);
    assert_eq!(bench.low(), Some(5));
    assert_eq!(bench.replica.clean_position(), Some(at(1, 5)));
}

#[test]
fn an_entry_for_a_topic_that_its_change_was_not_published_to_is_not_taken() {
    // Nor does the base have it, from which a client that comes later starts.
    let mut bench = Bench::following(at(1, 4));
    bench.change_on("other", at(1, 5), vec![entry("/a", "PUT", Some("1"))]);
    assert!(bench.write().is_empty());
    assert_eq!(bench.low(), Some(5));
}

#[test]
fn changes_that_the_base_contains_are_not_applied_on_top_of_it() {
    let mut bench = Bench::new(false);
    bench.snapshot(at(1, 4));
    let patch = |n: u32| {
        let text = format!(r#"[{{"op":"add","path":"/list/-","value":{n}}}]"#);
        entry("/a", "PATCH", Some(&text))
    };
    bench.change(at(1, 5), vec![patch(5)]);
    bench.change(at(1, 6), vec![patch(6)]);
    assert!(bench.write().is_empty(), "not before the base is here");
    let base = BaseEntry {
        revision: Revision(5),
        entry: entry("/a", "PUT", Some(r#"{"list":[5]}"#)),
    };
    bench.load(at(1, 5), vec![base]);
    let batch = bench.replica.next_batch(bench.now);
    let texts: Vec<&str> = batch.iter().map(|write| write.document.text()).collect();
    assert_eq!(texts, [r#"{"list":[5]}"#], "a patch waits for its base");
    let outcomes = batch.iter().map(|write| (write.seq, Ok(()))).collect();
    bench.replica.written(outcomes, bench.now, &mut bench.rng);
    assert_eq!(bench.low(), Some(5));
    assert_eq!(bench.write(), ["/a"]);
    assert_eq!(bench.low(), Some(6));
}

#[test]
fn changes_that_arrive_after_a_base_that_contains_them_are_not_applied_again() {
    let mut bench = Bench::new(true);
    bench.snapshot(at(1, 4));
    bench.load(at(1, 6), vec![]);
    bench.replica.next_bundle(bench.now).expect("a bundle");
    let now = bench.now;
    bench
        .replica
        .bundle_applied(hash('a'), true, Some(at(1, 4)), now);
    assert_eq!(bench.low(), Some(4), "5 may be a commit");
    assert_eq!(bench.replica.clean_position(), None);
    bench.change(at(1, 5), vec![entry("/a", "PUT", Some("1"))]);
    assert!(bench.write().is_empty());
    bench.announce(at(1, 6), 'a', 'b');
    assert_eq!(bench.low(), Some(5));
    bench.replica.next_bundle(bench.now).expect("another");
    assert_eq!(bench.replica.clean_position(), None);
    bench
        .replica
        .bundle_applied(hash('b'), false, Some(at(1, 6)), now);
    assert_eq!(bench.replica.clean_position(), Some(at(1, 6)));
}

#[test]
fn a_base_is_claimed_only_once_all_of_it_is_written() {
    let mut bench = Bench::new(false);
    bench.snapshot(at(1, 6));
    let base = vec![
        BaseEntry {
            revision: Revision(3),
            entry: entry("/b", "PUT", Some("1")),
        },
        BaseEntry {
            revision: Revision(6),
            entry: entry("/a", "PUT", None),
        },
    ];
    bench.load(at(1, 6), base);
    assert_eq!(bench.write(), ["/b"]);
    assert_eq!(bench.low(), Some(0), "5 may be a change that 6 stands for");
    bench.change(at(1, 7), vec![entry("/c", "PUT", Some("1"))]);
    bench.write();
    let report = bench.replica.take_report().expect("news").applied;
    assert_eq!(report.done, [(Revision(7), Revision(7))]);
    bench.fetch("1");
    bench.write();
    assert_eq!(bench.low(), Some(7));
}

#[test]
fn a_patch_of_the_base_that_stands_on_policy_data_waits_for_the_bundle_however_long() {
    let mut bench = Bench::new(true);
    bench.snapshot(at(1, 6));
    let patch = |path: &str, revision: u64| BaseEntry {
        revision: Revision(revision),
        entry: entry(
            path,
            "PATCH",
            Some(r#"[{"op":"add","path":"/list/-","value":1}]"#),
        ),
    };
    let document = BaseEntry {
        revision: Revision(4),
        entry: entry("/b", "PUT", Some(r#"{"list":[]}"#)),
    };
    let base = vec![document, patch("/b", 5), patch("/static", 6)];
    bench.load(at(1, 6), base);
    bench.replica.next_bundle(bench.now).expect("a bundle");
    let (now, mut rng) = (bench.now, StdRng::seed_from_u64(1));
    bench
        .replica
        .bundle_failed("it does not compile", None, false, now, &mut rng);
    assert_eq!(bench.write(), ["/b"]);
    assert_eq!(bench.write(), ["/b"], "its document came with it");
    assert!(bench.write().is_empty());
    bench.now += Duration::from_secs(60);
    assert!(bench.write().is_empty());
    bench.replica.next_bundle(bench.now).expect("another");
    let now = bench.now;
    bench
        .replica
        .bundle_applied(hash('a'), true, Some(at(1, 6)), now);
    bench.load(at(1, 6), vec![patch("/static", 6)]);
    assert_eq!(bench.write(), ["/static"]);
}

#[test]
fn a_source_that_stays_down_is_published_again_and_again_without_harm() {
    let mut bench = Bench::following(at(1, 4));
    for revision in 5..9_005 {
        bench.change(at(1, revision), vec![entry("/a", "PUT", None)]);
        bench.now += Duration::from_secs(120);
        bench.fail_fetch();
        bench.replica.take_news();
    }
    assert_eq!(bench.low(), Some(4));
    let failing = bench.replica.status().failing;
    assert_eq!(failing.len(), 1, "one place fails");
    bench.now += Duration::from_secs(120);
    bench.fetch("1");
    bench.write();
    assert_eq!(bench.low(), Some(9_004));
}

#[test]
fn more_changes_than_can_be_kept_are_taken_as_a_base() {
    let mut bench = Bench::new(false);
    bench.snapshot(at(1, 4));
    bench.replica.next_load(bench.now).expect("a load");
    let last = 5 + MOST_ENTRIES as u64;
    for revision in 5..=last {
        assert!(bench.replica.has_room());
        bench.change(at(1, revision), vec![entry("/a", "PUT", Some("1"))]);
    }
    let base = BaseSnapshot {
        position: at(1, 4),
        entries: vec![],
    };
    bench
        .replica
        .loaded(DataSourceConfig::default(), Some(base), bench.now);
    assert_eq!(bench.low(), None, "it lacks what was dropped");
    let load = bench.replica.next_load(bench.now).expect("another load");
    assert_eq!(load.kind, LoadKind::Snapshot(at(1, last).at_least()));
}

#[test]
fn a_position_without_a_commit_is_nothing_to_build_on() {
    let mut bench = Bench::new(true);
    assert!(!bench.replica.restored(at(1, 4), None));
    assert_eq!(bench.low(), None);
    assert!(bench.replica.restored(at(1, 4), Some(hash('a'))));
    assert_eq!(
        bench.replica.clean_position(),
        None,
        "sources are asked for"
    );
}

#[test]
fn what_was_put_aside_of_another_history_is_forgotten() {
    let mut bench = Bench::new(true);
    bench.snapshot(at(1, 4));
    bench.change(at(1, 9), vec![entry("/a", "PUT", Some("1"))]);
    bench.announce(at(1, 10), 'a', 'b');
    bench.snapshot(at(1, 5));
    bench.load(at(1, 5), vec![]);
    bench.replica.next_bundle(bench.now).expect("a bundle");
    let now = bench.now;
    bench
        .replica
        .bundle_applied(hash('a'), true, Some(at(1, 5)), now);
    assert!(bench.write().is_empty());
    assert_eq!(bench.low(), Some(5));
}

#[test]
fn an_announcement_does_not_hurry_a_snapshot_that_waits_for_its_turn() {
    let mut bench = Bench::new(true);
    let head = at(1, 4);
    let spread = Duration::from_secs(60);
    bench.event(Event::Subscribed(Start::Snapshot { head, spread }));
    bench.announce(at(1, 5), 'a', 'b');
    assert_eq!(bench.replica.next_bundle(bench.now), None);
    bench.now += spread;
    assert!(bench.replica.next_bundle(bench.now).is_some());
}

#[test]
fn an_update_that_cannot_be_read_is_told_of() {
    let mut bench = Bench::following(at(1, 4));
    bench.event(Event::Change(FeedChange {
        position: at(1, 5),
        topics: vec!["t".into()],
        payload: Document::parse("[1]").unwrap(),
        confirm: false,
    }));
    let report = bench.replica.take_report().expect("news").applied;
    assert_eq!(report.low, Revision(5));
    assert!(report.failing[0].is_final);
}

#[test]
fn a_snapshot_drops_what_was_on_its_way() {
    let mut bench = Bench::following(at(1, 4));
    bench.change(at(1, 5), vec![entry("/a", "PUT", None)]);
    let fetch = bench.replica.next_fetch(bench.now).expect("a fetch");
    bench.snapshot(at(2, 1));
    bench.load(at(2, 1), vec![]);
    let document = Document::parse("1").unwrap();
    bench
        .replica
        .fetched(fetch.seq, Ok(document), bench.now, &mut bench.rng);
    assert!(bench.write().is_empty());
    assert_eq!(bench.low(), Some(1));
}

#[test]
fn a_base_of_another_epoch_is_not_taken() {
    let mut bench = Bench::new(false);
    bench.snapshot(at(1, 4));
    bench.load(at(2, 9), vec![]);
    assert_eq!(bench.low(), None);
    bench.snapshot(at(2, 9));
    bench.load(at(2, 9), vec![]);
    assert_eq!(bench.low(), Some(9));
}

#[test]
fn an_entry_that_a_newer_one_fetches_instead_is_held_when_that_one_is() {
    let mut bench = Bench::following(at(1, 4));
    bench.change(at(1, 5), vec![entry("/a", "PUT", None)]);
    bench.change(at(1, 6), vec![entry("/a", "PUT", None)]);
    assert_eq!(bench.low(), Some(4));
    let fetch = bench.replica.next_fetch(bench.now).expect("one fetch");
    assert!(bench.replica.next_fetch(bench.now).is_none());
    let document = Document::parse("1").unwrap();
    bench
        .replica
        .fetched(fetch.seq, Ok(document), bench.now, &mut bench.rng);
    bench.write();
    assert_eq!(bench.low(), Some(6));
}

#[test]
fn a_patch_of_unknown_outcome_calls_for_a_snapshot() {
    let mut bench = Bench::following(at(1, 4));
    let patch = r#"[{"op":"add","path":"/x","value":1}]"#;
    bench.change(at(1, 5), vec![entry("/a", "PATCH", Some(patch))]);
    let batch = bench.replica.next_batch(bench.now);
    let failure = Failure {
        error: "the connection broke".into(),
        retry: Retry::Unknown,
    };
    let outcomes = vec![(batch[0].seq, Err(failure))];
    bench.replica.written(outcomes, bench.now, &mut bench.rng);
    assert_eq!(bench.low(), None);
    let load = bench.replica.next_load(bench.now).expect("a load");
    assert_eq!(load.kind, LoadKind::Snapshot(at(1, 5).at_least()));
}

#[test]
fn a_policy_change_is_held_once_a_bundle_made_after_it_is_in_the_store() {
    let mut bench = Bench::new(true);
    bench.snapshot(at(1, 4));
    bench.load(at(1, 4), vec![]);
    let request = bench.replica.next_bundle(bench.now).expect("a bundle");
    assert_eq!(request.at_least, Some(at(1, 4).at_least()));
    assert_eq!(bench.low(), Some(3));
    bench.announce(at(1, 5), 'a', 'b');
    let (commit, now) = (hash('a'), bench.now);
    bench
        .replica
        .bundle_applied(commit, true, Some(at(1, 4)), now);
    assert_eq!(bench.low(), Some(4));
    let request = bench.replica.next_bundle(bench.now).expect("another");
    assert_eq!(request.at_least, Some(at(1, 5).at_least()));
    assert_eq!(request.base, Some(hash('a')));
    bench
        .replica
        .bundle_applied(hash('b'), false, Some(at(1, 5)), now);
    assert_eq!(bench.low(), Some(5));
    bench.announce(at(1, 6), 'a', 'b');
    assert_eq!(bench.low(), Some(6), "a commit that is held already");
}

#[test]
fn a_complete_bundle_that_comes_late_takes_the_data_over_it_anew() {
    let mut bench = Bench::new(true);
    bench.snapshot(at(1, 4));
    bench.load(at(1, 4), vec![]);
    bench.change(at(1, 5), vec![entry("/a", "PUT", Some("1"))]);
    assert!(bench.write().is_empty(), "data waits for its bundle");
    bench.now += BUNDLE_FIRST;
    assert_eq!(bench.write(), ["/a"]);
    bench.replica.next_bundle(bench.now).expect("a bundle");
    let now = bench.now;
    bench
        .replica
        .bundle_applied(hash('a'), true, Some(at(1, 5)), now);
    assert_eq!(bench.low(), None);
    let base = BaseEntry {
        revision: Revision(5),
        entry: entry("/a", "PUT", Some("1")),
    };
    bench.load(at(1, 5), vec![base]);
    assert_eq!(bench.write(), ["/a"]);
    assert_eq!(bench.low(), Some(5));
}

#[test]
fn without_a_feed_there_is_no_position() {
    let mut bench = Bench::following(at(1, 4));
    bench.event(Event::Disconnected);
    bench.event(Event::Subscribed(Start::Released));
    let load = bench.replica.next_load(bench.now).expect("a load");
    assert_eq!(load.kind, LoadKind::Sources);
    bench
        .replica
        .loaded(DataSourceConfig::default(), None, bench.now);
    bench.event(Event::Message {
        topic: "t".into(),
        data: update(vec![entry("/a", "PUT", Some("1"))]),
    });
    assert_eq!(bench.write(), ["/a"]);
    assert_eq!(bench.low(), None);
    assert_eq!(bench.replica.take_report(), None);
}
