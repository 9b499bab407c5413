//! Visits what the checks look at in a rule: references, calls and statements.

use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Ref, Rule, RuleAssign, RuleHead, Span};

/// Something a check wants to see. Nested nodes come after the node that holds them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'a> {
    /// A whole reference: a variable with everything selected from it.
    Reference(&'a Expr),
    /// A call.
    Call {
        span: &'a Span,
        function: &'a Expr,
        arguments: &'a [Ref<Expr>],
    },
    /// An assignment `left := …`.
    Declaration(&'a Expr),
    /// A statement of a body.
    Statement(&'a LiteralStmt),
}

type Visit<'v, 'a> = &'v mut dyn FnMut(Node<'a>);

/// Visits everything in `rule` but its own name.
pub(crate) fn rule<'a>(rule: &'a Rule, visit: Visit<'_, 'a>) {
    match rule {
        Rule::Default { args, value, .. } => {
            exprs(args, visit);
            expr(value, visit);
        }
        Rule::Spec { head, bodies, .. } => {
            rule_head(head, visit);
            for body in bodies {
                assign(body.assign.as_ref(), visit);
                query(&body.query, visit);
            }
        }
    }
}

fn rule_head<'a>(head: &'a RuleHead, visit: Visit<'_, 'a>) {
    match head {
        RuleHead::Compr {
            refr,
            assign: value,
            ..
        } => {
            indexes(refr, visit);
            assign(value.as_ref(), visit);
        }
        RuleHead::Set { refr, key, .. } => {
            indexes(refr, visit);
            if let Some(key) = key {
                expr(key, visit);
            }
        }
        RuleHead::Func {
            refr,
            args,
            assign: value,
            ..
        } => {
            indexes(refr, visit);
            exprs(args, visit);
            assign(value.as_ref(), visit);
        }
    }
}

fn assign<'a>(assign: Option<&'a RuleAssign>, visit: Visit<'_, 'a>) {
    if let Some(assign) = assign {
        expr(&assign.value, visit);
    }
}

/// Visits the statements of a body or of a query by itself.
pub(crate) fn query<'a>(query: &'a Query, visit: Visit<'_, 'a>) {
    for statement in &query.stmts {
        visit(Node::Statement(statement));
        literal(&statement.literal, visit);
        for modifier in &statement.with_mods {
            expr(&modifier.r#as, visit);
        }
    }
}

fn literal<'a>(literal: &'a Literal, visit: Visit<'_, 'a>) {
    match literal {
        Literal::SomeVars { .. } => {}
        Literal::SomeIn {
            key,
            value,
            collection,
            ..
        } => {
            exprs(key.as_slice(), visit);
            expr(value, visit);
            expr(collection, visit);
        }
        Literal::Expr { expr: inner, .. } | Literal::NotExpr { expr: inner, .. } => {
            expr(inner, visit);
        }
        Literal::Every {
            domain,
            query: body,
            ..
        } => {
            expr(domain, visit);
            query(body, visit);
        }
    }
}

fn exprs<'a>(all: &'a [Ref<Expr>], visit: Visit<'_, 'a>) {
    for one in all {
        expr(one, visit);
    }
}

/// Visits `node` and what is nested in it.
pub(crate) fn expr<'a>(node: &'a Expr, visit: Visit<'_, 'a>) {
    match node {
        Expr::Var { .. } => visit(Node::Reference(node)),
        Expr::RefDot { .. } | Expr::RefBrack { .. } => {
            visit(Node::Reference(node));
            indexes(node, visit);
        }
        Expr::Call {
            span, fcn, params, ..
        } => {
            visit(Node::Call {
                span,
                function: fcn,
                arguments: params,
            });
            exprs(params, visit);
        }
        Expr::AssignExpr { op, lhs, rhs, .. } => {
            if matches!(op, regorus::unstable::AssignOp::ColEq) {
                visit(Node::Declaration(lhs));
            }
            expr(lhs, visit);
            expr(rhs, visit);
        }
        _ => composite(node, visit),
    }
}

fn composite<'a>(node: &'a Expr, visit: Visit<'_, 'a>) {
    match node {
        Expr::Array { items, .. } | Expr::Set { items, .. } => exprs(items, visit),
        Expr::Object { fields, .. } => {
            for (_, key, value) in fields {
                expr(key, visit);
                expr(value, visit);
            }
        }
        Expr::ArrayCompr {
            term, query: body, ..
        }
        | Expr::SetCompr {
            term, query: body, ..
        } => {
            expr(term, visit);
            query(body, visit);
        }
        Expr::ObjectCompr {
            key,
            value,
            query: body,
            ..
        } => {
            expr(key, visit);
            expr(value, visit);
            query(body, visit);
        }
        Expr::UnaryExpr { expr: inner, .. } => expr(inner, visit),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. } => {
            expr(lhs, visit);
            expr(rhs, visit);
        }
        Expr::Membership {
            key,
            value,
            collection,
            ..
        } => {
            exprs(key.as_slice(), visit);
            expr(value, visit);
            expr(collection, visit);
        }
        _ => {}
    }
}

/// Visits what stands in the brackets of a reference, and its base if that is not a variable.
fn indexes<'a>(mut reference: &'a Expr, visit: Visit<'_, 'a>) {
    loop {
        match reference {
            Expr::Var { .. } => return,
            Expr::RefDot { refr, .. } => reference = refr,
            Expr::RefBrack { refr, index, .. } => {
                expr(index, visit);
                reference = refr;
            }
            base => return expr(base, visit),
        }
    }
}
