//! Which variables an expression uses, and which it can bind.

use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Ref, Span};

use super::{Check, Safe, is_builtin};

/// A body inside an expression, with names of its own.
#[derive(Debug)]
pub(super) struct Closure<'a> {
    pub(super) query: &'a Query,
    /// What the body is there for.
    pub(super) terms: Vec<&'a Expr>,
    /// Bound from outside: key and value of `every`.
    pub(super) parameters: Vec<&'a str>,
}

pub(super) type Closures<'a> = Vec<Closure<'a>>;

/// What an expression (or several) uses, closures apart.
#[derive(Debug, Default)]
pub(super) struct Uses<'a> {
    variables: Vec<&'a Span>,
    /// References with brackets: they bind what stands in these.
    references: Vec<&'a Expr>,
    /// Calls: they may bind their last argument.
    calls: Vec<(&'a Expr, &'a [Ref<Expr>])>,
    pub(super) closures: Closures<'a>,
    is_negated: bool,
}

impl<'a> Uses<'a> {
    /// Everything a statement uses.
    pub(super) fn of(statement: &'a LiteralStmt) -> Self {
        let mut uses = Self::default();
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                key.iter().for_each(|key| uses.add(key));
                uses.add(value);
                uses.add(collection);
            }
            Literal::Expr { expr, .. } => uses.add(expr),
            Literal::NotExpr { expr, .. } => {
                uses.is_negated = true;
                uses.add(expr);
            }
            Literal::Every {
                key,
                value,
                domain,
                query,
                ..
            } => {
                uses.add(domain);
                let parameters = key.iter().chain([value]).map(Span::text).collect();
                uses.closures.push(Closure {
                    query,
                    terms: Vec::new(),
                    parameters,
                });
            }
        }
        let modifiers = statement.with_mods.iter().map(|modifier| &modifier.r#as);
        for value in modifiers.filter(|value| !is_builtin(value)) {
            uses.add(value);
        }
        uses
    }

    /// Adds what `expr` uses.
    pub(super) fn add(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Var { span, .. } => self.variables.push(span),
            Expr::RefDot { refr, .. } => self.add(refr),
            Expr::RefBrack { refr, index, .. } => {
                self.references.push(expr);
                self.add(refr);
                self.add(index);
            }
            Expr::Call { fcn, params, .. } => {
                self.calls.push((fcn, params));
                params.iter().for_each(|param| self.add(param));
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.add_closure(query, vec![term]);
            }
            Expr::ObjectCompr {
                key, value, query, ..
            } => self.add_closure(query, vec![key, value]),
            other => children(other)
                .into_iter()
                .for_each(|child| self.add(child)),
        }
    }

    fn add_closure(&mut self, query: &'a Query, terms: Vec<&'a Expr>) {
        self.closures.push(Closure {
            query,
            terms,
            parameters: Vec::new(),
        });
    }

    /// Binds what stands in the brackets of references whose base is bound, and the last argument
    /// of calls that receives their value.
    pub(super) fn bind_indexes(&self, check: &Check<'_>, safe: &mut Safe<'a>) {
        if self.is_negated {
            return;
        }
        for reference in &self.references {
            if is_base_safe(reference, safe) {
                safe.extend(indexes(reference).flat_map(bindable));
            }
        }
        for (function, arguments) in &self.calls {
            let Some(inputs) = check.inputs(function) else {
                continue;
            };
            if let Some((given, [result])) = arguments.split_at_checked(inputs)
                && given.iter().all(|argument| is_safe(argument, safe))
            {
                safe.extend(bindable(result));
            }
        }
    }

    /// The variables that are not in `safe`.
    pub(super) fn unbound(&self, safe: &Safe<'_>) -> Vec<&'a Span> {
        let is_wildcard_bound = !self.is_negated;
        let unbound = self.variables.iter().copied();
        unbound
            .filter(|span| !safe.contains(span.text()))
            .filter(|span| span.text() != "_" || !is_wildcard_bound)
            .collect()
    }
}

/// Whether all that `expr` uses, closures apart, is in `safe`.
pub(super) fn is_safe(expr: &Expr, safe: &Safe<'_>) -> bool {
    let mut uses = Uses::default();
    uses.add(expr);
    let mut variables = uses.variables.iter().map(|span| span.text());
    variables.all(|name| name == "_" || safe.contains(name))
}

fn is_base_safe(mut reference: &Expr, safe: &Safe<'_>) -> bool {
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = reference {
        reference = refr;
    }
    is_safe(reference, safe)
}

/// What stands in the brackets of a reference.
pub(super) fn indexes(mut reference: &Expr) -> impl Iterator<Item = &Expr> {
    let mut found = Vec::new();
    loop {
        match reference {
            Expr::RefDot { refr, .. } => reference = refr,
            Expr::RefBrack { refr, index, .. } => {
                found.push(index.as_ref());
                reference = refr;
            }
            _ => return found.into_iter(),
        }
    }
}

/// The variables that a pattern binds when it is matched.
pub(super) fn bindable(pattern: &Expr) -> Vec<&str> {
    match pattern {
        Expr::Var { span, .. } => vec![span.text()],
        Expr::Array { items, .. } => items.iter().flat_map(|item| bindable(item)).collect(),
        Expr::Object { fields, .. } => {
            let values = fields.iter().map(|(_, _, value)| value);
            values.flat_map(|value| bindable(value)).collect()
        }
        _ => Vec::new(),
    }
}

/// Binds what `left = right` binds.
pub(super) fn unify<'a>(left: &'a Expr, right: &'a Expr, safe: &mut Safe<'a>) {
    match (left, right) {
        (Expr::Array { items: left, .. }, Expr::Array { items: right, .. }) => {
            for (left, right) in left.iter().zip(right) {
                unify(left, right, safe);
            }
        }
        (Expr::Object { fields: left, .. }, Expr::Object { fields: right, .. }) => {
            for (_, key, value) in left {
                let same = |other: &&Ref<Expr>| other.span().text() == key.span().text();
                let mut others = right.iter().filter(|(_, other, _)| same(&other));
                if let Some((_, _, other)) = others.next() {
                    unify(value, other, safe);
                }
            }
        }
        _ => {
            if is_safe(right, safe) {
                safe.extend(bindable(left));
            }
            if is_safe(left, safe) {
                safe.extend(bindable(right));
            }
        }
    }
}

/// The expressions directly inside one that is no reference, call or closure.
fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().map(AsRef::as_ref).collect()
        }
        Expr::Object { fields, .. } => {
            let pairs = fields.iter();
            pairs
                .flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()])
                .collect()
        }
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership {
            key,
            value,
            collection,
            ..
        } => {
            let key = key.iter().map(AsRef::as_ref);
            key.chain([value.as_ref(), collection.as_ref()]).collect()
        }
        _ => Vec::new(),
    }
}
