//! Following the feed: where it begins, and what is told.

use opal_protocol::ChainDigest;
use opal_protocol::feed::ResumeMode;

use super::*;

#[test]
fn who_was_here_gets_what_was_missed_and_then_the_position() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    let here = bench.head();
    bench.publish(&["a"], "2", None);
    bench.publish(&["other"], "3", None);
    bench.publish(&["b", "a"], "4", None);
    let outbox = bench.connect(1);
    let answer = bench.resume("c1", 1, &["a", "b"], Some(here));
    assert_eq!(answer.position(), bench.head());
    assert_eq!((answer.mode, answer.spread_ms), (ResumeMode::Replay, 0));
    assert_eq!(told(&outbox), ["change 2", "change 4", "position 4"]);
    bench.publish(&["a"], "5", None);
    assert_eq!(told(&outbox), ["change 5"]);
}

#[test]
fn a_change_says_all_that_it_is_once_whatever_it_matched() {
    let mut bench = Bench::new();
    let outbox = bench.follow(1, &["a", "b"], None);
    bench.publish(&["a", "b", "c"], r#"{"x":1}"#, None);
    let digest = bench.head().digest.to_string();
    let expected = serde_json::json!({
        "method": "change",
        "arguments": {
            "revision": 1, "digest": digest, "topics": ["a", "b", "c"], "payload": {"x": 1},
        },
        "call_id": null,
    });
    assert_eq!(requests(&outbox), [expected]);
}

#[test]
fn who_cannot_be_resumed_takes_a_snapshot_and_what_follows() {
    let mut bench = Bench::with(FeedLimits {
        changes: 2,
        ..FeedLimits::default()
    });
    bench.publish(&["a"], "0", None);
    let old = bench.head();
    (1..=3).for_each(|n| assert_eq!(bench.publish(&["a"], &n.to_string(), None), 0));
    let head = bench.head();
    let strangers = [
        None,
        Some(old),
        Some(Position {
            revision: Revision(99),
            ..head
        }),
        Some(Position {
            epoch: opal_protocol::Epoch(7),
            ..head
        }),
        Some(Position {
            digest: ChainDigest::default(),
            ..head
        }),
    ];
    for (id, position) in (1..).zip(strangers) {
        let outbox = bench.connect(id);
        let answer = bench.resume("c", id, &["a"], position);
        assert_eq!(answer.mode, ResumeMode::Snapshot, "{position:?}");
        assert_eq!(answer.position(), bench.head());
        bench.publish(&["a"], "1", None);
        let next = answer.head.0 + 1;
        assert_eq!(told(&outbox), [format!("change {next}")], "{position:?}");
    }
}

#[test]
fn more_than_an_outbox_holds_is_not_replayed() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    let here = bench.head();
    let half = format!("\"{}\"", "x".repeat(Outbox::LIMIT / 2));
    bench.publish(&["a"], &half, None);
    let outbox = bench.connect(1);
    assert_eq!(
        bench.resume("c1", 1, &["a"], Some(here)).mode,
        ResumeMode::Replay
    );
    assert_eq!(told(&outbox).len(), 2);
    bench.publish(&["a"], &half, None);
    bench.connect(2);
    assert_eq!(
        bench.resume("c2", 2, &["a"], Some(here)).mode,
        ResumeMode::Snapshot
    );
    bench.connect(3);
    assert_eq!(
        bench.resume("c3", 3, &["other"], Some(here)).mode,
        ResumeMode::Replay,
        "what does not concern a client does not count"
    );
}

#[test]
fn a_crowd_gets_the_same_bytes() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    let start = bench.head();
    bench.publish(&["a"], "2", None);
    let frames = |bench: &mut Bench, id| {
        let outbox = bench.follow(id, &["a"], Some(start));
        let frames: Vec<Next> = std::iter::from_fn(|| outbox.try_next()).collect();
        let places = frames.iter().map(|frame| match frame {
            Next::Frame(text) => text.as_str().as_ptr(),
            Next::End(why) => panic!("{why:?}"),
        });
        places.collect::<Vec<_>>()
    };
    let first = frames(&mut bench, 1);
    assert_eq!(first.len(), 2);
    assert_eq!(first, frames(&mut bench, 2));
    let outboxes = [bench.follow(3, &["a"], None), bench.follow(4, &["b"], None)];
    bench.publish(&["a", "b"], "2", None);
    let [one, two] = outboxes.map(|outbox| match outbox.try_next() {
        Some(Next::Frame(text)) => text.as_str().as_ptr(),
        other => panic!("{other:?}"),
    });
    assert_eq!(one, two);
}

#[test]
fn a_second_resume_replaces_the_first_and_what_of_it_waits() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    let start = bench.head();
    let outbox = bench.join(1, &["released"]);
    bench.resume("c1", 1, &["b"], Some(start));
    bench.publish(&["a"], "2", None);
    bench.publish(&["released"], "3", None);
    bench.publish(&["b"], "4", None);
    bench.resume("c1", 1, &["a"], Some(start));
    let told: Vec<String> = requests(&outbox)
        .iter()
        .map(|request| format!("{} {}", request["method"], request["arguments"]["revision"]))
        .collect();
    let expected = [r#""notify" null"#, r#""change" 2"#, r#""position" 4"#];
    assert_eq!(told, expected, "change 4 before change 2 would hide it");
    assert_eq!(bench.publish(&["b"], "5", None), 0);
    assert_eq!(bench.publish(&["a"], "6", None), 1);
}

#[test]
fn a_scope_is_told_to_those_who_follow_it_and_to_nobody_else() {
    let mut bench = Bench::new();
    let ours = bench.follow(1, &["a"], None);
    let released = bench.join(2, &["a"]);
    let tenant = ScopeId::from("tenant");
    let all = Delivery::default();
    assert_eq!(bench.deliver(&tenant, &["a"], "1", all), 1);
    assert!(told(&ours).is_empty());
    assert_eq!(notified(&released), ["a"], "released topics know no scopes");
}

#[test]
fn who_holds_a_topic_in_both_ways_is_told_once() {
    let mut bench = Bench::new();
    let outbox = bench.join(1, &["a", "only"]);
    bench.resume("c1", 1, &["a"], None);
    assert_eq!(bench.publish(&["a"], "1", None), 1);
    assert_eq!(bench.publish(&["only"], "2", None), 1);
    let methods: Vec<Value> = requests(&outbox)
        .iter_mut()
        .map(|request| request["method"].take())
        .collect();
    assert_eq!(methods, ["change", "notify"]);
}

#[test]
fn who_left_is_told_nothing_and_nothing_is_left_of_it() {
    let mut bench = Bench::new();
    bench.follow(1, &["a"], None);
    bench.hub.remove(SubscriberId(1), bench.now);
    assert_eq!(bench.publish(&["a"], "1", None), 0);
    assert!(bench.hub.followed.is_empty() && bench.hub.clients.is_empty());
}

#[test]
fn a_position_is_told_while_the_head_moves_past_a_client() {
    let mut bench = Bench::new();
    let (quiet, busy) = (bench.follow(1, &["a"], None), bench.follow(2, &["b"], None));
    bench.hub.tick(bench.now);
    bench.publish(&["b"], "1", None);
    bench.wait(9);
    bench.hub.tick(bench.now);
    assert!(told(&quiet).is_empty(), "not yet");
    bench.wait(1);
    bench.hub.tick(bench.now);
    assert_eq!(told(&quiet), ["position 1"]);
    assert_eq!(told(&busy), ["change 1"], "it knows");
    bench.wait(10);
    bench.hub.tick(bench.now);
    assert!(told(&quiet).is_empty(), "the head stands");
}

#[test]
fn a_crowd_that_takes_snapshots_is_spread() {
    let mut bench = Bench::new();
    let spreads: Vec<u64> = (1..=400)
        .map(|id| {
            bench.connect(id);
            bench.resume("c", id, &["a"], None).spread_ms
        })
        .collect();
    assert_eq!(spreads.first(), Some(&0));
    assert_eq!(spreads.last(), Some(&2000));
}

#[test]
fn drift_is_told_with_the_position_and_seen_until_other_policies_are_reported() {
    let mut bench = Bench::new();
    let outbox = bench.settled(1, &["a"]);
    let commit = opal_protocol::CommitHash::parse(&"a".repeat(40));
    let say = |bench: &mut Bench, digest: &str| {
        let report = AppliedArguments {
            commit: commit.clone(),
            digest_of_policies: Some(digest.to_owned()),
            ..AppliedArguments::default()
        };
        bench
            .hub
            .applied(SubscriberId(1), report, bench.now)
            .unwrap();
    };
    assert!(bench.hub.reported_policies().is_empty());
    say(&mut bench, "d1");
    let reported = bench.hub.reported_policies();
    assert_eq!(reported.len(), 1);
    assert_eq!(reported[0].digest, "d1");
    assert_eq!(
        (&*reported[0].client, reported[0].subscriber),
        ("c1", SubscriberId(1))
    );
    let drift = |subscriber, tell| Drift {
        reported: ReportedPolicies {
            subscriber: SubscriberId(subscriber),
            ..reported[0].clone()
        },
        tell,
    };
    let drifted = [drift(1, true), drift(9, true)];
    bench.hub.mark_drift(&drifted, bench.now);
    let frame = requests(&outbox);
    assert_eq!(frame[0]["method"], "position");
    assert_eq!(frame[0]["arguments"]["drift"], true);
    assert_eq!(frame[0]["arguments"]["revision"], 0);
    say(&mut bench, "d1");
    assert!(bench.view("c1").unwrap().drift, "they are the same still");
    say(&mut bench, "d2");
    assert!(!bench.view("c1").unwrap().drift);
    bench.hub.mark_drift(&drifted, bench.now);
    assert!(!bench.view("c1").unwrap().drift, "that was said of others");
    assert!(requests(&outbox).is_empty());
    say(&mut bench, "d1");
    bench.hub.mark_drift(&[drift(1, false)], bench.now);
    assert!(bench.view("c1").unwrap().drift);
    assert!(requests(&outbox).is_empty(), "seen, and told before");
}
