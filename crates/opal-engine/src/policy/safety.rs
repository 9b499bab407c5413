//! Finds variables that nothing binds.
//!
//! As in OPA, the statements of a body may stand in any order: a statement binds variables once what
//! it needs is bound. Whatever is still unbound when no statement binds more is unsafe. (`regorus`
//! finds only some of these before evaluation.)

mod terms;

use std::collections::HashSet;
use std::rc::Rc;

use regorus::unstable::{
    AssignOp, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleAssign, RuleBody, RuleHead,
};

use super::functions;
use super::location;
use super::names::{self, Scope};
use super::rules::RuleIndex;
use crate::{PolicyProblem, ProblemCode};
use terms::{Closures, Uses};

/// Names that have a value: those of the package, unless a body hides them, and those that
/// statements bind.
#[derive(Debug, Clone)]
pub(super) struct Safe<'a> {
    globals: Rc<HashSet<&'a str>>,
    hidden: HashSet<&'a str>,
    bound: HashSet<&'a str>,
}

impl<'a> Safe<'a> {
    fn new(globals: impl IntoIterator<Item = &'a str>) -> Self {
        let mut globals: HashSet<_> = globals.into_iter().collect();
        globals.extend(["data", "input"]);
        Self {
            globals: Rc::new(globals),
            hidden: HashSet::new(),
            bound: HashSet::new(),
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let is_global = self.globals.contains(name) && !self.hidden.contains(name);
        is_global || self.bound.contains(name)
    }

    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let globals = &self.globals;
        let hidden = &self.hidden;
        let names = names.into_iter();
        let new = names.filter(|name| hidden.contains(name) || !globals.contains(name));
        self.bound.extend(new);
    }

    /// Takes a name's value from outside away.
    fn hide(&mut self, name: &'a str) {
        self.bound.remove(name);
        self.hidden.insert(name);
    }
}

/// Variables in `modules` that nothing binds.
pub(crate) fn check(modules: &[Ref<Module>], rules: &RuleIndex) -> Vec<PolicyProblem> {
    let mut problems = Vec::new();
    for module in modules {
        let scope = Scope::new(module);
        let globals = globals(&scope, rules);
        let check = Check {
            scope: &scope,
            rules,
        };
        for rule in &module.policy {
            check.rule(rule, &globals, &mut problems);
        }
    }
    problems
}

/// Variables in a query that nothing binds.
pub(crate) fn check_query(query: &Query, rules: &RuleIndex) -> Vec<PolicyProblem> {
    let scope = Scope::of_query();
    let check = Check {
        scope: &scope,
        rules,
    };
    let mut problems = Vec::new();
    report_redeclared(query, &HashSet::new(), &mut problems);
    check.body(query, &Safe::new([]), &mut problems);
    problems
}

/// The variables that a query binds.
pub(crate) fn bound_by_query(query: &Query, rules: &RuleIndex) -> Vec<String> {
    let scope = Scope::of_query();
    let check = Check {
        scope: &scope,
        rules,
    };
    let bound = check.body(query, &Safe::new([]), &mut Vec::new()).bound;
    let mut names: Vec<_> = bound.into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

fn globals<'a>(scope: &'a Scope, rules: &'a RuleIndex) -> Safe<'a> {
    Safe::new(scope.aliases().chain(rules.names_in(&scope.package)))
}

/// What a check looks things up in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check<'c> {
    scope: &'c Scope,
    rules: &'c RuleIndex,
}

impl<'c> Check<'c> {
    /// The number of arguments that a function takes; one more receives its value.
    pub(super) fn inputs(&self, function: &Expr) -> Option<usize> {
        functions::inputs(function, self.scope, self.rules)
    }

    fn rule<'a>(&self, rule: &'a Rule, globals: &Safe<'a>, problems: &mut Vec<PolicyProblem>) {
        let Rule::Spec { head, bodies, .. } = rule else {
            return;
        };
        let arguments: HashSet<_> = match head {
            RuleHead::Func { args, .. } => args.iter().flat_map(|a| terms::bindable(a)).collect(),
            _ => HashSet::new(),
        };
        let mut outer = globals.clone();
        outer.extend(arguments.iter().copied());
        if bodies.is_empty() {
            self.head(head, None, &outer, problems);
        }
        for body in bodies {
            report_redeclared(&body.query, &arguments, problems);
            let safe = self.body(&body.query, &outer, problems);
            self.head(head, Some(body), &safe, problems);
        }
    }

    /// Checks what a body must have bound for the head.
    fn head<'a>(
        &self,
        head: &'a RuleHead,
        body: Option<&'a RuleBody>,
        safe: &Safe<'a>,
        problems: &mut Vec<PolicyProblem>,
    ) {
        let mut uses = Uses::default();
        let mut own = |assign: &'a Option<RuleAssign>| {
            let assign = body
                .and_then(|body| body.assign.as_ref())
                .or(assign.as_ref());
            assign
                .into_iter()
                .for_each(|assign| uses.add(&assign.value));
        };
        match head {
            RuleHead::Compr { refr, assign, .. } => {
                own(assign);
                terms::indexes(refr).for_each(|index| uses.add(index));
            }
            RuleHead::Set { refr, key, .. } => {
                key.iter().for_each(|key| uses.add(key));
                terms::indexes(refr).for_each(|index| uses.add(index));
            }
            RuleHead::Func { refr, assign, .. } => {
                own(assign);
                terms::indexes(refr).for_each(|index| uses.add(index));
            }
        }
        let mut safe = safe.clone();
        uses.bind_indexes(self, &mut safe);
        report(&uses, &safe, problems);
        self.closures(&uses.closures, &safe, problems);
    }

    /// Checks a body; answers what is bound at its end.
    fn body<'a>(
        &self,
        query: &'a Query,
        outer: &Safe<'a>,
        problems: &mut Vec<PolicyProblem>,
    ) -> Safe<'a> {
        let mut safe = outer.clone();
        for statement in &query.stmts {
            declared(statement)
                .into_iter()
                .for_each(|name| safe.hide(name));
        }
        let statements: Vec<_> = query.stmts.iter().map(|s| (s, Uses::of(s))).collect();
        loop {
            let before = safe.bound.len();
            for (statement, uses) in &statements {
                self.bind(statement, uses, &mut safe);
            }
            if safe.bound.len() == before {
                break;
            }
        }
        for (_, uses) in &statements {
            report(uses, &safe, problems);
            self.closures(&uses.closures, &safe, problems);
        }
        safe
    }

    /// Adds what `statement` binds when `safe` is bound.
    fn bind<'a>(&self, statement: &'a LiteralStmt, uses: &Uses<'a>, safe: &mut Safe<'a>) {
        match &statement.literal {
            Literal::NotExpr { .. } | Literal::SomeVars { .. } => {}
            Literal::Every { .. } => uses.bind_indexes(self, safe),
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                uses.bind_indexes(self, safe);
                if terms::is_safe(collection, safe) {
                    safe.extend(key.iter().flat_map(|key| terms::bindable(key)));
                    safe.extend(terms::bindable(value));
                }
            }
            Literal::Expr { expr, .. } => {
                uses.bind_indexes(self, safe);
                if let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref() {
                    terms::unify(lhs, rhs, safe);
                }
            }
        }
    }

    fn closures<'a>(
        &self,
        closures: &Closures<'a>,
        outer: &Safe<'a>,
        problems: &mut Vec<PolicyProblem>,
    ) {
        for closure in closures {
            let mut outer = outer.clone();
            outer.extend(closure.parameters.iter().copied());
            let mut safe = self.body(closure.query, &outer, problems);
            let mut uses = Uses::default();
            closure.terms.iter().for_each(|term| uses.add(term));
            uses.bind_indexes(self, &mut safe);
            report(&uses, &safe, problems);
            self.closures(&uses.closures, &safe, problems);
        }
    }
}

/// What a statement declares for its body.
fn declared(statement: &LiteralStmt) -> HashSet<&str> {
    match &statement.literal {
        Literal::SomeVars { vars, .. } => vars.iter().map(|span| span.text()).collect(),
        Literal::SomeIn { key, value, .. } => {
            let keys = key.iter().flat_map(|key| terms::bindable(key));
            keys.chain(terms::bindable(value)).collect()
        }
        Literal::Expr { expr, .. } => match expr.as_ref() {
            Expr::AssignExpr {
                op: AssignOp::ColEq,
                lhs,
                ..
            } => terms::bindable(lhs).into_iter().collect(),
            _ => HashSet::new(),
        },
        Literal::NotExpr { .. } | Literal::Every { .. } => HashSet::new(),
    }
}

fn report(uses: &Uses<'_>, safe: &Safe<'_>, problems: &mut Vec<PolicyProblem>) {
    for span in uses.unbound(safe) {
        let message = format!("var {} is unsafe", span.text());
        let problem = location::at(span, ProblemCode::UnsafeVariable, message);
        push_once(problems, problem);
    }
}

/// Adds a problem, unless the same one is known of the same line.
fn push_once(problems: &mut Vec<PolicyProblem>, problem: PolicyProblem) {
    let is_same = |other: &PolicyProblem| {
        (&other.file, other.row, &other.message) == (&problem.file, problem.row, &problem.message)
    };
    if !problems.iter().any(is_same) {
        problems.push(problem);
    }
}

/// Reports names that a body declares twice, or that are `arguments` already.
fn report_redeclared<'a>(
    query: &'a Query,
    arguments: &HashSet<&'a str>,
    problems: &mut Vec<PolicyProblem>,
) {
    let mut seen: HashSet<&str> = HashSet::new();
    for statement in &query.stmts {
        for name in declared(statement) {
            let message = match name {
                _ if arguments.contains(name) => format!("arg {name} redeclared"),
                _ if !seen.insert(name) => format!("var {name} assigned above"),
                _ => continue,
            };
            push_once(
                problems,
                location::at(&statement.span, ProblemCode::Compile, message),
            );
        }
    }
}

/// Whether a name stands for a function of the engine, as a value in `with … as …`.
pub(super) fn is_builtin(reference: &Expr) -> bool {
    names::steps(reference).is_some_and(|(root, steps)| functions::is_builtin(root, &steps))
}
