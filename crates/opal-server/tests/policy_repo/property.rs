//! A diff is right if it leads where the complete bundle leads.

use opal_server::policy::Selection;
use opal_testing::git_repo::TestRepo;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::support::{Followed, Store};

/// Paths that differ in what matters: kind, directory, ignored or not, order.
const PATHS: [&str; 12] = [
    "a.rego",
    "data.json",
    "app/a.rego",
    "app/b.rego",
    "app/data.json",
    "app/deep/c.rego",
    "app-x/d.rego",
    "lib/e.rego",
    "lib/data.json",
    "lib/notes.txt",
    "skip/f.rego",
    "skip/data.json",
];

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u8),
    Remove(usize),
    Rename(usize, usize),
    Link(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), 0..4_u8).prop_map(|(path, text)| Edit::Write(path, text)),
        2 => path().prop_map(Edit::Remove),
        3 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => path().prop_map(Edit::Link),
    ]
}

/// Long enough to be alike, so that git finds renames with small edits.
fn text(path: &str, variant: u8) -> String {
    format!("package p\n\n# one\n# two\n# three\n# four\n# {path}\n\nx = {variant}\n")
}

fn commit(remote: &mut TestRepo, edits: &[Edit]) -> String {
    let mut commit = remote.commit().unwrap();
    for edit in edits {
        commit = match *edit {
            Edit::Write(at, variant) => commit.file(PATHS[at], &text(PATHS[at], variant)).unwrap(),
            Edit::Remove(at) => commit.remove(PATHS[at]),
            Edit::Rename(from, to) => commit.rename(PATHS[from], PATHS[to]),
            Edit::Link(at) => commit.symlink(PATHS[at], "elsewhere").unwrap(),
        };
    }
    // Directories that are asked for exist in every commit.
    let commit = commit.file("app/keep.txt", "").unwrap();
    commit.push().unwrap().to_string()
}

async fn check(history: Vec<Vec<Edit>>) -> Result<(), TestCaseError> {
    let mut remote = TestRepo::empty().unwrap();
    let mut seen: Vec<(String, [Store; 2])> = Vec::new();
    let base = commit(&mut remote, &history[0]);
    let selection = Selection::default().ignoring(["skip/**"]);
    let followed = &mut Followed::with(remote, selection);
    let asked: [&[&str]; 2] = [&["."], &["app"]];
    let mut head = base;
    for edits in &history[1..] {
        followed.repo.sync().await.unwrap();
        let mut stores = [Store::default(), Store::default()];
        for (store, directories) in stores.iter_mut().zip(asked) {
            *store = Store::of(&followed.bundle(directories, None).await);
        }
        seen.push((head, stores));
        head = commit(&mut followed.remote, edits);
    }
    followed.repo.sync().await.unwrap();
    for (base, stores) in seen {
        for (mut store, directories) in stores.into_iter().zip(asked) {
            store.apply(&followed.bundle(directories, Some(&base)).await);
            let complete = Store::of(&followed.bundle(directories, None).await);
            prop_assert_eq!(store, complete, "{} {:?}", base, directories);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_applied_to_its_base_equals_the_complete_bundle(
        history in prop::collection::vec(prop::collection::vec(edit(), 1..8), 2..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(history))?;
    }
}
