//! From an update to the entries that concern this client. Pure.

use std::time::{Duration, Instant};

use opal_protocol::{DataPath, DataSourceEntry, Document, SaveMethod, ScopeId, Topic};

/// What this client subscribed to.
#[derive(Debug, Clone)]
pub struct Interests {
    scope: ScopeId,
    /// As the settings name them, without the scope's prefix.
    data_topics: Vec<Topic>,
    directories: Vec<opal_protocol::RepoPath>,
}

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The policy repository.
    Policy,
    /// Data.
    Data,
}

impl Interests {
    /// The interests of a client of `scope`.
    pub fn new(
        scope: ScopeId,
        data_topics: Vec<Topic>,
        directories: Vec<opal_protocol::RepoPath>,
    ) -> Self {
        Self {
            scope,
            data_topics,
            directories,
        }
    }

    /// The scope.
    pub fn scope(&self) -> &ScopeId {
        &self.scope
    }

    /// The directories to ask bundles for.
    pub fn directories(&self) -> &[opal_protocol::RepoPath] {
        &self.directories
    }

    /// The topics of policy announcements: of each directory that none of the others contains; of
    /// the whole repository in a scope, whose directories the server knows.
    pub fn policy_topics(&self) -> Vec<Topic> {
        if !self.scope.is_default() {
            return vec![Topic::policy(&self.scope, &opal_protocol::RepoPath::root())];
        }
        let covered = |directory: &opal_protocol::RepoPath| {
            let mut others = self.directories.iter();
            others.any(|other| other != directory && directory.is_within(other))
        };
        let mut topics: Vec<Topic> = Vec::new();
        for directory in self.directories.iter().filter(|each| !covered(each)) {
            let topic = Topic::policy(&self.scope, directory);
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        topics
    }

    /// The topics of data updates, as subscribed to.
    pub fn subscribed_data_topics(&self) -> Vec<Topic> {
        if self.scope.is_default() {
            return self.data_topics.clone();
        }
        self.data_topics
            .iter()
            .map(|topic| Topic::from(format!("{}:data:{topic}", self.scope)))
            .collect()
    }

    /// What a notification on `topic` is about.
    pub fn subject(&self, topic: &Topic) -> Subject {
        match self.policy_topics().contains(topic) {
            true => Subject::Policy,
            false => Subject::Data,
        }
    }

    /// Whether an entry with these topics is for this client, however its server prefixes them.
    pub fn concerns(&self, topics: &[Topic]) -> bool {
        let ours = |topic: &Topic| {
            let name = topic.unscoped(&self.scope);
            let mut mine = self.data_topics.iter();
            mine.any(|held| held == topic || held.as_str() == name)
        };
        topics.iter().any(ours)
    }
}

/// An entry that can be fetched and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where its document goes.
    pub path: DataPath,
    /// How it is written.
    pub method: SaveMethod,
}

/// Where the document of `entry` goes and how, or what is wrong with the entry.
pub fn target(entry: &DataSourceEntry) -> Result<Target, String> {
    let path = entry.destination().map_err(|error| error.to_string())?;
    let method = entry.method().ok_or_else(|| {
        let method = &entry.save_method;
        format!("unknown save_method `{method}`, expected PUT, PATCH or DELETE")
    })?;
    if entry.url.is_empty() && entry.data.is_none() && method != SaveMethod::Delete {
        return Err("has neither `url` nor `data`".to_owned());
    }
    Ok(Target { path, method })
}

/// Notices when a server sends one publish once for each of its topics that we hold, as released
/// ones do.
#[derive(Debug, Default)]
pub struct Bursts {
    recent: Vec<Burst>,
}

#[derive(Debug)]
struct Burst {
    data: Document,
    topics: Vec<Topic>,
    at: Instant,
}

/// The copies of one publish follow each other closely.
const BURST: Duration = Duration::from_secs(2);

/// So many publishes are remembered at most.
const REMEMBERED: usize = 64;

impl Bursts {
    /// Whether this is a publish that has not been seen on another topic a moment ago.
    pub fn is_new(&mut self, topic: &Topic, data: &Document, now: Instant) -> bool {
        self.recent
            .retain(|burst| now.duration_since(burst.at) < BURST);
        let copy = self
            .recent
            .iter_mut()
            .find(|burst| burst.data == *data && !burst.topics.contains(topic));
        if let Some(burst) = copy {
            burst.topics.push(topic.clone());
            return false;
        }
        // The same on the same topic is published anew, and what came before is history.
        self.recent.retain(|burst| burst.data != *data);
        if self.recent.len() == REMEMBERED {
            self.recent.remove(0);
        }
        self.recent.push(Burst {
            data: data.clone(),
            topics: vec![topic.clone()],
            at: now,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interests(scope: &str, topics: &[&str], directories: &[&str]) -> Interests {
        Interests::new(
            scope.into(),
            topics.iter().copied().map(Topic::from).collect(),
            directories.iter().map(|text| (*text).into()).collect(),
        )
    }

    fn names(topics: &[Topic]) -> Vec<&str> {
        topics.iter().map(Topic::as_str).collect()
    }

    #[test]
    fn directories_inside_others_need_no_topic_of_their_own() {
        let here = interests("default", &[], &["app", "lib", "app/users"]);
        assert_eq!(names(&here.policy_topics()), ["policy:app", "policy:lib"]);
        let scoped = interests("s1", &["users"], &["app"]);
        assert_eq!(names(&scoped.policy_topics()), ["s1:policy:."]);
        assert_eq!(names(&scoped.subscribed_data_topics()), ["s1:data:users"]);
    }

    #[test]
    fn an_entry_concerns_us_however_its_topic_is_prefixed() {
        let scoped = interests("s1", &["users"], &[]);
        for topic in ["users", "data:users", "s1:data:users"] {
            assert!(scoped.concerns(&[topic.into()]), "{topic}");
        }
        assert!(!scoped.concerns(&["s2:data:users".into(), "other".into()]));
        assert!(!interests("default", &["users"], &[]).concerns(&[]));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said() {
        let mut entry = DataSourceEntry::from_url("");
        assert!(target(&entry).unwrap_err().contains("neither"));
        entry.url = "http://x".into();
        entry.save_method = "POST".into();
        assert!(target(&entry).unwrap_err().contains("`POST`"));
        entry.save_method = "PUT".into();
        entry.dst_path = "/a/../b".into();
        assert!(target(&entry).unwrap_err().contains("/a/../b"));
    }

    #[test]
    fn copies_on_other_topics_are_one_publish_and_repeats_are_not() {
        let mut bursts = Bursts::default();
        let now = Instant::now();
        let data = Document::parse("{}").unwrap();
        let (a, b) = (Topic::from("a"), Topic::from("b"));
        assert!(bursts.is_new(&a, &data, now));
        assert!(!bursts.is_new(&b, &data, now));
        assert!(bursts.is_new(&a, &data, now), "published again");
        assert!(!bursts.is_new(&b, &data, now));
        assert!(bursts.is_new(&b, &data, now + BURST));
    }
}
