//! `/data/…`: where clients find their data, and updates of it.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opal_protocol::{DataUpdate, DataUpdateReport, PeerType, RedactedUrl, ServerDataSourceConfig};
use serde_json::{Value, json};
use tracing::{info, warn};
use url::Url;

use crate::error::ApiError;
use crate::extract::{Bearer, JsonBody};
use crate::idempotency::IdempotencyKey;
use crate::position;
use crate::publish::{DataPublish, DataPublishError};
use crate::server::App;
use crate::wait::{self, Wait};

/// Failed entries of a report that are logged one by one.
const LOGGED_ENTRIES: usize = 10;
/// Characters that are logged of a text in it.
const LOGGED_CHARS: usize = 1_000;

/// `GET /data/config`: from where a client gets the full picture. Needs any token.
///
/// A redirect passes on whatever token came along, also if we do not check it ourselves.
pub(crate) async fn sources(
    _bearer: Bearer,
    State(app): State<App>,
    headers: HeaderMap,
) -> Response {
    match &app.config.data.sources {
        ServerDataSourceConfig::Static(config) => Json(config).into_response(),
        ServerDataSourceConfig::External(url) => {
            let location = with_token(url, bearer_token(&headers));
            (
                StatusCode::TEMPORARY_REDIRECT,
                [(header::LOCATION, location)],
            )
                .into_response()
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    std::str::from_utf8(opal_runtime::token::bearer(value.as_bytes())?).ok()
}

/// As upstream: the token goes into the query, since a client's HTTP library drops the header
/// when a redirect leads elsewhere.
fn with_token(url: &Url, token: Option<&str>) -> String {
    let mut url = url.clone();
    if let Some(token) = token {
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != "token")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(others)
            .append_pair("token", token);
    }
    url.into()
}

/// `POST /data/config`: publishes a data update to the clients subscribed to its topics.
///
/// Needs a `datasource` token; one that lists `permitted_topics` may publish to no other.
/// Answers once the update has its place in the feed, which the headers name, before it is delivered;
/// with `?wait=` once it is applied or the time is up, and says by whom. A repeat with the same
/// `Idempotency-Key` publishes nothing.
pub(crate) async fn publish(
    bearer: Bearer,
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let update = DataUpdate::parse(&body.0)?;
    bearer.require(PeerType::DataSource)?;
    let topics = update.entries.iter().flat_map(|entry| &entry.topics);
    bearer.require_topics(topics)?;
    let publish = DataPublish {
        update,
        key: IdempotencyKey::read(&headers)?,
        wait: Wait::read(query.as_deref())?,
    };
    let published = app.publications.data_update(publish).await?;
    let body = match &published.outcome {
        None => json!({ "status": "ok" }),
        Some(outcome) => wait::answer(
            &bearer,
            app.publications.scope(),
            &published.position,
            outcome,
        ),
    };
    let mut response = Json(body).into_response();
    position::say_change(&mut response, &published.position);
    let durable = app.config.feed.directory.is_some();
    let durable = HeaderValue::from_static(if durable { "true" } else { "false" });
    response.headers_mut().insert("x-opal-durable", durable);
    Ok(response)
}

impl From<DataPublishError> for ApiError {
    fn from(error: DataPublishError) -> Self {
        let text = error.to_string();
        match error {
            DataPublishError::TooLarge { .. } => Self::refused(StatusCode::PAYLOAD_TOO_LARGE, text),
            DataPublishError::KeyReused => Self::refused(StatusCode::UNPROCESSABLE_ENTITY, text),
            DataPublishError::NotAccepted(_) => Self::unavailable(text),
        }
    }
}

/// `GET /policy-data`: the default data source, which has nothing.
pub(crate) async fn empty() -> Json<Value> {
    Json(json!({}))
}

/// `POST /data/callback_report`: takes a client's report and logs it. Needs any token.
pub(crate) async fn report(_bearer: Bearer, body: JsonBody) -> Result<Json<Value>, ApiError> {
    let report = DataUpdateReport::parse(&body.0)?;
    let update = report.update_id.as_ref().map(shortened);
    let policy = report.policy_hash.as_ref().map(shortened);
    for complaint in complaints(&report) {
        warn!(update.id = update, "{complaint}");
    }
    info!(
        update.id = update,
        policy.head = policy,
        entry.count = report.reports.len(),
        "A client reports what it applied"
    );
    Ok(Json(json!({})))
}

/// What a report says went wrong, in lines for the log: few and short, whatever a peer sends.
fn complaints(report: &DataUpdateReport) -> Vec<String> {
    let failed = || report.reports.iter().filter(|entry| !entry.saved);
    let named = failed().take(LOGGED_ENTRIES).map(|failed| {
        let url = shortened(&RedactedUrl::from(failed.entry.url.as_str()));
        let path = shortened(&failed.entry.dst_path);
        format!("A client could not apply the entry `{url}` at `{path}`")
    });
    let others = failed().count().saturating_sub(LOGGED_ENTRIES);
    let others = (others > 0).then(|| format!("… nor {others} entries more"));
    let error = report.user_data.get("error");
    let error = error.map(|error| format!("A client reports: {}", shortened(error)));
    named.chain(others).chain(error).collect()
}

fn shortened(text: &impl ToString) -> String {
    let mut text = text.to_string();
    if let Some((end, _)) = text.char_indices().nth(LOGGED_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fills_no_log() {
        let long = "x".repeat(5_000);
        let entry =
            json!({ "url": format!("http://u:pw@h/{long}"), "topics": [], "dst_path": long });
        let failed = vec![json!({ "entry": entry, "saved": false }); 50];
        let body = json!({ "reports": failed, "user_data": { "error": long } });
        let report = DataUpdateReport::parse(body.to_string().as_bytes()).unwrap();
        let lines = complaints(&report);
        assert_eq!(lines.len(), 12);
        assert_eq!(lines[10], "… nor 40 entries more");
        for line in lines {
            assert!(
                line.chars().count() < 2_200 && !line.contains("pw"),
                "{line}"
            );
        }
    }

    #[test]
    fn the_token_replaces_an_older_one_in_a_redirect_and_keeps_the_rest() {
        let url = Url::parse("https://x.example/d?a=1&token=old&b=2").unwrap();
        assert_eq!(
            with_token(&url, Some("new")),
            "https://x.example/d?a=1&b=2&token=new"
        );
        assert_eq!(with_token(&url, None), url.as_str());
    }
}
