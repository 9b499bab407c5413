//! The clients that there can be.

use opal_client::data::intake::Interests;
use opal_protocol::{RepoPath, ScopeId, Topic};
use rand::Rng;
use rand::seq::IndexedRandom;

/// What a client follows and how.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it subscribed to.
    pub interests: Interests,
    /// Whether it follows policy.
    pub policy: bool,
    /// Whether it follows data.
    pub data: bool,
    /// Whether it asks for the feed; the released way otherwise.
    pub feed: bool,
    /// Whether it saves what it holds, and goes on from there.
    pub saves: bool,
    /// How many documents it fetches at once.
    pub workers: usize,
}

/// The topics of data, as clients hold them. Publishers also publish below them.
pub const DATA_TOPICS: [&str; 3] = ["t0", "t1", "t0/x"];

impl Profile {
    /// One that follows both kinds, or only one.
    pub fn draw(index: usize, rng: &mut impl Rng) -> Self {
        let kind = rng.random_range(0..8);
        let (policy, data) = (kind != 0, kind != 1);
        let topics: &[&str] = [
            &["t0"][..],
            &["t1"],
            &["t0", "t1"],
            &["t0/x", "t1"],
            &["t0/x"],
        ]
        .choose(rng)
        .copied()
        .unwrap_or(&["t0"]);
        let directories: &[&str] = [&["."][..], &["."], &["a", "c"], &["p"], &["a/b", "p/q"]]
            .choose(rng)
            .copied()
            .unwrap_or(&["."]);
        Self {
            name: format!("client-{index}"),
            interests: Interests::new(
                ScopeId::default(),
                topics.iter().copied().map(Topic::from).collect(),
                directories.iter().copied().map(RepoPath::from).collect(),
            ),
            policy,
            data,
            feed: true,
            saves: rng.random_bool(0.5),
            workers: rng.random_range(1..=4),
        }
    }

    /// One that connects as released clients do.
    pub fn released(index: usize) -> Self {
        Self {
            name: format!("released-{index}"),
            interests: Interests::new(
                ScopeId::default(),
                vec![Topic::from("t0"), Topic::from("t1")],
                vec![RepoPath::root()],
            ),
            policy: true,
            data: true,
            feed: false,
            saves: false,
            workers: 4,
        }
    }

    /// All topics that it subscribes to.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics = Vec::new();
        if self.policy {
            topics.extend(self.interests.policy_topics());
        }
        if self.data {
            topics.extend(self.interests.subscribed_data_topics());
        }
        topics
    }
}
