//! What CI asks of the simulation: it repeats itself, runs clean, and finds mistakes.

use opal_sim::bug::Bug;
use opal_sim::world::{Options, run};

/// So many run with the other tests; `.ci/run` has many more in an optimised build.
const CLEAN_SEEDS: u64 = 150;

/// The first seed that finds a mistake is to be below this.
const FOUND_WITHIN: u64 = 1000;

fn with(bug: Option<Bug>) -> Options {
    Options {
        bug,
        keeps_lines: false,
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let digests = [run(seed, with(None)).digest, run(seed, with(None)).digest];
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
    assert_ne!(run(1, with(None)).digest, run(2, with(None)).digest);
}

#[test]
fn nobody_is_stale_in_the_first_seeds() {
    for seed in 0..CLEAN_SEEDS {
        assert_eq!(run(seed, with(None)).violation, None, "seed {seed}");
    }
}

fn is_found(bug: Bug) {
    let found = (0..FOUND_WITHIN).find(|seed| run(*seed, with(Some(bug))).violation.is_some());
    assert!(found.is_some(), "{bug} is not found");
}

#[test]
fn a_change_skipped_on_reconnect_is_found() {
    is_found(Bug::SkipChangeOnReconnect);
}

#[test]
fn an_acknowledgement_before_the_write_is_found() {
    is_found(Bug::AcknowledgeBeforeApplying);
}

#[test]
fn a_failing_entry_that_is_forgotten_is_found() {
    is_found(Bug::ForgetFailingEntry);
}

#[test]
fn an_older_fetch_that_is_applied_late_is_found() {
    is_found(Bug::ApplyOlderFetchLate);
}

#[test]
fn trust_in_an_old_epoch_is_found() {
    is_found(Bug::TrustOldEpoch);
}

#[test]
fn a_patch_that_is_applied_twice_is_found() {
    is_found(Bug::ApplyPatchTwice);
}

#[test]
fn a_change_dropped_on_a_full_queue_is_found() {
    is_found(Bug::DropOnFullQueue);
}

#[test]
fn a_base_that_is_folded_wrongly_is_found() {
    is_found(Bug::FoldBaseWrongly);
}
