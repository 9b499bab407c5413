//! Requests and repositories that mean harm, or only look odd.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use opal_protocol::{PolicyBundle, RepoPath};
use opal_runtime::config::{CommandLine, Environment, Program, Settings};
use opal_server::config::ServerConfig;
use opal_server::policy::{BundleError, Selection};
use opal_testing::git_repo::TestRepo;

use crate::support::Followed;

async fn followed(remote: TestRepo) -> Followed {
    let followed = Followed::new(remote);
    followed.repo.sync().await.unwrap();
    followed
}

fn manifest(bundle: &PolicyBundle) -> Vec<&str> {
    bundle.manifest.iter().map(RepoPath::as_str).collect()
}

#[tokio::test]
async fn a_hostile_base_is_an_unknown_one() {
    let followed = followed(TestRepo::with_files(&[("a.rego", "package a\n")]).unwrap()).await;
    let complete = followed.bundle(&[], None).await;
    let long = "a".repeat(100_000);
    for base in [
        "--upload-pack=x",
        "-h",
        "--batch-all-objects",
        "HEAD\nHEAD",
        "a b",
        ":/.",
        "HEAD^{/.}",
        "HEAD@{u",
        "HEAD@{100 years ago}",
        "@{upstream}",
        "HEAD~99999999999999999999",
        "HEAD:../../etc/passwd",
        "\0",
        &long,
    ] {
        assert_eq!(followed.bundle(&[], Some(base)).await, complete, "{base:?}");
    }
}

#[tokio::test]
async fn a_base_that_is_no_commit_is_refused_unless_the_path_is_wrong_too() {
    let followed = followed(TestRepo::with_files(&[("app/a.rego", "package a\n")]).unwrap()).await;
    let tree = followed.remote.resolve("main^{tree}").unwrap();
    let blob = followed.remote.resolve("main:app/a.rego").unwrap();
    for base in [tree.as_str(), blob.as_str(), "HEAD^{tree}", "HEAD:app"] {
        let refused = followed.repo.bundle(&[], Some(base)).await.unwrap_err();
        assert_eq!(
            refused.detail().unwrap(),
            format!("commit with hash {base} was not found in the policy repo!")
        );
        let refused = followed
            .repo
            .bundle(&["x".into()], Some(base))
            .await
            .unwrap_err();
        assert_eq!(
            refused.detail().unwrap(),
            "requested path x was not found in the policy repo!"
        );
    }
}

#[tokio::test]
async fn paths_that_are_not_in_the_commit_are_refused() {
    let followed = followed(TestRepo::with_files(&[("app/a.rego", "")]).unwrap()).await;
    for path in ["ap", "app/a", "..", "app/../app", "app/a.rego/x", "--", "*"] {
        let refused = followed
            .repo
            .bundle(&[path.into()], None)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, BundleError::PathNotFound { .. }),
            "{path}: {refused}"
        );
    }
}

#[tokio::test]
async fn odd_names_are_served_as_they_are() {
    let names = [
        "a b.rego",
        "q\"uote.rego",
        "new\nline.rego",
        "tab\t.rego",
        "é.rego",
        "-x.rego",
        "b\\.rego",
    ];
    let mut remote = TestRepo::empty().unwrap();
    let mut commit = remote.commit().unwrap();
    for name in names {
        commit = commit.file(name, "package odd\n").unwrap();
    }
    commit.push().unwrap();
    let followed = followed(remote).await;
    let bundle = followed.bundle(&[], None).await;
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(manifest(&bundle), expected);
}

#[tokio::test]
async fn a_module_or_name_that_is_not_utf8_fails_the_request_and_is_named() {
    let mut remote = TestRepo::with_files(&[("ok/a.rego", "package a\n")]).unwrap();
    let commit = remote.commit().unwrap();
    let commit = commit
        .bytes("app/latin.rego", b"package a # \xe9\n")
        .unwrap();
    let name = OsStr::from_bytes(b"bad/\xff.rego");
    let commit = commit.bytes(name, b"package b\n").unwrap();
    commit
        .bytes("notes/\u{e9}.txt", b"\xff")
        .unwrap()
        .push()
        .unwrap();
    let followed = followed(remote).await;
    for (directory, message) in [
        ("app", "`app/latin.rego` is not UTF-8: its content"),
        ("bad", "`bad/\u{fffd}.rego` is not UTF-8: its name"),
    ] {
        let refused = followed
            .repo
            .bundle(&[directory.into()], None)
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), message);
        assert_eq!(refused.detail(), None);
    }
    let others = followed.bundle(&["ok", "notes"], None).await;
    assert_eq!(manifest(&others), ["ok/a.rego"]);
}

#[tokio::test]
async fn symbolic_links_and_submodules_are_not_served() {
    let mut remote =
        TestRepo::with_files(&[("a.rego", "package a\n"), ("b.rego", "package b\n")]).unwrap();
    let first = remote.head().unwrap();
    let commit = remote.commit().unwrap().submodule("vendor");
    let commit = commit.symlink("link.rego", "a.rego").unwrap();
    commit.symlink("b.rego", "a.rego").unwrap().push().unwrap();
    let followed = followed(remote).await;
    assert_eq!(manifest(&followed.bundle(&[], None).await), ["a.rego"]);
    let diff = followed.bundle(&[], Some(first.as_str())).await;
    assert!(diff.manifest.is_empty());
    assert_eq!(
        diff.deleted_files.unwrap().policy_modules,
        ["b.rego"].map(RepoPath::from)
    );
}

#[tokio::test]
async fn the_manifest_of_the_new_commit_orders_a_diff() {
    let mut remote = TestRepo::with_files(&[
        (".manifest", "lib\n"),
        ("a.rego", "package a\n"),
        ("lib/gone1.rego", "package lib.gone1\nx = 1\n"),
        ("lib/gone2.rego", "package lib.gone2\ny = 2\n"),
        (
            "lib/old.rego",
            "package lib.old\n\nlong enough to be found = 1\n",
        ),
    ])
    .unwrap();
    let base = remote.head().unwrap();
    let commit = remote.commit().unwrap();
    let commit = commit.file("lib/.manifest", "z.rego\nnew.rego\n").unwrap();
    let commit = commit.file("lib/z.rego", "package z\n").unwrap();
    let commit = commit.file("a.rego", "package a.changed\n").unwrap();
    let commit = commit.rename("lib/old.rego", "lib/new.rego");
    commit
        .remove("lib/gone1.rego")
        .remove("lib/gone2.rego")
        .push()
        .unwrap();
    let followed = followed(remote).await;
    let diff = followed.bundle(&[], Some(base.as_str())).await;
    assert_eq!(manifest(&diff), ["lib/z.rego", "lib/new.rego", "a.rego"]);
    assert_eq!(
        diff.deleted_files.unwrap().policy_modules,
        ["lib/old.rego", "lib/gone2.rego", "lib/gone1.rego"].map(RepoPath::from)
    );
}

#[tokio::test]
async fn many_requests_at_once_share_one_bundle() {
    let followed = followed(TestRepo::with_files(&[("a.rego", "package a\n")]).unwrap()).await;
    let requests = (0..64).map(|_| followed.repo.bundle(&[], None));
    let answers = futures_util::future::join_all(requests).await;
    let first = answers[0].as_ref().unwrap();
    for answer in &answers {
        // The same memory, not only the same text.
        assert_eq!(answer.as_ref().unwrap().as_ptr(), first.as_ptr());
    }
}

#[tokio::test]
async fn a_selection_without_extensions_serves_all_policy_files() {
    let remote = TestRepo::with_files(&[("a.rego", "package a\n"), ("data.json", "{}")]).unwrap();
    let selection = Selection::default().with_extensions([]);
    let followed = Followed::with(remote, selection);
    followed.repo.sync().await.unwrap();
    assert_eq!(
        manifest(&followed.bundle(&[], None).await),
        ["a.rego", "data.json"]
    );
}

#[test]
fn a_branch_name_that_git_refuses_is_refused_at_start() {
    let read = |branch: &str| {
        let environment = Environment::of([
            ("OPAL_POLICY_REPO_URL", "https://git.example.com/p.git"),
            ("OPAL_POLICY_REPO_MAIN_BRANCH", branch),
        ]);
        let settings = Settings::collect(Program::Server, &CommandLine::default(), &environment);
        ServerConfig::read(&settings).map_err(|errors| errors.to_string())
    };
    assert!(read("release/1.0").is_ok());
    for branch in ["a..b", "-x", "my branch", "main:other"] {
        let refused = read(branch).unwrap_err();
        let expected = "expected a branch name that git accepts";
        assert!(
            refused.contains("OPAL_POLICY_REPO_MAIN_BRANCH"),
            "{refused}"
        );
        assert!(refused.contains(expected), "{refused}");
    }
}
