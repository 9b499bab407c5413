//! What is published: small documents written again and again, so that what there is to hold stays
//! the same, and to a few clients each.

use anyhow::ensure;
use opal_testing::http::{self, Connection};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Clients have one of so many topics.
const TOPICS: usize = 20;
/// Documents of all topics.
const DOCUMENTS: usize = 200;
/// One update in so many is a patch.
const PATCHED: usize = 7;
/// After so many updates, each document was written anew and patched.
pub(crate) const ROUND: usize = DOCUMENTS * PATCHED;
/// Connections that publish at the same time.
const AT_ONCE: usize = 8;

/// The topic that client `number` subscribes to.
pub(crate) fn topic_of_client(number: usize) -> String {
    format!("soak{}", number % TOPICS)
}

/// Publishes updates to one server, one number after the other.
#[derive(Debug)]
pub(crate) struct Load {
    url: String,
    published: usize,
}

impl Load {
    /// For the server at `url`.
    pub(crate) fn new(url: String) -> Self {
        Self { url, published: 0 }
    }

    /// How many updates were accepted.
    pub(crate) fn published(&self) -> usize {
        self.published
    }

    /// Publishes `count` updates more; every one must be accepted.
    pub(crate) async fn publish(&mut self, count: usize) -> anyhow::Result<()> {
        let end = self.published + count;
        let mut publishing = JoinSet::new();
        for lane in 0..AT_ONCE {
            let numbers = (self.published + lane..end).step_by(AT_ONCE);
            publishing.spawn(publish_all(self.url.clone(), numbers));
        }
        while let Some(done) = publishing.join_next().await {
            done??;
        }
        self.published = end;
        Ok(())
    }
}

async fn publish_all(url: String, numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
    let mut connection = Connection::open(&url).await?;
    for number in numbers {
        let request = http::post(format!("{url}/data/config")).json(&update(number))?;
        let answer = connection.send(request).await?;
        ensure!(answer.status == 200, "answered {}", answer.text());
    }
    Ok(())
}

fn update(number: usize) -> Value {
    let document = number % DOCUMENTS;
    let topic = topic_of_client(document);
    let mut entry = json!({
        "url": "",
        "topics": [topic],
        "dst_path": format!("/soak/{topic}/d{document}"),
        "data": {"n": number, "padding": "x".repeat(200), "notes": {}},
    });
    // At any time some documents are patched and some are not.
    if number >= DOCUMENTS && (number / DOCUMENTS + number).is_multiple_of(PATCHED) {
        entry["save_method"] = "PATCH".into();
        entry["data"] = json!([{"op": "add", "path": "/notes/last", "value": number}]);
    }
    json!({"entries": [entry]})
}
