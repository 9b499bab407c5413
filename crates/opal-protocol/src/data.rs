//! Data updates: what is published, and where a client finds the documents.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::UpdateId;
use crate::path::DataPath;
use crate::topic::{self, Topic};

mod parse;

/// One JSON document as its text: member order and the digits of numbers are kept.
///
/// Cheap to clone. `Debug` shows the length only, since documents hold what users keep secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document(Arc<RawValue>);

impl Document {
    /// Takes `text` if it is one JSON document.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        Ok(Self(RawValue::from_string(text.into())?.into()))
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Whether the document is `null`.
    pub fn is_null(&self) -> bool {
        self.text() == "null"
    }

    /// Whether the document is an array.
    pub fn is_array(&self) -> bool {
        self.text().starts_with('[')
    }

    /// Whether the document is an object.
    pub fn is_object(&self) -> bool {
        self.text().starts_with('{')
    }
}

impl From<&serde_json::Value> for Document {
    fn from(value: &serde_json::Value) -> Self {
        let text = value.to_string();
        Self(
            RawValue::from_string(text)
                .expect("a JSON value prints as JSON")
                .into(),
        )
    }
}

impl PartialEq for Document {
    /// Equal text: a document that means the same but is written otherwise differs.
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Document {}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.text().len())
    }
}

/// A set of documents to write, published as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataUpdate {
    /// The id that reports name. A server gives one to an update that has none.
    #[serde(default)]
    pub id: Option<UpdateId>,
    /// What to write.
    pub entries: Vec<DataSourceEntry>,
    /// Why, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whom to tell afterwards.
    #[serde(default)]
    pub callback: UpdateCallback,
}

impl DataUpdate {
    /// Replaces the topics of each entry by those and all above them, and returns all of them:
    /// what the update is to be published to.
    pub fn expand_topics(&mut self) -> Vec<Topic> {
        let mut all: Vec<Topic> = Vec::new();
        for entry in &mut self.entries {
            entry.topics = topic::expand(&entry.topics);
            let fresh = entry.topics.iter().filter(|topic| !all.contains(topic));
            let fresh: Vec<Topic> = fresh.cloned().collect();
            all.extend(fresh);
        }
        all
    }

    /// Takes away what was not published to `topics`: whoever may publish to one topic may name
    /// others in the entries. An entry that is left without topics is none.
    pub fn restrict_to(&mut self, topics: &[Topic]) {
        for entry in &mut self.entries {
            entry.topics.retain(|topic| topics.contains(topic));
        }
        self.entries.retain(|entry| !entry.topics.is_empty());
    }
}

/// One document: where it comes from, whom it concerns, where it goes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSourceEntry {
    /// Where to fetch from; may be empty with inline data.
    pub url: String,
    /// How to fetch, for the provider that it names.
    #[serde(default)]
    pub config: Option<Document>,
    /// Clients with none of these ignore the entry.
    #[serde(default = "default_topics")]
    pub topics: Vec<Topic>,
    /// Where in the store, as written; see [`DataSourceEntry::destination`].
    #[serde(default)]
    pub dst_path: String,
    /// How to write, as written; see [`DataSourceEntry::method`].
    #[serde(default = "default_save_method")]
    pub save_method: String,
    /// The document itself: nothing is fetched.
    #[serde(default)]
    pub data: Option<Document>,
    /// Seconds between fetches; only in a [`DataSourceConfig`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periodic_update_interval: Option<f64>,
}

/// The topic of entries that name none.
pub const DEFAULT_TOPIC: &str = "policy_data";

fn default_topics() -> Vec<Topic> {
    vec![Topic::from(DEFAULT_TOPIC)]
}

fn default_save_method() -> String {
    SaveMethod::Put.as_str().to_owned()
}

impl DataSourceEntry {
    /// An entry that fetches `url` into the whole store, for the default topic.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            config: None,
            topics: default_topics(),
            dst_path: String::new(),
            save_method: default_save_method(),
            data: None,
            periodic_update_interval: None,
        }
    }

    /// Where the document goes.
    pub fn destination(&self) -> Result<DataPath, crate::path::DataPathError> {
        DataPath::parse(&self.dst_path)
    }

    /// How the document is written, if the method is one we know.
    pub fn method(&self) -> Option<SaveMethod> {
        SaveMethod::parse(&self.save_method)
    }
}

impl fmt::Debug for DataSourceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSourceEntry")
            .field("url", &crate::RedactedUrl::new(&self.url))
            .field("topics", &self.topics)
            .field("dst_path", &self.dst_path)
            .field("save_method", &self.save_method)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// How a document is written into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SaveMethod {
    /// The document replaces what is at the path.
    Put,
    /// The document is a list of [`PatchOperation`]s, applied below the path.
    Patch,
    /// What is at the path goes. An addition: a server sends released clients a patch instead.
    Delete,
}

impl SaveMethod {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// The method with that name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Put, Self::Patch, Self::Delete]
            .into_iter()
            .find(|method| method.as_str() == name)
    }
}

/// One operation of a JSON Patch (RFC 6902), as it travels: absent members are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchOperation {
    /// `add`, `remove`, `replace`, `move`, `copy` or `test`.
    pub op: String,
    /// Where, as a JSON pointer.
    pub path: String,
    /// The operand of `add`, `replace` and `test`; absent means null.
    #[serde(default)]
    pub value: Option<Document>,
    /// Where `move` and `copy` take from.
    #[serde(default)]
    pub from: Option<String>,
}

/// Whom to tell how an update went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateCallback {
    /// The targets.
    pub callbacks: Vec<Callback>,
}

/// One target of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Callback {
    /// To be called as the client's settings say.
    Url(String),
    /// To be called in its own way.
    Configured(String, HttpFetcherConfig),
}

/// How to make an HTTP request.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpFetcherConfig {
    /// The provider's name.
    #[serde(default)]
    pub fetcher: Option<String>,
    /// Header names and values, in order.
    #[serde(default)]
    pub headers: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether the answer must be JSON; else its text becomes a JSON string.
    #[serde(default = "yes")]
    pub is_json: bool,
    /// Whether the answer is read at all.
    #[serde(default = "yes")]
    pub process_data: bool,
    /// The request's method.
    #[serde(default)]
    pub method: HttpMethod,
    /// The request's body: an object is sent as a form, a string as it is.
    #[serde(default)]
    pub data: Option<serde_json::Value>,
}

fn yes() -> bool {
    true
}

impl Default for HttpFetcherConfig {
    fn default() -> Self {
        Self {
            fetcher: None,
            headers: None,
            is_json: true,
            process_data: true,
            method: HttpMethod::Get,
            data: None,
        }
    }
}

impl fmt::Debug for HttpFetcherConfig {
    /// Headers and body carry credentials and are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFetcherConfig")
            .field("fetcher", &self.fetcher)
            .field("method", &self.method)
            .field("is_json", &self.is_json)
            .finish_non_exhaustive()
    }
}

/// The method of a fetch. Read in any case, written in lower case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are HTTP's")]
pub enum HttpMethod {
    #[default]
    #[serde(alias = "GET")]
    Get,
    #[serde(alias = "POST")]
    Post,
    #[serde(alias = "PUT")]
    Put,
    #[serde(alias = "PATCH")]
    Patch,
    #[serde(alias = "HEAD")]
    Head,
    #[serde(alias = "DELETE")]
    Delete,
}

/// From where a client gets the full picture: answered by `GET /data/config`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DataSourceConfig {
    /// The sources, in order.
    #[serde(default)]
    pub entries: Vec<DataSourceEntry>,
}

impl Serialize for DataSourceConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// An entry that always shows its interval.
        #[derive(Serialize)]
        struct Shown<'a> {
            url: &'a str,
            config: &'a Option<Document>,
            topics: &'a [Topic],
            dst_path: &'a str,
            save_method: &'a str,
            data: &'a Option<Document>,
            periodic_update_interval: Option<f64>,
        }
        #[derive(Serialize)]
        struct Config<'a> {
            entries: Vec<Shown<'a>>,
        }
        let entries = self.entries.iter().map(|entry| Shown {
            url: &entry.url,
            config: &entry.config,
            topics: &entry.topics,
            dst_path: &entry.dst_path,
            save_method: &entry.save_method,
            data: &entry.data,
            periodic_update_interval: entry.periodic_update_interval,
        });
        Config {
            entries: entries.collect(),
        }
        .serialize(serializer)
    }
}

/// Where a server says its clients' data comes from: the value of `OPAL_DATA_CONFIG_SOURCES`.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerDataSourceConfig {
    /// The same sources for every client.
    Static(DataSourceConfig),
    /// Another service answers, for each client.
    External(url::Url),
}

impl<'de> Deserialize<'de> for ServerDataSourceConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Members {
            #[serde(default)]
            config: Option<DataSourceConfig>,
            #[serde(default)]
            external_source_url: Option<url::Url>,
        }
        let members = Members::deserialize(deserializer)?;
        match (members.config, members.external_source_url) {
            (Some(config), None) => Ok(Self::Static(config)),
            (None, Some(url)) => Ok(Self::External(url)),
            _ => Err(serde::de::Error::custom(
                "expected exactly one of `config` and `external_source_url`",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_published_to_every_topic_above_its_entries() {
        let mut update: DataUpdate = serde_json::from_str(
            r#"{"entries":[{"url":"","topics":["a/b"]},{"url":"","topics":["a","x:y/z"]}]}"#,
        )
        .unwrap();
        let topics = update.expand_topics();
        assert_eq!(topics, ["a", "a/b", "x:y", "x:y/z"].map(Topic::from));
        assert_eq!(update.entries[0].topics, ["a", "a/b"].map(Topic::from));
    }

    #[test]
    fn a_document_keeps_its_text_through_a_message() {
        let text = r#"{"url":"","config":null,"topics":["t"],"dst_path":"","save_method":"PUT","data":{"z":1.50,"a":12345678901234567890123}}"#;
        let entry: DataSourceEntry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert!(!format!("{entry:?}").contains("12345678901234567890123"));
    }

    #[test]
    fn a_source_is_either_here_or_elsewhere() {
        let both = r#"{"config":{"entries":[]},"external_source_url":"http://x/"}"#;
        assert!(serde_json::from_str::<ServerDataSourceConfig>(both).is_err());
        assert!(serde_json::from_str::<ServerDataSourceConfig>("{}").is_err());
    }
}
