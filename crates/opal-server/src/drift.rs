//! Whether clients hold the policies that their commit has.
//!
//! A client reports the commit of its policies and their digest. [`DriftCheck`] makes the digest that
//! the commit has for the client's directories; where the two differ, something changed the engine's
//! policies behind the client's back, or a diff went wrong: that client takes a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opal_protocol::policy::policy_digest;
use opal_protocol::{CommitHash, PolicyBundle, RepoPath, ScopeId, Topic};
use opal_pubsub::hub::{Drift, ReportedPolicies, SubscriberId};
use opal_pubsub::{HubStopped, Publisher};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::policy::PolicyRepo;

/// The task that compares.
#[derive(Debug)]
pub(crate) struct DriftCheck {
    publisher: Publisher,
    repo: PolicyRepo,
    every: Duration,
    seen: Seen,
}

impl DriftCheck {
    /// A check of all reports, `every` so often, against what is in `repo`.
    pub(crate) fn new(publisher: Publisher, repo: PolicyRepo, every: Duration) -> Self {
        Self {
            publisher,
            repo,
            every,
            seen: Seen::default(),
        }
    }

    /// Runs until `shutdown`, or until the hub is gone.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let checks = async {
            loop {
                ticks.tick().await;
                if self.check().await.is_err() {
                    break;
                }
            }
        };
        shutdown.run_until_cancelled(checks).await;
        // A task that ends early ends the server; it is ending already if the hub is gone.
        shutdown.cancelled().await;
    }

    async fn check(&mut self) -> Result<(), HubStopped> {
        let Some(head) = self.repo.head() else {
            return Ok(());
        };
        let reported = self.publisher.policies_reported().await?;
        let fresh = self.seen.fresh(&head, reported);
        let mut drifted = Vec::new();
        for report in fresh {
            if let Some(tell) = self.compare(&head, &report).await {
                if tell {
                    warn_of(&report);
                }
                let reported = report;
                drifted.push(Drift { reported, tell });
            }
        }
        if !drifted.is_empty() {
            self.publisher.mark_drift(drifted).await?;
        }
        Ok(())
    }

    /// Whether to tell the client, if the report is wrong.
    async fn compare(&mut self, head: &CommitHash, report: &ReportedPolicies) -> Option<bool> {
        let directories = directories(&report.scope, &report.topics);
        if directories.is_empty() {
            return None;
        }
        let expected = match self.seen.digests.get(&directories) {
            Some(known) => known.clone(),
            None => {
                let Some(made) = self.digest(head, &directories).await else {
                    self.seen.look_again_at(report);
                    return None;
                };
                self.seen.digests.insert(directories, made.clone());
                made
            }
        };
        self.seen.note(report, expected == report.digest)
    }

    /// The digest of the policies in `directories` at `head`, if that is still the head.
    async fn digest(&self, head: &CommitHash, directories: &[RepoPath]) -> Option<String> {
        let bundle = self.repo.bundle(directories, None).await;
        let bundle = bundle.inspect_err(|error| debug!(%error, "Nothing to compare reports with"));
        let bundle: PolicyBundle = serde_json::from_slice(&bundle.ok()?).ok()?;
        let modules = bundle.policy_modules.iter();
        let policies: BTreeMap<&str, &str> = modules
            .map(|module| (module.path.as_str(), module.rego.as_str()))
            .collect();
        (bundle.hash == *head).then(|| policy_digest(&policies))
    }
}

/// Whose report, and the digest in it.
type Report = (SubscriberId, String);

fn key(report: &ReportedPolicies) -> Report {
    (report.subscriber, report.digest.clone())
}

/// What needs not be looked at again, for one commit.
#[derive(Debug, Default)]
struct Seen {
    commit: Option<CommitHash>,
    reports: BTreeSet<Report>,
    /// Who was told that its policies are wrong, and has not reported the right ones since.
    told: BTreeSet<SubscriberId>,
    digests: BTreeMap<Vec<RepoPath>, String>,
}

impl Seen {
    /// The reports about `head` that were not looked at yet. What is known of other commits is
    /// forgotten.
    fn fresh(
        &mut self,
        head: &CommitHash,
        reported: Vec<ReportedPolicies>,
    ) -> Vec<ReportedPolicies> {
        if self.commit.as_ref() != Some(head) {
            *self = Self {
                commit: Some(head.clone()),
                ..Self::default()
            };
        }
        let current = |report: &ReportedPolicies| report.commit == *head;
        let mut reported: Vec<ReportedPolicies> = reported.into_iter().filter(current).collect();
        let before = std::mem::replace(&mut self.reports, reported.iter().map(key).collect());
        reported.retain(|report| !before.contains(&key(report)));
        reported
    }

    /// Makes the next round look at `report` again.
    fn look_again_at(&mut self, report: &ReportedPolicies) {
        self.reports.remove(&key(report));
    }

    /// Whether to tell the client, if the report does not match: once on each connection for each
    /// commit, since a second snapshot would not help either, unless its policies were right in
    /// between.
    fn note(&mut self, report: &ReportedPolicies, matches: bool) -> Option<bool> {
        if matches {
            self.told.remove(&report.subscriber);
            return None;
        }
        Some(self.told.insert(report.subscriber))
    }
}

fn warn_of(report: &ReportedPolicies) {
    let (client, commit) = (&report.client, report.commit.short());
    warn!(
        client.id = %client,
        scope.id = %report.scope,
        policy.head = %report.commit,
        "The policies of client `{client}` are not those of commit {commit}: it takes everything anew"
    );
}

/// The directories whose policies a client with these topics has.
fn directories(scope: &ScopeId, topics: &[Topic]) -> Vec<RepoPath> {
    let prefix = match scope.is_default() {
        true => "policy:".to_owned(),
        false => format!("{scope}:policy:"),
    };
    let named = topics
        .iter()
        .filter_map(|topic| topic.as_str().strip_prefix(&prefix));
    let named: BTreeSet<RepoPath> = named.map(RepoPath::normalized).collect();
    named.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(c: char) -> CommitHash {
        CommitHash::parse(&c.to_string().repeat(40)).unwrap()
    }

    fn report(subscriber: u64, commit: char, digest: &str) -> ReportedPolicies {
        ReportedPolicies {
            subscriber: SubscriberId(subscriber),
            client: "edge".to_owned(),
            scope: ScopeId::default(),
            topics: vec![],
            commit: hash(commit),
            digest: digest.to_owned(),
        }
    }

    #[test]
    fn a_report_is_looked_at_once_and_only_if_it_is_about_the_head() {
        let mut seen = Seen::default();
        let mut fresh = |head, reports: &[ReportedPolicies]| {
            let fresh = seen.fresh(&hash(head), reports.to_vec());
            fresh
                .iter()
                .map(|report| report.subscriber.0)
                .collect::<Vec<_>>()
        };
        let (one, two, old) = (
            report(1, 'a', "x"),
            report(2, 'a', "x"),
            report(3, 'b', "x"),
        );
        assert_eq!(fresh('a', &[one.clone(), old.clone()]), [1]);
        assert_eq!(fresh('a', &[one.clone(), two]), [2]);
        assert_eq!(fresh('a', &[report(1, 'a', "y")]), [1]);
        assert_eq!(fresh('b', &[old]), [3]);
        assert_eq!(fresh('a', &[one]), [1]);
    }

    #[test]
    fn a_connection_is_told_of_its_drift_once_until_its_policies_are_right_again() {
        let mut seen = Seen::default();
        seen.fresh(&hash('a'), vec![]);
        let mut note = |subscriber, matches| seen.note(&report(subscriber, 'a', "x"), matches);
        assert_eq!(note(1, false), Some(true));
        assert_eq!(note(1, false), Some(false), "wrong again, and known");
        assert_eq!(note(2, false), Some(true), "another, or after a reconnect");
        assert_eq!(note(1, true), None);
        assert_eq!(note(1, false), Some(true));
        seen.fresh(&hash('b'), vec![]);
        assert_eq!(seen.note(&report(1, 'b', "x"), false), Some(true));
    }

    #[test]
    fn directories_are_those_of_the_scope() {
        let topics = ["policy:app/", "policy:lib", "s1:policy:.", "data"].map(Topic::from);
        let ours = directories(&ScopeId::default(), &topics);
        assert_eq!(ours, ["app", "lib"].map(RepoPath::from));
        assert_eq!(directories(&"s1".into(), &topics), [RepoPath::root()]);
    }
}
