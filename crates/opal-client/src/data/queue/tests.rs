use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

/// A queue, a clock, and a store that remembers what was written in which order.
struct Bench {
    queue: Queue,
    now: Instant,
    rng: StdRng,
    written: Vec<String>,
}

impl Bench {
    fn with_workers(workers: usize) -> Self {
        Self {
            queue: Queue::new(workers),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(3),
            written: Vec::new(),
        }
    }

    fn new() -> Self {
        Self::with_workers(6)
    }

    fn push(&mut self, method: SaveMethod, path: &str, name: &str, inline: bool) -> Vec<Notice> {
        let mut entry = DataSourceEntry::from_url(format!("http://source/{name}"));
        entry.data = inline.then(|| Document::parse(format!("\"{name}\"")).unwrap());
        self.queue.push(Job {
            update: 0,
            update_id: "u".into(),
            is_source: !inline,
            place: None,
            needs_bundle: false,
            entry,
            path: DataPath::parse(path).unwrap(),
            method,
        })
    }

    fn url(&mut self, path: &str, name: &str) -> Vec<Notice> {
        self.push(SaveMethod::Put, path, name, false)
    }

    fn inline(&mut self, path: &str, name: &str) {
        self.push(SaveMethod::Put, path, name, true);
    }

    fn patch(&mut self, path: &str, name: &str) {
        self.push(SaveMethod::Patch, path, name, true);
    }

    /// Starts every fetch that may start; the names of what is fetched.
    fn fetches(&mut self) -> Vec<(Seq, String)> {
        std::iter::from_fn(|| self.queue.next_fetch(self.now))
            .map(|fetch| {
                let name = fetch.entry.url.rsplit('/').next().unwrap_or_default();
                (fetch.seq, name.to_owned())
            })
            .collect()
    }

    fn succeed(&mut self, seq: Seq, name: &str) {
        let document = Document::parse(format!("\"{name}\"")).unwrap();
        self.queue
            .fetched(seq, Ok(document), self.now, &mut self.rng);
    }

    fn fail(&mut self, seq: Seq) -> Vec<Notice> {
        let failure = Failure {
            error: "no".into(),
            retry: Retry::After(None),
        };
        self.queue
            .fetched(seq, Err(failure), self.now, &mut self.rng)
    }

    /// Writes everything that may be written, batch by batch.
    fn write(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        loop {
            let batch = self.queue.next_batch(false);
            if batch.is_empty() {
                return notices;
            }
            let text = |write: &Write| write.document.text().trim_matches('"').to_owned();
            self.written.extend(batch.iter().map(text));
            let outcomes = batch.iter().map(|write| (write.seq, Ok(()))).collect();
            notices.extend(self.queue.written(outcomes, self.now, &mut self.rng));
        }
    }
}

#[test]
fn overlapping_paths_are_written_in_order_however_long_their_fetches_take() {
    let mut bench = Bench::new();
    bench.url("/a", "old");
    bench.url("/a/b", "new");
    bench.url("/ab", "elsewhere");
    let fetches = bench.fetches();
    assert_eq!(fetches.len(), 3, "fetches run side by side");
    bench.succeed(fetches[1].0, "new");
    bench.succeed(fetches[2].0, "elsewhere");
    bench.write();
    assert_eq!(bench.written, ["elsewhere"], "`/ab` is not below `/a`");
    bench.succeed(fetches[0].0, "old");
    bench.write();
    assert_eq!(bench.written, ["elsewhere", "old", "new"]);
    assert!(bench.queue.items.is_empty());
}

#[test]
fn a_failed_entry_stops_holding_up_the_others_and_is_tried_again() {
    let mut bench = Bench::new();
    bench.url("/a/b", "failing");
    bench.inline("/a", "below");
    bench.inline("/a/b/c", "under");
    let first = bench.fetches();
    bench.write();
    assert!(bench.written.is_empty());
    let notices = bench.fail(first[0].0);
    assert!(matches!(notices[0].outcome, Outcome::Failing { .. }));
    assert!(bench.fetches().is_empty(), "not before its pause");
    let wake = bench.queue.next_wake(bench.now).unwrap();
    bench.now = wake;
    assert_eq!(bench.fetches().len(), 1);
}

#[test]
fn a_late_success_is_followed_by_the_newer_entries_below_it_in_one_batch() {
    let mut bench = Bench::new();
    bench.url("/a", "late");
    bench.inline("/a/x", "newer");
    bench.inline("/b", "aside");
    let fetch = bench.fetches()[0].0;
    bench.fail(fetch);
    bench.write();
    assert_eq!(bench.written, ["newer", "aside"]);
    bench.now = bench.queue.next_wake(bench.now).unwrap();
    let fetch = bench.fetches()[0].0;
    bench.succeed(fetch, "late");
    let batch = bench.queue.next_batch(false);
    let order: Vec<&str> = batch.iter().map(|write| write.document.text()).collect();
    assert_eq!(order, ["\"late\"", "\"newer\""]);
    let outcomes = batch.iter().map(|write| (write.seq, Ok(()))).collect();
    let notices = bench.queue.written(outcomes, bench.now, &mut bench.rng);
    let repeated: Vec<bool> = notices.iter().map(|notice| notice.repeated).collect();
    assert_eq!(repeated, [true, true], "both had an outcome before");
    assert!(bench.queue.items.is_empty(), "nothing is kept without need");
}

#[test]
fn a_newer_document_replaces_a_failing_entry_once_it_is_written() {
    let mut bench = Bench::new();
    bench.url("/a/b", "failing");
    bench.url("/a", "newer");
    let fetches = bench.fetches();
    bench.fail(fetches[0].0);
    assert_eq!(
        bench.queue.items.len(),
        2,
        "a document that is not there yet replaces nothing"
    );
    bench.succeed(fetches[1].0, "newer");
    let notices = bench.write();
    assert!(
        notices
            .iter()
            .any(|n| matches!(n.outcome, Outcome::Replaced))
    );
    assert!(bench.queue.items.is_empty());
}

#[test]
fn a_patch_waits_for_what_it_is_based_on_and_documents_wait_for_neither() {
    let mut bench = Bench::new();
    bench.url("/a", "base");
    bench.patch("/a", "patch");
    bench.inline("/a/x", "newer");
    let fetch = bench.fetches()[0].0;
    bench.fail(fetch);
    bench.write();
    assert_eq!(bench.written, ["newer"]);
    bench.now = bench.queue.next_wake(bench.now).unwrap();
    let fetch = bench.fetches()[0].0;
    bench.succeed(fetch, "base");
    bench.write();
    assert_eq!(bench.written, ["newer", "base", "newer", "patch", "newer"]);
    assert!(bench.queue.items.is_empty());
}

#[test]
fn a_newer_document_replaces_a_failing_entry_and_the_patch_that_waits_for_it() {
    let mut bench = Bench::new();
    bench.url("/x", "failing");
    bench.patch("/x", "patch");
    bench.inline("/x", "newer");
    let fetch = bench.fetches()[0].0;
    bench.fail(fetch);
    let notices = bench.write();
    assert_eq!(bench.written, ["newer"]);
    let replaced = notices
        .iter()
        .filter(|n| matches!(n.outcome, Outcome::Replaced));
    assert_eq!(replaced.count(), 2);
    assert!(bench.queue.items.is_empty());
}

#[test]
fn a_patch_whose_outcome_is_unknown_is_not_sent_again() {
    let mut bench = Bench::new();
    bench.patch("/a", "patch");
    let batch = bench.queue.next_batch(false);
    let failure = Failure {
        error: "connection reset".into(),
        retry: Retry::Unknown,
    };
    let outcomes = vec![(batch[0].seq, Err(failure))];
    let notices = bench.queue.written(outcomes, bench.now, &mut bench.rng);
    assert!(matches!(
        notices[0].outcome,
        Outcome::Refused { unknown: true, .. }
    ));
    assert!(bench.queue.items.is_empty());
}

#[test]
fn an_entry_that_cannot_succeed_is_given_up_and_the_others_go_on() {
    let mut bench = Bench::new();
    bench.url("/a", "never");
    bench.inline("/a/x", "newer");
    let fetch = bench.fetches()[0].0;
    let failure = Failure {
        error: "unknown provider".into(),
        retry: Retry::Never,
    };
    let notices = bench
        .queue
        .fetched(fetch, Err(failure), bench.now, &mut bench.rng);
    assert!(matches!(
        notices[0].outcome,
        Outcome::Refused { unknown: false, .. }
    ));
    bench.write();
    assert_eq!(bench.written, ["newer"]);
}

#[test]
fn a_store_that_was_away_gets_the_document_later() {
    let mut bench = Bench::new();
    bench.inline("/a", "inline");
    let batch = bench.queue.next_batch(false);
    let failure = Failure {
        error: "store unreachable".into(),
        retry: Retry::After(None),
    };
    bench.queue.written(
        vec![(batch[0].seq, Err(failure))],
        bench.now,
        &mut bench.rng,
    );
    bench.now = bench.queue.next_wake(bench.now).unwrap();
    let fetch = bench.fetches()[0].0;
    bench.succeed(fetch, "inline");
    bench.write();
    assert_eq!(bench.written, ["inline"]);
}

#[test]
fn the_same_source_pushed_again_replaces_the_one_that_waits() {
    let mut bench = Bench::with_workers(1);
    bench.url("/busy", "busy");
    bench.fetches();
    bench.url("/a", "source");
    let notices = bench.url("/a", "source");
    assert!(matches!(notices[0].outcome, Outcome::Replaced));
    assert_eq!(bench.queue.items.len(), 2);
}

#[test]
fn sources_that_hang_leave_workers_for_those_that_do_not() {
    let mut bench = Bench::with_workers(2);
    for name in ["h1", "h2", "h3"] {
        bench.url(&format!("/{name}"), name);
    }
    for _ in 0..3 {
        for (seq, _) in bench.fetches() {
            bench.fail(seq);
        }
    }
    bench.now += LONGEST_PAUSE;
    assert_eq!(bench.fetches().len(), 1, "one repeated round at a time");
    bench.url("/fresh", "fresh");
    let fetches = bench.fetches();
    assert_eq!(fetches[0].1, "fresh");
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let mut rng = StdRng::seed_from_u64(1);
    let asked = Duration::from_secs(500);
    assert_eq!(round_pause(1, Some(asked), &mut rng), asked);
    assert!(round_pause(40, None, &mut rng) <= LONGEST_PAUSE);
}

#[test]
fn a_patch_waits_for_the_outcome_of_what_it_is_based_on() {
    let mut bench = Bench::new();
    bench.inline("/a/x", "base");
    bench.patch("/a", "patch");
    let batch = bench.queue.next_batch(false);
    assert_eq!(batch.len(), 1, "the patch is not sent along");
    let failure = Failure {
        error: "503".into(),
        retry: Retry::After(None),
    };
    let outcomes = vec![(batch[0].seq, Err(failure))];
    bench.queue.written(outcomes, bench.now, &mut bench.rng);
    bench.write();
    assert!(bench.written.is_empty(), "it waits for the base");
    bench.now = bench.queue.next_wake(bench.now).unwrap();
    let fetch = bench.fetches()[0].0;
    bench.succeed(fetch, "base");
    bench.write();
    assert_eq!(bench.written, ["base", "patch"]);
}

#[test]
fn of_kept_documents_only_the_newest_at_a_place_is_kept() {
    let mut bench = Bench::new();
    bench.url("", "failing");
    let fetch = bench.fetches()[0].0;
    bench.fail(fetch);
    for _ in 0..100 {
        bench.inline("/a", "newer");
    }
    bench.write();
    assert_eq!(bench.queue.items.len(), 2);
    assert_eq!(bench.queue.on_their_way(), 0, "there is room for more");
}

#[test]
fn the_entry_that_waited_longest_is_tried_first() {
    let mut bench = Bench::with_workers(1);
    bench.url("/old", "old");
    bench.url("/new", "new");
    for _ in 0..2 {
        let fetch = bench.fetches()[0].0;
        bench.fail(fetch);
    }
    // `old` fails again and again; `new` must not starve behind it.
    let mut tried = Vec::new();
    for _ in 0..6 {
        bench.now += LONGEST_PAUSE;
        let (seq, name) = bench.fetches().remove(0);
        tried.push(name);
        bench.fail(seq);
    }
    assert!(tried.iter().any(|name| name == "new"), "{tried:?}");
}

#[test]
fn sources_that_are_named_anew_are_forgotten_and_publishes_are_not() {
    let mut bench = Bench::new();
    bench.url("/a", "source");
    bench.inline("/b", "published");
    let notices = bench.queue.forget_sources();
    assert_eq!(notices.len(), 1);
    bench.write();
    assert_eq!(bench.written, ["published"]);
}

#[test]
fn a_patch_before_which_newer_entries_were_written_is_not_applied_on_top_of_them() {
    let mut bench = Bench::new();
    bench.url("/a", "late");
    bench.patch("/a", "patch");
    bench.inline("/a/b", "newer");
    let fetches = bench.fetches();
    bench.fail(fetches[0].0);
    bench.write();
    assert_eq!(bench.written, ["newer"]);
    assert!(
        bench.queue.take_overtaken_patches(false).is_empty(),
        "it waits"
    );
    bench.now = bench.queue.next_wake(bench.now).expect("another round");
    let again = bench.fetches();
    bench.succeed(again[0].0, "late");
    let batch = bench.queue.next_batch(false);
    let outcomes = batch.iter().map(|write| (write.seq, Ok(()))).collect();
    bench.queue.written(outcomes, bench.now, &mut bench.rng);
    let overtaken = bench.queue.take_overtaken_patches(false);
    let outcome = overtaken.first().map(|notice| &notice.outcome);
    assert!(matches!(
        outcome,
        Some(Outcome::Refused { unknown: true, .. })
    ));
    assert!(bench.queue.next_batch(false).is_empty());
}

#[test]
fn a_refusal_is_not_final_while_an_older_entry_may_change_what_it_is_about() {
    let mut bench = Bench::new();
    bench.url("/a", "late");
    bench.inline("/a/b", "newer");
    let fetches = bench.fetches();
    bench.fail(fetches[0].0);
    let refusal = || Failure {
        error: "what holds `b` is not an object".into(),
        retry: Retry::Never,
    };
    let batch = bench.queue.next_batch(false);
    let outcomes = vec![(batch[0].seq, Err(refusal()))];
    let notices = bench.queue.written(outcomes, bench.now, &mut bench.rng);
    assert!(matches!(notices[0].outcome, Outcome::Failing { .. }));
    bench.now += LONGEST_PAUSE;
    for (seq, name) in bench.fetches() {
        bench.succeed(seq, &name);
    }
    bench.write();
    assert_eq!(bench.written.first().map(String::as_str), Some("late"));
    assert_eq!(bench.written.len(), 2);
    bench.inline("/a/c", "alone");
    let batch = bench.queue.next_batch(false);
    let outcomes = vec![(batch[0].seq, Err(refusal()))];
    let notices = bench.queue.written(outcomes, bench.now, &mut bench.rng);
    assert!(matches!(notices[0].outcome, Outcome::Refused { .. }));
}

#[test]
fn of_a_failing_document_that_is_removed_the_way_to_it_is_written() {
    let mut bench = Bench::new();
    bench.url("/a/b", "failing");
    bench.push(SaveMethod::Delete, "/a/b", "gone", true);
    let fetches = bench.fetches();
    bench.fail(fetches[0].0);
    bench.write();
    assert_eq!(bench.written, ["gone", "{}", "gone"]);
    assert!(bench.queue.items.is_empty());
}

#[test]
fn what_a_removal_that_is_written_again_takes_along_is_written_again_too() {
    let mut bench = Bench::new();
    bench.url("/a/b", "late");
    bench.push(SaveMethod::Delete, "/a", "gone", true);
    bench.inline("/a/c", "newest");
    let fetches = bench.fetches();
    bench.fail(fetches[0].0);
    bench.write();
    assert_eq!(bench.written, ["gone", "newest", "{}", "gone", "newest"]);
    assert!(bench.queue.items.is_empty());
}
