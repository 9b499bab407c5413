//! Endurance: one server and many clients, as libraries in two processes, through thousands of
//! reconnects and updates. Once the server's history is full, neither may grow.
//!
//! [`driver`] starts both, cuts the line between them, publishes, and judges; [`child`] is what the
//! two processes do; [`memory`] is how each tells what it holds.
//!
//! `scripts/soak` builds and starts this.

mod child;
mod driver;
mod load;
mod memory;

use std::alloc::System;
use std::process::ExitCode;

use anyhow::{Context, bail};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::driver::Plan;

/// The allocator of the shipped programs, counted.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server", options @ ..] => child::server(options).await?,
        ["clients", options @ ..] => child::clients(options).await?,
        options => return parse(options)?.run().await,
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(options: &[&str]) -> anyhow::Result<Plan> {
    let mut plan = Plan::long();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut number = || -> anyhow::Result<usize> {
            let value = options.next().with_context(|| format!("{option} what?"))?;
            value.parse().with_context(|| format!("{option} {value}"))
        };
        match *option {
            "--short" => plan = Plan::short(),
            "--reconnects" => plan.reconnects = number()?,
            "--updates" => plan.updates = number()?,
            "--clients" => plan.clients = number()?,
            other => bail!("no option is called `{other}`"),
        }
    }
    Ok(plan)
}
