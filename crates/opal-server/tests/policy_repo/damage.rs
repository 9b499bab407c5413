//! Broken clones and remotes that do not answer.

use std::path::Path;
use std::time::Duration;

use opal_server::policy::{BundleError, PolicyRepo, Selection};
use opal_testing::git_repo::TestRepo;
use secrecy::SecretString;
use tokio::net::TcpListener;

use crate::support::{Announcements, Followed, Watching, settings, until_clones};

fn two_files() -> TestRepo {
    TestRepo::with_files(&[("a.rego", "package a\n"), ("lib/b.rego", "package b\n")]).unwrap()
}

/// Removes all objects of a repository.
fn remove_objects(clone: &Path) {
    std::fs::remove_dir_all(clone.join("objects")).unwrap();
    std::fs::create_dir(clone.join("objects")).unwrap();
}

#[tokio::test]
async fn a_damaged_clone_is_replaced_while_made_bundles_are_served() {
    let followed = Followed::new(two_files());
    let watching = Watching::start(&followed.repo, Announcements::default());
    watching.until(|status| status.announced.is_some()).await;
    let made = followed.bundle(&[], None).await;
    let damaged = followed.clone_directories().remove(0);
    remove_objects(&damaged);

    assert_eq!(followed.bundle(&[], None).await, made);
    let refused = followed
        .repo
        .bundle(&["lib".into()], None)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, BundleError::Unreadable { .. }),
        "{refused}"
    );
    assert_eq!(refused.detail(), None);

    watching.until(|status| status.rounds == 2).await;
    assert_eq!(followed.bundle(&["lib"], None).await.manifest.len(), 1);
    until_clones(&followed.clones, 1).await;
    assert!(!damaged.exists());
}

#[tokio::test]
async fn a_clone_that_vanished_is_made_again() {
    let followed = Followed::new(two_files());
    let head = followed.repo.sync().await.unwrap();
    std::fs::remove_dir_all(&followed.clone_directories()[0]).unwrap();
    assert_eq!(followed.repo.sync().await.unwrap(), head);
    assert_eq!(followed.bundle(&[], None).await.manifest.len(), 2);
}

#[tokio::test]
async fn locks_of_a_killed_git_do_not_stop_a_fetch() {
    let mut followed = Followed::new(two_files());
    followed.repo.sync().await.unwrap();
    let clone = followed.clone_directories().remove(0);
    for lock in ["HEAD.lock", "refs/heads/main.lock", "packed-refs.lock"] {
        std::fs::write(clone.join(lock), "").unwrap();
    }
    let commit = followed.remote.commit().unwrap();
    let head = commit.file("c.rego", "").unwrap().push().unwrap();
    assert_eq!(followed.repo.sync().await.unwrap(), head);
}

/// Processes whose environment or arguments mention `text`.
fn processes_mentioning(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap() {
        let process = process.unwrap().path();
        let read = |file| std::fs::read(process.join(file)).unwrap_or_default();
        let (environment, arguments) = (read("environ"), read("cmdline"));
        let mentions = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        if mentions(&environment) || mentions(&arguments) {
            found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    found
}

/// Returns once the last one is gone: the system ends what was killed when it gets to it.
async fn until_no_process_mentions(text: &str) {
    let gone = async {
        while !processes_mentioning(text).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_remote_that_never_answers_is_left_at_the_deadline_with_all_children() {
    // Connections are accepted by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap();
    for scheme in ["git", "ssh"] {
        let clones = tempfile::tempdir().unwrap();
        let url = format!("{scheme}://{place}/policies.git");
        let mut settings = settings(&url, &clones);
        settings.ssh_key = Some(SecretString::from("no_key"));
        settings.operation_timeout = Duration::from_millis(400);
        let repo = PolicyRepo::new(settings, Selection::default());

        let error = repo.sync().await.unwrap_err();

        assert_eq!(error.to_string(), format!("could not fetch from `{url}`"));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "`git ls-remote` was stopped after 400ms");
        until_no_process_mentions(&url).await;
    }
}

#[tokio::test]
async fn a_sync_that_is_dropped_leaves_no_process() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clones = tempfile::tempdir().unwrap();
    let url = format!("git://{}/policies.git", silent.local_addr().unwrap());
    let repo = PolicyRepo::new(settings(&url, &clones), Selection::default());
    tokio::select! {
        _ = repo.sync() => panic!("nobody answers"),
        connected = silent.accept() => drop(connected.unwrap()),
    }
    until_no_process_mentions(&url).await;
}

#[tokio::test]
async fn credentials_are_in_no_error() {
    let clones = tempfile::tempdir().unwrap();
    // A port where nobody listens: bound, then released.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("git://bob:hunter2@{place}/p.git?token=hunter3");
    let repo = PolicyRepo::new(settings(&url, &clones), Selection::default());
    let watching = Watching::start(&repo, Announcements::default());
    let error = watching
        .until(|status| status.error.is_some())
        .await
        .error
        .unwrap();
    assert!(!error.contains("hunter"), "{error}");
    assert!(!format!("{repo:?}").contains("hunter"));
    assert!(error.contains(&place.port().to_string()), "{error}");
}
