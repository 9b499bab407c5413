//! `Idempotency-Key`: the same publish, sent again, is the same change.

use axum::http::HeaderMap;
use opal_protocol::{ScopeId, UpdateId};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

/// The request header.
const HEADER: &str = "idempotency-key";
/// More characters than anyone needs to make a key unique.
const LONGEST: usize = 255;

/// What a publisher calls one publish of its own. Ids derive from it, so that a repeat is known for as
/// long as the feed's history holds the first, across restarts if the history is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    ///
    /// 400 if it is empty, longer than 255 characters, not printable ASCII, or there are several.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        if values.next().is_some() || text.is_empty() || text.len() > LONGEST {
            let text = "`Idempotency-Key` must be one key of 1 to 255 printable ASCII characters";
            return Err(ApiError::bad_request(text));
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// The id of the change that this key stands for in `scope`.
    pub fn change_id(&self, scope: &ScopeId) -> UpdateId {
        UpdateId::from(hex::encode(self.digest("change", scope)).as_str())
    }

    /// The id of an update that has none of its own, in the form of those that we make.
    pub fn update_id(&self, scope: &ScopeId) -> UpdateId {
        let digest = self.digest("update", scope);
        UpdateId::from(hex::encode(&digest[..16]).as_str())
    }

    fn digest(&self, purpose: &str, scope: &ScopeId) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [purpose, scope.as_str(), &self.0] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey(text.to_owned())
    }

    #[test]
    fn ids_are_the_same_for_the_same_key_and_scope_only() {
        let scope = ScopeId::default();
        assert_eq!(key("a").change_id(&scope), key("a").change_id(&scope));
        assert_ne!(key("a").change_id(&scope), key("b").change_id(&scope));
        assert_ne!(key("a").change_id(&scope), key("a").change_id(&"s1".into()));
        assert_eq!(key("a").update_id(&scope).as_str().len(), 32);
        let change = key("a").change_id(&scope);
        assert!(
            !change
                .as_str()
                .starts_with(key("a").update_id(&scope).as_str())
        );
    }

    #[test]
    fn absurd_keys_are_refused() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, axum::http::HeaderValue::from_bytes(value).unwrap());
            }
            IdempotencyKey::read(&headers)
        };
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[b"order 7"]).unwrap(), Some(key("order 7")));
        assert_eq!(read(&[&[b'a'; 255]]).unwrap(), Some(key(&"a".repeat(255))));
        let (blank, long): (&[u8], &[u8]) = (b"  ", &[b'a'; 256]);
        for wrong in [
            &[b"".as_slice()] as &[&[u8]],
            &[blank],
            &[long],
            &["é".as_bytes()],
            &[b"a", b"a"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
