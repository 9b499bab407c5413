//! Queries in Rego, as `/v1/query` takes them.

use regorus::unstable::Parser;
use regorus::{Source, Value};

use crate::policy::{check_query, check_text, length_limits, location};
use crate::snapshot::Snapshot;
use crate::{EngineError, PolicyProblem, ProblemCode};

/// Answers `query`: the bindings of each solution.
pub(crate) fn solve(
    snapshot: &Snapshot,
    query: &str,
    input: Option<Value>,
    v0_compatible: bool,
) -> Result<Vec<Value>, EngineError> {
    check(snapshot, query, v0_compatible).map_err(EngineError::Query)?;
    let results = snapshot
        .run(query.to_owned(), input)
        .map_err(refuse_unsafe)?;
    Ok(results
        .result
        .into_iter()
        .map(|r| named(r.bindings))
        .collect())
}

fn check(snapshot: &Snapshot, query: &str, v0_compatible: bool) -> Result<(), Vec<PolicyProblem>> {
    check_text("", query).map_err(|problem| vec![problem])?;
    let limits = length_limits();
    let parsed = Source::from_contents_with_limits(
        String::new(),
        query.to_owned(),
        limits.max_file_bytes,
        limits.max_lines,
    )
    .and_then(|source| {
        let mut parser = Parser::new(&source)?;
        parser.set_max_col(limits.max_col);
        if !v0_compatible {
            parser.enable_rego_v1()?;
        }
        parser.parse_user_query()
    })
    .map_err(|error| {
        vec![location::problem(
            "",
            ProblemCode::Parse,
            &error.to_string(),
        )]
    })?;
    let problems = check_query(&parsed, &snapshot.policies);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// An unsafe variable is the query's fault, and shows only when it is run.
fn refuse_unsafe(error: EngineError) -> EngineError {
    match error {
        EngineError::Evaluation(mut problems)
            if problems
                .iter()
                .any(|p| p.code == ProblemCode::UnsafeVariable) =>
        {
            for problem in &mut problems {
                problem.file = String::new();
            }
            EngineError::Query(problems)
        }
        other => other,
    }
}

/// The bindings without wildcards.
fn named(mut bindings: Value) -> Value {
    if let Ok(members) = bindings.as_object_mut() {
        members.remove(&Value::from("_"));
    }
    bindings
}
