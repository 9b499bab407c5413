//! The feed as it crosses process boundaries: positions, and the methods that a server and a client
//! add to the released protocol when both know them.
//!
//! A client asks for it by sending [`FEED_HEADER`] with the websocket upgrade; a server that knows it
//! answers with the same header. Without the answer the connection is a released one. With it, four
//! methods are added to those of [`rpc`](crate::rpc): [`RESUME`], which is answered, and [`CHANGE`],
//! [`POSITION`] and [`APPLIED`], which carry `call_id: null` and are not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::data::{DataSourceEntry, Document};
use crate::id::{CommitHash, ScopeId};
use crate::topic::Topic;

/// Asks for the feed on the websocket upgrade, and grants it in the answer. Its value is `1`.
pub const FEED_HEADER: &str = "x-opal-feed";
/// The only value of [`FEED_HEADER`].
pub const FEED_VERSION: &str = "1";
/// A request is to be answered from at least this position (`epoch:revision`).
pub const AT_LEAST_HEADER: &str = "x-opal-at-least";
/// How many seconds a request with [`AT_LEAST_HEADER`] may wait until its position is reached.
pub const TIMEOUT_HEADER: &str = "x-opal-timeout";
/// The position that an answer was made at.
pub const POSITION_HEADER: &str = "x-opal-position";
/// The position of a change that a request made.
pub const REVISION_HEADER: &str = "x-opal-revision";

/// Subscribes from a position: client to server, answered with a [`ResumeAnswer`], or `false` if the
/// topics or the scope are not for this client.
pub const RESUME: &str = "resume";
/// One change: server to client.
pub const CHANGE: &str = "change";
/// Nothing of the client's topics up to here is outstanding: server to client.
pub const POSITION: &str = "position";
/// What the client holds: client to server.
pub const APPLIED: &str = "applied";

/// The life of a feed: random, new whenever a feed starts without its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The place of a change in its scope's feed. The first change has revision 1; 0 is "nothing yet".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The digest of a change and all before it in its scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ChainDigest(pub [u8; 16]);

impl fmt::Display for ChainDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A point in one history of one scope: `epoch:revision:digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The feed's life.
    pub epoch: Epoch,
    /// The last change that is part of it.
    pub revision: Revision,
    /// The digest of everything up to that change.
    pub digest: ChainDigest,
}

impl Position {
    /// What to ask a server for that has to be here at least.
    pub fn at_least(&self) -> AtLeast {
        AtLeast {
            epoch: self.epoch,
            revision: self.revision,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.revision, self.digest)
    }
}

/// A revision of one epoch, whatever led to it: `epoch:revision`, or a whole position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtLeast {
    /// The feed's life.
    pub epoch: Epoch,
    /// The last change that has to be part of the answer.
    pub revision: Revision,
}

impl AtLeast {
    /// Whether `position` is there or further, in the same epoch.
    pub fn is_met_by(&self, position: &Position) -> bool {
        self.epoch == position.epoch && self.revision <= position.revision
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.revision)
    }
}

/// Text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position; expected `epoch:revision` or `epoch:revision:digest`")]
pub struct NotAPosition;

impl FromStr for Epoch {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        value.map(Self).ok_or(NotAPosition)
    }
}

impl FromStr for Revision {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = is_number.then(|| text.parse().ok()).flatten();
        value.map(Self).ok_or(NotAPosition)
    }
}

impl FromStr for ChainDigest {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(NotAPosition);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| NotAPosition)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let mut parts = text.split(':');
        let mut part = || parts.next().ok_or(NotAPosition);
        let position = Self {
            epoch: part()?.parse()?,
            revision: part()?.parse()?,
            digest: part()?.parse()?,
        };
        match parts.next() {
            None => Ok(position),
            Some(_) => Err(NotAPosition),
        }
    }
}

impl FromStr for AtLeast {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        if let Ok(position) = text.parse::<Position>() {
            return Ok(position.at_least());
        }
        let (epoch, revision) = text.split_once(':').ok_or(NotAPosition)?;
        Ok(Self {
            epoch: epoch.parse()?,
            revision: revision.parse()?,
        })
    }
}

/// Types that are their text in JSON.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(Epoch, ChainDigest, Position, AtLeast);

/// Arguments of [`RESUME`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResumeArguments {
    /// Whose feed.
    #[serde(default)]
    pub scope: ScopeId,
    /// All topics, exactly as subscribed to.
    pub topics: Vec<Topic>,
    /// Where the client is; nowhere, and a snapshot is what it needs, if none or unreadable.
    #[serde(
        default,
        deserialize_with = "readable_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub position: Option<Position>,
    /// Who asks, for people.
    #[serde(default)]
    pub client: ClientInfo,
}

fn readable_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Position>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    let text = value.as_ref().and_then(serde_json::Value::as_str);
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Who a client is, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its id: the same for as long as the process lives, or as configured.
    #[serde(default)]
    pub id: String,
    /// Where it runs.
    #[serde(default)]
    pub host: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Made at random by each process, and told to nobody else: a connection of the same id and
    /// instance takes the place of an older one, whose peer is gone without a word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
}

/// How a connection goes on from where the client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResumeMode {
    /// What was missed follows.
    Replay,
    /// Anything may have been missed: take everything; changes after the head follow.
    Snapshot,
}

/// The answer to [`RESUME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeAnswer {
    /// The feed's life.
    pub epoch: Epoch,
    /// Every matching change after this one is delivered, in order; with [`ResumeMode::Replay`] also
    /// those between the client's position and this one.
    pub head: Revision,
    /// The digest at `head`.
    pub digest: ChainDigest,
    /// How it goes on.
    pub mode: ResumeMode,
    /// A snapshot is to begin at a random moment within so many milliseconds.
    #[serde(default)]
    pub spread_ms: u64,
}

impl ResumeAnswer {
    /// Where the feed is.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            revision: self.head,
            digest: self.digest,
        }
    }
}

/// Arguments of [`CHANGE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeArguments {
    /// Its place.
    pub revision: Revision,
    /// The digest of everything up to it.
    pub digest: ChainDigest,
    /// All topics that it was published to.
    pub topics: Vec<Topic>,
    /// What was published.
    pub payload: Document,
    /// Somebody waits to hear that it was applied: say so without delay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
}

/// Arguments of [`POSITION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionArguments {
    /// The last change that is part of it.
    pub revision: Revision,
    /// The digest of everything up to that change.
    pub digest: ChainDigest,
    /// The policies that the client reported are not those of their commit: take a snapshot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drift: bool,
}

/// Arguments of [`APPLIED`]. Revisions are of the connection's epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedArguments {
    /// The engine holds every change up to here.
    pub low: Revision,
    /// Ranges beyond `low` that it holds too: first and last revision of each, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<(Revision, Revision)>,
    /// What was tried and failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<FailingEntry>,
    /// The commit that the policies are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitHash>,
    /// What [`policy_digest`](crate::policy::policy_digest) makes of the policies in the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_of_policies: Option<String>,
}

/// Something that a client could not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingEntry {
    /// The change; 0 for a data source, which is part of no change, and for the engine.
    pub revision: Revision,
    /// What, without secrets: a path and a URL, `policy`, or `engine` if that is away or empty.
    pub entry: String,
    /// Why, most recently, without secrets.
    pub error: String,
    /// Since when: RFC 3339.
    pub since: String,
    /// It is not tried again: only a newer change helps. Such a change counts as done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "final")]
    pub is_final: bool,
}

/// The answer of the base route: what the changes up to a position come down to, for some topics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseSnapshot {
    /// Where the feed was.
    pub position: Position,
    /// What to write after the policy and the data sources, in this order.
    pub entries: Vec<BaseEntry>,
}

/// One document of a [`BaseSnapshot`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// The last change that made it what it is.
    pub revision: Revision,
    /// What to write.
    pub entry: DataSourceEntry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_written_and_nothing_else_is() {
        let position = Position {
            epoch: Epoch(0xab),
            revision: Revision(7),
            digest: ChainDigest([0xcd; 16]),
        };
        let text = position.to_string();
        assert_eq!(text.parse(), Ok(position));
        assert_eq!(text.parse(), Ok(position.at_least()));
        assert_eq!("00000000000000ab:7".parse(), Ok(position.at_least()));
        for wrong in [
            "",
            "7",
            "ab:7",
            "00000000000000ab:-7",
            "00000000000000ab:+7",
            &format!("{text}:"),
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(NotAPosition), "{wrong}");
            assert_eq!(wrong.parse::<AtLeast>(), Err(NotAPosition), "{wrong}");
        }
    }

    #[test]
    fn a_position_of_any_shape_can_be_asked_for_and_only_a_real_one_counts() {
        for position in ["\"yesterday\"", "7", "null", "{\"epoch\":1}"] {
            let text = format!(r#"{{"topics":["t"],"position":{position}}}"#);
            let arguments: ResumeArguments = serde_json::from_str(&text).unwrap();
            assert_eq!(arguments.position, None, "{position}");
        }
    }
}
