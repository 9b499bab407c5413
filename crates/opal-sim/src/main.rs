//! Runs many worlds, each from its own seed, until one of them goes wrong.

use std::io::Write as _;
use std::process::ExitCode;
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
    let mut out = std::io::stdout().lock();
    if let Some(seed) = arguments.seed {
        return one(seed, &arguments, &mut out);
    }
    let started = Instant::now();
    for count in 0..arguments.seeds {
        let seed = arguments.from + count;
        let options = Options {
            bug: arguments.bug,
            keeps_lines: false,
        };
        let outcome = run(seed, options);
        if let Some(violation) = outcome.violation {
            writeln!(out, "seed {seed}: {violation}")?;
            if arguments.trace {
                one(seed, &arguments, &mut out)?;
            }
            let bug = arguments.bug.map(|bug| format!(" --bug {bug}"));
            let bug = bug.unwrap_or_default();
            writeln!(out, "Replay it with: opal-sim --seed {seed}{bug}")?;
            return Ok(ExitCode::FAILURE);
        }
        if (count + 1) % 500 == 0 {
            let rate = (count + 1) as f64 / started.elapsed().as_secs_f64();
            writeln!(out, "{} seeds are fine ({rate:.0}/s)", count + 1)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    writeln!(
        out,
        "All {} seeds are fine ({seconds:.1} s)",
        arguments.seeds
    )?;
    Ok(ExitCode::SUCCESS)
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
