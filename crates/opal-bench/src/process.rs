//! What the system says about a process.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use opal_testing::services::Service;

/// Processor time of the process so far, user and system, all threads.
pub(crate) fn cpu_time(service: &Service) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", service.process()?.id()))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(
        ticks.saturating_mul(1_000_000_000) / per_second.max(1),
    ))
}

/// Resident memory, in kilobytes of 1,000 bytes.
pub(crate) fn resident_kb(service: &Service) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", service.process()?.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1.024)
}
