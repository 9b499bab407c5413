//! Changes to append, for tests.

use opal_protocol::{CommitHash, Document, PolicyUpdateMessage};

use super::{ChangeDraft, Payload, PolicyChange};

pub(super) fn data(id: &str) -> ChangeDraft {
    ChangeDraft {
        id: id.into(),
        topics: vec!["t".into()].into(),
        payload: Payload::Data(Document::parse(format!("{{\"{id}\":1}}")).unwrap()),
    }
}

pub(super) fn policy(id: &str, old: Option<char>, new: char) -> ChangeDraft {
    let hash = |c: char| CommitHash::parse(&c.to_string().repeat(40)).unwrap();
    let message = PolicyUpdateMessage {
        old_policy_hash: hash(old.unwrap_or(new)),
        new_policy_hash: hash(new),
        changed_directories: vec![],
    };
    ChangeDraft {
        id: id.into(),
        topics: vec!["policy:.".into()].into(),
        payload: PolicyChange::new(old.map(hash), &message).into(),
    }
}

pub(super) fn put(id: &str, path: &str) -> ChangeDraft {
    let update = format!(
        r#"{{"entries":[{{"url":"","topics":["t"],"dst_path":"{path}","data":{{"by":"{id}"}}}}]}}"#
    );
    ChangeDraft {
        payload: Payload::Data(Document::parse(update).unwrap()),
        ..data(id)
    }
}
