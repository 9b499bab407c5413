//! The callbacks that are told of every update. In memory, as upstream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opal_protocol::json_text::python_text;
use opal_protocol::{Callback, HttpFetcherConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One registered callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallbackEntry {
    /// Names it in the API.
    pub key: String,
    /// Where reports go.
    pub url: String,
    /// How they are sent.
    pub config: HttpFetcherConfig,
}

/// The registered callbacks, in the order of their registration.
#[derive(Debug, Clone)]
pub struct CallbackRegister {
    default_config: HttpFetcherConfig,
    entries: Vec<CallbackEntry>,
}

/// A register that the API changes and the reporter reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callbacks {
    register: Arc<Mutex<CallbackRegister>>,
}

impl Callbacks {
    /// Shares `register`.
    pub fn new(register: CallbackRegister) -> Self {
        Self {
            register: Arc::new(Mutex::new(register)),
        }
    }

    /// The register, locked: not to be held across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, CallbackRegister> {
        // No change of the register can be left half made.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallbackRegister {
    /// A register that starts with `callbacks` (`OPAL_DEFAULT_UPDATE_CALLBACKS`), and that gives
    /// `default_config` (`OPAL_DEFAULT_UPDATE_CALLBACK_CONFIG`) to callbacks that come without one.
    pub fn new(default_config: HttpFetcherConfig, callbacks: &[Callback]) -> Self {
        let mut register = Self {
            default_config,
            entries: Vec::new(),
        };
        for callback in callbacks {
            match callback {
                Callback::Url(url) => register.put(None, url, None),
                Callback::Configured(url, config) => register.put(None, url, Some(config.clone())),
            };
        }
        register
    }

    /// Registers a callback and returns its entry.
    ///
    /// An entry of the same key is replaced. The same callback exists once: registered again without a
    /// key it keeps the one it has, registered again with a key it moves to that key.
    pub fn put(
        &mut self,
        key: Option<&str>,
        url: &str,
        config: Option<HttpFetcherConfig>,
    ) -> CallbackEntry {
        let config = config.unwrap_or_else(|| self.default_config.clone());
        let same = |entry: &CallbackEntry| entry.url == url && entry.config == config;
        let key = match key {
            Some(key) => key.to_owned(),
            None => match self.entries.iter().find(|entry| same(entry)) {
                Some(entry) => return entry.clone(),
                None => computed_key(url, &config),
            },
        };
        self.entries
            .retain(|entry| entry.key == key || !same(entry));
        let url = url.to_owned();
        let new = CallbackEntry { key, url, config };
        match self.entries.iter_mut().find(|entry| entry.key == new.key) {
            Some(entry) => entry.clone_from(&new),
            None => self.entries.push(new.clone()),
        }
        new
    }

    /// The entry of that key.
    pub fn get(&self, key: &str) -> Option<&CallbackEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Removes the entry of that key; false if there is none.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key != key);
        self.entries.len() < before
    }

    /// All entries.
    pub fn entries(&self) -> &[CallbackEntry] {
        &self.entries
    }
}

/// The key of a callback that was registered without one: SHA-256 of its URL and its configuration
/// as Python prints it.
fn computed_key(url: &str, config: &HttpFetcherConfig) -> String {
    let config = serde_json::to_string(config).expect("a configuration prints as JSON");
    let digest = Sha256::digest(format!("{url}{}", python_text(&config)));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register() -> CallbackRegister {
        let default = r#"{"method":"post","headers":{"content-type":"application/json"},"process_data":false}"#;
        let default = serde_json::from_str(default).unwrap();
        let server = Callback::Url("http://127.0.0.1:17108/data/callback_report".to_owned());
        CallbackRegister::new(default, &[server])
    }

    fn put_config() -> Option<HttpFetcherConfig> {
        serde_json::from_str(r#"{"method":"put","headers":{"A":"b"}}"#).unwrap()
    }

    #[test]
    fn computed_keys_are_those_of_released_opal() {
        let mut register = register();
        assert_eq!(
            register.entries()[0].key,
            "ab6b1c02a43903538c66402f6054f9ac1e84b96fd701bc104ed9c9020c82bbe0"
        );
        let entry = register.put(None, "http://127.0.0.1:9/cb", None);
        assert_eq!(
            serde_json::to_string(&entry).unwrap(),
            r#"{"key":"7711ce936e9e5c1910622cca6338ef11b24f73c69129cf02f1b306263dc64b40","url":"http://127.0.0.1:9/cb","config":{"fetcher":null,"headers":{"content-type":"application/json"},"is_json":true,"process_data":false,"method":"post","data":null}}"#
        );
        let entry = register.put(None, "http://127.0.0.1:9/cb2", put_config());
        assert_eq!(
            entry.key,
            "f4a6134b22fd08df52b01ce978f2a9e0f7ef8e00521fb6b895e5c7c7ae2ae803"
        );
    }

    #[test]
    fn the_same_callback_exists_once() {
        let mut register = register();
        let first = register.put(Some("k1"), "http://x/", put_config());
        assert_eq!(register.put(None, "http://x/", put_config()), first);
        register.put(Some("k2"), "http://x/", put_config());
        assert_eq!(register.get("k1"), None);
        assert_eq!(register.entries().len(), 2);
    }

    #[test]
    fn an_entry_of_the_same_key_is_replaced_and_can_be_removed() {
        let mut register = register();
        register.put(Some("k"), "http://x/", None);
        register.put(Some("k"), "http://y/", None);
        assert_eq!(register.get("k").unwrap().url, "http://y/");
        assert!(register.remove("k") && !register.remove("k"));
    }
}
