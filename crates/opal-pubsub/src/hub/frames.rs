//! The frames that tell of changes. Each is encoded once and shared by all who get it.

use std::collections::{BTreeMap, HashMap};

use axum::extract::ws::Utf8Bytes;
use opal_protocol::feed::{CHANGE, ChangeArguments, POSITION, PositionArguments};
use opal_protocol::rpc::{self, NotifyArguments, Subscription};
use opal_protocol::{Position, Revision, ScopeId, Topic};

use crate::feed::Change;

/// The frame for released clients. They read the topic and echo the call id, and no more, so one
/// text serves all of them.
pub(super) fn notification(topic: &Topic, change: &Change) -> Utf8Bytes {
    let id = &change.position.digest.to_string();
    let arguments = NotifyArguments {
        subscription: Subscription {
            id: Some(id.clone()),
            subscriber_id: Some(id.clone()),
            topic: topic.clone(),
            notifier_id: None,
        },
        data: Some(change.draft.payload.data().clone()),
    };
    rpc::request_text(rpc::NOTIFY, &arguments, id).into()
}

/// The frame for those who follow the feed, whichever topics they hold.
pub(super) fn change(change: &Change, confirm: bool) -> Utf8Bytes {
    let arguments = ChangeArguments {
        revision: change.position.revision,
        digest: change.position.digest,
        topics: change.draft.topics.to_vec(),
        payload: change.draft.payload.data().clone(),
        confirm,
    };
    rpc::event_text(CHANGE, &arguments).into()
}

/// About how long that frame is.
pub(super) fn size(change: &Change) -> usize {
    const ENVELOPE: usize = 256;
    change.draft.size() + ENVELOPE
}

/// The frame that says where the feed is.
pub(super) fn position(position: &Position, drift: bool) -> Utf8Bytes {
    let arguments = PositionArguments {
        revision: position.revision,
        digest: position.digest,
        drift,
    };
    rpc::event_text(POSITION, &arguments).into()
}

/// Frames of a crowd that comes back at once. Never walked, so that their order decides nothing.
#[derive(Debug, Default)]
pub(super) struct FrameCache {
    scopes: HashMap<ScopeId, ScopeFrames>,
}

#[derive(Debug, Default)]
struct ScopeFrames {
    /// By revision, and whether somebody waits for it.
    changes: BTreeMap<(Revision, bool), Utf8Bytes>,
    head: Option<(Position, Utf8Bytes)>,
}

impl FrameCache {
    /// The frame of a change.
    pub(super) fn change(&mut self, told: &Change, confirm: bool) -> Utf8Bytes {
        let frames = self.scopes.entry(told.scope.clone()).or_default();
        let key = (told.position.revision, confirm);
        let frame = frames.changes.entry(key);
        frame.or_insert_with(|| change(told, confirm)).clone()
    }

    /// The frame of the head of `scope`.
    pub(super) fn head(&mut self, scope: &ScopeId, head: Position) -> Utf8Bytes {
        let frames = self.scopes.entry(scope.clone()).or_default();
        match &frames.head {
            Some((at, frame)) if *at == head => frame.clone(),
            _ => {
                let frame = position(&head, false);
                frames.head = Some((head, frame.clone()));
                frame
            }
        }
    }

    /// Drops all of them. To be called about once a second.
    pub(super) fn clear(&mut self) {
        self.scopes = HashMap::new();
    }
}
