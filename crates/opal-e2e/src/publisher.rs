//! A publisher that never loses count: what it was told is accepted must be there at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use opal_protocol::Position;
use opal_testing::http;
use opal_testing::wait;
use serde_json::{Map, Value, json};

use crate::deployment::Deployment;

/// Documents that are written again and again.
const DOCUMENTS: usize = 20;
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publishes one change after the other, each until it is accepted, and repeats with the same
/// `Idempotency-Key`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    url: String,
    token: String,
    accepted: Arc<Mutex<Vec<Position>>>,
}

impl Publisher {
    /// A publisher to the server of `deployment`, which has published the empty list that
    /// [`Publisher::publish`] appends to.
    pub async fn start(deployment: &Deployment) -> anyhow::Result<Self> {
        let publisher = Self {
            url: deployment.server.url("/data/config"),
            token: deployment.datasource_token.clone(),
            accepted: Arc::default(),
        };
        let empty = json!({"id": "the list", "entries": [{
            "url": "", "topics": ["policy_data"], "dst_path": "/log", "data": {"entries": []},
        }]});
        publisher.accept("the list", &empty).await?;
        Ok(publisher)
    }

    /// Publishes changes until there are `count`; continues where the last call ended. Change `n`
    /// writes a document, and appends `n` to a list.
    pub async fn publish(&self, count: usize) -> anyhow::Result<()> {
        for n in self.accepted()..count {
            self.accept(&format!("change {n}"), &change(n)).await?;
        }
        Ok(())
    }

    /// Publishes the final state of everything, for those who missed a part for good.
    pub async fn publish_all_again(&self) -> anyhow::Result<()> {
        let state = state(self.accepted());
        let entry = |path: &str| json!({"url": "", "topics": ["policy_data"], "dst_path": format!("/{path}"), "data": state[path]});
        let all = json!({"id": "all", "entries": [entry("log"), entry("feed")]});
        let request = http::post(&self.url).bearer(&self.token).json(&all)?;
        request.send().await?.expect(200).map(drop)
    }

    async fn accept(&self, key: &str, update: &Value) -> anyhow::Result<()> {
        let request = http::post(&self.url).bearer(&self.token).limit(PATIENCE);
        let request = request.header("idempotency-key", key).json(update)?;
        let answer = wait::until(format!("`{key}` to be accepted"), async || {
            request.clone().send().await?.expect(200)
        })
        .await?;
        let position = position_of(&answer, "x-opal-revision")?;
        self.known().push(position);
        Ok(())
    }

    /// How many changes were accepted, the empty list not counted.
    pub fn accepted(&self) -> usize {
        self.known().len().saturating_sub(1)
    }

    /// Waits until `count` changes were accepted.
    pub async fn has_published(&self, count: usize) -> anyhow::Result<()> {
        wait::until(format!("{count} accepted changes"), async || {
            let accepted = self.accepted();
            ensure!(accepted >= count, "{accepted} are");
            Ok(())
        })
        .await
    }

    /// Checks that each accepted change has a revision of its own, later than the one before, and
    /// that all are of one epoch. Returns the last one.
    pub fn check_positions(&self) -> anyhow::Result<Position> {
        let known = self.known();
        for pair in known.windows(2) {
            let ascend = pair[0].epoch == pair[1].epoch && pair[0].revision < pair[1].revision;
            ensure!(ascend, "{} was followed by {}", pair[0], pair[1]);
        }
        known.last().copied().context("nothing was published")
    }

    /// Adds to `data` what the engine must hold of what was accepted.
    pub fn add_to(&self, mut data: Value) -> Value {
        if let (Some(data), Value::Object(state)) = (data.as_object_mut(), state(self.accepted())) {
            data.extend(state);
        }
        data
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Position>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The position in a header of an answer.
pub fn position_of(answer: &http::Answer, header: &str) -> anyhow::Result<Position> {
    let value = answer.headers.get(header).context("no such header");
    let value = value.with_context(|| format!("`{header}` of {answer:?}"))?;
    Ok(value.to_str()?.parse()?)
}

fn change(n: usize) -> Value {
    json!({"entries": [
        {
            "url": "", "topics": ["policy_data"],
            "dst_path": format!("/feed/d{}", n % DOCUMENTS), "data": {"n": n},
        },
        {
            "url": "", "topics": ["policy_data"], "dst_path": "/log", "save_method": "PATCH",
            "data": [{"op": "add", "path": "/entries/-", "value": n}],
        },
    ]})
}

/// What the first `count` changes come down to.
fn state(count: usize) -> Value {
    let last = count.saturating_sub(DOCUMENTS)..count;
    let documents = last.map(|n| (format!("d{}", n % DOCUMENTS), json!({"n": n})));
    let mut documents: Map<String, Value> = documents.collect();
    documents.sort_keys();
    json!({"log": {"entries": (0..count).collect::<Vec<_>>()}, "feed": documents})
}
