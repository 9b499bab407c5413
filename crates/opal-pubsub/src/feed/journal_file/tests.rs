use std::os::unix::fs::PermissionsExt;

use opal_protocol::{Document, Position, ScopeId};
use tempfile::TempDir;

use super::faulty::{Faults, Faulty};
use super::*;
use crate::feed::test_drafts::{data, put};
use crate::feed::{ChangeDraft, Payload};

const EPOCH: Epoch = Epoch(7);

/// A feed and its journal, used as a server does.
struct Bench {
    journal: Journal,
    log: FeedLog,
    disk: Faulty,
}

impl Bench {
    fn open(directory: &TempDir) -> Self {
        let disk = Faulty::default();
        let (journal, log) = disk.open(&place(directory), EPOCH).unwrap();
        Self { journal, log, disk }
    }

    /// Accepts these as one, or refuses all of them.
    fn publish(&mut self, drafts: Vec<ChangeDraft>) -> Result<Position, JournalError> {
        let image = self.journal.needs_rotation().then(|| self.log.image());
        let mut changes = Vec::new();
        for draft in drafts {
            let appended = self.log.stage(&scope(), None, draft, 0).unwrap();
            let super::super::Appended::New(change) = appended else {
                panic!("each id once");
            };
            changes.push(change);
        }
        let stored = self.journal.store(image.as_ref(), &changes);
        match &stored {
            Ok(()) => self.log.commit_staged(),
            Err(_) => self.log.discard_staged(),
        }
        stored.map(|()| self.log.head(&scope()))
    }
}

fn scope() -> ScopeId {
    ScopeId::default()
}

fn place(directory: &TempDir) -> PathBuf {
    directory.path().join("state/feed")
}

fn reopened(directory: &TempDir) -> (Journal, FeedLog) {
    Journal::open(&place(directory), FeedLimits::default(), Epoch(99)).unwrap()
}

fn files(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(place(directory)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_feed_outlives_its_server_with_its_epoch() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![put("a", "/a"), put("b", "/b")]).unwrap();
    let head = bench.publish(vec![put("c", "/a")]).unwrap();
    let appended = bench.journal.appended();
    drop(bench);
    let (journal, mut log) = reopened(&directory);
    assert_eq!((log.epoch(), log.head(&scope())), (EPOCH, head));
    assert_eq!(log.base(&scope(), &["t".into()]).entries.len(), 2);
    assert!(appended > 0);
    assert_eq!(journal.appended(), appended);
}

#[test]
fn a_journal_is_for_its_owner_alone() {
    let directory = TempDir::new().unwrap();
    fs::create_dir_all(place(&directory)).unwrap();
    let _bench = Bench::open(&directory);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place(&directory)), 0o700);
    for name in files(&directory) {
        assert_eq!(mode(&place(&directory).join(&name)), 0o600, "{name}");
    }
}

#[test]
fn a_second_process_is_refused() {
    let directory = TempDir::new().unwrap();
    let _bench = Bench::open(&directory);
    let second = Journal::open(&place(&directory), FeedLimits::default(), EPOCH);
    let error = second.unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
}

#[test]
fn a_torn_tail_is_cut_off_and_what_follows_is_kept() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![data("a")]).unwrap();
    let path = bench.journal.path.clone();
    drop(bench);
    let mut torn = fs::read(&path).unwrap();
    let whole = torn.len();
    torn.extend(b"\x50\0\0\0half a rec");
    fs::write(&path, &torn).unwrap();
    let mut bench = Bench::open(&directory);
    assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64);
    let head = bench.publish(vec![data("b")]).unwrap();
    drop(bench);
    assert_eq!(reopened(&directory).1.head(&scope()), head);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_accepted() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    let accepted = bench.publish(vec![data("a")]).unwrap();
    for space in [0, 5, 50] {
        bench.disk.set(|faults| faults.space = Some(space));
        let refused = bench.publish(vec![data("b"), data("c")]);
        assert!(matches!(refused, Err(JournalError::Write { .. })));
        assert_eq!(bench.log.head(&scope()), accepted);
    }
    bench.disk.set(|faults| faults.space = None);
    let head = bench.publish(vec![data("d")]).unwrap();
    assert_eq!(head.revision.0, 2);
    drop(bench);
    assert_eq!(reopened(&directory).1.head(&scope()), head);
}

#[test]
fn a_file_in_doubt_is_replaced_before_anything_is_accepted() {
    let faults: [fn(&mut Faults); 2] = [
        |faults| faults.sync = true,
        |faults| (faults.space, faults.truncate) = (Some(20), true),
    ];
    for fault in faults {
        let directory = TempDir::new().unwrap();
        let mut bench = Bench::open(&directory);
        let accepted = bench.publish(vec![data("a")]).unwrap();
        bench.disk.set(fault);
        bench.publish(vec![data("b")]).unwrap_err();
        assert!(bench.journal.needs_rotation());
        let untrusted = bench.journal.append(&[]).unwrap_err();
        assert!(matches!(untrusted, JournalError::Untrusted { .. }));
        bench.publish(vec![data("b")]).unwrap_err();
        assert_eq!(bench.log.head(&scope()), accepted);
        bench.disk.set(|faults| *faults = Faults::default());
        let head = bench.publish(vec![data("c")]).unwrap();
        drop(bench);
        assert_eq!(files(&directory), ["feed-00000002.log", "lock"]);
        assert_eq!(reopened(&directory).1.head(&scope()), head);
    }
}

#[test]
fn a_new_generation_holds_what_the_old_one_did() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![data("a")]).unwrap();
    assert!(!bench.journal.needs_rotation());
    bench.journal.rotate_at = bench.journal.len + 1;
    bench.publish(vec![data("b")]).unwrap();
    assert!(bench.journal.needs_rotation());
    let head = bench.publish(vec![data("c")]).unwrap();
    assert!(!bench.journal.needs_rotation());
    assert_eq!(files(&directory), ["feed-00000002.log", "lock"]);
    drop(bench);
    assert_eq!(reopened(&directory).1.head(&scope()), head);
}

#[test]
fn a_generation_may_grow_by_sixteen_megabytes_or_to_three_times_its_size() {
    assert_eq!(growth_of(0), 16 << 20);
    assert_eq!(growth_of(100 << 20), 300 << 20);
}

#[test]
fn a_generation_that_cannot_be_begun_leaves_the_old_one_in_use() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![data("a")]).unwrap();
    bench.disk.set(|faults| faults.space = Some(10));
    bench.journal.rotate(&bench.log.image()).unwrap_err();
    bench.disk.set(|faults| faults.space = None);
    assert_eq!(files(&directory), ["feed-00000001.log", "lock"]);
    let head = bench.publish(vec![data("b")]).unwrap();
    drop(bench);
    assert_eq!(reopened(&directory).1.head(&scope()), head);
}

#[test]
fn a_generation_whose_name_may_not_last_is_not_relied_on() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![data("a")]).unwrap();
    bench.disk.set(|faults| faults.directory = true);
    bench.journal.rotate(&bench.log.image()).unwrap_err();
    assert_eq!(
        files(&directory),
        ["feed-00000001.log", "feed-00000002.log", "lock"]
    );
    bench.publish(vec![data("b")]).unwrap_err();
    bench.disk.set(|faults| faults.directory = false);
    let head = bench.publish(vec![data("c")]).unwrap();
    drop(bench);
    assert_eq!(reopened(&directory).1.head(&scope()), head);
}

#[test]
fn what_a_crash_left_beside_the_journal_is_removed() {
    let directory = TempDir::new().unwrap();
    let mut bench = Bench::open(&directory);
    bench.publish(vec![data("a")]).unwrap();
    let old = bench.journal.path.clone();
    let kept = place(&directory).join("kept");
    fs::copy(&old, &kept).unwrap();
    bench.journal.rotate(&bench.log.image()).unwrap();
    let head = bench.publish(vec![data("b")]).unwrap();
    drop(bench);
    fs::rename(&kept, &old).unwrap();
    fs::write(place(&directory).join("feed-00000003.tmp"), "half").unwrap();
    let (_journal, log) = reopened(&directory);
    assert_eq!(log.head(&scope()), head);
    assert_eq!(files(&directory), ["feed-00000002.log", "lock"]);
}

#[test]
fn a_journal_that_cannot_be_used_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = Bench::open(&directory).journal.path;
    for contents in [&b""[..], b"\x50\0\0\0", b"text that is no journal"] {
        fs::write(&path, contents).unwrap();
        let opened = Journal::open(&place(&directory), FeedLimits::default(), EPOCH);
        let error = opened.unwrap_err();
        let JournalError::Unusable { source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(source, RecoverError::NoHeader);
        assert_eq!(fs::read(&path).unwrap(), contents);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("state"), "a file").unwrap();
    let opened = Journal::open(&place(&directory), FeedLimits::default(), EPOCH);
    let error = opened.unwrap_err();
    assert!(matches!(error, JournalError::Directory { .. }), "{error}");
}

#[test]
fn a_full_disk_at_the_start_is_an_error_and_no_journal() {
    let directory = TempDir::new().unwrap();
    let disk = Faulty::default();
    disk.set(|faults| faults.space = Some(10));
    let opened = disk.open(&place(&directory), EPOCH);
    assert!(matches!(opened.unwrap_err(), JournalError::Write { .. }));
    assert_eq!(files(&directory), ["lock"]);
    assert_eq!(reopened(&directory).1.epoch(), Epoch(99));
}

#[test]
fn a_journal_whose_server_is_restarted_often_rotates_as_any_other() {
    let directory = TempDir::new().unwrap();
    let large = "x".repeat(4 * 1024 * 1024);
    for n in 0..6 {
        let mut bench = Bench::open(&directory);
        let mut draft = data(&n.to_string());
        draft.payload = Payload::Message(Document::from(&serde_json::Value::from(large.as_str())));
        bench.publish(vec![draft]).unwrap();
    }
    assert_eq!(files(&directory), ["feed-00000002.log", "lock"]);
}

#[test]
fn the_names_of_directories_that_had_to_be_made_are_durable() {
    let directory = TempDir::new().unwrap();
    let bench = Bench::open(&directory);
    let mut synced = Vec::new();
    bench.disk.set(|faults| synced = faults.synced.clone());
    let expected = [
        directory.path(),
        &directory.path().join("state"),
        &place(&directory),
    ];
    assert_eq!(synced, expected);
}
