//! Measures ours beside the released Python OPAL and beside a server without any logic.
//!
//! Every figure is taken in interleaved pairs: a fresh process of each contender in turn, the order
//! turned round from pair to pair, so that a busy moment of the machine hits all alike. What is
//! compared are medians. [`benches`] says what is done, [`report`] what was promised.
//!
//! `scripts/bench` builds and starts this.

mod benches;
mod contender;
mod floor;
mod load;
mod process;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::benches::Bench;
use crate::contender::Contender;
use crate::report::Report;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, port] = arguments.as_slice()
        && command == "floor-server"
    {
        floor::serve(port.parse()?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::parse(&arguments)?;
    let report = plan.run().await?;
    report.print();
    Ok(if plan.unjudged || report.is_as_promised() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What to measure.
struct Plan {
    benches: Vec<Bench>,
    contenders: Vec<Contender>,
    pairs: usize,
    /// Whether missed targets are no failure: for short runs, whose figures mean nothing.
    unjudged: bool,
}

impl Plan {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut plan = Self {
            benches: Vec::new(),
            contenders: Contender::ALL.to_vec(),
            pairs: 7,
            unjudged: false,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} what?"))
            };
            match argument.as_str() {
                "--pairs" => plan.pairs = value()?.parse()?,
                "--unjudged" => plan.unjudged = true,
                "--without" => {
                    let left_out = Contender::named(value()?)?;
                    plan.contenders.retain(|contender| *contender != left_out);
                }
                name => plan.benches.push(Bench::named(name)?),
            }
        }
        if plan.benches.is_empty() {
            plan.benches = Bench::ALL.to_vec();
        }
        if plan.pairs == 0 || plan.contenders.is_empty() {
            bail!("nothing to measure");
        }
        Ok(plan)
    }

    async fn run(&self) -> anyhow::Result<Report> {
        let start = Instant::now();
        let mut report = Report::default();
        for bench in &self.benches {
            for pair in 1..=self.pairs {
                eprintln!(
                    "[{:>4} s] {bench} {pair}/{}",
                    start.elapsed().as_secs(),
                    self.pairs
                );
                let mut turn: Vec<Contender> = self
                    .contenders
                    .iter()
                    .copied()
                    .filter(|who| bench.concerns(*who))
                    .collect();
                if pair % 2 == 0 {
                    turn.reverse();
                }
                for contender in turn {
                    let samples = bench.measure(contender).await;
                    let samples = samples.with_context(|| format!("{bench} of {contender}"))?;
                    for (metric, value) in samples {
                        eprintln!("         {contender:<7} {metric:<22} {value:.3}");
                        report.add(metric, contender, value);
                    }
                }
            }
        }
        Ok(report)
    }
}
