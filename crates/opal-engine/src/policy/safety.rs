//! Finds variables that nothing binds.
//!
//! As in OPA, the statements of a body may stand in any order: a statement binds variables once what
//! it needs is bound. Whatever is still unbound when no statement binds more is unsafe. (`regorus`
//! finds only some of these before evaluation.)

mod terms;

use std::collections::HashSet;

use regorus::unstable::{
    AssignOp, Expr, Literal, LiteralStmt, Module, Query, Ref, Rule, RuleAssign, RuleBody, RuleHead,
};

use super::functions;
use super::location;
use super::names::{self, Scope};
use super::rules::RuleIndex;
use crate::{PolicyProblem, ProblemCode};
use terms::{Closures, Uses};

/// Names that have a value.
pub(super) type Safe<'a> = HashSet<&'a str>;

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
    check.body(query, &Safe::from(["data", "input"]), &mut problems);
    problems
}

fn globals<'a>(scope: &'a Scope, rules: &'a RuleIndex) -> Safe<'a> {
    let mut names = Safe::from(["data", "input"]);
    names.extend(scope.aliases());
    names.extend(rules.names_in(&scope.package));
    names
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
        let mut outer = globals.clone();
        if let RuleHead::Func { args, .. } = head {
            outer.extend(args.iter().flat_map(|arg| terms::bindable(arg)));
        }
        if bodies.is_empty() {
            self.head(head, None, &outer, problems);
        }
        for body in bodies {
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
            let declared = declared(statement);
            safe.retain(|name| !declared.contains(name));
        }
        let statements: Vec<_> = query.stmts.iter().map(|s| (s, Uses::of(s))).collect();
        loop {
            let before = safe.len();
            for (statement, uses) in &statements {
                self.bind(statement, uses, &mut safe);
            }
            if safe.len() == before {
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
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

/// Whether a name stands for a function of the engine, as a value in `with … as …`.
pub(super) fn is_builtin(reference: &Expr) -> bool {
    names::steps(reference).is_some_and(|(root, steps)| functions::is_builtin(root, &steps))
}
