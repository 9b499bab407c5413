//! `/v1/policies`: modules.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Uri;
use regorus::Value;

use super::answer::{
    Answer, Failure, MAX_DOCUMENT_BYTES, Outcome, Parameters, object, read, segments,
};
use crate::{Edit, Engine, EngineError, json};

/// `GET /v1/policies`: all modules, without their syntax trees.
pub(super) async fn list(
    State(engine): State<Engine>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Outcome {
    let policies = engine.policies();
    let policies = policies.iter().map(|(id, raw)| policy(id, raw));
    Ok(answer(Value::from(policies.collect::<Vec<_>>()), pairs))
}

/// `GET /v1/policies/ID`: one module, without its syntax tree.
pub(super) async fn get(
    State(engine): State<Engine>,
    uri: Uri,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Outcome {
    let id = policy_id(&uri)?;
    let policies = engine.policies();
    let Some(raw) = policies.get(&id) else {
        return Err(EngineError::PolicyNotFound(id).into());
    };
    Ok(answer(policy(&id, raw), pairs))
}

fn policy(id: &str, raw: &str) -> Value {
    object([("id", Value::from(id)), ("raw", Value::from(raw))])
}

fn answer(result: Value, pairs: Vec<(String, String)>) -> Answer {
    let body = object([("result", result)]);
    Answer::Json(json::write_for(&body, Parameters(pairs).is_pretty()))
}

/// `PUT /v1/policies/ID`: adds or replaces a module, if all then compile together.
pub(super) async fn put(State(engine): State<Engine>, uri: Uri, body: Body) -> Outcome {
    let id = policy_id(&uri)?;
    let body = read(body, MAX_DOCUMENT_BYTES).await?;
    let Ok(source) = std::str::from_utf8(&body) else {
        return Err(Failure::invalid(format!("policy {id:?} is not UTF-8")));
    };
    let source = Arc::from(source);
    apply(engine, Edit::PutPolicy { id, source }).await?;
    Ok(Answer::empty())
}

/// `DELETE /v1/policies/ID`: removes a module, if the others then still compile.
pub(super) async fn delete(State(engine): State<Engine>, uri: Uri) -> Outcome {
    let id = policy_id(&uri)?;
    let deleted = apply(engine, Edit::DeletePolicy { id }).await;
    deleted.map_err(|error| Failure::from(error).of_operation())?;
    Ok(Answer::empty())
}

fn policy_id(uri: &Uri) -> Result<String, Failure> {
    Ok(segments(uri, "/v1/policies")?.join("/"))
}

/// Applies one edit where blocking is allowed.
pub(super) async fn apply(engine: Engine, edit: Edit) -> Result<(), EngineError> {
    let applied = tokio::task::spawn_blocking(move || engine.apply(vec![vec![edit]]));
    let outcomes = applied.await.map_err(|_| crate::workers::gone())?;
    let outcome = outcomes.into_iter().next();
    outcome.unwrap_or_else(|| Err(crate::workers::gone()))
}
