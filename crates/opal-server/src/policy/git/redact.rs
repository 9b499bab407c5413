//! What of git's error output may be shown.

use std::fmt;

use opal_protocol::RedactedUrl;
use percent_encoding::percent_decode_str;
use url::Url;

/// The most of an error message that is kept.
const LONGEST: usize = 600;

/// Takes credentials and noise out of what `git` printed.
pub(super) struct Redactor {
    url: RedactedUrl,
    secrets: Vec<String>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Redactor {
    pub(super) fn new(url: &RedactedUrl) -> Self {
        Self {
            url: url.clone(),
            secrets: secrets_of(url.expose()),
        }
    }

    /// The lines that say what failed, on one line, without credentials.
    pub(super) fn message(&self, stderr: &[u8]) -> String {
        let text = String::from_utf8_lossy(stderr);
        let lines: Vec<&str> = text
            .split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| !line.is_empty() && !is_progress(line))
            .collect();
        let from = lines.len().saturating_sub(6);
        self.redact(&lines[from..].join("; "))
    }

    fn redact(&self, text: &str) -> String {
        let mut text = text.replace(self.url.expose(), &self.url.to_string());
        for secret in &self.secrets {
            text = text.replace(secret, "***");
        }
        let clean: String = strip_urls(&text)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST)
            .collect();
        if clean.is_empty() {
            return "no reason given".to_owned();
        }
        clean
    }
}

/// The password of the URL, or its user if that is all there is and it looks like a token.
fn secrets_of(url: &str) -> Vec<String> {
    let Ok(parsed) = Url::parse(url) else {
        return Vec::new();
    };
    let encoded = match parsed.password() {
        Some(password) => password,
        None if parsed.username().len() >= 16 => parsed.username(),
        None => return Vec::new(),
    };
    let decoded = percent_decode_str(encoded).decode_utf8_lossy().into_owned();
    [encoded.to_owned(), decoded]
        .into_iter()
        .filter(|secret| secret.len() >= 4)
        .collect()
}

fn is_progress(line: &str) -> bool {
    line.contains("% (") || line.contains("objects: ") || line.ends_with(", done.")
}

/// Drops user, password and query of every `scheme://` text.
fn strip_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ';'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        out.push_str(plain_place(url));
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn plain_place(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let place = &url[..end];
    let authority = place.find('/').unwrap_or(place.len());
    match place[..authority].rfind('@') {
        Some(at) => &place[at + 1..],
        None => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_progress_are_left_out_of_messages() {
        let url = RedactedUrl::from("https://bob:hunter2%21@git.example.com/a.git?token=abc");
        let redactor = Redactor::new(&url);
        let stderr = b"Receiving objects:  50% (1/2)\rfatal: unable to access \
            'https://bob:hunter2%21@git.example.com/a.git?token=abc/': no\n\
            remote: hunter2! is wrong; see https://x:y@other.example.com/p?k=v\n";
        let message = redactor.message(stderr);
        assert_eq!(
            message,
            "fatal: unable to access 'https://git.example.com/a.git/': no; \
             remote: *** is wrong; see https://other.example.com/p"
        );
    }

    #[test]
    fn a_token_given_as_the_user_is_a_secret_and_git_is_not() {
        let token = Redactor::new(&"https://ghp_0123456789abcdef@h/a".into());
        assert_eq!(token.message(b"bad ghp_0123456789abcdef"), "bad ***");
        let ssh = Redactor::new(&"ssh://git@h/a".into());
        assert_eq!(ssh.message(b"git: no"), "git: no");
        assert_eq!(ssh.message(b""), "no reason given");
    }
}
