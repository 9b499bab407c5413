//! Waiting until a change was applied.

use super::*;

impl Bench {
    /// Publishes to `a` and waits for it, for ten seconds.
    fn publish_for(&mut self, target: &str) -> WaitId {
        let delivery = Delivery {
            except: None,
            confirm: true,
        };
        self.deliver(&ScopeId::default(), &["a"], "1", delivery);
        self.wait_for(self.head().revision.0, target)
    }

    fn wait_for(&mut self, revision: u64, target: &str) -> WaitId {
        let target = target.parse().unwrap();
        let scope = ScopeId::default();
        let timeout = Duration::from_secs(10);
        self.hub
            .wait(&scope, Revision(revision), target, timeout, self.now)
    }

    /// The outcome of the one wait that has ended since this was last asked.
    fn outcome(&mut self) -> Option<WaitOutcome> {
        let mut finished = self.hub.finished_waits();
        assert!(finished.len() <= 1);
        finished.pop().map(|(_, outcome)| outcome)
    }

    fn outcome_after(&mut self, seconds: u64) -> WaitOutcome {
        assert_eq!(self.outcome(), None);
        self.now += Duration::from_secs(seconds);
        self.hub.expire_waits(self.now);
        self.outcome().unwrap()
    }
}

fn missing(client: &str, reason: &str) -> Missing {
    Missing {
        client: client.to_owned(),
        reason: reason.to_owned(),
    }
}

#[test]
fn all_have_applied_it_when_the_last_of_those_whom_it_concerns_has() {
    let mut bench = Bench::new();
    let outbox = bench.settled(2, &["a"]);
    bench.settled(1, &["a"]);
    bench.settled(3, &["other"]);
    bench.publish_for("all");
    assert_eq!(requests(&outbox)[0]["arguments"]["confirm"], true);
    bench.settled(4, &["a"]);
    bench.applied(2, 1, &[]).unwrap();
    assert_eq!(bench.outcome(), None);
    bench.applied(1, 0, &[(1, 1)]).unwrap();
    let outcome = bench.outcome().unwrap();
    assert!(outcome.met);
    assert_eq!(outcome.applied, ["c1", "c2"], "4 came later");
    assert_eq!(outcome.missing, []);
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn a_change_that_nobody_waits_for_does_not_ask_for_confirmation() {
    let mut bench = Bench::new();
    let outbox = bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    assert!(requests(&outbox)[0]["arguments"].get("confirm").is_none());
}

#[test]
fn a_client_that_comes_back_in_the_middle_is_asked_to_confirm_and_counts() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    let start = bench.head();
    bench.publish(&["a"], "2", None);
    bench.publish_for("all");
    bench.hub.remove(SubscriberId(1), bench.now);
    assert_eq!(bench.outcome(), None, "it may come back");
    let outbox = bench.follow_as("c1", 2, &["a"], Some(start));
    let confirm: Vec<Value> = requests(&outbox)
        .iter()
        .map(|request| request["arguments"]["confirm"].clone())
        .collect();
    assert_eq!(confirm, [Value::Null, true.into(), Value::Null]);
    bench.applied(2, 3, &[]).unwrap();
    assert_eq!(bench.outcome().unwrap().applied, ["c1"]);
}

#[test]
fn who_is_lost_is_waited_for_until_it_is_not_expected_any_more() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.settled(2, &["other"]);
    bench.hub.remove(SubscriberId(1), bench.now);
    bench.hub.remove(SubscriberId(2), bench.now);
    bench.wait(25);
    bench.publish_for("all");
    assert_eq!(bench.outcome(), None);
    bench.wait(5);
    bench.hub.tick(bench.now);
    let outcome = bench.outcome().unwrap();
    assert_eq!(
        (outcome.met, outcome.disconnected),
        (false, vec!["c1".to_owned()])
    );
    bench.publish_for("all");
    assert_eq!(
        bench.outcome().unwrap(),
        WaitOutcome {
            met: true,
            ..WaitOutcome::default()
        }
    );
}

#[test]
fn when_time_is_over_each_client_has_its_reason() {
    let mut bench = Bench::new();
    (1..=4).for_each(|id| drop(bench.settled(id, &["a"])));
    bench.join(5, &["a"]);
    bench.join(6, &["other"]);
    bench.publish_for("all");
    bench.report(1, 0, &[], failing(1, false)).unwrap();
    bench.applied(2, 1, &[]).unwrap();
    bench.hub.remove(SubscriberId(4), bench.now);
    let outcome = bench.outcome_after(10);
    let expected = WaitOutcome {
        met: false,
        applied: vec!["c2".to_owned()],
        missing: vec![
            missing("c1", "the source answered 500"),
            missing("c3", "not applied yet"),
        ],
        disconnected: vec!["c4".to_owned()],
        unconfirmed: vec!["channel5".to_owned()],
    };
    assert_eq!(outcome, expected);
}

#[test]
fn what_will_never_be_applied_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish_for("all");
    bench.report(1, 1, &[], failing(1, true)).unwrap();
    let outcome = bench.outcome().unwrap();
    assert!(!outcome.met);
    assert_eq!(outcome.missing, [missing("c1", "the source answered 500")]);
}

#[test]
fn a_failure_that_goes_away_in_time_is_none() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish_for("all");
    bench.report(1, 0, &[], failing(1, false)).unwrap();
    bench.applied(1, 1, &[]).unwrap();
    assert!(bench.outcome().unwrap().met);
}

#[test]
fn what_was_applied_stays_so_when_the_client_goes() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.settled(2, &["a"]);
    bench.publish_for("all");
    bench.applied(1, 1, &[]).unwrap();
    bench.hub.remove(SubscriberId(1), bench.now);
    assert_eq!(bench.outcome_after(10).applied, ["c1"]);
}

#[test]
fn half_of_them_is_enough_for_fifty_percent() {
    let mut bench = Bench::new();
    (1..=3).for_each(|id| drop(bench.settled(id, &["a"])));
    bench.publish_for("50%");
    bench.applied(1, 1, &[]).unwrap();
    assert_eq!(bench.outcome(), None, "a third");
    bench.applied(2, 1, &[]).unwrap();
    let outcome = bench.outcome().unwrap();
    assert!(outcome.met);
    assert_eq!(outcome.missing, [missing("c3", "not applied yet")]);
}

#[test]
fn one_client_is_waited_for_by_its_name() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.settled(2, &["a"]);
    bench.settled(3, &["other"]);
    bench.join(4, &["a"]);
    for (client, reason) in [
        ("nobody", "not connected"),
        ("c3", "not subscribed to any of its topics"),
    ] {
        bench.publish_for(&format!("client={client}"));
        let outcome = bench.outcome().unwrap();
        assert!(!outcome.met);
        assert_eq!(outcome.missing, [missing(client, reason)]);
    }
    bench.publish_for("client=channel4");
    let outcome = bench.outcome().unwrap();
    assert_eq!(
        (outcome.met, outcome.unconfirmed),
        (false, vec!["channel4".to_owned()])
    );
    bench.publish_for("client=c1");
    bench.applied(2, 4, &[]).unwrap();
    assert_eq!(bench.outcome(), None);
    bench.applied(1, 4, &[]).unwrap();
    let outcome = bench.outcome().unwrap();
    assert_eq!(
        (outcome.met, outcome.applied),
        (true, vec!["c1".to_owned()])
    );
}

#[test]
fn two_connections_of_one_name_have_both_to_apply_it() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.follow_as("c1", 2, &["a"], None);
    bench.publish_for("all");
    bench.applied(1, 1, &[]).unwrap();
    assert_eq!(bench.outcome(), None);
    bench.hub.remove(SubscriberId(2), bench.now);
    assert_eq!(bench.outcome().unwrap().applied, ["c1"]);
}

#[test]
fn an_old_revision_concerns_everyone_and_those_who_have_it_are_done_at_once() {
    let mut bench = Bench::with(FeedLimits {
        changes: 1,
        ..FeedLimits::default()
    });
    bench.publish(&["a"], "1", None);
    bench.publish(&["a"], "2", None);
    bench.settled(1, &["a"]);
    bench.settled(2, &["other"]);
    bench.wait_for(1, "all");
    assert_eq!(bench.outcome().unwrap().applied, ["c1", "c2"]);
}

#[test]
fn a_wait_that_nobody_waits_for_is_forgotten() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    let id = bench.publish_for("all");
    assert!(bench.hub.next_deadline().is_some());
    bench.hub.cancel_wait(id);
    assert_eq!(bench.hub.next_deadline(), None);
    bench.applied(1, 1, &[]).unwrap();
    assert_eq!(bench.outcome(), None);
}

#[test]
fn a_connection_that_its_process_left_behind_holds_up_nobody() {
    let mut bench = Bench::new();
    bench.instance = "one".to_owned();
    bench.settled(1, &["a"]);
    bench.publish_for("all");
    bench.follow_as("c1", 2, &["a"], None);
    bench.applied(2, 1, &[]).unwrap();
    assert_eq!(bench.outcome().unwrap().applied, ["c1"]);
}

#[test]
fn what_failed_for_good_is_not_applied_however_much_failed() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    let failing = |revision, is_final| FailingEntry {
        revision: Revision(revision),
        entry: "/x".to_owned(),
        error: "refused".to_owned(),
        since: String::new(),
        is_final,
    };
    for _ in 0..1010 {
        bench.publish(&["a"], "1", None);
    }
    let mut all: Vec<_> = (2..=1010)
        .map(|revision| failing(revision, false))
        .collect();
    all.push(failing(1, true));
    bench.report(1, 1010, &[], all).unwrap();
    bench.wait_for(1, "all");
    let expected = missing("c1", "failed, as many others did");
    assert_eq!(bench.outcome().unwrap().missing, [expected]);
}

#[test]
fn the_end_of_the_hub_ends_the_waits_with_what_is_known() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.settled(2, &["a"]);
    bench.publish_for("all");
    bench.applied(1, 1, &[]).unwrap();
    bench.hub.end_all();
    let outcome = bench.outcome().unwrap();
    assert_eq!(
        (outcome.met, outcome.applied),
        (false, vec!["c1".to_owned()])
    );
}
