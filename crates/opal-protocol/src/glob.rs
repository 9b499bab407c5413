//! Path patterns as Python's `PurePath.match` reads them: what a server leaves out of bundles
//! (`OPAL_BUNDLE_IGNORE`), and what a client leaves alone in its store
//! (`OPAL_POLICY_STORE_POLICY_PATHS_TO_IGNORE`).

/// One pattern of an ignore list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// `/` or `/**`.
    Everything,
    /// `dir/**`: the directory and all below it, compared as plain text.
    Below(String),
    /// Components matched from the right.
    Components(Vec<String>),
    /// An absolute or empty pattern: no relative path matches it.
    Nothing,
}

impl PathPattern {
    /// Reads one pattern. Every text is one.
    pub fn parse(text: &str) -> Self {
        if matches!(text, "/" | "/**") {
            return Self::Everything;
        }
        if let Some(directory) = text.strip_suffix("/**") {
            return Self::Below(directory.to_owned());
        }
        let components: Vec<String> = components(text).map(str::to_owned).collect();
        if text.starts_with('/') || components.is_empty() {
            return Self::Nothing;
        }
        Self::Components(components)
    }

    /// Whether this pattern covers `path`, which is relative and has no `.` components.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Below(directory) => path
                .strip_prefix(directory.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Components(patterns) => matches_from_the_right(path, patterns),
            Self::Nothing => false,
        }
    }
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

fn matches_from_the_right(path: &str, patterns: &[String]) -> bool {
    let mut parts = components(path).rev();
    patterns
        .iter()
        .rev()
        .all(|pattern| parts.next().is_some_and(|part| component(part, pattern)))
}

/// `fnmatch` for one component: `*`, `?`, `[seq]`, `[!seq]`.
fn component(name: &str, pattern: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut at, mut p) = (0, 0);
    // Where to go on if the rest does not match: after the last `*`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while at < name.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((at, p + 1));
            p += 1;
            continue;
        }
        if let Some(used) = one(name[at], &pattern[p..]) {
            at += 1;
            p += used;
            continue;
        }
        let Some((from, after)) = retry else {
            return false;
        };
        (at, p) = (from + 1, after);
        retry = Some((from + 1, after));
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

/// Matches one character; the number of pattern characters used if it does.
fn one(character: char, pattern: &[char]) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match class_end(pattern) {
            Some(end) => in_class(character, &pattern[1..end]).then_some(end + 1),
            None => (character == '[').then_some(1),
        },
        literal => (*literal == character).then_some(1),
    }
}

/// The index of the `]` that closes the class; one directly after `[` or `[!` is a member.
fn class_end(pattern: &[char]) -> Option<usize> {
    let mut from = 1;
    if pattern.get(from) == Some(&'!') {
        from += 1;
    }
    if pattern.get(from) == Some(&']') {
        from += 1;
    }
    let length = pattern.get(from..)?.iter().position(|c| *c == ']')?;
    Some(from + length)
}

fn in_class(character: char, class: &[char]) -> bool {
    let (negated, mut rest) = match class {
        ['!', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    while let [first, tail @ ..] = rest {
        if let ['-', last, after @ ..] = tail {
            found |= (*first..=*last).contains(&character);
            rest = after;
        } else {
            found |= *first == character;
            rest = tail;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_python() {
        for (pattern, path, expected) in [
            ("/", "a", true),
            ("/**", "a/b", true),
            ("dir/**", "dir", true),
            ("dir/**", "dir/a/b", true),
            ("dir/**", "dir2/a", false),
            ("d*/**", "dir/a", false),
            ("*.rego", "x/y/a.rego", true),
            ("app/*.rego", "x/app/y.rego", true),
            ("app/*.rego", "app/x/y.rego", false),
            ("app/**/y.rego", "app/x/y.rego", true),
            ("app/**/y.rego", "app/x/z/y.rego", false),
            ("/app/a.rego", "app/a.rego", false),
            ("./app//a.rego", "app/a.rego", true),
            ("", "a", false),
            (".", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*_test.rego", "lib/a_test.rego", true),
            ("*a*b*c", "xxaxbxbxc", true),
            ("*a*b*c", "xxaxbxbx", false),
            ("[ab]c", "bc", true),
            ("[!ab]c", "bc", false),
            ("[a-d]x", "cx", true),
            ("[z-a]x", "cx", false),
            ("[]]x", "]x", true),
            ("[ab", "[ab", true),
            ("[a-]x", "-x", true),
            ("é*", "été", true),
        ] {
            assert_eq!(
                PathPattern::parse(pattern).matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }
}
