//! What an engine holds, and one more client with an engine of its own.

use anyhow::ensure;
use opal_testing::http;
use opal_testing::services::Service;
use opal_testing::wait;
use serde_json::{Value, json};

use crate::scenario::RULES;

/// A client beside the first one of a deployment.
#[derive(Debug)]
pub struct Follower {
    /// `opal-client`.
    pub service: Service,
    /// Where its engine listens.
    pub engine_url: String,
}

impl Follower {
    /// Waits until its engine holds `data` and nothing else.
    pub async fn wait_for_data(&self, data: &Value) -> anyhow::Result<()> {
        wait::until("the other client's engine to be equal", async || {
            let held = engine_data(&self.engine_url).await?;
            ensure!(held == *data, "data are {held}, expected {data}");
            Ok(())
        })
        .await
    }
}

/// All base documents of the engine at `url`: everything but what rules define, without empty
/// objects.
pub async fn engine_data(url: &str) -> anyhow::Result<Value> {
    let answer = http::get(format!("{url}/v1/data")).send().await?;
    let mut data = answer.expect(200)?.json()?["result"].take();
    if let Some(documents) = data.as_object_mut() {
        documents.remove(RULES);
    }
    Ok(without_empty_objects(data))
}

fn without_empty_objects(value: Value) -> Value {
    let Value::Object(members) = value else {
        return value;
    };
    let kept = members
        .into_iter()
        .map(|(name, member)| (name, without_empty_objects(member)));
    Value::Object(kept.filter(|(_, member)| *member != json!({})).collect())
}
