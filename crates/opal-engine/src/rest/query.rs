//! `/v1/query`: Rego text in, bindings out.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use regorus::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Answer, Failure, MAX_QUERY_BYTES, Outcome, Parameters, object, read};
use crate::{Engine, json, query};

#[derive(Debug, Deserialize)]
struct QueryRequest<'a> {
    #[serde(default)]
    query: String,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// `GET /v1/query?q=…`
pub(super) async fn get(
    State(engine): State<Engine>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Outcome {
    let parameters = Parameters(pairs);
    let Some(text) = parameters.get("q") else {
        return Err(Failure::invalid("missing parameter 'q'"));
    };
    solve(&engine, text.to_owned(), None, parameters.is_pretty()).await
}

/// `POST /v1/query` with `query` and, if wanted, `input`.
pub(super) async fn post(
    State(engine): State<Engine>,
    Query(pairs): Query<Vec<(String, String)>>,
    body: Body,
) -> Outcome {
    let body = read(body, MAX_QUERY_BYTES).await?;
    let request: QueryRequest<'_> =
        serde_json::from_slice(&body).map_err(|error| undecoded(&error))?;
    let input = request
        .input
        .map(|input| json::parse_str(input.get()))
        .transpose();
    let input = input.map_err(|error| undecoded(&error))?;
    solve(&engine, request.query, input, Parameters(pairs).is_pretty()).await
}

fn undecoded(error: &dyn std::fmt::Display) -> Failure {
    Failure::invalid(format!("error(s) occurred while decoding request: {error}"))
}

async fn solve(engine: &Engine, text: String, input: Option<Value>, is_pretty: bool) -> Outcome {
    if text.trim().is_empty() {
        // As OPA, which does not count this as the caller's fault.
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(Failure::new(
            status,
            "internal_error",
            "cannot evaluate empty query",
        ));
    }
    let v0_compatible = engine.options().v0_compatible;
    let solved = engine.run(move |snapshot| {
        let result = query::solve(snapshot, &text, input, v0_compatible)?;
        let result = (!result.is_empty()).then(|| ("result", Value::from(result)));
        Ok(json::write_for(&object(result), is_pretty))
    });
    Ok(Answer::Json(solved.await?))
}
