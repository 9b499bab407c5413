//! `GET /v1/feed/base`: what the data updates so far come down to, for someone who comes late.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use opal_protocol::{Position, ScopeId, Topic};
use opal_pubsub::{HubStopped, Publisher};
use url::form_urlencoded;

use crate::error::ApiError;
use crate::extract::Bearer;
use crate::position::{self, Made, begin_read};
use crate::server::App;

/// Encoded bases that are kept, in bytes.
const KEPT: u64 = 32 * 1024 * 1024;
/// So many topics a request may name: as many as a connection may have.
const MOST_TOPICS: usize = opal_pubsub::hub::MOST_TOPICS;

/// `GET /v1/feed/base?scope=…&topic=…&topic=…`: needs any token that may read the scope and have the
/// topics.
///
/// `X-Opal-At-Least` and `X-Opal-Position` are as with bundles; the body names its own position,
/// which is that or later.
pub(crate) async fn base(
    bearer: Bearer,
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(query.as_deref())?;
    bearer.require_scope(&wanted.scope)?;
    bearer.require_topics(wanted.topics.iter())?;
    let position = begin_read(&app, &wanted.scope, &headers, Made::FromFeed).await?;
    let json = app.bases.get(wanted, position).await?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    position::say(&mut response, position);
    Ok(response)
}

/// What a request asks for; equal for equal requests, however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    scope: ScopeId,
    topics: Vec<Topic>,
}

impl Wanted {
    fn read(query: Option<&str>) -> Result<Self, ApiError> {
        let mut scope = ScopeId::default();
        let mut topics = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "scope" => scope = ScopeId::from(value.as_ref()),
                "topic" => topics.push(Topic::from(value.as_ref())),
                _ => {}
            }
        }
        topics.sort();
        topics.dedup();
        if topics.len() > MOST_TOPICS {
            let text = format!("at most {MOST_TOPICS} topics can be asked for at once");
            return Err(ApiError::bad_request(text));
        }
        Ok(Self { scope, topics })
    }

    /// Bytes that it takes.
    fn size(&self) -> usize {
        let each = size_of::<Topic>();
        let topics = self.topics.iter().map(|topic| each + topic.as_str().len());
        self.scope.as_str().len() + topics.sum::<usize>()
    }
}

/// Makes bases and keeps them: each is made once, whoever and however many ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bases {
    publisher: Publisher,
    made: Cache<(Wanted, Option<Position>), Bytes>,
}

impl Bases {
    pub(crate) fn new(publisher: Publisher) -> Self {
        let made = Cache::builder()
            .max_capacity(KEPT)
            .weigher(|(wanted, _): &(Wanted, _), base: &Bytes| {
                u32::try_from(wanted.size() + base.len() + 400).unwrap_or(u32::MAX)
            })
            // Nobody asks for an older position once there is a newer one.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { publisher, made }
    }

    /// The encoded base at `position` or later.
    async fn get(&self, wanted: Wanted, position: Option<Position>) -> Result<Bytes, ApiError> {
        let (scope, topics) = (wanted.scope.clone(), wanted.topics.clone());
        let make = async {
            let base = self.publisher.base(&scope, topics).await?;
            Ok(serde_json::to_vec(&base)
                .expect("a base prints as JSON")
                .into())
        };
        let made: Result<Bytes, Arc<HubStopped>> =
            self.made.try_get_with((wanted, position), make).await;
        made.map_err(|stopped| (*stopped).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_topics_makes_no_other_request() {
        let read = |query| Wanted::read(Some(query)).unwrap();
        let wanted = read("topic=b&topic=a&topic=b");
        assert_eq!(wanted, read("topic=a&x=1&scope=default&topic=b"));
        assert_ne!(wanted, read("topic=a&topic=b&scope=s1"));
        let many: String = (0..=MOST_TOPICS).map(|n| format!("topic={n}&")).collect();
        assert!(Wanted::read(Some(&many)).is_err());
    }

    #[test]
    fn what_is_asked_for_counts_as_kept() {
        let long = format!("topic={}", "x".repeat(100_000));
        assert!(Wanted::read(Some(&long)).unwrap().size() >= 100_000);
    }
}
