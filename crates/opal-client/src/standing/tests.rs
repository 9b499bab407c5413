use opal_protocol::ChainDigest;

use super::*;

fn begin() -> Moment {
    Moment {
        instant: Instant::now(),
        utc: DateTime::UNIX_EPOCH,
    }
}

fn after(moment: Moment, seconds: u64) -> Moment {
    let passed = Duration::from_secs(seconds);
    Moment {
        instant: moment.instant + passed,
        utc: moment.utc + passed,
    }
}

fn following(epoch: u64, received: u64, held: Option<u64>) -> ReplicaStatus {
    let epoch = Epoch(epoch);
    ReplicaStatus {
        is_connected: true,
        received: Some(Position {
            epoch,
            revision: Revision(received),
            digest: ChainDigest::default(),
        }),
        held: held.map(|held| (epoch, Revision(held))),
        awaits_snapshot: held.is_none(),
        outstanding: 1,
        failing: Vec::new(),
        policy_needed: None,
        commit: None,
    }
}

fn released() -> ReplicaStatus {
    ReplicaStatus {
        received: None,
        outstanding: 0,
        awaits_snapshot: false,
        ..following(1, 0, None)
    }
}

#[test]
fn a_client_is_not_ready_before_its_first_snapshot_is_in_the_store() {
    let now = begin();
    let mut standing = Standing::new(now);
    assert_eq!(standing.unready(), None, "that is said by the transactions");
    standing.update(following(1, 5, None), now);
    let pending = Reason::SnapshotPending { since: now.utc };
    assert_eq!(standing.unready(), Some(pending.clone()));
    standing.update(following(1, 6, Some(4)), after(now, 1));
    assert_eq!(standing.unready(), Some(pending), "some of it is missing");
    standing.update(following(1, 7, Some(5)), after(now, 2));
    assert_eq!(standing.unready(), None);
    standing.update(following(2, 1, None), after(now, 3));
    assert_eq!(standing.unready(), None, "it keeps what it holds");
}

#[test]
fn a_client_that_was_filled_from_a_file_is_ready_while_a_snapshot_is_on_its_way() {
    let now = begin();
    let mut standing = Standing::new(now);
    standing.restored();
    standing.update(following(1, 5, None), now);
    assert_eq!(standing.unready(), None);
    assert!(standing.unhealthy(after(now, 11).instant).is_some());
}

#[test]
fn a_client_that_lacks_something_for_more_than_ten_seconds_is_not_healthy() {
    let now = begin();
    let mut standing = Standing::new(now);
    standing.update(following(1, 5, Some(5)), now);
    standing.update(following(1, 6, Some(5)), after(now, 1));
    assert_eq!(standing.behind_since(), Some(after(now, 1).utc));
    assert_eq!(standing.unhealthy(after(now, 11).instant), None);
    let reason = standing.unhealthy(after(now, 12).instant);
    let behind = Reason::Behind {
        changes: 1,
        snapshot: false,
        since: after(now, 1).utc,
    };
    assert_eq!(reason, Some(behind));
    standing.update(following(1, 6, Some(6)), after(now, 13));
    assert_eq!(standing.unhealthy(after(now, 60).instant), None);
}

#[test]
fn a_client_that_keeps_up_with_a_steady_stream_is_healthy_and_one_that_lags_is_not() {
    let now = begin();
    let mut keeps_up = Standing::new(now);
    let mut lags = Standing::new(now);
    for second in 1..60 {
        let at = after(now, second);
        keeps_up.update(following(1, second + 3, Some(second)), at);
        lags.update(following(1, second * 2, Some(second)), at);
        assert_eq!(keeps_up.unhealthy(at.instant), None, "{second}");
    }
    assert!(lags.unhealthy(after(now, 60).instant).is_some());
}

#[test]
fn a_feed_that_begins_anew_does_not_make_a_client_look_fresh() {
    let now = begin();
    let mut standing = Standing::new(now);
    standing.update(following(1, 5, None), now);
    standing.update(following(2, 1, None), after(now, 9));
    assert!(standing.unhealthy(after(now, 11).instant).is_some());
    standing.update(following(2, 1, Some(1)), after(now, 12));
    assert_eq!(standing.unhealthy(after(now, 30).instant), None);
    assert_eq!(standing.unready(), None);
}

#[test]
fn a_feed_that_lost_its_end_is_not_waited_for() {
    let now = begin();
    let mut standing = Standing::new(now);
    standing.update(following(1, 9, Some(5)), now);
    standing.update(following(1, 6, None), after(now, 1));
    standing.update(following(1, 6, Some(6)), after(now, 2));
    assert_eq!(standing.behind_since(), None);
}

#[test]
fn how_long_the_server_has_been_away_is_known() {
    let now = begin();
    let mut standing = Standing::new(now);
    assert_eq!((standing.is_connected(), standing.mode()), (false, None));
    standing.update(released(), after(now, 1));
    assert_eq!(standing.mode(), Some(Mode::Released));
    assert_eq!(standing.unready(), None);
    standing.update(following(1, 1, Some(1)), after(now, 2));
    assert_eq!(standing.mode(), Some(Mode::Feed));
    assert_eq!(standing.connection_since(), after(now, 1).utc);
    let away = ReplicaStatus {
        is_connected: false,
        ..following(1, 1, Some(1))
    };
    standing.update(away.clone(), after(now, 3));
    assert!(!standing.update(away, after(now, 4)));
    assert_eq!(standing.connection_since(), after(now, 3).utc);
    assert_eq!(standing.unhealthy(after(now, 99).instant), None);
}
