//! OPA over REST, beside the client or elsewhere.
//!
//! OPA's API has no transaction over several modules or documents. What OPAL does about it:
//!
//! - Data of a bundle is written before its policies, each in one request.
//! - A module that OPA refuses is tried again after the others, since it may depend on them, until
//!   all are in or a round brings no progress; see [`rounds`].
//! - A bundle is remembered as applied only if all of it was. What was stored stays.
//!
//! Requests are repeated as `OPAL_POLICY_STORE_CONN_RETRY` says, except patches whose outcome is
//! unknown: applied twice they would corrupt the data.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use opal_protocol::{DataPath, Document, Patch, PolicyBundle};
use opal_runtime::ConnRetryOptions;
use reqwest::Client;
use tokio::sync::{Mutex, RwLock};
use url::Url;

use super::ignore::IgnoredPaths;
use super::static_data::{DataPlan, StaticData};
use super::{PolicyProblem, PolicyStore, StoreChange, StoreError};

mod answer;
mod api;
mod auth;
mod rounds;

use api::OpaApi;
pub use auth::OpaAuth;

/// How OPA is reached and what is written to it.
#[derive(Debug, Clone)]
pub struct OpaOptions {
    /// Where OPA listens, without `/v1` (`OPAL_POLICY_STORE_URL`).
    pub url: Url,
    /// How OPA knows us (`OPAL_POLICY_STORE_AUTH_*`). A client certificate is the HTTP client's.
    pub auth: OpaAuth,
    /// Attempts for one request (`OPAL_POLICY_STORE_CONN_RETRY`).
    pub retry: ConnRetryOptions,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// The longest a liveness probe may take (`OPAL_POLICY_STORE_LIVENESS_PROBE_TIMEOUT_SECONDS`).
    pub probe_timeout: Duration,
    /// Policies to leave alone (`OPAL_POLICY_STORE_POLICY_PATHS_TO_IGNORE`).
    pub ignored: IgnoredPaths,
    /// Whether an object for the root is written member by member (`OPAL_SPLIT_ROOT_DATA`).
    pub split_root_data: bool,
}

impl OpaOptions {
    /// What upstream does by default, for the OPA at `url`.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            auth: OpaAuth::None,
            retry: ConnRetryOptions::default(),
            timeout: Duration::from_secs(300),
            probe_timeout: Duration::from_secs(2),
            ignored: IgnoredPaths::default(),
            split_root_data: false,
        }
    }
}

/// A [`PolicyStore`] over OPA's REST API.
#[derive(Debug)]
pub struct OpaStore {
    api: OpaApi,
    ignored: IgnoredPaths,
    split_root_data: bool,
    /// What the bundles brought so far. Held while a bundle is applied: one at a time.
    static_data: Mutex<StaticData>,
    /// Written by whoever must not see data change under it (a bundle's data, a patch that depends on
    /// what is there), read by every other write of data.
    data: RwLock<()>,
}

impl OpaStore {
    /// A store over the OPA that `options` describe, asked through `client`.
    pub fn new(client: Client, options: OpaOptions) -> Self {
        Self {
            ignored: options.ignored.clone(),
            split_root_data: options.split_root_data,
            api: OpaApi::new(client, options),
            static_data: Mutex::default(),
            data: RwLock::default(),
        }
    }

    async fn change(&self, change: StoreChange) -> Result<(), StoreError> {
        match change {
            StoreChange::Bundle(bundle) => self.bundle(&bundle).await,
            StoreChange::Put { path, document } => self.put(&path, &document).await,
            StoreChange::Patch { path, operations } => {
                let patch = Patch::parse(path.clone(), &operations)?;
                self.patch(&path, &patch).await
            }
            StoreChange::Delete { path } => {
                let _shared = self.data.read().await;
                self.api.delete_data(&path).await
            }
        }
    }

    /// A split root document is written as far as possible; the first failure is the outcome.
    async fn put(&self, path: &DataPath, document: &Document) -> Result<(), StoreError> {
        let static_data = self.static_data.lock().await.clone();
        let writes = static_data.writes(path, document, self.split_root_data)?;
        let _shared = self.data.read().await;
        let mut outcome = Ok(());
        for write in writes {
            let written = self.api.put_data(&write).await;
            outcome = outcome.and(written);
        }
        outcome
    }

    async fn patch(&self, path: &DataPath, patch: &Patch) -> Result<(), StoreError> {
        if let Some(plain) = patch.plain() {
            let _shared = self.data.read().await;
            return self.api.patch_data(path, &plain).await;
        }
        let _alone = self.data.write().await;
        let current = self.api.get_data(path).await?;
        let current = current.ok_or_else(|| patch.fails("there is no document"))?;
        let plain = patch.resolve(current)?;
        if plain.is_empty() {
            return Ok(());
        }
        self.api.patch_data(path, &plain).await
    }

    async fn bundle(&self, bundle: &PolicyBundle) -> Result<(), StoreError> {
        let mut held = self.static_data.lock().await;
        let stale = self.stale_policies(bundle).await?;
        let plan = held.plan(bundle);
        let mut problems = self.static_data(&plan).await?;
        *held = plan.after;
        problems.extend(plan.problems);
        problems.extend(self.modules(bundle, stale).await?);
        if problems.is_empty() {
            return Ok(());
        }
        Err(StoreError::Refused { problems })
    }

    /// Writes the bundle's data. What OPA refuses is reported and does not stop the rest.
    async fn static_data(&self, plan: &DataPlan) -> Result<Vec<PolicyProblem>, StoreError> {
        let _alone = self.data.write().await;
        for path in &plan.removals {
            self.api.delete_data(path).await?;
        }
        let mut problems = Vec::new();
        for write in &plan.writes {
            match self.api.put_data(write).await {
                Err(error) if !error.is_transient() => problems.push(PolicyProblem {
                    file: format!("{}/data.json", write.path.segments().join("/")),
                    row: 0,
                    col: 0,
                    code: "data_error".to_owned(),
                    message: error.to_string(),
                }),
                outcome => outcome?,
            }
        }
        Ok(problems)
    }

    /// The stored policies that a complete bundle does not name; none for a diff.
    async fn stale_policies(&self, bundle: &PolicyBundle) -> Result<Vec<String>, StoreError> {
        if bundle.is_diff() {
            return Ok(Vec::new());
        }
        let mut stored = self.policies().await?;
        for module in &bundle.policy_modules {
            stored.remove(module.path.as_str());
        }
        Ok(stored.into_keys().collect())
    }
}

#[async_trait]
impl PolicyStore for OpaStore {
    async fn apply(&self, batch: Vec<StoreChange>) -> Vec<Result<(), StoreError>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            outcomes.push(self.change(change).await);
        }
        outcomes
    }

    async fn is_reachable(&self) -> Result<(), StoreError> {
        self.api.probe().await
    }

    async fn has_policy(&self, id: &str) -> Result<bool, StoreError> {
        self.api.has_policy(id).await
    }

    async fn policies(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let stored = self.api.policies().await?;
        let ours = stored.into_iter().filter(|policy| {
            !policy.is_system() && !self.ignored.contains(&policy.id.as_str().into())
        });
        Ok(ours.map(|policy| (policy.id, policy.raw)).collect())
    }
}
