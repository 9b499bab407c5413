//! Policies that OPAL leaves alone (`OPAL_POLICY_STORE_POLICY_PATHS_TO_IGNORE`).

use opal_protocol::{PathPattern, RepoPath};

/// Patterns of policy paths that are neither set nor deleted.
///
/// A pattern that starts with `!` makes an exception, and exceptions win.
#[derive(Debug, Clone, Default)]
pub struct IgnoredPaths {
    patterns: Vec<PathPattern>,
    exceptions: Vec<PathPattern>,
}

impl IgnoredPaths {
    /// Takes the patterns as they are configured.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut ignored = Self::default();
        for pattern in patterns {
            match pattern.as_ref().strip_prefix('!') {
                Some(exception) => ignored.exceptions.push(PathPattern::parse(exception)),
                None => ignored.patterns.push(PathPattern::parse(pattern.as_ref())),
            }
        }
        ignored
    }

    /// Whether the policy at `path` is to be left alone.
    pub fn contains(&self, path: &RepoPath) -> bool {
        let any =
            |patterns: &[PathPattern]| patterns.iter().any(|each| each.matches(path.as_str()));
        any(&self.patterns) && !any(&self.exceptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_wins() {
        let ignored = IgnoredPaths::new(["!lib/keep.rego", "lib/**"]);
        assert!(!ignored.contains(&"lib/keep.rego".into()));
        assert!(ignored.contains(&"lib/other.rego".into()));
        assert!(!ignored.contains(&"library/other.rego".into()));
    }
}
