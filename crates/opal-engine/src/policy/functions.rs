//! Finds calls of functions that do not exist: not in the modules, not in the engine.

use regorus::unstable::{BUILTINS, Expr, Module, Query, Ref, Span};

use super::location;
use super::names::{self, Scope, Step};
use super::rules::RuleIndex;
use super::walk::{self, Node};
use crate::{PolicyProblem, ProblemCode, extensions};

/// What `regorus` knows by name only: `http.send` is always *undefined*, and `opa.runtime` tells
/// neither environment nor configuration.
const HOLLOW: [&str; 2] = ["http.send", "opa.runtime"];

/// Calls in `modules` that cannot be answered.
pub(crate) fn check(modules: &[Ref<Module>], rules: &RuleIndex) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    for module in modules {
        let scope = Scope::new(module);
        for rule in &module.policy {
            walk::rule(rule, &mut |node| {
                problems.extend(check_node(node, &scope, rules));
                if module.rego_v1 {
                    problems.extend(check_deprecated(node, &scope, rules));
                }
            });
        }
    }
    problems
}

/// Calls in a query that cannot be answered.
pub(crate) fn check_query(query: &Query, rules: &RuleIndex) -> Vec<PolicyProblem> {
    let scope = Scope::of_query();
    let mut problems = Vec::new();
    walk::query(query, &mut |node| {
        problems.extend(check_node(node, &scope, rules))
    });
    problems
}

fn check_node(node: Node<'_>, scope: &Scope, rules: &RuleIndex) -> Option<PolicyProblem> {
    let Node::Call {
        span,
        function,
        arguments,
    } = node
    else {
        return None;
    };
    check_call(span, function, arguments.len(), scope, rules)
}

/// Calls of what Rego v1 no longer has.
fn check_deprecated(node: Node<'_>, scope: &Scope, rules: &RuleIndex) -> Option<PolicyProblem> {
    let Node::Call { function, .. } = node else {
        return None;
    };
    let (root, steps) = names::steps(function)?;
    let name = spelled(root, &steps, scope);
    let path = names::leading_names(&scope.under_data(root, &steps)?);
    if rules.arguments(&path).is_some() || extensions::arguments(&name).is_none() {
        return None;
    }
    let message = format!("deprecated built-in function calls in expression: {name}");
    Some(location::at(
        names::root_span(function),
        ProblemCode::Type,
        message,
    ))
}

fn check_call(
    span: &Span,
    function: &Expr,
    supplied: usize,
    scope: &Scope,
    rules: &RuleIndex,
) -> Option<PolicyProblem> {
    let Some((root, steps)) = names::steps(function) else {
        return Some(location::at(span, ProblemCode::Type, "not a function"));
    };
    let name = spelled(root, &steps, scope);
    let place = names::root_span(function);
    let complain = |message: String| Some(location::at(place, ProblemCode::Type, message));
    match arity(root, &steps, &name, scope, rules) {
        // `regorus` gives no elements then: a quiet *undefined*.
        Arity::Exactly(1) if name == "walk" && supplied == 1 => {
            complain("walk without its output as second argument is not supported".to_owned())
        }
        Arity::Unknown => complain(format!("undefined function {name}")),
        Arity::Any => None,
        Arity::Only(wanted) if supplied == wanted => None,
        // The value may be taken by one more argument, as in `f(x, result)`.
        Arity::Exactly(wanted) if supplied == wanted || supplied == wanted + 1 => None,
        Arity::Exactly(wanted) | Arity::Only(wanted) => complain(format!(
            "{name}: arity mismatch: {supplied} arguments for {wanted}"
        )),
    }
}

/// The number of arguments that `function` takes.
pub(super) fn inputs(function: &Expr, scope: &Scope, rules: &RuleIndex) -> Option<usize> {
    let (root, steps) = names::steps(function)?;
    let name = spelled(root, &steps, scope);
    match arity(root, &steps, &name, scope, rules) {
        Arity::Exactly(arguments) => Some(arguments),
        Arity::Unknown | Arity::Any | Arity::Only(_) => None,
    }
}

/// Whether `root` and `steps` name a function of the engine.
pub(super) fn is_builtin(root: &str, steps: &[Step]) -> bool {
    let name = spelled(root, steps, &Scope::of_query());
    BUILTINS.contains_key(name.as_str()) || extensions::arguments(&name).is_some()
}

enum Arity {
    Unknown,
    Any,
    /// So many, and no further one to take the value.
    Only(usize),
    Exactly(usize),
}

fn arity(root: &str, steps: &[Step], name: &str, scope: &Scope, rules: &RuleIndex) -> Arity {
    if let Some(path) = scope.under_data(root, steps) {
        let known = names::leading_names(&path);
        if known.len() == path.len()
            && let Some(arguments) = rules.arguments(&known)
        {
            return Arity::Exactly(arguments);
        }
    }
    if root == "data" || root == "input" || scope.import(root).is_some() {
        return Arity::Unknown;
    }
    if name == "print" {
        return Arity::Any;
    }
    if let Some(arguments) = extensions::arguments(name) {
        return Arity::Only(arguments);
    }
    match BUILTINS.get(name) {
        Some(_) if HOLLOW.contains(&name) => Arity::Unknown,
        Some((_, arguments)) => Arity::Exactly(usize::from(*arguments)),
        None => Arity::Unknown,
    }
}

/// The name in full: as OPA, with what an alias stands for.
fn spelled(root: &str, steps: &[Step], scope: &Scope) -> String {
    let mut name = match scope.import(root) {
        Some(target) => target.join("."),
        None => root.to_owned(),
    };
    for step in steps {
        match step {
            Step::Name(part) => {
                name.push('.');
                name.push_str(part);
            }
            Step::Scalar | Step::Unknown => name.push_str("[_]"),
        }
    }
    name
}
