//! OPA's answers.

use serde::Deserialize;
use serde_json::Value;

use crate::policy_store::PolicyProblem;
use crate::policy_store::system::HEALTH_CHECK_POLICY;

/// What `GET /v1/policies` lists.
#[derive(Debug, Deserialize)]
pub(super) struct PolicyList {
    #[serde(default)]
    pub(super) result: Vec<StoredPolicy>,
}

/// One policy in OPA.
#[derive(Debug, Deserialize)]
pub(super) struct StoredPolicy {
    pub(super) id: String,
    #[serde(default)]
    pub(super) raw: String,
    #[serde(default)]
    ast: Ast,
}

#[derive(Debug, Default, Deserialize)]
struct Ast {
    #[serde(default)]
    package: Package,
}

#[derive(Debug, Default, Deserialize)]
struct Package {
    #[serde(default)]
    path: Vec<Term>,
}

#[derive(Debug, Deserialize)]
struct Term {
    value: Value,
}

impl StoredPolicy {
    /// Whether this policy is OPA's or ours, not a bundle's: package `system` or below it, or the
    /// health-check policy.
    pub(super) fn is_system(&self) -> bool {
        // The first term of a package's path is always `data`.
        let top = self.ast.package.path.get(1);
        self.id == HEALTH_CHECK_POLICY || top.is_some_and(|term| term.value == "system")
    }
}

/// What `GET /v1/data` answers; nothing at the path is no `result`.
#[derive(Debug, Deserialize)]
pub(super) struct DataAnswer {
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
}

/// A member that is there, even if it is null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Whether this is the body of a failure that OPA itself tells of, and not something between us and
/// OPA: OPA always names a code.
pub(super) fn is_opa_s(body: &str) -> bool {
    #[derive(Deserialize)]
    struct Coded {
        code: String,
    }
    serde_json::from_str::<Coded>(body).is_ok_and(|coded| !coded.code.is_empty())
}

/// Whether a success may have this body.
pub(super) fn is_json_or_empty(body: &str) -> bool {
    let body = body.trim();
    body.is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok()
}

/// The body of a failure.
#[derive(Debug, Default, Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Problem>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    location: Option<Location>,
}

#[derive(Debug, Default, Deserialize)]
struct Location {
    #[serde(default)]
    file: String,
    #[serde(default)]
    row: u32,
    #[serde(default)]
    col: u32,
}

/// What a failure's body says, for people; a body that is not OPA's is cut short.
pub(super) fn message(body: &str) -> String {
    let Ok(failure) = serde_json::from_str::<Failure>(body) else {
        return body.chars().take(200).collect();
    };
    let details = failure.errors.into_iter().map(|problem| problem.message);
    let texts = [failure.message].into_iter().chain(details);
    let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    texts.join(": ")
}

/// The problems that OPA found when it was given the module `id`; at least one.
pub(super) fn problems(id: &str, body: &str) -> Vec<PolicyProblem> {
    let failure: Failure = serde_json::from_str(body).unwrap_or_default();
    if failure.errors.is_empty() {
        return vec![PolicyProblem {
            file: id.to_owned(),
            row: 0,
            col: 0,
            code: "refused".to_owned(),
            message: message(body),
        }];
    }
    let problems = failure.errors.into_iter().map(|problem| {
        let location = problem.location.unwrap_or_default();
        let is_named = !location.file.is_empty();
        PolicyProblem {
            file: if is_named {
                location.file
            } else {
                id.to_owned()
            },
            row: location.row,
            col: location.col,
            code: problem.code,
            message: problem.message,
        }
    });
    problems.collect()
}
