//! What a feed is a list of.

use opal_protocol::{
    ChainDigest, CommitHash, Document, PolicyUpdateMessage, Position, ScopeId, UpdateId,
};
use sha2::{Digest as _, Sha256};

use super::topics::Topics;

/// What a change says.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// The policy source moved.
    Policy(Box<PolicyChange>),
    /// A data update, as its JSON.
    Data(Document),
    /// Whatever a peer published to the others.
    Message(Document),
}

impl Payload {
    /// What subscribers get to see.
    pub fn data(&self) -> &Document {
        match self {
            Self::Policy(change) => &change.message,
            Self::Data(document) | Self::Message(document) => document,
        }
    }
}

impl From<PolicyChange> for Payload {
    fn from(change: PolicyChange) -> Self {
        Self::Policy(Box::new(change))
    }
}

/// The policy source moved from one commit to another.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyChange {
    /// The commit before; none for the first one that the feed hears of.
    pub old: Option<CommitHash>,
    /// The commit that is current now.
    pub new: CommitHash,
    /// The announcement, as its JSON.
    message: Document,
}

impl PolicyChange {
    /// A change from `old`, announced by `message`.
    pub fn new(old: Option<CommitHash>, message: &PolicyUpdateMessage) -> Self {
        let text = serde_json::to_string(message).expect("a message prints as JSON");
        Self {
            old,
            new: message.new_policy_hash.clone(),
            message: Document::parse(text).expect("a message prints as JSON"),
        }
    }

    /// A change that was announced by `message` before.
    pub(super) fn recorded(old: Option<CommitHash>, new: CommitHash, message: Document) -> Self {
        Self { old, new, message }
    }
}

/// A change before it has its place.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeDraft {
    /// Makes a repeated append harmless.
    pub id: UpdateId,
    /// Whom it concerns, exactly as subscribed to.
    pub topics: Topics,
    /// What it says.
    pub payload: Payload,
}

impl ChangeDraft {
    /// Bytes of payload and topics: what a feed's limit counts.
    pub(crate) fn size(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len()).sum();
        self.payload.data().text().len() + topics
    }
}

/// A change in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The feed it is part of.
    pub scope: ScopeId,
    /// Its place, and the digest of everything up to it.
    pub position: Position,
    /// When it was appended: milliseconds since the Unix epoch, by the clock of whoever did.
    pub at: u64,
    /// What was appended.
    pub draft: ChangeDraft,
}

/// The digest of `draft` after everything that `before` stands for.
pub(super) fn chain(before: ChainDigest, scope: &ScopeId, draft: &ChangeDraft) -> ChainDigest {
    let mut hash = Sha256::new();
    hash.update(before.0);
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(scope.as_str().as_bytes());
    part(draft.id.as_str().as_bytes());
    for topic in &draft.topics {
        part(topic.as_str().as_bytes());
    }
    part(draft.payload.data().text().as_bytes());
    let mut digest = [0; 16];
    let full = hash.finalize();
    for (to, from) in digest.iter_mut().zip(full) {
        *to = from;
    }
    ChainDigest(digest)
}
