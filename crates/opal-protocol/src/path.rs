//! Paths: of files in a policy repository, and of documents in a policy store.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// A path inside a policy repository: `/`-separated, relative, `.` for the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepoPath(String);

impl RepoPath {
    /// The root of the repository.
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// Normalises as upstream does for the `path` query: leading and trailing `/`, empty and `.`
    /// components are dropped; nothing left is the root.
    pub fn normalized(text: &str) -> Self {
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.is_empty() {
            return Self::root();
        }
        Self(parts.join("/"))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The directory that holds this path; the root for a path of one component.
    pub fn parent(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some((parent, _)) => Self(parent.to_owned()),
            None => Self::root(),
        }
    }

    /// Every directory above this path, nearest first, ending with the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let slashes = self.0.rmatch_indices('/').map(|(at, _)| at);
        slashes
            .filter_map(|end| self.0.get(..end))
            .map(|text| Self(text.to_owned()))
            .chain((!self.is_root()).then(Self::root))
    }

    /// Whether this path lies below `directory`, or is it.
    pub fn is_within(&self, directory: &Self) -> bool {
        directory.is_root()
            || self == directory
            || self
                .0
                .strip_prefix(directory.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    }

    /// The components; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| *part != ".")
    }
}

impl From<&str> for RepoPath {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for RepoPath {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`DataPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataPathError {
    /// The path would leave or repeat its place.
    #[error("`{path}` has a `{component}` component, expected plain names")]
    Relative {
        /// The path as given.
        path: String,
        /// `.` or `..`.
        component: String,
    },
    /// A percent-escape is not UTF-8.
    #[error("`{path}` has an escape that is not UTF-8")]
    NotUtf8 {
        /// The path as given.
        path: String,
    },
}

/// Where a document lives in a policy store. The root has no segments.
///
/// Segments are decoded: `p q` and `p%20q` are the same. Comparison is by segment, so `/a` and
/// `/ab` do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataPath {
    segments: Vec<String>,
}

/// What Python's `quote` leaves alone in a path segment (`/` never occurs inside one).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

impl DataPath {
    /// The root: everything.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a `dst_path`: leading and trailing slashes do not matter, valid percent-escapes are
    /// decoded, anything else is taken literally.
    pub fn parse(text: &str) -> Result<Self, DataPathError> {
        let segments = text
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Self::segment(text, part))
            .collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }

    fn segment(path: &str, part: &str) -> Result<String, DataPathError> {
        let decoded =
            percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| DataPathError::NotUtf8 {
                    path: path.to_owned(),
                })?;
        if decoded == "." || decoded == ".." {
            return Err(DataPathError::Relative {
                path: path.to_owned(),
                component: decoded.into_owned(),
            });
        }
        Ok(decoded.into_owned())
    }

    /// A path of these segments, taken literally.
    pub fn from_segments(segments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            segments: segments.into_iter().map(Into::into).collect(),
        }
    }

    /// The decoded segments.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// This path and one more segment.
    pub fn join(&self, segment: &str) -> Self {
        let mut segments = self.segments.clone();
        segments.push(segment.to_owned());
        Self { segments }
    }

    /// The path above and the last segment; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &str)> {
        let (last, above) = self.segments.split_last()?;
        let parent = Self {
            segments: above.to_vec(),
        };
        Some((parent, last))
    }

    /// Whether `other` is this path or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        other.segments.starts_with(&self.segments)
    }

    /// Whether a write to one can be seen at the other: one contains the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// For use in a URL: `""` for the root, else `/a/b` with unsafe characters escaped.
    pub fn to_url_path(&self) -> String {
        self.segments
            .iter()
            .map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT)))
            .collect()
    }

    /// As a JSON pointer (RFC 6901): `""` for the root, else `/a/b` with `~` and `/` escaped.
    pub fn to_pointer(&self) -> String {
        self.segments
            .iter()
            .map(|segment| format!("/{}", segment.replace('~', "~0").replace('/', "~1")))
            .collect()
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("/");
        }
        f.write_str(&self.to_url_path())
    }
}

impl From<&RepoPath> for DataPath {
    /// Where the `data.json` of a directory belongs.
    fn from(directory: &RepoPath) -> Self {
        Self::from_segments(directory.components())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(text: &str) -> DataPath {
        DataPath::parse(text).unwrap()
    }

    #[test]
    fn a_repository_path_knows_what_is_above_it() {
        let above: Vec<RepoPath> = RepoPath::from("a/b/c.rego").ancestors().collect();
        assert_eq!(above, ["a/b", "a", "."].map(RepoPath::from));
        assert_eq!(RepoPath::root().ancestors().count(), 0);
        assert!(RepoPath::from("a/b").is_within(&RepoPath::from("a")));
        assert!(!RepoPath::from("ab").is_within(&RepoPath::from("a")));
    }

    #[test]
    fn slashes_around_a_requested_directory_do_not_matter() {
        assert_eq!(RepoPath::normalized("/app/users/"), "app/users".into());
        assert_eq!(RepoPath::normalized("./"), RepoPath::root());
        assert_eq!(RepoPath::normalized(""), RepoPath::root());
    }

    #[test]
    fn a_data_path_overlaps_by_component_not_by_text() {
        assert!(data("/a").overlaps(&data("a/b")));
        assert!(data("").overlaps(&data("/x")));
        assert!(!data("/a").overlaps(&data("/ab")));
    }

    #[test]
    fn a_data_path_is_escaped_for_a_url_as_upstream_does() {
        assert_eq!(data("/p q/é/x%2Fy").to_url_path(), "/p%20q/%C3%A9/x%2Fy");
        assert_eq!(data("").to_url_path(), "");
        assert_eq!(data("/x%2Fy/~").to_pointer(), "/x~1y/~0");
    }

    #[test]
    fn a_data_path_that_leaves_its_place_is_refused() {
        for text in ["/a/../b", "..", "a/%2e%2e", "./a"] {
            assert!(
                matches!(DataPath::parse(text), Err(DataPathError::Relative { .. })),
                "{text}"
            );
        }
        assert!(DataPath::parse("%ff").is_err());
    }

    proptest! {
        #[test]
        fn a_data_path_survives_its_url_form(segments in prop::collection::vec("[^./][^/]{0,6}", 0..5)) {
            let path = DataPath::from_segments(segments.iter().map(|s| s.replace('%', "")).filter(|s| !s.is_empty()));
            prop_assert_eq!(DataPath::parse(&path.to_url_path()).unwrap(), path);
        }
    }
}
