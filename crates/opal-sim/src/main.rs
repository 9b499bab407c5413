//! Runs many worlds, each from its own seed, until one of them goes wrong.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use opal_sim::bug::Bug;
use opal_sim::world::{Options, run};

/// Looks for a seed in which OPAL's state machines become stale.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Run this seed alone, and print what happens in it
    #[arg(long)]
    seed: Option<u64>,
    /// The seed to begin with
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// A mistake to make on purpose
    #[arg(long)]
    bug: Option<Bug>,
    /// Print what happened before the failure
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout();
    if let Some(seed) = arguments.seed {
        return one(seed, &arguments, &mut out);
    }
    many(&arguments, &mut out)
}

/// Runs seeds, several at a time, until one fails.
fn many(arguments: &Arguments, out: &mut impl std::io::Write) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let rounds = arguments.seeds.div_ceil(ROUND);
    for round in 0..rounds {
        let first = arguments.from + round * ROUND;
        let last = (first + ROUND).min(arguments.from + arguments.seeds);
        if let Some((seed, violation)) = first_failure(first..last, arguments.bug) {
            writeln!(out, "seed {seed}: {violation}")?;
            if arguments.trace {
                one(seed, arguments, out)?;
            }
            let bug = arguments.bug.map(|bug| format!(" --bug {bug}"));
            let bug = bug.unwrap_or_default();
            writeln!(out, "Replay it with: opal-sim --seed {seed}{bug}")?;
            return Ok(ExitCode::FAILURE);
        }
        let seconds = started.elapsed().as_secs_f64();
        let count = last - arguments.from;
        writeln!(out, "{count} seeds are fine ({seconds:.0} s)")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// So many seeds are run before there is word of them.
const ROUND: u64 = 500;

/// The lowest of these seeds that fails, and how.
fn first_failure(seeds: Range<u64>, bug: Option<Bug>) -> Option<(u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let options = Options {
                        bug,
                        keeps_lines: false,
                    };
                    if let Some(violation) = run(seed, options).violation {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push((seed, violation));
                    }
                }
            });
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.into_iter().min_by_key(|(seed, _)| *seed)
}

fn one(
    seed: u64,
    arguments: &Arguments,
    out: &mut impl std::io::Write,
) -> anyhow::Result<ExitCode> {
    let options = Options {
        bug: arguments.bug,
        keeps_lines: true,
    };
    let outcome = run(seed, options);
    for line in &outcome.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "digest {:016x}", outcome.digest)?;
    Ok(match outcome.violation {
        Some(violation) => {
            writeln!(out, "seed {seed}: {violation}")?;
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}
