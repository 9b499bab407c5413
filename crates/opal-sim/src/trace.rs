//! What happened, for people and for comparing two runs.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// A digest of everything that happened, and the lines themselves if somebody wants them.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    lines: Option<Vec<String>>,
}

/// FNV-1a.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    /// A trace of nothing, which keeps its lines if asked to.
    pub fn new(keeps_lines: bool) -> Self {
        Self {
            digest: START,
            lines: keeps_lines.then(Vec::new),
        }
    }

    /// Notes something.
    pub fn note(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} {what}", now.as_secs_f64()));
        }
        // Writing to a digest cannot fail.
        let _ = writeln!(self, "{}{what}", now.as_micros());
    }

    /// Equal for runs in which the same happened.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(FACTOR);
        }
        Ok(())
    }
}
