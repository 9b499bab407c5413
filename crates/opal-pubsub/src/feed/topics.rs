//! Lists of topics that many changes share.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use opal_protocol::Topic;
use serde::{Deserialize, Serialize};

/// The topics of a change, in order. Cheap to clone, and small: there is one in every change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topics(Arc<Vec<Topic>>);

impl Topics {
    /// These topics as a set: sorted, each once.
    pub(super) fn set(topics: &[Topic]) -> Self {
        let set: BTreeSet<Topic> = topics.iter().cloned().collect();
        set.into_iter().collect()
    }
}

impl Deref for Topics {
    type Target = [Topic];

    fn deref(&self) -> &[Topic] {
        &self.0
    }
}

impl From<Vec<Topic>> for Topics {
    fn from(topics: Vec<Topic>) -> Self {
        Self(Arc::new(topics))
    }
}

impl FromIterator<Topic> for Topics {
    fn from_iter<I: IntoIterator<Item = Topic>>(topics: I) -> Self {
        Self(Arc::new(topics.into_iter().collect()))
    }
}

impl<'a> IntoIterator for &'a Topics {
    type Item = &'a Topic;
    type IntoIter = std::slice::Iter<'a, Topic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Keeps one copy of lists that come again and again: most changes of a feed have one of few.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicPool(BTreeSet<Topics>);

impl TopicPool {
    /// So many lists are kept at most; beyond them, those that nothing uses any more go first.
    const LIMIT: usize = 4096;

    /// The copy that is kept of `topics`.
    pub(super) fn shared(&mut self, topics: Topics) -> Topics {
        if let Some(kept) = self.0.get(&topics) {
            return kept.clone();
        }
        if self.0.len() >= Self::LIMIT {
            self.0.retain(|kept| Arc::strong_count(&kept.0) > 1);
        }
        if self.0.len() >= Self::LIMIT {
            self.0.clear();
        }
        self.0.insert(topics.clone());
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one_and_the_pool_stays_small() {
        let mut pool = TopicPool::default();
        let list = || Topics::from(vec!["a".into(), "b".into()]);
        let (first, second) = (pool.shared(list()), pool.shared(list()));
        assert!(Arc::ptr_eq(&first.0, &second.0));
        for n in 0..2 * TopicPool::LIMIT {
            pool.shared(vec![Topic::from(n.to_string())].into());
        }
        assert!(pool.0.len() <= TopicPool::LIMIT);
        assert!(
            Arc::ptr_eq(&first.0, &pool.shared(list()).0),
            "in use, so kept"
        );
    }
}
