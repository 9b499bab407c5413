//! Where rules are, and which of them contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead, Span};

use super::location;
use super::names::{self, Scope, Step};
use crate::{PolicyProblem, ProblemCode, document};

/// All rules by their path under `data`, as far as it is known by name.
#[derive(Debug, Default)]
pub(crate) struct RuleIndex {
    nodes: BTreeMap<Vec<String>, Vec<Definition>>,
    packages: BTreeSet<Vec<String>>,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Base data and nothing else.
    Data,
    /// One rule (or several that make one value), and nothing else.
    Rule,
    /// Anything else: packages, functions, the inside of a rule's value.
    Mixed,
}

/// One rule, seen from outside.
#[derive(Debug, Clone)]
struct Definition {
    span: Span,
    kind: Kind,
    /// Whether the path is the whole of the rule's reference.
    is_ground: bool,
    is_default: bool,
    arguments: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    SingleValue,
    MultiValue,
}

impl Definition {
    fn is_complete(&self) -> bool {
        self.kind == Kind::SingleValue && self.is_ground
    }
}

impl RuleIndex {
    pub(crate) fn new(modules: &[Ref<Module>]) -> Self {
        let mut nodes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut packages = BTreeSet::new();
        for module in modules {
            let scope = Scope::new(module);
            packages.insert(scope.package.clone());
            for rule in &module.policy {
                let (path, definition) = define(&scope, rule);
                nodes.entry(path).or_default().push(definition);
            }
        }
        Self { nodes, packages }
    }

    /// What stands at `path`.
    pub(crate) fn place(&self, path: &[String]) -> Place {
        let first_below = self.packages.range(path.to_vec()..).next();
        let has_package = first_below.is_some_and(|package| package.starts_with(path))
            || (1..path.len()).any(|length| self.packages.contains(&path[..length]));
        if !has_package && self.below(path).next().is_none() {
            return Place::Data;
        }
        let is_alone = self.below(path).count() == 1;
        let is_rule = |rules: &Vec<Definition>| {
            let mut rules = rules.iter();
            rules.all(|rule| rule.arguments == 0 && rule.is_ground)
        };
        match self.nodes.get(path) {
            Some(rules) if is_alone && is_rule(rules) => Place::Rule,
            _ => Place::Mixed,
        }
    }

    /// The number of arguments of the function at `path`; 0 for a rule that is none.
    pub(crate) fn arguments(&self, path: &[String]) -> Option<usize> {
        Some(self.nodes.get(path)?.first()?.arguments)
    }

    /// The paths of all rules.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Vec<String>> {
        self.nodes.keys()
    }

    /// The names that rules of `package` begin with.
    pub(crate) fn names_in(&self, package: &[String]) -> impl Iterator<Item = &str> {
        self.below(package)
            .filter_map(move |(path, _)| path.get(package.len()).map(String::as_str))
    }

    /// Where the first rule at `path` is.
    pub(crate) fn span(&self, path: &[String]) -> Option<&Span> {
        Some(&self.nodes.get(path)?.first()?.span)
    }

    /// The paths of rules that a reference to `target` may need: those above, at, and below it.
    pub(crate) fn reached(&self, target: &[Step]) -> Vec<&Vec<String>> {
        let known = names::leading_names(target);
        let mut reached: Vec<_> = (1..known.len())
            .filter_map(|length| self.nodes.get_key_value(&known[..length]))
            .map(|(path, _)| path)
            .collect();
        let matches = |path: &&Vec<String>| {
            let pairs = path.iter().zip(target);
            pairs.fold(true, |all, (name, step)| {
                all && matches!(step, Step::Unknown) | (*step == Step::Name(name.clone()))
            })
        };
        reached.extend(self.below(&known).map(|(path, _)| path).filter(matches));
        reached
    }

    fn below(&self, prefix: &[String]) -> impl Iterator<Item = (&Vec<String>, &Vec<Definition>)> {
        self.nodes
            .range(prefix.to_vec()..)
            .take_while(move |(path, _)| path.starts_with(prefix))
    }

    /// Rules that contradict each other, as OPA finds them.
    pub(crate) fn conflicts(&self) -> Vec<PolicyProblem> {
        let nodes = self.nodes.iter();
        nodes
            .filter_map(|(path, rules)| self.conflict(path, rules))
            .collect()
    }

    fn conflict(&self, path: &[String], rules: &[Definition]) -> Option<PolicyProblem> {
        let first = rules.first()?;
        let name = dotted(path);
        let kinds: BTreeSet<_> = rules.iter().map(|rule| rule.kind).collect();
        let arities: BTreeSet<_> = rules.iter().map(|rule| rule.arguments).collect();
        let complete = rules.iter().filter(|rule| rule.is_complete()).count();
        let defaults: Vec<_> = rules.iter().filter(|rule| rule.is_default).collect();
        let inside = self.below(path).find(|(other, _)| other.len() > path.len());
        let message = if let Some((other, others)) = inside
            && rules.iter().any(|rule| rule.is_ground)
        {
            let place = others
                .first()
                .map_or_else(String::new, |rule| place(&rule.span));
            format!(
                "rule {name} conflicts with:\n  rule {} at {place}",
                dotted(other)
            )
        } else if kinds.len() > 1 || arities.len() > 1 || (complete > 0 && complete < rules.len()) {
            format!("conflicting rules {name} found")
        } else if defaults.len() > 1 {
            let places: Vec<_> = defaults.iter().map(|rule| place(&rule.span)).collect();
            format!(
                "multiple default rules {name} found at {}",
                places.join(", ")
            )
        } else {
            return None;
        };
        Some(location::at(&first.span, ProblemCode::Type, message))
    }

    /// Rules whose path a base document claims too.
    ///
    /// `edited` names what changed, so that a small edit costs a small check; an empty path is
    /// everything.
    pub(crate) fn data_conflicts(&self, data: &Value, edited: &[String]) -> Vec<PolicyProblem> {
        let above =
            (1..edited.len()).filter_map(|length| self.nodes.get_key_value(&edited[..length]));
        above
            .chain(self.below(edited))
            .filter(|(path, _)| is_claimed(data, path))
            .filter_map(|(path, rules)| {
                let message = format!("conflicting rule for data path {} found", path.join("/"));
                Some(location::at(
                    &rules.first()?.span,
                    ProblemCode::Compile,
                    message,
                ))
            })
            .collect()
    }
}

/// Whether base data has something at `path`, or something on the way to it that is no object.
fn is_claimed(data: &Value, path: &[String]) -> bool {
    if document::read(data, path).is_some() {
        return true;
    }
    let nearest = (1..path.len())
        .rev()
        .find_map(|length| document::read(data, &path[..length]));
    nearest.is_some_and(|value| !matches!(value, Value::Object(_)))
}

/// The path of `rule` under `data`, as far as it is known by name.
pub(crate) fn rule_path(scope: &Scope, rule: &Rule) -> Vec<String> {
    define(scope, rule).0
}

fn define(scope: &Scope, rule: &Rule) -> (Vec<String>, Definition) {
    let reference = names::rule_reference(rule);
    let mut steps = match names::steps(reference) {
        Some((root, rest)) => {
            let mut steps = vec![Step::Name(root.to_owned())];
            steps.extend(rest);
            steps
        }
        None => Vec::new(),
    };
    let (kind, arguments) = shape(rule, &mut steps);
    let known = names::leading_names(&steps);
    let definition = Definition {
        span: reference.span().clone(),
        kind,
        is_ground: known.len() == steps.len(),
        is_default: matches!(rule, Rule::Default { .. }),
        arguments,
    };
    let mut path = scope.package.clone();
    path.extend(known);
    (path, definition)
}

/// The kind of the rule and its number of arguments.
fn shape(rule: &Rule, steps: &mut Vec<Step>) -> (Kind, usize) {
    match rule {
        Rule::Default { args, .. } => (Kind::SingleValue, args.len()),
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { .. } => (Kind::SingleValue, 0),
            RuleHead::Func { args, .. } => (Kind::SingleValue, args.len()),
            RuleHead::Set { key: Some(_), .. } => (Kind::MultiValue, 0),
            // As OPA: `p[x]` is a set, `p.q[x]` and `p[x][y]` are objects of `true`.
            RuleHead::Set {
                key: None, refr, ..
            } => {
                let is_set = steps.len() == 2 && matches!(refr.as_ref(), Expr::RefBrack { .. });
                if !is_set {
                    return (Kind::SingleValue, 0);
                }
                steps.pop();
                (Kind::MultiValue, 0)
            }
        },
    }
}

/// `data.a.b`, for messages.
pub(crate) fn dotted(path: &[String]) -> String {
    let mut text = String::from("data");
    for name in path {
        let is_plain = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if is_plain {
            text.push('.');
            text.push_str(name);
        } else {
            text.push_str(&format!("[{}]", crate::path::quote(name)));
        }
    }
    text
}

fn place(span: &Span) -> String {
    format!("{}:{}", span.source.get_path(), span.line)
}
