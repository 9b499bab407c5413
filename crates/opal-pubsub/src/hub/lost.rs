//! The clients that were here a moment ago.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use opal_protocol::{ScopeId, Topic};

use super::fleet::{ClientState, ClientView};
use super::follower::ClientKey;

/// How long a client is remembered after its connection.
pub(super) const REMEMBERED: Duration = Duration::from_secs(30);

/// So many are remembered; then the longest gone are forgotten early.
const MOST_LOST: usize = 10_000;

/// Clients whose connections ended, each for 30 s.
#[derive(Debug, Default)]
pub(super) struct LostClients {
    clients: BTreeMap<ClientKey, Lost>,
    /// In the order in which they were lost. Those who came back are still in it.
    order: VecDeque<(Instant, ClientKey)>,
}

#[derive(Debug)]
struct Lost {
    at: Instant,
    view: ClientView,
}

impl LostClients {
    /// Remembers a client, as it was when its connection ended. Returns those it makes room of.
    pub(super) fn add(&mut self, key: ClientKey, view: ClientView, now: Instant) -> Vec<ClientKey> {
        self.order.push_back((now, key.clone()));
        self.clients.insert(key, Lost { at: now, view });
        self.forget_while(|_, lost| lost > MOST_LOST)
    }

    /// Forgets a client that came back.
    pub(super) fn remove(&mut self, key: &ClientKey) {
        self.clients.remove(key);
    }

    /// Forgets those whose time is over, and returns them.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ClientKey> {
        self.forget_while(|at, _| is_over(at, now))
    }

    fn forget_while(&mut self, due: impl Fn(Instant, usize) -> bool) -> Vec<ClientKey> {
        let mut forgotten = Vec::new();
        while let Some((at, _)) = self.order.front()
            && due(*at, self.order.len())
            && let Some((at, key)) = self.order.pop_front()
        {
            // Another loss of the same client has a place of its own.
            if self.clients.get(&key).is_some_and(|lost| lost.at == at) {
                self.clients.remove(&key);
                forgotten.push(key);
            }
        }
        forgotten
    }

    /// Whether a client is remembered, by now.
    pub(super) fn contains(&self, key: &ClientKey, now: Instant) -> bool {
        let lost = self.clients.get(key);
        lost.is_some_and(|lost| !is_over(lost.at, now))
    }

    /// Those of `scope` that held one of `topics`, by now; none stands for every topic.
    pub(super) fn holding<'l>(
        &'l self,
        scope: &'l ScopeId,
        topics: Option<&'l [Topic]>,
        now: Instant,
    ) -> impl Iterator<Item = &'l ClientKey> {
        let holds = move |view: &ClientView| {
            topics.is_none_or(|topics| view.topics.iter().any(|held| topics.contains(held)))
        };
        let here = self.clients.iter().filter(|(key, _)| key.scope == *scope);
        here.filter(move |(_, lost)| !is_over(lost.at, now) && holds(&lost.view))
            .map(|(key, _)| key)
    }

    /// What is known of them, by now.
    pub(super) fn views(&self, now: Instant) -> impl Iterator<Item = ClientView> {
        let remembered = self.clients.values();
        let remembered = remembered.filter(move |lost| !is_over(lost.at, now));
        remembered.map(move |lost| {
            let ago = now.duration_since(lost.at).as_secs_f64();
            let lagged = lost.view.lag_changes > 0 || lost.view.lag_seconds > 0.0;
            ClientView {
                state: ClientState::Disconnected,
                lag_seconds: lost.view.lag_seconds + if lagged { ago } else { 0.0 },
                connected_since: None,
                lost_since: Some(ago),
                ..lost.view.clone()
            }
        })
    }
}

fn is_over(at: Instant, now: Instant) -> bool {
    now.duration_since(at) >= REMEMBERED
}
