//! What happens to the remote, and what we make of it.

use std::time::Duration;

use opal_protocol::RepoPath;
use opal_server::policy::{BundleError, PolicyRepo, Selection, SourceError};
use opal_testing::git_repo::TestRepo;

use crate::support::{Announcements, Followed, Store, Watching, bundle, settings, until_clones};

fn one_file() -> TestRepo {
    TestRepo::with_files(&[("a.rego", "package a\n")]).unwrap()
}

fn add(remote: &mut TestRepo, path: &str) -> opal_protocol::CommitHash {
    let commit = remote.commit().unwrap();
    commit.file(path, "package x\n").unwrap().push().unwrap()
}

#[tokio::test]
async fn a_new_commit_is_announced_after_everything() {
    let mut followed = Followed::new(one_file());
    let first = followed.remote.head().unwrap();
    let watching = Watching::start(&followed.repo, Announcements::default());
    watching
        .until(|status| status.announced.as_ref() == Some(&first))
        .await;

    let second = add(&mut followed.remote, "lib/b.rego");
    let status = watching.look().await;

    assert_eq!(status.announced, Some(second.clone()));
    assert_eq!(status.head, Some(second.clone()));
    assert_eq!(status.error, None);
    assert!(status.last_success.is_some());
    let told = watching.announcements.all();
    assert_eq!(told.len(), 2);
    assert_eq!(
        (&told[0].old_policy_hash, &told[0].new_policy_hash),
        (&first, &first)
    );
    assert_eq!(
        (&told[1].old_policy_hash, &told[1].new_policy_hash),
        (&first, &second)
    );
    assert_eq!(
        told[1].changed_directories,
        [".", "lib"].map(RepoPath::from)
    );
}

#[tokio::test]
async fn what_was_announced_before_a_restart_is_neither_repeated_nor_skipped() {
    let mut followed = Followed::new(one_file());
    let first = followed.remote.head().unwrap();
    let watching = Watching::start(&followed.repo, Announcements::after(&first));
    let status = watching.until(|status| status.rounds == 1).await;
    assert_eq!(status.announced, Some(first.clone()));
    assert_eq!(status.position.unwrap().revision.0, 7);
    assert_eq!(status.error, None);
    assert_eq!(watching.announcements.all(), []);
    drop(watching);

    let second = add(&mut followed.remote, "lib/b.rego");
    let watching = Watching::start(&followed.repo, Announcements::after(&first));
    let status = watching.until(|status| status.rounds == 1).await;
    assert_eq!(status.announced, Some(second.clone()));
    let told = watching.announcements.all();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0].old_policy_hash, &told[0].new_policy_hash),
        (&first, &second)
    );
}

#[tokio::test]
async fn a_kept_clone_that_may_be_older_than_the_feed_is_not_announced() {
    let mut followed = Followed::new(one_file());
    followed.repo.sync().await.unwrap();
    let later = add(&mut followed.remote, "b.rego");
    let hidden = followed.remote.hide().unwrap();
    let watching = Watching::start(&followed.repo, Announcements::after(&later));
    let status = watching.until(|status| status.rounds == 1).await;
    assert_eq!(status.last_sync, None);
    assert_eq!(watching.announcements.all(), []);
    drop(hidden);
    let status = watching.look().await;
    assert_eq!(status.head, Some(later));
    assert_eq!(watching.announcements.all(), []);
}

#[tokio::test]
async fn a_check_ends_after_a_look_that_began_after_it_was_asked_for() {
    let mut followed = Followed::new(one_file());
    let watching = Watching::start(&followed.repo, Announcements::default());
    watching.until(|status| status.announced.is_some()).await;
    let second = add(&mut followed.remote, "b.rego");
    let status = watching.handle.check().await.unwrap();
    assert_eq!(status.announced, Some(second));
    assert_eq!(status.position.unwrap().revision.0, 2);
    let (one, other) = tokio::join!(watching.handle.check(), watching.handle.check());
    assert!(one.is_some() && other.is_some());
}

#[tokio::test]
async fn polling_finds_a_commit_without_a_trigger() {
    let mut followed = Followed::new(one_file());
    let interval = Some(Duration::from_millis(20));
    let watching = Watching::polling(&followed.repo, Announcements::default(), interval);
    watching.until(|status| status.announced.is_some()).await;
    let second = add(&mut followed.remote, "b.rego");
    watching
        .until(|status| status.announced.as_ref() == Some(&second))
        .await;
}

#[tokio::test]
async fn a_commit_counts_as_announced_only_when_that_succeeded() {
    let followed = Followed::new(one_file());
    let watching = Watching::start(&followed.repo, Announcements::failing(1));
    let failed = watching.until(|status| status.rounds == 1).await;
    assert_eq!(failed.announced, None);
    assert_eq!(failed.error.as_deref(), Some("the publisher is down"));
    assert_eq!(failed.head, followed.repo.head());

    let status = watching.look().await;
    assert_eq!(status.announced, followed.repo.head());
    assert_eq!(watching.announcements.all().len(), 1);
}

#[tokio::test]
async fn an_unannounced_commit_is_announced_even_if_the_remote_is_gone() {
    let followed = Followed::new(one_file());
    followed.repo.sync().await.unwrap();
    let _hidden = followed.remote.hide().unwrap();
    let watching = Watching::start(&followed.repo, Announcements::default());
    let status = watching.until(|status| status.rounds == 1).await;
    assert!(
        status
            .error
            .unwrap()
            .starts_with("could not fetch from `file://")
    );
    assert_eq!(status.announced, followed.repo.head());
}

#[tokio::test]
async fn a_repository_that_is_unreachable_at_start_is_cloned_once_it_is_there() {
    let followed = Followed::new(one_file());
    let hidden = followed.remote.hide().unwrap();
    let watching = Watching::start(&followed.repo, Announcements::default());
    let status = watching.until(|status| status.rounds == 1).await;
    assert!(status.error.is_some());
    let refused = followed.repo.bundle(&[], None).await.unwrap_err();
    assert_eq!(refused.detail().unwrap(), "policy repo was not found");
    // A failed clone leaves nothing.
    until_clones(&followed.clones, 0).await;

    drop(hidden);
    let status = watching.look().await;
    assert_eq!(status.error, None);
    assert_eq!(followed.bundle(&[], None).await.manifest.len(), 1);
}

#[tokio::test]
async fn an_empty_repository_is_reported_and_served_once_it_has_a_commit() {
    let mut followed = Followed::new(TestRepo::empty().unwrap());
    let error = followed.repo.sync().await.unwrap_err();
    assert!(matches!(error, SourceError::Empty { .. }), "{error}");
    let refused = followed.repo.bundle(&[], None).await.unwrap_err();
    assert_eq!(refused.detail().unwrap(), "policy repo is not ready");

    let head = add(&mut followed.remote, "a.rego");
    assert_eq!(followed.repo.sync().await.unwrap(), head);
    assert_eq!(followed.bundle(&[], None).await.hash, head);
}

#[tokio::test]
async fn a_deleted_branch_is_served_from_memory_and_followed_again_when_it_returns() {
    let mut followed = Followed::new(one_file());
    let first = followed.repo.sync().await.unwrap();
    followed.remote.create_branch("other", &first).unwrap();
    followed.remote.delete_branch().unwrap();
    let error = followed.repo.sync().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}` has no branch `main`", followed.remote.url())
    );
    assert_eq!(followed.bundle(&[], None).await.hash, first);

    let commit = followed.remote.unrelated_commit();
    let again = commit
        .file("b.rego", "package b\n")
        .unwrap()
        .push()
        .unwrap();
    assert_eq!(followed.repo.sync().await.unwrap(), again);
    let mut store = Store::of(&followed.bundle(&[], Some("HEAD")).await);
    assert_eq!(store, Store::default());
    store
        .policies
        .insert("a.rego".to_owned(), "package a\n".to_owned());
    store.apply(&followed.bundle(&[], Some(first.as_str())).await);
    assert_eq!(store, Store::of(&followed.bundle(&[], None).await));
}

#[tokio::test]
async fn a_force_push_is_a_change_like_any_other_and_old_bases_still_work() {
    let mut followed = Followed::new(one_file());
    let root = followed.repo.sync().await.unwrap();
    let abandoned = add(&mut followed.remote, "abandoned.rego");
    followed.repo.sync().await.unwrap();
    let mut store = Store::of(&followed.bundle(&[], None).await);

    followed.remote.force(&root).unwrap();
    let replaced = add(&mut followed.remote, "replaced.rego");
    followed.remote.prune().unwrap();
    assert_eq!(followed.repo.sync().await.unwrap(), replaced);

    let update = followed
        .repo
        .announcement(Some(&abandoned), &replaced)
        .await
        .unwrap();
    assert_eq!(update.unwrap().old_policy_hash, abandoned);
    store.apply(&followed.bundle(&[], Some(abandoned.as_str())).await);
    assert_eq!(store, Store::of(&followed.bundle(&[], None).await));
}

#[tokio::test]
async fn a_base_that_could_not_be_looked_up_is_looked_up_again() {
    let mut followed = Followed::new(one_file());
    let first = followed.repo.sync().await.unwrap();
    add(&mut followed.remote, "b.rego");
    followed.repo.sync().await.unwrap();
    let complete = followed.bundle(&[], None).await;

    let head = followed.clone_directories()[0].join("HEAD");
    let aside = head.with_extension("aside");
    std::fs::rename(&head, &aside).unwrap();
    let base = Some(first.as_str());
    assert_eq!(followed.bundle(&[], base).await, complete);
    std::fs::rename(&aside, &head).unwrap();

    let diff = followed.bundle(&[], base).await;
    assert_eq!(diff.manifest, ["b.rego"].map(RepoPath::from));
}

#[tokio::test]
async fn triggers_do_not_hurry_a_watcher_that_fails() {
    let followed = Followed::new(one_file());
    let _hidden = followed.remote.hide().unwrap();
    let start = std::time::Instant::now();
    let watching = Watching::start(&followed.repo, Announcements::default());
    let rounds = loop {
        watching.handle.trigger();
        tokio::time::sleep(Duration::from_millis(5)).await;
        if start.elapsed() > Duration::from_millis(1500) {
            break watching.handle.status().borrow().rounds;
        }
    };
    let seconds = start.elapsed().as_secs();
    assert!(rounds <= seconds + 1, "{rounds} rounds in {seconds} s");
    assert!(rounds > 0);
}

#[tokio::test]
async fn a_base_that_is_gone_means_everything() {
    let followed = Followed::new(one_file());
    let head = followed.repo.sync().await.unwrap();
    let gone = opal_protocol::CommitHash::parse(&"1".repeat(40)).unwrap();
    let update = followed
        .repo
        .announcement(Some(&gone), &head)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(update.old_policy_hash, head);
    assert_eq!(update.new_policy_hash, head);
}

#[tokio::test]
async fn a_sha256_repository_is_followed() {
    let mut followed = Followed::new(TestRepo::empty_sha256().unwrap());
    let first = add(&mut followed.remote, "a.rego");
    assert_eq!(followed.repo.sync().await.unwrap(), first);
    let second = add(&mut followed.remote, "b.rego");
    assert_eq!(followed.repo.sync().await.unwrap(), second);
    assert_eq!(second.as_str().len(), 64);
    let diff = followed.bundle(&[], Some(first.as_str())).await;
    assert_eq!(diff.manifest, ["b.rego"].map(RepoPath::from));
}

#[tokio::test]
async fn a_kept_clone_is_served_at_a_restart_while_the_remote_is_away() {
    let remote = one_file();
    let clones = tempfile::tempdir().unwrap();
    let mut settings = settings(&remote.url(), &clones);
    settings.reuse_clone = true;
    let before = PolicyRepo::new(settings.clone(), Selection::default());
    let head = before.sync().await.unwrap();
    drop(before);

    let _hidden = remote.hide().unwrap();
    let after = PolicyRepo::new(settings, Selection::default());
    assert!(after.sync().await.is_err());
    assert_eq!(after.head(), Some(head.clone()));
    assert_eq!(bundle(&after, &[], None).await.hash, head);
}

#[tokio::test]
async fn a_kept_clone_of_another_repository_is_replaced() {
    let (one, other) = (one_file(), TestRepo::with_files(&[("o.rego", "")]).unwrap());
    let clones = tempfile::tempdir().unwrap();
    for remote in [&one, &other] {
        let mut settings = settings(&remote.url(), &clones);
        settings.reuse_clone = true;
        let repo = PolicyRepo::new(settings, Selection::default());
        assert_eq!(repo.sync().await.unwrap(), remote.head().unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(clones.path().join("clones"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn a_kept_clone_that_another_server_uses_is_left_to_it() {
    let remote = one_file();
    let clones = tempfile::tempdir().unwrap();
    let mut settings = settings(&remote.url(), &clones);
    settings.reuse_clone = true;
    let one = PolicyRepo::new(settings.clone(), Selection::default());
    let other = PolicyRepo::new(settings, Selection::default());
    let head = one.sync().await.unwrap();
    assert_eq!(other.sync().await.unwrap(), head);
    let place = clones.path().join("clones");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2);
    drop(other);
    until_clones(&clones, 1).await;
    assert_eq!(bundle(&one, &[], None).await.hash, head);
}

#[tokio::test]
async fn a_clone_that_is_not_kept_goes_with_its_process() {
    let followed = Followed::new(one_file());
    followed.repo.sync().await.unwrap();
    assert_eq!(followed.clone_directories().len(), 1);
    let Followed { clones, repo, .. } = followed;
    drop(repo);
    until_clones(&clones, 0).await;
}

#[tokio::test]
async fn a_missing_branch_at_start_is_no_clone() {
    let remote = one_file();
    let clones = tempfile::tempdir().unwrap();
    let mut settings = settings(&remote.url(), &clones);
    settings.branch = "release".to_owned();
    let repo = PolicyRepo::new(settings, Selection::default());
    let error = repo.sync().await.unwrap_err();
    assert!(matches!(error, SourceError::NoSuchBranch { .. }), "{error}");
    let refused = repo.bundle(&[], None).await.unwrap_err();
    assert!(matches!(refused, BundleError::NotCloned));
}
