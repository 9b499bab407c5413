//! What a client reports after an update.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::data::{DataSourceEntry, Document, PatchOperation, SaveMethod};
use crate::id::{CommitHash, UpdateId};
use crate::json_text::python_text;
use crate::validate::{Checker, Field, Violation};

/// How one update went at one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataUpdateReport {
    /// The update; none for a policy update.
    #[serde(default)]
    pub update_id: Option<UpdateId>,
    /// One for each entry that concerned the client.
    pub reports: Vec<DataEntryReport>,
    /// The commit that the store now holds, for a policy update.
    #[serde(default)]
    pub policy_hash: Option<CommitHash>,
    /// Free for additions; we name here what went wrong.
    #[serde(default)]
    pub user_data: Map<String, Value>,
}

impl DataUpdateReport {
    /// Checks the body of `POST /data/callback_report`: enough of it to say what is missing.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<Violation>> {
        let field = Field::body(body)?;
        let mut checker = Checker::default();
        let members = checker.object(&field);
        if members.is_some_and(|members| !members.contains_key("reports")) {
            checker.missing(&field, "reports");
        }
        checker.finish(Some(()))?;
        serde_json::from_slice(body).map_err(|error| {
            let message = format!("not a report: {error}");
            vec![Violation::new(vec!["body".into()], &message, "type_error")]
        })
    }
}

/// How one entry went.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DataEntryReport {
    /// The entry as it was received.
    pub entry: DataSourceEntry,
    /// Whether there was a document.
    #[serde(default)]
    pub fetched: bool,
    /// Whether the store took it.
    #[serde(default)]
    pub saved: bool,
    /// The document's hash, see [`report_hash`].
    #[serde(default)]
    pub hash: Option<String>,
}

impl Serialize for DataEntryReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("DataEntryReport", 4)?;
        let mut entry = self.entry.clone();
        if entry.method() == Some(SaveMethod::Patch) {
            entry.data = entry.data.map(|data| reported_patch(&data));
        }
        report.serialize_field("entry", &entry)?;
        report.serialize_field("fetched", &self.fetched)?;
        report.serialize_field("saved", &self.saved)?;
        report.serialize_field("hash", &self.hash)?;
        report.end()
    }
}

/// In reports, released OPAL writes `from` of an operation as `from_field`.
fn reported_patch(data: &Document) -> Document {
    #[derive(Serialize)]
    struct Reported {
        op: String,
        path: String,
        value: Option<Document>,
        from_field: Option<String>,
    }
    let Ok(operations) = serde_json::from_str::<Vec<PatchOperation>>(data.text()) else {
        return data.clone();
    };
    let reported: Vec<Reported> = operations
        .into_iter()
        .map(|op| Reported {
            op: op.op,
            path: op.path,
            value: op.value,
            from_field: op.from,
        })
        .collect();
    serde_json::to_string(&reported)
        .and_then(Document::parse)
        .unwrap_or_else(|_| data.clone())
}

/// The hash by which reports name a document: SHA-256, in hexadecimal, of the text itself for a
/// string, else of the text that Python prints for it. An inline patch hashes in its report form.
pub fn report_hash(document: &Document, method: SaveMethod, inline: bool) -> String {
    let document = match method {
        SaveMethod::Patch if inline => reported_patch(document),
        SaveMethod::Put | SaveMethod::Patch | SaveMethod::Delete => document.clone(),
    };
    let text = match serde_json::from_str::<String>(document.text()) {
        Ok(text) => text,
        Err(_) => python_text(document.text()),
    };
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_hashes_as_upstream_s() {
        let document = Document::parse(" {} ").unwrap();
        let hash = report_hash(&document, SaveMethod::Put, false);
        assert!(hash.starts_with("44136fa3"), "{hash}");
    }

    #[test]
    fn a_report_without_reports_is_refused_by_name() {
        let violations = DataUpdateReport::parse(b"{}").unwrap_err();
        assert_eq!(
            serde_json::to_string(&violations).unwrap(),
            r#"[{"loc":["body","reports"],"msg":"field required","type":"value_error.missing"}]"#
        );
    }
}
