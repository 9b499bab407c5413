//! Policies that OPAL leaves alone (`OPAL_POLICY_STORE_POLICY_PATHS_TO_IGNORE`).

use opal_protocol::RepoPath;

/// Patterns of policy paths that are neither set nor deleted.
///
/// `/` and `/**` match everything, `dir/**` whatever starts with `dir`, and anything else is matched
/// from the right, component by component, as Python's `PurePath.match` does. A pattern that
/// starts with `!` makes an exception, and exceptions win.
#[derive(Debug, Clone, Default)]
pub struct IgnoredPaths {
    patterns: Vec<String>,
    exceptions: Vec<String>,
}

impl IgnoredPaths {
    /// Takes the patterns as they are configured.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut ignored = Self::default();
        for pattern in patterns {
            match pattern.as_ref().strip_prefix('!') {
                Some(exception) => ignored.exceptions.push(exception.to_owned()),
                None => ignored.patterns.push(pattern.as_ref().to_owned()),
            }
        }
        ignored
    }

    /// Whether the policy at `path` is to be left alone.
    pub fn contains(&self, path: &RepoPath) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|each| matches(each, path.as_str()));
        any(&self.patterns) && !any(&self.exceptions)
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    if pattern == "/" {
        return true;
    }
    if let Some(start) = pattern.strip_suffix("/**") {
        // As upstream: text, not components.
        return path.starts_with(start);
    }
    let components = |text: &str| -> Vec<String> {
        let parts = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        parts.map(str::to_owned).collect()
    };
    let (pattern_parts, path_parts) = (components(pattern), components(path));
    if pattern.starts_with('/')
        || pattern_parts.is_empty()
        || pattern_parts.len() > path_parts.len()
    {
        return false;
    }
    let from_right = pattern_parts.iter().rev().zip(path_parts.iter().rev());
    from_right.into_iter().all(|(pattern, part)| {
        let (pattern, part): (Vec<char>, Vec<char>) =
            (pattern.chars().collect(), part.chars().collect());
        component_matches(&pattern, &part)
    })
}

/// Python's `fnmatch` for one component: `*`, `?`, `[seq]` and `[!seq]`. Takes time linear in both
/// lengths for each `*`: only the last `*` is ever tried again.
fn component_matches(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut text_at) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while text_at < text.len() {
        if pattern.get(at) == Some(&'*') {
            at += 1;
            last_star = Some((at, text_at));
        } else if let Some(width) = token_matches(pattern, at, text[text_at]) {
            at += width;
            text_at += 1;
        } else if let Some((after_star, taken)) = last_star {
            at = after_star;
            text_at = taken + 1;
            last_star = Some((after_star, text_at));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

/// The width of the pattern's token at `at` if it matches `character`.
fn token_matches(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(1),
        '[' => {
            let negated = pattern.get(at + 1) == Some(&'!');
            let start = at + 1 + usize::from(negated);
            // A `]` directly at the start belongs to the set.
            let after = pattern.get(start + 1..).unwrap_or_default();
            let length = after.iter().position(|c| *c == ']');
            let Some(length) = length.map(|length| length + 1) else {
                return (character == '[').then_some(1);
            };
            let set = &pattern[start..start + length];
            (set_contains(set, character) != negated).then_some(start + length + 1 - at)
        }
        other => (*other == character).then_some(1),
    }
}

fn set_contains(set: &[char], character: char) -> bool {
    let mut rest = set;
    while let [first, tail @ ..] = rest {
        if let ['-', last, after @ ..] = tail {
            if (*first..=*last).contains(&character) {
                return true;
            }
            rest = after;
        } else {
            if *first == character {
                return true;
            }
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_upstream_s() {
        for (pattern, path, expected) in [
            ("/", "a.rego", true),
            ("/**", "a/b.rego", true),
            ("lib/**", "lib", true),
            ("lib/**", "lib/a/b.rego", true),
            ("lib/**", "library/a.rego", true),
            ("lib/**", "app/lib/a.rego", false),
            ("*.rego", "x/app/y.rego", true),
            ("app/*.rego", "x/app/y.rego", true),
            ("app/*.rego", "app/x/y.rego", false),
            ("**/y.rego", "app/y.rego", true),
            ("**/y.rego", "y.rego", false),
            ("/y.rego", "y.rego", false),
            ("y?.r[a-e]go", "y1.rego", true),
            ("y[!0-9].rego", "y1.rego", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("[", "[", true),
        ] {
            let ignored = IgnoredPaths::new([pattern]);
            assert_eq!(ignored.contains(&path.into()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn an_exception_wins() {
        let ignored = IgnoredPaths::new(["!lib/keep.rego", "lib/**"]);
        assert!(!ignored.contains(&"lib/keep.rego".into()));
        assert!(ignored.contains(&"lib/other.rego".into()));
    }
}
