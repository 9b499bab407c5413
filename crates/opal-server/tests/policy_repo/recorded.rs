//! The repository behind the recordings of the released server, rebuilt: same ids, same bundles.

use opal_protocol::{CommitHash, PolicyBundle, RepoPath};
use opal_server::policy::{PolicyRepo, Selection};
use opal_testing::git_repo::TestRepo;
use serde_json::Value;

use crate::support::{Followed, settings};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/policy/", $name))
    };
}

/// The recorded history; the remote's branch is at its last commit.
fn history() -> (TestRepo, Vec<CommitHash>) {
    let recorded: Value = serde_json::from_str(fixture!("repo-history.json")).unwrap();
    let mut remote = TestRepo::empty().unwrap();
    let mut ids = Vec::new();
    for recorded in recorded["commits"].as_array().unwrap() {
        let mut commit = remote.commit().unwrap().clear();
        for (path, text) in recorded["files"].as_object().unwrap() {
            commit = commit.file(path, text.as_str().unwrap()).unwrap();
        }
        let commit = commit
            .message(recorded["message"].as_str().unwrap())
            .date(recorded["commit_date"].as_str().unwrap());
        let id = commit.push().unwrap();
        assert_eq!(
            id.as_str(),
            recorded["commit"],
            "the repository is not the recorded one"
        );
        ids.push(id);
    }
    (remote, ids)
}

async fn at(commit: usize) -> (Followed, Vec<CommitHash>) {
    let (remote, ids) = history();
    remote.force(&ids[commit]).unwrap();
    let followed = Followed::new(remote);
    followed.repo.sync().await.unwrap();
    (followed, ids)
}

fn compact(pretty: &str) -> String {
    // Keeps the order of members, and with it the bytes.
    serde_json::from_str::<Value>(pretty).unwrap().to_string()
}

async fn encoded(repo: &PolicyRepo, directories: &[&str], base: Option<&str>) -> String {
    let directories: Vec<RepoPath> = directories.iter().map(|d| RepoPath::from(*d)).collect();
    let encoded = repo.bundle(&directories, base).await.unwrap();
    String::from_utf8(encoded.to_vec()).unwrap()
}

#[tokio::test]
async fn complete_bundles_are_the_recorded_ones() {
    let (followed, _) = at(0).await;
    for (directories, recorded) in [
        (&[][..], fixture!("bundle-complete-c1.json")),
        (&["."], fixture!("bundle-complete-c1.json")),
        (&["app"], fixture!("bundle-complete-c1-path-app.json")),
        (
            &["app", "lib"],
            fixture!("bundle-complete-c1-path-app-lib.json"),
        ),
        (
            &["lib", "app", "lib"],
            fixture!("bundle-complete-c1-path-app-lib.json"),
        ),
    ] {
        assert_eq!(
            encoded(&followed.repo, directories, None).await,
            compact(recorded)
        );
    }
}

#[tokio::test]
async fn diff_bundles_are_the_recorded_ones() {
    for (head, base, recorded) in [
        (1, 0, fixture!("bundle-diff-c1-c2.json")),
        (3, 2, fixture!("bundle-diff-c3-c4.json")),
    ] {
        let (followed, ids) = at(head).await;
        let diff = encoded(&followed.repo, &["."], Some(ids[base].as_str())).await;
        assert_eq!(diff, compact(recorded));
        assert_eq!(encoded(&followed.repo, &["."], Some("main~1")).await, diff);
    }
}

#[tokio::test]
async fn the_recorded_answer_and_notification_are_ours_byte_for_byte() {
    let (followed, ids) = at(1).await;
    let lines = include_str!("../fixtures/websocket/connection-policy-update.jsonl").lines();
    let recorded: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let answer = recorded
        .iter()
        .find(|line| {
            line["target"]
                .as_str()
                .is_some_and(|t| t.starts_with("/policy?"))
        })
        .unwrap();
    let diff = encoded(&followed.repo, &["."], Some(ids[0].as_str())).await;
    assert_eq!(diff, answer["response_body"].as_str().unwrap());

    let frame = recorded
        .iter()
        .find_map(|line| line["text"].as_str())
        .unwrap();
    let frame: Value = serde_json::from_str(frame).unwrap();
    let update = followed
        .repo
        .announcement(Some(&ids[0]), &ids[1])
        .await
        .unwrap();
    assert_eq!(
        serde_json::to_value(update.unwrap()).unwrap(),
        frame["request"]["arguments"]["data"]
    );
}

#[tokio::test]
async fn a_commit_without_tracked_files_is_not_announced_and_gives_an_empty_diff() {
    let (followed, ids) = at(2).await;
    let update = followed
        .repo
        .announcement(Some(&ids[1]), &ids[2])
        .await
        .unwrap();
    assert_eq!(update, None);
    for base in [&ids[1], &ids[2]] {
        let diff = followed.bundle(&["."], Some(base.as_str())).await;
        let empty = PolicyBundle {
            manifest: vec![],
            hash: ids[2].clone(),
            old_hash: Some(base.clone()),
            data_modules: vec![],
            policy_modules: vec![],
            deleted_files: None,
        };
        assert_eq!(diff, empty);
    }
}

#[tokio::test]
async fn an_unknown_base_gives_everything_and_a_file_as_path_nothing() {
    let (followed, _) = at(0).await;
    let complete = encoded(&followed.repo, &[], None).await;
    let unknown = "1".repeat(40);
    for base in [unknown.as_str(), "no-such-branch", ""] {
        assert_eq!(
            encoded(&followed.repo, &[], Some(base)).await,
            complete,
            "{base}"
        );
    }
    let nothing = followed.bundle(&["app/rbac.rego"], None).await;
    assert!(nothing.manifest.is_empty());
}

#[tokio::test]
async fn ignored_files_are_in_no_bundle_and_no_announcement() {
    let (remote, ids) = history();
    let selection = Selection::default().ignoring(["ignored/**", "lib/**", "doomed.*"]);
    let followed = Followed::with(remote, selection);
    followed.remote.force(&ids[0]).unwrap();
    followed.repo.sync().await.unwrap();
    let bundle = followed.bundle(&[], None).await;
    let manifest: Vec<&str> = bundle.manifest.iter().map(RepoPath::as_str).collect();
    assert_eq!(
        manifest,
        [
            "app/rbac.rego",
            "main.rego",
            "data.json",
            "app/old_name.rego",
            "app/users/data.json",
            "extra/data.json"
        ]
    );
    let everything = followed
        .repo
        .announcement(None, &ids[0])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(everything.old_policy_hash, everything.new_policy_hash);
    assert_eq!(
        everything.changed_directories,
        [".", "app", "app/users", "extra"].map(RepoPath::from)
    );
}

#[tokio::test]
async fn a_clone_that_the_released_server_made_is_used_and_kept() {
    let (remote, ids) = history();
    remote.force(&ids[0]).unwrap();
    let clones = tempfile::tempdir().unwrap();
    let place = clones.path().join("clones/opal_repo_clone");
    let (url, path) = (remote.url(), place.to_str().unwrap().to_owned());
    remote.git(&["clone", "--quiet", &url, &path]).unwrap();
    remote.force(&ids[1]).unwrap();
    let mut settings = settings(&url, &clones);
    settings.reuse_clone = true;

    let repo = PolicyRepo::new(settings, Selection::default());
    assert_eq!(repo.sync().await.unwrap(), ids[1]);
    let diff = encoded(&repo, &["."], Some("HEAD~1")).await;
    assert_eq!(diff, compact(fixture!("bundle-diff-c1-c2.json")));

    drop(repo);
    assert!(place.join(".git/HEAD").is_file());
}
