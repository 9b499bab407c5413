//! Queries in Rego, as `/v1/query` takes them.

use regorus::unstable::{Parser, Query, Ref};
use regorus::{Source, Value};

use crate::path::quote;
use crate::policy::{bound_by_query, check_query, check_text, length_limits, location};
use crate::snapshot::Snapshot;
use crate::{EngineError, PolicyProblem, ProblemCode};

/// Answers `query`: the bindings of each solution.
pub(crate) fn solve(
    snapshot: &Snapshot,
    query: &str,
    input: Option<Value>,
    v0_compatible: bool,
) -> Result<Vec<Value>, EngineError> {
    let parsed = parse(query, v0_compatible).map_err(EngineError::Query)?;
    let problems = check_query(&parsed, &snapshot.policies);
    if !problems.is_empty() {
        return Err(EngineError::Query(problems));
    }
    let variables = bound_by_query(&parsed, &snapshot.policies);
    if variables.is_empty() {
        let solutions = snapshot.run(query.to_owned(), input)?.result;
        return Ok(vec![Value::new_object(); solutions.len()]);
    }
    let answer = snapshot.run(collecting(query, &variables), input)?;
    let first = answer.result.into_iter().next();
    let value = first.and_then(|result| Some(result.expressions.into_iter().next()?.value));
    let solutions = value.as_ref().and_then(|value| value.as_array().ok());
    Ok(solutions.map_or_else(Vec::new, |all| all.to_vec()))
}

/// The query that collects the solutions of `query`: the engine's own bindings leave variables out
/// that stand in brackets.
fn collecting(query: &str, variables: &[String]) -> String {
    let members = variables
        .iter()
        .map(|name| format!("{}: {name}", quote(name)));
    let members: Vec<_> = members.collect();
    format!("[{{{}}} | {query}\n]", members.join(", "))
}

fn parse(query: &str, v0_compatible: bool) -> Result<Ref<Query>, Vec<PolicyProblem>> {
    check_text("", query).map_err(|problem| vec![problem])?;
    let limits = length_limits();
    let source = Source::from_contents_with_limits(
        String::new(),
        query.to_owned(),
        limits.max_file_bytes,
        limits.max_lines,
    );
    let parsed = source.and_then(|source| {
        let mut parser = Parser::new(&source)?;
        parser.set_max_col(limits.max_col);
        if !v0_compatible {
            parser.enable_rego_v1()?;
        }
        parser.parse_user_query()
    });
    parsed.map_err(|error| {
        vec![location::problem(
            "",
            ProblemCode::Parse,
            &error.to_string(),
        )]
    })
}
