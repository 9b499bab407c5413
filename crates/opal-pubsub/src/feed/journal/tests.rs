use opal_protocol::{Position, Topic};

use super::*;
use crate::feed::Since;
use crate::feed::test_drafts::{data, policy, put};

const LIMITS: FeedLimits = FeedLimits {
    changes: 3,
    bytes: 1_000_000,
    age: std::time::Duration::MAX,
};

fn bytes_of(log: &FeedLog) -> Vec<u8> {
    encode_image(&log.image()).flatten().collect()
}

/// A feed with a base, a history and a commit, and a second scope.
fn feed() -> FeedLog {
    let mut log = FeedLog::new(Epoch(7), LIMITS);
    let scope = ScopeId::default();
    log.append(&scope, None, policy("p1", None, 'a'), 1)
        .unwrap();
    for id in ["a", "b", "c"] {
        log.append(&scope, None, put(id, &format!("/{id}")), 2)
            .unwrap();
    }
    log.append(&scope, None, policy("p2", Some('a'), 'b'), 3)
        .unwrap();
    log.append(&"other".into(), None, data("x"), 4).unwrap();
    log
}

/// Appends these to the feed and to its journal, as one record.
fn append(log: &mut FeedLog, journal: &mut Vec<u8>, drafts: Vec<ChangeDraft>) {
    let scope = ScopeId::default();
    let mut changes = Vec::new();
    for draft in drafts {
        let position = log.append(&scope, None, draft, 5).unwrap().position();
        changes.push(Arc::clone(log.change(&scope, position.revision).unwrap()));
    }
    journal.extend(encode_changes(&changes));
}

/// All that can be asked of the feed of one scope.
type State = (
    Position,
    Option<CommitHash>,
    Vec<Arc<Change>>,
    Vec<BaseEntry>,
);

fn state(log: &mut FeedLog) -> [State; 2] {
    let scopes = [ScopeId::default(), "other".into()];
    scopes.map(|scope| {
        let head = log.head(&scope);
        let oldest = head
            .revision
            .0
            .saturating_sub(LIMITS.changes as u64 - 1)
            .max(1);
        let history = (oldest..=head.revision.0)
            .filter_map(|at| log.change(&scope, Revision(at)).cloned())
            .collect();
        let base = log.base(&scope, &[Topic::from("t")]);
        assert_eq!(base.position, head);
        (head, log.commit(&scope).cloned(), history, base.entries)
    })
}

#[test]
fn a_journal_gives_back_the_feeds_it_was_of() {
    let mut log = feed();
    let mut journal = bytes_of(&log);
    append(
        &mut log,
        &mut journal,
        vec![put("d", "/a"), policy("p3", Some('b'), 'c')],
    );
    append(&mut log, &mut journal, vec![put("e", "/e")]);
    let mut recovered = recover(&journal, LIMITS).unwrap();
    assert_eq!(recovered.valid_len, journal.len());
    assert_eq!(recovered.log.epoch(), Epoch(7));
    assert_eq!(state(&mut recovered.log), state(&mut log));
    let scope = ScopeId::default();
    let again = recovered.log.append(&scope, None, put("e", "/e"), 9);
    assert_eq!(
        again.unwrap().position(),
        log.head(&scope),
        "its id is known"
    );
    let rewritten = bytes_of(&recovered.log);
    let mut again = recover(&rewritten, LIMITS).unwrap();
    assert_eq!(state(&mut again.log), state(&mut log));
}

#[test]
fn a_last_record_that_is_not_whole_is_left_out_wherever_it_ends() {
    let mut log = feed();
    let mut journal = bytes_of(&log);
    append(&mut log, &mut journal, vec![put("d", "/d")]);
    let before = state(&mut log);
    let whole = journal.len();
    append(&mut log, &mut journal, vec![put("e", "/e"), put("f", "/f")]);
    for end in whole..journal.len() {
        let torn = recover(&journal[..end], LIMITS).unwrap();
        assert_eq!(torn.valid_len, whole);
        let mut log = torn.log;
        assert_eq!(state(&mut log), before, "cut at {end}");
    }
    let mut zeros = journal[..whole].to_vec();
    zeros.extend([0; 64]);
    assert_eq!(recover(&zeros, LIMITS).unwrap().valid_len, whole);
    *journal.last_mut().unwrap() ^= 1;
    assert_eq!(recover(&journal, LIMITS).unwrap().valid_len, whole);
}

#[test]
fn damage_that_loses_what_was_accepted_is_an_error_that_says_where() {
    let mut log = feed();
    let mut journal = bytes_of(&log);
    let begun = journal.len();
    append(&mut log, &mut journal, vec![put("d", "/d")]);
    append(&mut log, &mut journal, vec![put("e", "/e")]);
    for at in [begun, begun + 5, begun + 20] {
        let mut damaged = journal.clone();
        damaged[at] ^= 0x10;
        let error = recover(&damaged, LIMITS).unwrap_err();
        assert_eq!(error, RecoverError::Damaged { offset: begun });
    }
    // What a generation begins with was durable before it got its name.
    for end in [begun - 1, begun - 400] {
        let error = recover(&journal[..end], LIMITS).unwrap_err();
        assert!(matches!(error, RecoverError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_change_that_does_not_follow_the_one_before_is_damage() {
    let mut log = feed();
    let mut journal = bytes_of(&log);
    append(&mut log, &mut Vec::new(), vec![put("lost", "/d")]);
    let offset = journal.len();
    append(&mut log, &mut journal, vec![put("e", "/e")]);
    let error = recover(&journal, LIMITS).unwrap_err();
    assert_eq!(error, RecoverError::Damaged { offset });
}

#[test]
fn a_beginning_that_is_no_header_says_so() {
    let journal = bytes_of(&FeedLog::new(Epoch(7), LIMITS));
    for end in 0..journal.len() {
        let error = recover(&journal[..end], LIMITS).unwrap_err();
        assert_eq!(error, RecoverError::NoHeader);
    }
    let no_header = encode_changes(&[]);
    assert_eq!(
        recover(&no_header, LIMITS).unwrap_err(),
        RecoverError::NoHeader
    );
}

#[test]
fn another_format_is_named() {
    let json = br#"{"header":{"format":2,"life":"x"}}"#;
    let mut journal = u32::try_from(json.len()).unwrap().to_le_bytes().to_vec();
    journal.extend(crc32fast::hash(json).to_le_bytes());
    journal.extend(json);
    let error = recover(&journal, LIMITS).unwrap_err();
    assert_eq!(error, RecoverError::OtherFormat { found: 2 });
    assert!(
        error
            .to_string()
            .contains("format 2, and this version reads format 1")
    );
}

#[test]
fn an_id_that_was_given_again_is_that_of_the_newer_change() {
    let mut log = feed();
    let mut journal = bytes_of(&log);
    for id in ["again", "b", "c", "d", "again"] {
        append(&mut log, &mut journal, vec![data(id)]);
    }
    let more = FeedLimits {
        changes: 5,
        ..LIMITS
    };
    let mut recovered = recover(&journal, more).unwrap().log;
    let scope = ScopeId::default();
    assert_eq!(recovered.head(&scope), log.head(&scope));
    recovered.append(&scope, None, data("e"), 6).unwrap();
    let repeated = recovered.append(&scope, None, data("again"), 6).unwrap();
    assert_eq!(repeated.position(), log.head(&scope));
    let Since::Changes(missed) = recovered.since(&scope, &log.head(&scope)) else {
        panic!("inside the history");
    };
    assert_eq!(missed.len(), 1);
}

#[test]
fn where_the_policy_changed_last_outlives_the_history_and_the_server() {
    let mut log = feed();
    let scope = ScopeId::default();
    let announced = log.announced(&scope).unwrap();
    assert_eq!(announced.revision, Revision(5));
    for id in ["d", "e", "f", "g"] {
        log.append(&scope, None, data(id), 6).unwrap();
    }
    assert_eq!(log.change(&scope, Revision(5)), None);
    let recovered = recover(&bytes_of(&log), LIMITS).unwrap().log;
    assert_eq!(recovered.announced(&scope), Some(announced));
    assert_eq!(recovered.announced(&"other".into()), None);
}
