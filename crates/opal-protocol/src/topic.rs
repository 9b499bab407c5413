//! Pub/sub topics and how publishers and subscribers derive them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::ScopeId;
use crate::path::RepoPath;

/// A pub/sub topic, such as `policy:app/users` or `tenant-7:data:users/keys`.
///
/// Topics are matched by exact text. Text up to the last `:` is an opaque prefix; the rest is a
/// `/`-separated path, and a publisher publishes to all of [`Topic::lineage`], so that
/// subscribing to a topic covers everything below it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The wildcard of Python's pub/sub library. Remote peers may not subscribe to it.
    pub const ALL_TOPICS: &'static str = "__EventNotifier_ALL_TOPICS__";

    /// The topic of policy changes below `directory`.
    pub fn policy(scope: &ScopeId, directory: &RepoPath) -> Self {
        if scope.is_default() {
            return Self(format!("policy:{directory}").into());
        }
        Self(format!("{scope}:policy:{directory}").into())
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Each topic above this one, shortest first, then this topic.
    ///
    /// ```
    /// # use opal_protocol::Topic;
    /// let lineage: Vec<Topic> = Topic::from("x:users/keys").lineage().collect();
    /// assert_eq!(lineage, [Topic::from("x:users"), Topic::from("x:users/keys")]);
    /// ```
    pub fn lineage(&self) -> impl Iterator<Item = Self> + '_ {
        let path_start = self.0.rfind(':').map_or(0, |colon| colon + 1);
        self.0
            .match_indices('/')
            .map(|(at, _)| at)
            .filter(move |at| *at >= path_start)
            .chain([self.0.len()])
            .filter_map(|end| self.0.get(..end))
            .map(Self::from)
    }

    /// What remains of a topic without the prefixes that a scoped server puts before it:
    /// `<scope>:data:users`, `data:users` and `users` are all `users`.
    pub fn unscoped<'t>(&'t self, scope: &ScopeId) -> &'t str {
        let text = self.as_str();
        let inner = text
            .strip_prefix(scope.as_str())
            .and_then(|rest| rest.strip_prefix(':'))
            .unwrap_or(text);
        inner.strip_prefix("data:").unwrap_or(inner)
    }
}

impl From<&str> for Topic {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Topic {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Topics and everything above each, in order and without repeats.
pub fn expand(topics: &[Topic]) -> Vec<Topic> {
    let mut all = Vec::new();
    for topic in topics.iter().flat_map(Topic::lineage) {
        if !all.contains(&topic) {
            all.push(topic);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_expanded_after_its_last_colon() {
        let expanded = expand(&["users/one/two", "other/z:x/y", "users"].map(Topic::from));
        let expected = [
            "users",
            "users/one",
            "users/one/two",
            "other/z:x",
            "other/z:x/y",
        ];
        assert_eq!(expanded, expected.map(Topic::from));
    }

    #[test]
    fn the_forms_of_a_scoped_data_topic_name_the_same_topic() {
        let scope = ScopeId::from("s1");
        for text in ["s1:data:users", "data:users", "users"] {
            assert_eq!(Topic::from(text).unscoped(&scope), "users");
        }
    }

    #[test]
    fn only_scopes_with_a_name_are_part_of_a_policy_topic() {
        let directory = RepoPath::from("app");
        assert_eq!(
            Topic::policy(&ScopeId::default(), &directory).as_str(),
            "policy:app"
        );
        assert_eq!(
            Topic::policy(&"s1".into(), &directory).as_str(),
            "s1:policy:app"
        );
    }
}
