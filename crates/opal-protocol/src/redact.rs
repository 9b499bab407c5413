//! What may be printed of a URL.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

/// A URL that prints without user, password, query and fragment, wherever it is printed.
///
/// It may also hold what git takes for a URL but is none: a file path or `user@host:path`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Wraps `url`, whatever it holds.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole text, secrets included: for making requests only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RedactedUrl {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(mut url) = Url::parse(&self.0)
            && url.has_host()
        {
            // These fail only for URLs that cannot carry credentials.
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.set_query(None);
            url.set_fragment(None);
            return f.write_str(url.as_str());
        }
        let text = self.0.split(['?', '#']).next().unwrap_or_default();
        match text.rsplit_once('@') {
            Some((_, place)) => f.write_str(place),
            None => f.write_str(text),
        }
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_are_not_printed() {
        for (url, shown) in [
            (
                "https://bob:pw@git.example.com/a.git?token=x#f",
                "https://git.example.com/a.git",
            ),
            (
                "git@git.example.com:acme/a.git",
                "git.example.com:acme/a.git",
            ),
            ("/srv/repo", "/srv/repo"),
            ("postgres://u:p@ss@db/x", "postgres://db/x"),
            ("not a url ?secret", "not a url "),
        ] {
            assert_eq!(RedactedUrl::from(url).to_string(), shown);
            assert!(!format!("{:?}", RedactedUrl::from(url)).contains("pw"));
        }
    }
}
