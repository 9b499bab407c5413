//! What is measured, each time with fresh processes.

mod feed;
mod memory;
mod policy;
mod publish;
mod roads;

use std::fmt;

use anyhow::Context;

use crate::contender::Contender;

/// Name of a metric, and its value.
type Sample = (&'static str, f64);

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bench {
    /// One update to 1,000 subscribers.
    Delivery,
    /// 5,000 idle connections.
    Connections,
    /// A server that has just started.
    Start,
    /// A client with a small repository and the engine elsewhere.
    Client,
    /// `GET /policy` of three files.
    PolicySmall,
    /// `GET /policy` of 1,150 files.
    PolicyLarge,
    /// A commit in a repository of 20,000 files.
    Diff,
    /// A data update and a commit, through to the answer of the engine.
    Update,
    /// 5,000 clients of the feed, and a server that restarts.
    Resume,
    /// One update to 1,000 clients of the feed.
    FeedDelivery,
    /// A server that keeps 100,000 changes.
    History,
    /// `GET /v1/fleet` of 10,000 clients.
    Fleet,
    /// A publish that waits for 1,000 clients.
    Wait,
}

impl Bench {
    pub(crate) const ALL: [Self; 13] = [
        Self::Delivery,
        Self::Connections,
        Self::Start,
        Self::Client,
        Self::PolicySmall,
        Self::PolicyLarge,
        Self::Diff,
        Self::Update,
        Self::Resume,
        Self::FeedDelivery,
        Self::History,
        Self::Fleet,
        Self::Wait,
    ];

    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|bench| bench.to_string() == name);
        found.with_context(|| format!("no bench is called `{name}`"))
    }

    /// Whether this bench says anything about `contender`.
    pub(crate) fn concerns(self, contender: Contender) -> bool {
        match self {
            Self::Delivery | Self::Connections => true,
            Self::Start
            | Self::Client
            | Self::PolicySmall
            | Self::PolicyLarge
            | Self::Diff
            | Self::Update => contender != Contender::Floor,
            // What has no counterpart.
            Self::Resume | Self::FeedDelivery | Self::History | Self::Fleet | Self::Wait => {
                contender == Contender::Ours
            }
        }
    }

    /// Takes one sample of each of its metrics.
    pub(crate) async fn measure(self, contender: Contender) -> anyhow::Result<Vec<Sample>> {
        match self {
            Self::Delivery => publish::delivery(contender).await,
            Self::Connections => memory::connections(contender).await,
            Self::Start => memory::start(contender).await,
            Self::Client => memory::client(contender.kind()?).await,
            Self::PolicySmall => policy::small(contender).await,
            Self::PolicyLarge => policy::large(contender).await,
            Self::Diff => policy::diff(contender).await,
            Self::Update => roads::both(contender.kind()?).await,
            Self::Resume => feed::resume().await,
            Self::FeedDelivery => feed::delivery().await,
            Self::History => feed::history().await,
            Self::Fleet => feed::fleet().await,
            Self::Wait => feed::wait().await,
        }
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Delivery => "delivery",
            Self::Connections => "connections",
            Self::Start => "start",
            Self::Client => "client",
            Self::PolicySmall => "policy-small",
            Self::PolicyLarge => "policy-large",
            Self::Diff => "diff",
            Self::Update => "update",
            Self::Resume => "resume",
            Self::FeedDelivery => "feed-delivery",
            Self::History => "history",
            Self::Fleet => "fleet",
            Self::Wait => "wait",
        })
    }
}

/// Milliseconds, as figures are shown.
fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
