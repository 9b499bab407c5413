//! Fake data sources: documents by URL, whose content changes.

use std::collections::{BTreeMap, BTreeSet};

use opal_protocol::{DataSourceConfig, DataSourceEntry, Document, Topic};
use serde_json::{Value, json};

/// What is behind each URL.
#[derive(Debug)]
pub struct Sources {
    versions: BTreeMap<String, u64>,
    /// URLs whose content changed after it was last published.
    stale: BTreeSet<String>,
    /// What each client was given first, for those who make a mistake of it.
    first: BTreeMap<(usize, String), Document>,
}

/// A source that the server names: its URL, where its document goes, whom it concerns, and how often
/// it is polled.
struct Named {
    url: &'static str,
    path: &'static str,
    topic: &'static str,
    every: Option<f64>,
}

const NAMED: [Named; 4] = [
    Named {
        url: "sim://s0",
        path: "/s0",
        topic: "t0",
        every: None,
    },
    Named {
        url: "sim://s0/in",
        path: "/s0/in",
        topic: "t0",
        every: None,
    },
    Named {
        url: "sim://s1",
        path: "/s1",
        topic: "t1",
        every: None,
    },
    Named {
        url: "sim://q0",
        path: "/q0",
        topic: "t1",
        every: Some(5.0),
    },
];

impl Sources {
    /// All at their first version.
    pub fn new() -> Self {
        Self {
            versions: BTreeMap::new(),
            stale: BTreeSet::new(),
            first: BTreeMap::new(),
        }
    }

    /// What the server says of data sources.
    pub fn config(&self) -> DataSourceConfig {
        let entries = NAMED.iter().map(|named| DataSourceEntry {
            dst_path: named.path.to_owned(),
            topics: vec![Topic::from(named.topic)],
            periodic_update_interval: named.every,
            ..DataSourceEntry::from_url(named.url)
        });
        DataSourceConfig {
            entries: entries.collect(),
        }
    }

    /// The document behind a URL now.
    pub fn document(&self, url: &str) -> Document {
        let version = self.versions.get(url).copied().unwrap_or(1);
        let document = json!({
            "source": url,
            "version": version,
            "null": null,
            "list": [1, {"null": null}],
            "in": {"own": true},
        });
        Document::from(&document)
    }

    /// What a client was given when it first asked for a URL.
    pub fn first_answer(&mut self, client: usize, url: &str) -> Document {
        let now = self.document(url);
        let first = self.first.entry((client, url.to_owned()));
        first.or_insert(now).clone()
    }

    /// The content behind a URL changes. Clients learn of it when it is published or polled.
    pub fn change(&mut self, url: &str) {
        *self.versions.entry(url.to_owned()).or_insert(1) += 1;
        self.stale.insert(url.to_owned());
    }

    /// What is behind this URL was published.
    pub fn published(&mut self, url: &str) {
        self.stale.remove(url);
    }

    /// The URLs whose content has to be published, but for those that are polled.
    pub fn stale(&self) -> Vec<String> {
        let is_polled = |url: &String| {
            NAMED
                .iter()
                .any(|named| named.url == url && named.every.is_some())
        };
        let stale = self.stale.iter().filter(|url| !is_polled(url));
        stale.cloned().collect()
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self::new()
    }
}

/// `value` without the versions of what came from sources: which of them a client has depends on when
/// it fetched.
pub fn without_versions(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_source = members.contains_key("source");
            let kept = members
                .iter()
                .filter(|(name, _)| !(is_source && *name == "version"));
            kept.map(|(name, value)| (name.clone(), without_versions(value)))
                .collect()
        }
        other => other.clone(),
    }
}
