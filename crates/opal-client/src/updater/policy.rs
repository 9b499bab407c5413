//! The updater's part for policy: fetches bundles and notes what came of them.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use opal_protocol::{CommitHash, DataUpdateReport, Position, UpdateCallback};
use serde_json::{Map, Value};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::writes::error_data;
use super::{Updater, Work};
use crate::policy::sync::BundleRequest;
use crate::policy_store::StoreError;
use crate::server_api::{BundleAt, ServerApiError};
use opal_runtime::chain;

impl Updater {
    pub(super) fn fetch_bundle(
        &self,
        request: BundleRequest,
    ) -> Work<Result<BundleAt, ServerApiError>> {
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

    pub(super) fn on_bundle(&mut self, bundle: Result<BundleAt, ServerApiError>) {
        match bundle {
            Ok(bundle) => self.ready_bundle = Some(bundle),
            Err(error) => {
                let asked = error.retry_after();
                let error = chain(&error);
                warn!("Could not fetch the policy bundle, trying again: {error}");
                let id = Uuid::new_v4().simple().to_string();
                let remote = self.parts.api.policy_url();
                self.parts
                    .transactions
                    .policy_unfetched(&id, remote, &error);
                self.policy_failed(asked, false, &error);
            }
        }
    }

    fn policy_failed(&mut self, asked: Option<Duration>, applied_in_part: bool, error: &str) {
        let now = Instant::now();
        self.replica
            .bundle_failed(error, asked, applied_in_part, now, &mut rand::rng());
        // Told once, however often it is tried again.
        if !std::mem::replace(&mut self.policy_failure_is_told, true) {
            self.report_policy(None, error_data(error));
        }
    }

    pub(super) fn on_bundle_written(
        &mut self,
        written: BundleAt,
        outcome: Result<Option<String>, StoreError>,
    ) {
        let bundle = written.bundle;
        let commit = &bundle.hash;
        let remote = self.parts.api.policy_url();
        match outcome {
            Ok(digest) => {
                if let Some(record) = &mut self.record {
                    record.bundle_applied(&bundle);
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
                if let Some(digest) = digest {
                    self.replica.policies_are(commit.clone(), digest);
                }
                self.policy_succeeded(commit.clone(), !bundle.is_diff(), written.position);
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
                let in_part = self.parts.store_is_elsewhere;
                self.policy_failed(None, in_part, &text);
            }
        }
    }

    fn policy_succeeded(
        &mut self,
        commit: CommitHash,
        is_complete: bool,
        position: Option<Position>,
    ) {
        self.policy_failure_is_told = false;
        if let Some(renewal) = self.renewal.as_mut().filter(|_| is_complete) {
            renewal.lacks_bundle = false;
        }
        let now = Instant::now();
        self.replica
            .bundle_applied(commit.clone(), is_complete, position, now);
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
