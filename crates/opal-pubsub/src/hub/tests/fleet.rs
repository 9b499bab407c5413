//! What people see of the clients.

use super::*;

#[test]
fn a_client_is_in_its_snapshot_until_it_holds_the_head_then_current() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    bench.publish(&["a"], "2", None);
    bench.follow(1, &["a"], None);
    bench.wait(3);
    bench.applied(1, 1, &[]).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!(view.state, ClientState::Snapshot);
    assert_eq!((view.position, view.lag_seconds), (None, 3.0));
    bench.applied(1, 2, &[]).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!(view.state, ClientState::Current);
    assert_eq!(view.position, Some(bench.head().at_least()));
    assert_eq!((view.lag_changes, view.lag_seconds), (0, 0.0));
    assert_eq!(
        (view.version.as_str(), view.host.as_deref()),
        ("1", Some("10.0.0.1"))
    );
    assert_eq!((view.connected_since, view.lost_since), (Some(3.0), None));
}

#[test]
fn what_a_client_was_told_and_did_not_apply_is_its_lag() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    bench.publish(&["other"], "2", None);
    bench.wait(2);
    bench.publish(&["a"], "3", None);
    bench.publish(&["a"], "4", None);
    bench.wait(5);
    let view = bench.view("c1").unwrap();
    assert_eq!((view.state, view.lag_changes), (ClientState::Behind, 3));
    assert_eq!(
        (view.lag_seconds, view.position.unwrap().revision),
        (7.0, Revision(0))
    );
    bench.applied(1, 2, &[(4, 4)]).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!((view.state, view.lag_changes), (ClientState::Behind, 1));
    assert_eq!(
        (view.lag_seconds, view.position.unwrap().revision),
        (5.0, Revision(2))
    );
    bench.applied(1, 4, &[]).unwrap();
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Current);
    bench.publish(&["other"], "5", None);
    let view = bench.view("c1").unwrap();
    assert_eq!(
        view.state,
        ClientState::Current,
        "it does not concern the client"
    );
    assert_eq!(view.position.unwrap().revision, Revision(5));
}

#[test]
fn what_was_replayed_counts_from_the_replay() {
    let mut bench = Bench::new();
    bench.settled(9, &["a"]);
    bench.publish(&["a"], "1", None);
    let start = bench.head();
    bench.publish(&["a"], "2", None);
    bench.wait(100);
    bench.follow(1, &["a"], Some(start));
    bench.wait(2);
    bench.applied(1, 1, &[]).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!((view.state, view.lag_seconds), (ClientState::Behind, 2.0));
}

#[test]
fn a_client_that_has_not_said_what_it_holds_is_not_called_current() {
    let mut bench = Bench::new();
    bench.publish(&["a"], "1", None);
    bench.follow(1, &["a"], Some(bench.head()));
    let view = bench.view("c1").unwrap();
    assert_eq!((view.state, view.position), (ClientState::Behind, None));
    bench.applied(1, 0, &[]).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!(
        view.state,
        ClientState::Behind,
        "it had received 1, and not applied it"
    );
    bench.applied(1, 1, &[]).unwrap();
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Current);
}

#[test]
fn a_client_that_lost_what_it_had_is_behind_again() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    bench.applied(1, 1, &[]).unwrap();
    bench.applied(1, 0, &[]).unwrap();
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Behind);
}

#[test]
fn a_failure_is_seen_until_it_is_gone() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    bench.report(1, 0, &[], failing(1, false)).unwrap();
    let view = bench.view("c1").unwrap();
    assert_eq!(view.state, ClientState::Failing);
    assert_eq!(view.failing, failing(1, false));
    bench.applied(1, 1, &[]).unwrap();
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Current);
}

#[test]
fn nonsense_changes_nothing() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.join(2, &["a"]);
    bench.publish(&["a"], "1", None);
    let before = bench.hub.fleet(bench.now);
    assert_eq!(bench.applied(1, 2, &[]), Err(AppliedFault::NeverTold));
    assert_eq!(bench.applied(1, 0, &[(1, 2)]), Err(AppliedFault::NeverTold));
    assert_eq!(
        bench.applied(1, u64::MAX, &[]),
        Err(AppliedFault::NeverTold)
    );
    assert_eq!(bench.applied(1, 1, &[(1, 0)]), Err(AppliedFault::Backwards));
    assert_eq!(bench.applied(2, 1, &[]), Err(AppliedFault::NotResumed));
    assert_eq!(bench.applied(3, 1, &[]), Err(AppliedFault::NotResumed));
    assert_eq!(bench.hub.fleet(bench.now), before);
}

#[test]
fn a_lost_client_is_seen_for_exactly_thirty_seconds() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.publish(&["a"], "1", None);
    bench.wait(1);
    bench.hub.remove(SubscriberId(1), bench.now);
    bench.now += Duration::from_millis(29_999);
    let view = bench.view("c1").unwrap();
    assert_eq!(
        (view.state, view.lag_changes),
        (ClientState::Disconnected, 1)
    );
    assert_eq!(
        (view.connected_since, view.lost_since),
        (None, Some(29.999))
    );
    assert_eq!(view.lag_seconds, 30.999);
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.view("c1"), None, "also without a tick");
    bench.hub.tick(bench.now);
    assert_eq!(bench.view("c1"), None);
}

#[test]
fn a_client_is_seen_once_when_it_comes_back_before_or_after_its_end() {
    let mut bench = Bench::new();
    bench.settled(1, &["a"]);
    bench.hub.remove(SubscriberId(1), bench.now);
    bench.follow_as("c1", 2, &["a"], None);
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Snapshot);
    bench.connect(3);
    bench.resume("c1", 3, &["a"], None);
    bench.hub.remove(SubscriberId(2), bench.now);
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Snapshot);
    bench.hub.remove(SubscriberId(3), bench.now);
    bench.wait(29);
    bench.hub.tick(bench.now);
    assert_eq!(bench.view("c1").unwrap().state, ClientState::Disconnected);
}

#[test]
fn released_connections_are_seen_and_not_remembered() {
    let mut bench = Bench::new();
    bench.join(1, &["a"]);
    let view = bench.view("channel1").unwrap();
    assert_eq!((view.mode, view.position), (ClientMode::Released, None));
    assert_eq!(view.topics, topics(&["a"]));
    bench.hub.remove(SubscriberId(1), bench.now);
    assert!(bench.hub.fleet(bench.now).is_empty());
}

#[test]
fn a_client_without_a_name_is_called_as_its_connection_and_a_long_name_is_cut() {
    let mut bench = Bench::new();
    bench.follow_as("", 1, &["a"], None);
    assert!(bench.view("channel1").is_some());
    bench.follow_as(&"é".repeat(1000), 2, &["a"], None);
    assert!(bench.view(&"é".repeat(128)).is_some());
}

#[test]
fn a_process_that_comes_back_takes_the_place_of_its_older_connection() {
    let mut bench = Bench::new();
    bench.instance = "one".to_owned();
    let half_open = bench.settled(1, &["a"]);
    let other = {
        bench.instance = "two".to_owned();
        bench.follow_as("c1", 2, &["a"], None)
    };
    bench.instance = "one".to_owned();
    bench.follow_as("c1", 3, &["a"], None);
    assert_eq!(half_open.try_next(), Some(Next::End(Ended::Superseded)));
    assert!(!matches!(other.try_next(), Some(Next::End(_))));
    assert_eq!(bench.hub.fleet(bench.now).len(), 3);
    bench.hub.remove(SubscriberId(1), bench.now);
    bench.hub.remove(SubscriberId(2), bench.now);
    let views = bench.hub.fleet(bench.now);
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].state, ClientState::Snapshot);
}
