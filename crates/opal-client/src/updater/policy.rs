//! The updater's part for policy: fetches bundles and notes what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use opal_protocol::{CommitHash, DataUpdateReport, PolicyBundle, UpdateCallback};
use serde_json::{Map, Value};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::writes::error_data;
use super::{Updater, Work};
use crate::policy::sync::BundleRequest;
use crate::policy_store::StoreError;
use crate::server_api::ServerApiError;
use opal_runtime::chain;

impl Updater {
    pub(super) fn fetch_bundle(
        &self,
        request: BundleRequest,
    ) -> Work<Result<PolicyBundle, ServerApiError>> {
        let api = self.parts.api.clone();
        let retry = self.parts.policy_retry.clone();
        async move {
            for attempt in 1.. {
                let error = match api.bundle(&request).await {
                    Ok(bundle) => return Ok(bundle),
                    Err(error) => error,
                };
                let pause = retry.delay(attempt, &mut rand::rng());
                let asked = error.retry_after().unwrap_or_default();
                // A server that asks for more patience than a round has ends the round: meanwhile
                // there may be news.
                let Some(pause) = pause.filter(|pause| *pause >= asked) else {
                    return Err(error);
                };
                debug!(
                    "Could not fetch the bundle, trying again: {}",
                    chain(&error)
                );
                tokio::time::sleep(pause).await;
            }
            unreachable!("attempts are counted without end")
        }
        .boxed()
    }

    pub(super) fn on_bundle(&mut self, bundle: Result<PolicyBundle, ServerApiError>) {
        match bundle {
            Ok(bundle) => self.ready_bundle = Some(Arc::new(bundle)),
            Err(error) => {
                let asked = error.retry_after();
                let error = chain(&error);
                warn!("Could not fetch the policy bundle, trying again: {error}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.policy_url();
                self.parts
                    .transactions
                    .policy_unfetched(&id, remote, &error);
                self.policy_failed(asked, &error);
            }
        }
    }

    fn policy_failed(&mut self, asked: Option<Duration>, error: &str) {
        if let Some(sync) = &mut self.sync {
            sync.failed(asked, Instant::now(), &mut rand::rng());
        }
        // Told once, however often it is tried again.
        if !std::mem::replace(&mut self.policy_failure_is_told, true) {
            self.report_policy(None, error_data(error));
        }
    }

    pub(super) fn on_bundle_written(
        &mut self,
        bundle: &PolicyBundle,
        outcome: Result<(), StoreError>,
    ) {
        let commit = &bundle.hash;
        let remote = self.parts.api.policy_url();
        match outcome {
            Ok(()) => {
                if let Some(record) = &mut self.record {
                    record.bundle_applied(bundle);
                    self.parts.landmark.send_replace(record.any_policy());
                }
                info!(
                    policy.head = %commit,
                    "The policy store holds commit {}",
                    commit.short()
                );
                self.parts
                    .transactions
                    .policy_succeeded(commit, remote, self.bundle_began);
                self.policy_succeeded(commit.clone(), !bundle.is_diff());
            }
            Err(error) => {
                let mut text = chain(&error);
                warn!(policy.head = %commit, "The policy store did not take commit {}: {text}", commit.short());
                for problem in error.problems() {
                    warn!(policy.head = %commit, "{problem}");
                }
                for problem in error.problems().iter().skip(1) {
                    text.push_str(&format!("; {problem}"));
                }
                self.parts
                    .transactions
                    .policy_refused(commit, remote, &error, self.bundle_began);
                // What is not in this process takes bundles module by module.
                if let Some(sync) = self.sync.as_mut().filter(|_| self.record.is_some()) {
                    sync.applied_in_part();
                }
                self.policy_failed(None, &text);
            }
        }
    }

    fn policy_succeeded(&mut self, commit: CommitHash, is_complete: bool) {
        let late = is_complete && self.wrote_data;
        self.policy_failure_is_told = false;
        if let Some(sync) = &mut self.sync {
            sync.succeeded(commit.clone());
        }
        self.data_waits_until = None;
        if late {
            // A complete bundle writes its static data over what updates had put there.
            self.load_sources("policy store rehydration", None);
        }
        self.report_policy(Some(commit), Map::new());
    }

    fn report_policy(&self, policy_hash: Option<CommitHash>, user_data: Map<String, Value>) {
        if let Some(reporter) = &self.parts.reporter {
            let report = DataUpdateReport {
                update_id: None,
                reports: Vec::new(),
                policy_hash,
                user_data,
            };
            reporter.report(report, UpdateCallback::default());
        }
    }
}
