use rand::SeedableRng;
use rand::rngs::StdRng;

use super::test_drafts::{data, policy, put};
use super::*;

fn log(limits: FeedLimits) -> FeedLog {
    FeedLog::new(new_epoch(&mut StdRng::seed_from_u64(1)), limits)
}

#[test]
fn revisions_are_dense_in_each_scope() {
    let mut feed = log(FeedLimits::default());
    let (here, there) = (ScopeId::default(), ScopeId::from("s1"));
    for (scope, id, revision) in [(&here, "a", 1), (&there, "a", 1), (&here, "b", 2)] {
        let appended = feed.append(scope, None, data(id), 0).unwrap();
        assert_eq!(appended.position().revision, Revision(revision));
    }
    assert_ne!(feed.head(&here).digest, feed.head(&there).digest);
}

#[test]
fn of_two_writers_at_one_head_the_second_is_refused() {
    let mut feed = log(FeedLimits::default());
    let scope = ScopeId::default();
    feed.append(&scope, Some(Revision(0)), data("a"), 0)
        .unwrap();
    let refused = feed.append(&scope, Some(Revision(0)), data("b"), 0);
    assert!(matches!(refused, Err(AppendError::HeadMoved { .. })));
    assert_eq!(feed.head(&scope).revision, Revision(1));
}

#[test]
fn a_repeated_append_is_harmless() {
    let mut feed = log(FeedLimits::default());
    let scope = ScopeId::default();
    let first = feed.append(&scope, None, data("a"), 0).unwrap();
    let second = feed.append(&scope, None, data("a"), 0).unwrap();
    assert_eq!(second, Appended::Repeated(first.position()));
}

#[test]
fn an_older_commit_cannot_come_after_a_newer_one_but_a_force_push_back_can() {
    let mut feed = log(FeedLimits::default());
    let scope = ScopeId::default();
    feed.append(&scope, None, policy("1", None, 'a'), 0)
        .unwrap();
    feed.append(&scope, None, policy("2", Some('a'), 'b'), 0)
        .unwrap();
    let late = feed.append(&scope, None, policy("3", Some('a'), 'c'), 0);
    assert!(matches!(late, Err(AppendError::CommitMoved { .. })));
    feed.append(&scope, None, policy("4", Some('b'), 'a'), 0)
        .unwrap();
    assert_eq!(feed.commit(&scope).unwrap().as_str(), "a".repeat(40));
}

#[test]
fn an_id_is_that_of_one_change() {
    let mut feed = log(FeedLimits::default());
    let scope = ScopeId::default();
    feed.append(&scope, None, data("a"), 0).unwrap();
    let other_topic = ChangeDraft {
        topics: vec!["u".into()].into(),
        ..data("a")
    };
    let other_payload = ChangeDraft {
        id: "a".into(),
        ..data("b")
    };
    for other in [other_topic, other_payload] {
        let refused = feed.append(&scope, None, other, 0).unwrap_err();
        let revision = Revision(1);
        let id = "a".into();
        let scope = scope.clone();
        assert_eq!(
            refused,
            AppendError::IdReused {
                scope,
                id,
                revision
            }
        );
    }
}

fn ids(since: Since) -> Vec<String> {
    match since {
        Since::Changes(changes) => changes.iter().map(|c| c.draft.id.to_string()).collect(),
        Since::Snapshot => vec!["snapshot".to_owned()],
    }
}

#[test]
fn what_is_staged_is_seen_by_what_is_staged_later_and_by_nobody_else() {
    let mut feed = log(FeedLimits::default());
    let scope = ScopeId::default();
    let before = feed.head(&scope);
    let staged = feed.stage(&scope, None, policy("1", None, 'a'), 5).unwrap();
    let next = policy("2", Some('a'), 'b');
    feed.stage(&scope, Some(Revision(1)), next, 6).unwrap();
    let again = feed.stage(&scope, None, policy("1", None, 'a'), 7).unwrap();
    assert_eq!(again, Appended::Repeated(staged.position()));
    assert_eq!((feed.head(&scope), feed.commit(&scope)), (before, None));
    assert_eq!(feed.change(&scope, Revision(1)), None);
    assert!(ids(feed.since(&scope, &before)).is_empty());
    assert_eq!(ids(feed.since(&scope, &staged.position())), ["snapshot"]);

    feed.commit_staged();
    assert_eq!(ids(feed.since(&scope, &before)), ["1", "2"]);
    assert_eq!(feed.head(&scope).revision, Revision(2));
    assert_eq!(feed.change(&scope, Revision(2)).unwrap().at, 6);
}

#[test]
fn what_is_discarded_leaves_no_trace() {
    let drafts = || [policy("2", Some('a'), 'b'), data("x"), data("y")];
    let mut feed = log(FeedLimits {
        changes: 1,
        ..FeedLimits::default()
    });
    let mut spared = log(FeedLimits {
        changes: 1,
        ..FeedLimits::default()
    });
    let (scope, other) = (ScopeId::default(), ScopeId::from("other"));
    for feed in [&mut feed, &mut spared] {
        feed.append(&scope, None, policy("1", None, 'a'), 0)
            .unwrap();
    }
    for draft in drafts() {
        feed.stage(&scope, None, draft, 0).unwrap();
        feed.stage(&other, None, data("z"), 0).unwrap();
    }
    feed.discard_staged();
    assert_eq!(feed.head(&scope), spared.head(&scope));
    assert_eq!(feed.head(&other), spared.head(&other));
    assert_eq!(feed.commit(&scope), spared.commit(&scope));
    for draft in drafts() {
        let appended = feed.append(&scope, None, draft.clone(), 0);
        assert_eq!(appended, spared.append(&scope, None, draft, 0));
    }
    assert_eq!(feed.head(&scope), spared.head(&scope));
}

#[test]
fn who_is_inside_the_history_gets_what_was_missed_and_others_take_everything() {
    let mut feed = log(FeedLimits {
        changes: 2,
        bytes: 1000,
        ..FeedLimits::default()
    });
    let scope = ScopeId::default();
    let positions: Vec<Position> = ["a", "b", "c"]
        .map(|id| feed.append(&scope, None, data(id), 0).unwrap().position())
        .to_vec();
    let start = Position {
        revision: Revision(0),
        digest: ChainDigest::default(),
        ..positions[0]
    };
    assert_eq!(ids(feed.since(&scope, &start)), ["snapshot"]);
    assert_eq!(
        ids(feed.since(&scope, &positions[0])),
        ["b", "c"],
        "just before the oldest"
    );
    assert_eq!(ids(feed.since(&scope, &positions[1])), ["c"]);
    assert!(ids(feed.since(&scope, &positions[2])).is_empty());
    let future = Position {
        revision: Revision(9),
        ..positions[2]
    };
    assert_eq!(ids(feed.since(&scope, &future)), ["snapshot"]);
    let other_digest = Position {
        digest: positions[0].digest,
        ..positions[1]
    };
    let other_epoch = Position {
        epoch: Epoch(0),
        ..positions[1]
    };
    for unknown in [other_digest, other_epoch] {
        assert_eq!(ids(feed.since(&scope, &unknown)), ["snapshot"]);
    }
    let nowhere = ScopeId::from("nowhere");
    assert!(ids(feed.since(&nowhere, &start)).is_empty());
    assert_eq!(ids(feed.since(&nowhere, &positions[0])), ["snapshot"]);
}

#[test]
fn what_is_too_old_or_too_much_is_folded() {
    let limits = FeedLimits {
        changes: 100,
        bytes: 3 * put("a", "/a").size(),
        age: Duration::from_millis(10),
    };
    let mut feed = log(limits);
    let scope = ScopeId::default();
    let kept = |feed: &FeedLog| {
        let revisions = (1..9).filter(|at| feed.change(&scope, Revision(*at)).is_some());
        revisions.collect::<Vec<_>>()
    };
    for (at, id) in [(0, "a"), (5, "b"), (11, "c")] {
        feed.append(&scope, None, put(id, "/a"), at).unwrap();
    }
    assert_eq!(kept(&feed), [2, 3], "by age");
    feed.append(&scope, None, put("d", "/a"), 12).unwrap();
    feed.append(&scope, None, put("e", "/a"), 13).unwrap();
    assert_eq!(kept(&feed), [3, 4, 5], "by size");
    feed.expire(3);
    assert_eq!(kept(&feed), [3, 4, 5], "a clock that goes back");
    feed.expire(1000);
    assert_eq!(kept(&feed), [0; 0]);
    let head = feed.head(&scope);
    assert!(ids(feed.since(&scope, &head)).is_empty());
    assert_eq!(feed.base(&scope, &["t".into()]).entries.len(), 1);
}

#[test]
fn the_base_is_that_of_the_head_however_often_it_is_asked_for() {
    let mut feed = log(FeedLimits {
        changes: 2,
        ..FeedLimits::default()
    });
    let scope = ScopeId::default();
    let topics = ["t".into()];
    assert_eq!(feed.base(&scope, &topics).position, feed.head(&scope));
    for at in 0..20 {
        let id = at.to_string();
        feed.append(&scope, None, put(&id, &format!("/{}", at % 3)), 0)
            .unwrap();
        feed.stage(&scope, None, put("staged", "/staged"), 0)
            .unwrap();
        if at % 5 == 4 || at % 4 == 3 {
            let base = feed.base(&scope, &topics);
            assert_eq!(base.position, feed.head(&scope));
            let made_by: Vec<u64> = base.entries.iter().map(|entry| entry.revision.0).collect();
            assert_eq!(made_by.iter().max(), Some(&(at + 1)));
            assert_eq!(made_by.len(), 3);
            assert!(feed.base(&scope, &["u".into()]).entries.is_empty());
        }
        feed.discard_staged();
    }
}
