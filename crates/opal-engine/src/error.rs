//! What can go wrong, in the engine's own words.

use std::fmt;

/// Why an edit or a query failed.
///
/// The texts are OPA's where OPA has one, because they end up in its error bodies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The modules, taken together, do not compile, or use what this engine lacks.
    #[error("{}", summary(.0))]
    Policies(Vec<PolicyProblem>),
    /// A rule and a base document claim the same path.
    #[error("{}", conflicts(.0))]
    PolicyDataConflict(Vec<PolicyProblem>),
    /// There is no module of this name.
    #[error("storage_not_found_error: policy id {0:?}")]
    PolicyNotFound(String),
    /// There is no document at the path.
    #[error("storage_not_found_error: {}", hint.as_deref().unwrap_or("document does not exist"))]
    DocumentNotFound {
        /// What more is known, the path included.
        hint: Option<String>,
    },
    /// There is a document at the path where one was to be created.
    #[error("the document exists")]
    DocumentExists,
    /// Something on the way to the path is not an object.
    #[error("storage_write_conflict_error: {0}")]
    WriteConflict(String),
    /// The patch cannot be applied to any document.
    #[error("storage_invalid_patch_error: {0}")]
    InvalidPatch(String),
    /// A document or input is not JSON that the engine takes.
    #[error("{0}")]
    InvalidJson(String),
    /// A query does not parse or compile.
    #[error("{}", summary(.0))]
    Query(Vec<PolicyProblem>),
    /// Evaluation failed, as it would in OPA.
    #[error("{}", summary(.0))]
    Evaluation(Vec<PolicyProblem>),
    /// Evaluation took longer than [`EngineOptions::evaluation_limit`](crate::EngineOptions).
    #[error("evaluation exceeded its time limit")]
    DeadlineExceeded,
    /// A bug in a builtin or in the engine; only this request is affected.
    #[error("the evaluation panicked: {0}")]
    Panicked(String),
}

/// What is wrong with a module, a query or an evaluation, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The kind of problem.
    pub code: ProblemCode,
    /// The module's id; empty for a query.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub row: u32,
    /// Column, from 1; 0 if unknown.
    pub col: u32,
    /// What is wrong, naming the builtin, function, rule or variable.
    pub message: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            row,
            col,
            message,
            code,
        } = self;
        write!(out, "{file}:{row}:{col}: {}: {message}", code.as_str())
    }
}

/// OPA's codes of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemCode {
    /// Not Rego, or Rego that this engine cannot read.
    Parse,
    /// Refused by a check that has no code of its own.
    Compile,
    /// A function that does not exist, a wrong number of arguments, rules that contradict.
    Type,
    /// A variable that nothing binds.
    UnsafeVariable,
    /// A rule that needs itself.
    Recursion,
    /// Two different values for one rule.
    Conflict,
    /// A failure during evaluation without a code of its own.
    Internal,
}

impl ProblemCode {
    /// The code as it stands in OPA's bodies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "rego_parse_error",
            Self::Compile => "rego_compile_error",
            Self::Type => "rego_type_error",
            Self::UnsafeVariable => "rego_unsafe_var_error",
            Self::Recursion => "rego_recursion_error",
            Self::Conflict => "eval_conflict_error",
            Self::Internal => "eval_internal_error",
        }
    }
}

fn summary(problems: &[PolicyProblem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// As OPA writes a list of compile errors.
fn conflicts(problems: &[PolicyProblem]) -> String {
    let lines: Vec<_> = problems
        .iter()
        .map(|p| format!("{}:{}: {}: {}", p.file, p.row, p.code.as_str(), p.message))
        .collect();
    match lines.as_slice() {
        [one] => format!("1 error occurred: {one}"),
        many => format!("{} errors occurred:\n{}", many.len(), many.join("\n")),
    }
}
