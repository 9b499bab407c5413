//! Where the programs under test and their peers are.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Whose program stands at one end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours, built from this workspace.
    Rust,
    /// The released Python OPAL.
    Python,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rust => "ours",
            Self::Python => "released",
        })
    }
}

impl Kind {
    /// The program `name` (`opal-server` or `opal-client`) of this kind.
    pub fn program(self, name: &str) -> anyhow::Result<PathBuf> {
        match self {
            Self::Rust => ours(name),
            Self::Python => python(name),
        }
    }
}

/// A binary of this workspace, next to the running test or above it in the target directory.
pub fn ours(name: &str) -> anyhow::Result<PathBuf> {
    beside_us(name, Path::is_file).with_context(|| {
        format!(
            "`{name}` is not built: run `scripts/test`, or `cargo build --workspace` before `cargo test`"
        )
    })
}

/// A program of the released Python OPAL.
pub fn python(name: &str) -> anyhow::Result<PathBuf> {
    tool("OPAL_TEST_PYTHON_VENV", "venv")
        .map(|venv| venv.join("bin").join(name))
        .filter(|program| program.is_file())
        .with_context(|| missing(name, "OPAL_TEST_PYTHON_VENV", "Python OPAL 0.9.9"))
}

/// The real `opa`.
pub fn opa() -> anyhow::Result<PathBuf> {
    tool("OPAL_TEST_OPA", "bin/opa")
        .filter(|program| program.is_file())
        .with_context(|| missing("opa", "OPAL_TEST_OPA", "the real `opa`"))
}

/// What `scripts/test` announces in `variable`, or left in the target directory on an earlier run.
fn tool(variable: &str, installed: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| beside_us(&format!("test-tools/{installed}"), Path::exists))
}

fn beside_us(name: &str, is_it: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let us = env::current_exe().ok()?;
    let mut candidates = us.ancestors().skip(1).map(|directory| directory.join(name));
    candidates.find(|candidate| is_it(candidate) && *candidate != us)
}

fn missing(name: &str, variable: &str, what: &str) -> String {
    format!(
        "`{name}` is missing: this test needs {what}; run `scripts/test`, which installs it, or set {variable}"
    )
}
