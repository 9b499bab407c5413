//! What one can wait for, and what became of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whose confirmation ends a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitTarget {
    /// Every client that the change concerns.
    All,
    /// So many of a hundred.
    Percent(u8),
    /// The client with this id.
    Client(String),
}

/// Text that names no target of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not something to wait for; expected `all`, `N%` with N from 1 to 100, or `client=ID`")]
pub struct NotAWaitTarget;

impl FromStr for WaitTarget {
    type Err = NotAWaitTarget;

    fn from_str(text: &str) -> Result<Self, NotAWaitTarget> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(id) = text.strip_prefix("client=") {
            let named = (!id.is_empty()).then(|| Self::Client(id.to_owned()));
            return named.ok_or(NotAWaitTarget);
        }
        let digits = text.strip_suffix('%').ok_or(NotAWaitTarget)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAWaitTarget);
        }
        match digits.parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(NotAWaitTarget),
        }
    }
}

impl fmt::Display for WaitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Client(id) => write!(f, "client={id}"),
        }
    }
}

/// What became of a wait. Each list is sorted by client id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitOutcome {
    /// Whether those who were waited for have applied it.
    pub met: bool,
    /// Clients whose engines hold the change.
    pub applied: Vec<String>,
    /// Clients that are connected and do not hold it, and why.
    pub missing: Vec<Missing>,
    /// Clients that lost their connection shortly before or during the wait.
    pub disconnected: Vec<String>,
    /// Released clients, which were told and cannot say what became of it.
    pub unconfirmed: Vec<String>,
}

/// A client that does not hold a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Missing {
    /// Its id.
    pub client: String,
    /// Why not.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_all_a_share_or_one_client_and_nothing_else() {
        for text in ["all", "1%", "50%", "100%", "client=a b"] {
            let target: WaitTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        for wrong in [
            "", "All", "0%", "101%", "%", "+5%", "5", "-1%", "client=", "1000%",
        ] {
            assert_eq!(wrong.parse::<WaitTarget>(), Err(NotAWaitTarget), "{wrong}");
        }
    }
}
