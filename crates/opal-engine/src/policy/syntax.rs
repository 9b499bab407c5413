//! Finds syntax that the parser reads as something else than OPA does.

use regorus::unstable::{Module, Ref, Span};

use super::location;
use super::names;
use crate::{PolicyProblem, ProblemCode};

/// The keywords that `import future.keywords.…` may name.
const KEYWORDS: [&str; 4] = ["contains", "every", "if", "in"];

/// Syntax in `modules` that would change its meaning.
pub(crate) fn check(modules: &[Ref<Module>]) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    for module in modules {
        problems.extend(unknown_keywords(module));
        problems.extend(run_together(module));
    }
    problems
}

/// Imports of keywords that the parser does not know, and would ignore.
fn unknown_keywords(module: &Module) -> impl Iterator<Item = PolicyProblem> {
    module.imports.iter().filter_map(|import| {
        let (root, steps) = names::steps(&import.refr)?;
        let path = names::leading_names(&steps);
        let ("future", [_, name]) = (root, path.as_slice()) else {
            return None;
        };
        if KEYWORDS.contains(&name.as_str()) {
            return None;
        }
        let message = format!("keyword {name} is not supported");
        Some(location::at(&import.span, ProblemCode::Parse, message))
    })
}

/// Rules on one line with nothing between them: without the keyword `if`, `p if { … }` is such a
/// pair.
fn run_together(module: &Module) -> impl Iterator<Item = PolicyProblem> {
    let pairs = module.policy.windows(2).filter_map(|pair| match pair {
        [first, second] => Some((first.span(), second.span())),
        _ => None,
    });
    let joined = pairs.filter(|(first, second)| is_joined(first, second));
    joined.map(|(_, second)| {
        let token = second.text().split_whitespace().next().unwrap_or_default();
        let message = format!("unexpected {token}: a rule begins on a new line");
        location::at(second, ProblemCode::Parse, message)
    })
}

fn is_joined(first: &Span, second: &Span) -> bool {
    let text = first.source.get_contents();
    let between = text.get(first.end as usize..second.start as usize);
    between.is_some_and(|between| !between.contains(['\n', ';']))
}
