//! Everything that this server says, made changes of the feed.

use async_trait::async_trait;
use opal_protocol::rpc::MAX_FRAME_TO_RELEASED_CLIENTS;
use opal_protocol::{DataUpdate, Document, PolicyUpdateMessage, ScopeId, Topic, UpdateId};
use opal_pubsub::feed::PolicyChange;
use opal_pubsub::{ChangeDraft, Payload, PublishError, Publisher};
use tracing::{info, warn};
use uuid::Uuid;

use crate::policy::{AnnounceError, AnnouncePolicy};

/// Publishes on behalf of one scope. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publications {
    publisher: Publisher,
    scope: ScopeId,
}

/// What a frame adds around its data, at most, topics aside.
const ENVELOPE: usize = 1024;

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
    /// The feed did not take it.
    #[error(transparent)]
    NotAccepted(#[from] PublishError),
}

impl Publications {
    /// Publishes through `publisher` in `scope`.
    pub fn new(publisher: Publisher, scope: ScopeId) -> Self {
        Self { publisher, scope }
    }

    /// Publishes a data update to all topics above those of its entries.
    ///
    /// An update without an id gets one, so that all clients report the same. On return the
    /// update has its place in the feed and is on its way.
    pub async fn data_update(&self, mut update: DataUpdate) -> Result<UpdateId, DataPublishError> {
        let id = update
            .id
            .get_or_insert_with(|| UpdateId::from_uuid(Uuid::new_v4()))
            .clone();
        let topics = update.expand_topics();
        if let Some(entry) = update.entries.iter().find(|entry| entry.topics.is_empty()) {
            let url = opal_protocol::RedactedUrl::new(&entry.url);
            warn!(update.id = %id, "An entry for `{url}` has no topics: no client will take it");
        }
        let text = serde_json::to_string(&update).expect("an update prints as JSON");
        let limit = MAX_FRAME_TO_RELEASED_CLIENTS - ENVELOPE;
        if text.len() > limit {
            let size = text.len();
            return Err(DataPublishError::TooLarge { size, limit });
        }
        let payload = Payload::Data(Document::parse(text).expect("an update prints as JSON"));
        let published = self.publish(topics, payload).await?;
        info!(
            scope.id = %self.scope,
            update.id = %id,
            entry.count = update.entries.len(),
            revision = %published.appended.position().revision,
            "Published data update `{id}` to {} subscribers",
            published.told,
        );
        Ok(id)
    }

    async fn publish(
        &self,
        topics: Vec<Topic>,
        payload: Payload,
    ) -> Result<opal_pubsub::hub::Published, PublishError> {
        let draft = ChangeDraft {
            // Posting the same update again publishes it again, so its own id is not the change's.
            id: UpdateId::from_uuid(Uuid::new_v4()),
            topics: topics.into(),
            payload,
        };
        self.publisher.publish(&self.scope, draft, None).await
    }
}

#[async_trait]
impl AnnouncePolicy for Publications {
    async fn announce(&self, update: PolicyUpdateMessage) -> Result<(), AnnounceError> {
        let topics = update
            .changed_directories
            .iter()
            .map(|directory| Topic::policy(&self.scope, directory))
            .collect();
        let (_, current) = self.publisher.head(&self.scope).await?;
        let payload = PolicyChange::new(current, &update).into();
        let published = self.publish(topics, payload).await?;
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
        Ok(())
    }
}
