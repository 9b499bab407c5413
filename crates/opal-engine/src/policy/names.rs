//! What a name in a module means.

use std::collections::{HashMap, HashSet};

use regorus::Value;
use regorus::unstable::{Expr, Literal, Module, Rule, RuleHead, Span};

use super::walk::{self, Node};

/// One selection of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A member known by name.
    Name(String),
    /// A scalar that is no name.
    Scalar,
    /// Known only when evaluated.
    Unknown,
}

/// The variable a reference begins with, and the steps from there; `None` if it begins otherwise.
pub(crate) fn steps(mut reference: &Expr) -> Option<(&str, Vec<Step>)> {
    let mut steps = Vec::new();
    loop {
        match reference {
            Expr::Var { span, .. } => {
                steps.reverse();
                return Some((span.text(), steps));
            }
            Expr::RefDot { refr, field, .. } => {
                steps.push(Step::Name(field.0.text().to_owned()));
                reference = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(index_step(index));
                reference = refr;
            }
            _ => return None,
        }
    }
}

/// Where the variable is that a reference begins with.
pub(crate) fn root_span(mut reference: &Expr) -> &Span {
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = reference {
        reference = refr;
    }
    reference.span()
}

fn index_step(index: &Expr) -> Step {
    match index {
        Expr::String { value, .. } | Expr::RawString { value, .. } => match value {
            Value::String(name) => Step::Name(name.to_string()),
            _ => Step::Scalar,
        },
        Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => Step::Scalar,
        _ => Step::Unknown,
    }
}

/// The names at the beginning of `steps`.
pub(crate) fn leading_names(steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Name(name) => Some(name.clone()),
        Step::Scalar | Step::Unknown => None,
    };
    steps.iter().map_while(name).collect()
}

/// What the names of one module stand for.
#[derive(Debug)]
pub(crate) struct Scope {
    /// The package, without `data`.
    pub(crate) package: Vec<String>,
    /// Alias → full path, its root included.
    imports: HashMap<String, Vec<String>>,
}

impl Scope {
    pub(crate) fn new(module: &Module) -> Self {
        let package = full_path(&module.package.refr);
        let mut imports = HashMap::new();
        for import in &module.imports {
            let target = full_path(&import.refr);
            let is_keyword = matches!(target.first().map(String::as_str), Some("future" | "rego"));
            let alias = import.r#as.as_ref().map(|span| span.text().to_owned());
            if let Some(alias) = alias.or_else(|| target.last().cloned())
                && !is_keyword
            {
                imports.insert(alias, target);
            }
        }
        Self { package, imports }
    }

    /// What module-less names (in a query) mean.
    pub(crate) fn of_query() -> Self {
        Self {
            package: Vec::new(),
            imports: HashMap::new(),
        }
    }

    /// The path under `data` that a reference leads to; `None` if it leads elsewhere.
    pub(crate) fn under_data(&self, root: &str, steps: &[Step]) -> Option<Vec<Step>> {
        let named = |names: &[String]| names.iter().cloned().map(Step::Name).collect::<Vec<_>>();
        let mut path = match (root, self.imports.get(root)) {
            ("data", _) => Vec::new(),
            ("input", _) => return None,
            (_, Some(target)) => match target.split_first() {
                Some((root, rest)) if root == "data" => named(rest),
                _ => return None,
            },
            (_, None) => {
                let mut path = named(&self.package);
                path.push(Step::Name(root.to_owned()));
                path
            }
        };
        path.extend_from_slice(steps);
        Some(path)
    }

    /// The aliases of imports.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.imports.keys().map(String::as_str)
    }

    /// What `root` is the alias of, if it is an import.
    pub(crate) fn import(&self, root: &str) -> Option<&[String]> {
        self.imports.get(root).map(Vec::as_slice)
    }
}

fn full_path(reference: &Expr) -> Vec<String> {
    steps(reference).map_or_else(Vec::new, |(root, steps)| {
        let mut path = vec![root.to_owned()];
        path.extend(leading_names(&steps));
        path
    })
}

/// The reference that names `rule` in its package.
pub(crate) fn rule_reference(rule: &Rule) -> &Expr {
    match rule {
        Rule::Default { refr, .. } => refr,
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. }
            | RuleHead::Set { refr, .. }
            | RuleHead::Func { refr, .. } => refr,
        },
    }
}

/// The names that `rule` declares anywhere in it, and which therefore may not be other rules.
pub(crate) fn declared(rule: &Rule) -> HashSet<&str> {
    let mut names = HashSet::new();
    match rule {
        Rule::Spec {
            head: RuleHead::Func { args, .. },
            ..
        }
        | Rule::Default { args, .. } => args.iter().for_each(|arg| variables(arg, &mut names)),
        Rule::Spec { .. } => {}
    }
    walk::rule(rule, &mut |node| match node {
        Node::Declaration(left) => variables(left, &mut names),
        Node::Statement(statement) => literal_declares(&statement.literal, &mut names),
        Node::Reference(_) | Node::Call { .. } => {}
    });
    names
}

fn literal_declares<'a>(literal: &'a Literal, names: &mut HashSet<&'a str>) {
    match literal {
        Literal::SomeVars { vars, .. } => names.extend(vars.iter().map(|span| span.text())),
        Literal::SomeIn { key, value, .. } => {
            if let Some(key) = key {
                variables(key, names);
            }
            variables(value, names);
        }
        Literal::Every { key, value, .. } => {
            names.extend(key.iter().map(|span| span.text()));
            names.insert(value.text());
        }
        Literal::Expr { .. } | Literal::NotExpr { .. } => {}
    }
}

fn variables<'a>(pattern: &'a Expr, names: &mut HashSet<&'a str>) {
    walk::expr(pattern, &mut |node| {
        if let Node::Reference(Expr::Var { span, .. }) = node {
            names.insert(span.text());
        }
    });
}
