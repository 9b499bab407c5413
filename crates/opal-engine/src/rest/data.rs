//! `/v1/data`: documents and decisions.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use regorus::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{
    Answer, Failure, MAX_DOCUMENT_BYTES, MAX_QUERY_BYTES, Outcome, Parameters, is_create_only,
    object, read, segments,
};
use crate::{Edit, Engine, EngineError, PatchOperation, json, path};

type Pairs = Query<Vec<(String, String)>>;

/// `GET /v1/data/…`: evaluates, with the parameter `input` if given.
pub(super) async fn get(State(engine): State<Engine>, uri: Uri, Query(pairs): Pairs) -> Outcome {
    let parameters = Parameters(pairs);
    let path = segments(&uri, "/v1/data")?;
    let input = parameters.get("input").map(json::parse_str).transpose();
    let input = input.map_err(|error| malformed("parameter", &error))?;
    decide(&engine, path, input, parameters.is_pretty(), None).await
}

#[derive(Debug, Deserialize)]
struct DecisionRequest<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// What OPA adds to an answer when the question has no input.
fn no_input_warning() -> Value {
    object([
        ("code", Value::from("api_usage_warning")),
        (
            "message",
            Value::from("'input' key missing from the request"),
        ),
    ])
}

/// `POST /v1/data/…`: evaluates with the member `input` of the body.
pub(super) async fn post(
    State(engine): State<Engine>,
    uri: Uri,
    Query(pairs): Pairs,
    body: Body,
) -> Outcome {
    let path = segments(&uri, "/v1/data")?;
    let body = read(body, MAX_QUERY_BYTES).await?;
    let input = decision_input(&body)?;
    let warning = input.is_none().then(no_input_warning);
    decide(&engine, path, input, Parameters(pairs).is_pretty(), warning).await
}

fn decision_input(body: &[u8]) -> Result<Option<Value>, Failure> {
    if body.is_empty() {
        return Ok(None);
    }
    let request: Option<DecisionRequest<'_>> = serde_json::from_slice(body)
        .map_err(|error| malformed("body", &EngineError::InvalidJson(error.to_string())))?;
    let input = request.and_then(|request| request.input);
    input
        .map(|input| json::parse_str(input.get()))
        .transpose()
        .map_err(|error| malformed("body", &error))
}

fn malformed(place: &str, error: &EngineError) -> Failure {
    Failure::invalid(format!(
        "{place} contains malformed input document: {error}"
    ))
}

async fn decide(
    engine: &Engine,
    path: Vec<String>,
    input: Option<Value>,
    is_pretty: bool,
    warning: Option<Value>,
) -> Outcome {
    let evaluated = engine.run(move |snapshot| {
        let result = snapshot.evaluate(&path, input)?;
        let result = result.map(|value| ("result", value));
        let warning = warning.map(|value| ("warning", value));
        let answer = object(result.into_iter().chain(warning));
        Ok(json::write_for(&answer, is_pretty))
    });
    Ok(Answer::Json(evaluated.await?))
}

/// `POST /v0/data/…`: the body is the input, the answer is the bare value.
pub(super) async fn post_v0(
    State(engine): State<Engine>,
    uri: Uri,
    Query(pairs): Pairs,
    body: Body,
) -> Outcome {
    let path = segments(&uri, "/v0/data")?;
    decide_bare(&engine, path, body, Parameters(pairs).is_pretty()).await
}

/// `POST /`: the same, of `data.system.main`.
pub(super) async fn default_decision(
    State(engine): State<Engine>,
    Query(pairs): Pairs,
    body: Body,
) -> Outcome {
    let path = vec!["system".to_owned(), "main".to_owned()];
    decide_bare(&engine, path, body, Parameters(pairs).is_pretty()).await
}

async fn decide_bare(engine: &Engine, path: Vec<String>, body: Body, is_pretty: bool) -> Outcome {
    let body = read(body, MAX_QUERY_BYTES).await?;
    let input = if body.is_empty() {
        b"null"
    } else {
        body.as_ref()
    };
    let input = json::parse(input).map_err(|error| malformed("body", &error))?;
    let name = crate::policy::dotted(&path);
    let evaluated = engine.run(move |snapshot| {
        let result = snapshot.evaluate(&path, Some(input))?;
        Ok(result.map(|value| json::write_for(&value, is_pretty)))
    });
    let text = evaluated.await?.ok_or_else(|| Failure::undefined(&name))?;
    Ok(Answer::Json(text))
}

/// `PUT /v1/data/…`: replaces the document.
pub(super) async fn put(
    State(engine): State<Engine>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let path = segments(&uri, "/v1/data")?;
    let document = read(body, MAX_DOCUMENT_BYTES).await?;
    if !is_create_only(&headers) {
        return edit(engine, Edit::PutData { path, document }).await;
    }
    // Judged by the writer: of two who create the same document, one does.
    match super::policies::apply(engine, Edit::CreateData { path, document }).await {
        Ok(()) => Ok(Answer::Done),
        Err(EngineError::DocumentExists) => Ok(Answer::NotModified),
        Err(error) => Err(error.into()),
    }
}

/// `DELETE /v1/data/…`: removes the document.
pub(super) async fn delete(State(engine): State<Engine>, uri: Uri) -> Outcome {
    let path = segments(&uri, "/v1/data")?;
    edit(engine, Edit::DeleteData { path }).await
}

#[derive(Debug, Deserialize)]
struct PatchBody {
    #[serde(default)]
    op: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    value: Option<Box<RawValue>>,
}

/// `PATCH /v1/data/…`: applies `add`, `remove` and `replace`, all or none.
pub(super) async fn patch(State(engine): State<Engine>, uri: Uri, body: Body) -> Outcome {
    let path = segments(&uri, "/v1/data")?;
    let body = read(body, MAX_DOCUMENT_BYTES).await?;
    let operations: Option<Vec<PatchBody>> =
        serde_json::from_slice(&body).map_err(|error| Failure::invalid(error.to_string()))?;
    let operations = operations.unwrap_or_default();
    let operations = operations.iter().map(operation).collect::<Result<_, _>>()?;
    edit(engine, Edit::PatchData { path, operations }).await
}

fn operation(body: &PatchBody) -> Result<PatchOperation, Failure> {
    let Some(path) = path::decode_pointer(&body.path) else {
        return Err(Failure::invalid(format!("bad patch path: {}", body.path)));
    };
    // As OPA: a missing value is null.
    let value = body.value.as_ref().map_or("null", |value| value.get());
    let document = Bytes::copy_from_slice(value.as_bytes());
    match body.op.as_str() {
        "add" => Ok(PatchOperation::Add { path, document }),
        "replace" => Ok(PatchOperation::Replace { path, document }),
        "remove" => Ok(PatchOperation::Remove { path }),
        other => Err(Failure::invalid(format!("bad patch operation: {other}"))),
    }
}

/// Applies one edit; answers 204.
async fn edit(engine: Engine, edit: Edit) -> Outcome {
    super::policies::apply(engine, edit).await?;
    Ok(Answer::Done)
}
