//! Who holds which topic.

use std::collections::HashMap;

use opal_protocol::Topic;

use super::SubscriberId;

/// Subscribers by topic. Never walked, so that its order decides nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TopicIndex(HashMap<Topic, Vec<SubscriberId>>);

impl TopicIndex {
    /// Adds a holder, which is not there yet.
    pub(super) fn add(&mut self, topic: &Topic, id: SubscriberId) {
        self.0.entry(topic.clone()).or_default().push(id);
    }

    /// Takes a holder away.
    pub(super) fn remove(&mut self, topic: &Topic, id: SubscriberId) {
        let Some(ids) = self.0.get_mut(topic) else {
            return;
        };
        if let Some(at) = ids.iter().position(|held| *held == id) {
            ids.swap_remove(at);
        }
        if ids.is_empty() {
            self.0.remove(topic);
        }
    }

    /// Who holds it.
    pub(super) fn holders(&self, topic: &Topic) -> &[SubscriberId] {
        self.0.get(topic).map_or(&[], Vec::as_slice)
    }
}
