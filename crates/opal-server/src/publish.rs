//! Everything that this server says, made changes of the feed.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use opal_protocol::rpc::MAX_FRAME_TO_RELEASED_CLIENTS;
use opal_protocol::{
    DataUpdate, Document, PolicyUpdateMessage, Position, ScopeId, Topic, UpdateId,
};
use opal_pubsub::feed::{AppendError, PolicyChange};
use opal_pubsub::hub::{Published, WaitOutcome};
use opal_pubsub::publisher::AnnouncedPolicy;
use opal_pubsub::{ChangeDraft, Payload, PublishError, Publisher};
use tracing::{info, warn};
use uuid::Uuid;

use crate::idempotency::IdempotencyKey;
use crate::policy::{AnnounceError, AnnouncePolicy};
use crate::wait::Wait;

/// Publishes on behalf of one scope. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publications {
    publisher: Publisher,
    scope: ScopeId,
    store: Arc<Mutex<Option<StoreFailure>>>,
}

/// Why the feed could not be stored, for as long as it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// When it was first noticed.
    pub since: DateTime<Utc>,
    /// The last error, with causes.
    pub error: String,
}

/// What a frame adds around its data, at most, topics aside.
const ENVELOPE: usize = 1024;

/// A data update, and how it is to be published.
#[derive(Debug)]
pub struct DataPublish {
    /// What to publish.
    pub update: DataUpdate,
    /// Makes a repeat harmless.
    pub key: Option<IdempotencyKey>,
    /// Whom to wait for.
    pub wait: Option<Wait>,
}

/// An update that has its place in the feed.
#[derive(Debug)]
pub struct PublishedData {
    /// Its place.
    pub position: Position,
    /// What became of it, if somebody waited.
    pub outcome: Option<WaitOutcome>,
}

/// Why an update was not published.
#[derive(Debug, thiserror::Error)]
pub enum DataPublishError {
    /// Released clients would refuse its frame, and their connection with it.
    #[error(
        "the update takes {size} bytes, more than the {limit} that fit into one message to a \
         client; publish a URL instead of inline data"
    )]
    TooLarge {
        /// What it takes.
        size: usize,
        /// What fits.
        limit: usize,
    },
    /// The key stands for another update.
    #[error("this `Idempotency-Key` was used for another update")]
    KeyReused,
    /// The feed did not take it.
    #[error(transparent)]
    NotAccepted(PublishError),
}

impl From<PublishError> for DataPublishError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Refused(AppendError::IdReused { .. }) => Self::KeyReused,
            other => Self::NotAccepted(other),
        }
    }
}

impl Publications {
    /// Publishes through `publisher` in `scope`.
    pub fn new(publisher: Publisher, scope: ScopeId) -> Self {
        Self {
            publisher,
            scope,
            store: Arc::default(),
        }
    }

    /// Whose feed it is.
    pub fn scope(&self) -> &ScopeId {
        &self.scope
    }

    /// Publishes a data update to all topics above those of its entries.
    ///
    /// An update without an id gets one, so that all clients report the same. On return the
    /// update has its place in the feed and is on its way; if it is waited for, that is over.
    pub async fn data_update(
        &self,
        publish: DataPublish,
    ) -> Result<PublishedData, DataPublishError> {
        let DataPublish {
            mut update,
            key,
            wait,
        } = publish;
        let key = key.as_ref();
        let id = update.id.get_or_insert_with(|| self.new_id(key)).clone();
        let topics = update.expand_topics();
        if let Some(entry) = update.entries.iter().find(|entry| entry.topics.is_empty()) {
            let url = opal_protocol::RedactedUrl::new(&entry.url);
            warn!(update.id = %id, "An entry for `{url}` has no topics: no client will take it");
        }
        let draft = ChangeDraft {
            // Posting the same update again publishes it again, so its own id is not the change's.
            id: key.map_or_else(random_id, |key| key.change_id(&self.scope)),
            topics: topics.into(),
            payload: Payload::Data(document(&update)?),
        };
        let (published, outcome) = self.publish(draft, wait).await?;
        let position = published.appended.position();
        info!(
            scope.id = %self.scope,
            update.id = %id,
            entry.count = update.entries.len(),
            revision = %position.revision,
            "Published data update `{id}` to {} subscribers",
            published.told,
        );
        Ok(PublishedData { position, outcome })
    }

    fn new_id(&self, key: Option<&IdempotencyKey>) -> UpdateId {
        key.map_or_else(random_id, |key| key.update_id(&self.scope))
    }

    async fn publish(
        &self,
        draft: ChangeDraft,
        wait: Option<Wait>,
    ) -> Result<(Published, Option<WaitOutcome>), PublishError> {
        let scope = &self.scope;
        let published = match wait {
            None => {
                let published = self.publisher.publish(scope, draft, None).await;
                published.map(|published| (published, None))
            }
            Some(Wait { target, timeout }) => {
                let published = self
                    .publisher
                    .publish_and_wait(scope, draft, target, timeout);
                let published = published.await;
                published.map(|(published, outcome)| (published, Some(outcome)))
            }
        };
        self.note(published.as_ref().err());
        published
    }

    /// Remembers whether the feed can be stored.
    fn note(&self, error: Option<&PublishError>) {
        let mut failure = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(
                error @ (PublishError::NotStored { .. }
                | PublishError::Busy
                | PublishError::InDoubt),
            ) => {
                let since = failure
                    .take()
                    .map_or_else(Utc::now, |failure| failure.since);
                let error = opal_runtime::chain(error);
                *failure = Some(StoreFailure { since, error });
            }
            Some(PublishError::Refused(_) | PublishError::Stopped(_)) => {}
            None => *failure = None,
        }
    }

    /// Why the last publish could not be stored; `None` if it could.
    pub fn store_failure(&self) -> Option<StoreFailure> {
        let failure = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }
}

fn random_id() -> UpdateId {
    UpdateId::from_uuid(Uuid::new_v4())
}

/// What is published, if released clients can take it.
fn document(update: &DataUpdate) -> Result<Document, DataPublishError> {
    let text = serde_json::to_string(update).expect("an update prints as JSON");
    let limit = MAX_FRAME_TO_RELEASED_CLIENTS - ENVELOPE;
    if text.len() > limit {
        let size = text.len();
        return Err(DataPublishError::TooLarge { size, limit });
    }
    Ok(Document::parse(text).expect("an update prints as JSON"))
}

#[async_trait]
impl AnnouncePolicy for Publications {
    async fn announced(&self) -> Result<Option<AnnouncedPolicy>, AnnounceError> {
        Ok(self.publisher.head(&self.scope).await?.policy)
    }

    async fn announce(&self, update: PolicyUpdateMessage) -> Result<Position, AnnounceError> {
        let topics = update
            .changed_directories
            .iter()
            .map(|directory| Topic::policy(&self.scope, directory))
            .collect();
        let current = self.publisher.head(&self.scope).await?.policy;
        let current = current.map(|announced| announced.commit);
        let draft = ChangeDraft {
            id: random_id(),
            topics,
            payload: Payload::Policy(PolicyChange::new(current, &update).into()),
        };
        let (published, _) = self.publish(draft, None).await?;
        info!(
            scope.id = %self.scope,
            policy.base = %update.old_policy_hash,
            policy.head = %update.new_policy_hash,
            directory.count = update.changed_directories.len(),
            revision = %published.appended.position().revision,
            "Published policy commit {} to {} subscribers",
            update.new_policy_hash.short(),
            published.told,
        );
        Ok(published.appended.position())
    }
}
