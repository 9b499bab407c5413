//! When to ask the server where our data comes from, and for what. No I/O, no clock.

use std::time::{Duration, Instant};

use opal_protocol::AtLeast;
use rand::Rng;

use crate::data::queue::round_pause;

/// What to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// The data sources.
    Sources,
    /// The data sources, and what the changes of the feed up to here come down to.
    Snapshot(AtLeast),
    /// The data sources that are loaded again and again; the others are in the store.
    PolledSources,
}

/// A load to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadRequest {
    /// What to ask for.
    pub kind: LoadKind,
    /// Why, for reports.
    pub reason: &'static str,
}

/// Runs one load at a time, and again until one has succeeded.
#[derive(Debug, Default)]
pub(super) struct Loads {
    wanted: Option<LoadRequest>,
    running: Option<LoadRequest>,
    attempt: u32,
    not_before: Option<Instant>,
}

impl Loads {
    /// Asks for a load, not before `at` if given. One that runs is repeated after it.
    pub(super) fn want(&mut self, request: LoadRequest, at: Option<Instant>) {
        self.wanted = Some(request);
        self.not_before = at;
        self.attempt = 0;
    }

    /// Whether something is to be loaded or is being loaded.
    pub(super) fn is_pending(&self) -> bool {
        self.wanted.is_some() || self.running.is_some()
    }

    /// The load to start now, if any.
    pub(super) fn next(&mut self, now: Instant) -> Option<LoadRequest> {
        let waits = self.not_before.is_some_and(|at| at > now);
        if self.running.is_some() || waits {
            return None;
        }
        self.not_before = None;
        self.running = self.wanted.take();
        self.running
    }

    /// The load that ran has an answer. Says for what, unless the answer is overtaken: something
    /// newer was asked for that it does not serve.
    pub(super) fn succeeded(&mut self) -> Option<LoadRequest> {
        let ran = self.running.take()?;
        self.attempt = 0;
        let is_snapshot = |kind: LoadKind| matches!(kind, LoadKind::Snapshot(_));
        let is_overtaken = self
            .wanted
            .is_some_and(|wanted| is_snapshot(wanted.kind) || is_snapshot(ran.kind));
        (!is_overtaken).then_some(ran)
    }

    /// The load that ran has no answer: it runs again after a pause.
    pub(super) fn failed(&mut self, asked: Option<Duration>, now: Instant, rng: &mut impl Rng) {
        let Some(ran) = self.running.take() else {
            return;
        };
        if self.wanted.is_some() {
            return;
        }
        self.wanted = Some(ran);
        self.attempt += 1;
        self.not_before = Some(now + round_pause(self.attempt, asked, rng));
    }

    /// What was tried last failed for a reason that is gone.
    pub(super) fn retry_now(&mut self) {
        self.not_before = None;
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.not_before
            .filter(|_| self.wanted.is_some() && self.running.is_none())
    }
}
