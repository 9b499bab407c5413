//! Whoever publishes: each sends its update again until it hears that it is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use opal_pubsub::ChangeDraft;

use crate::env::Env;
use crate::event::{Event, ServerEvent};

/// Updates under way by number.
#[derive(Debug, Default)]
pub struct Publishers {
    next: u64,
    waiting: BTreeMap<u64, ChangeDraft>,
}

impl Publishers {
    /// A number for the next update.
    pub fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Begins to publish.
    pub fn publish(&mut self, number: u64, draft: ChangeDraft, env: &mut Env) {
        self.waiting.insert(number, draft);
        self.send(number, env);
    }

    /// Sends an update that is not known to be stored, and again later.
    pub fn send(&mut self, number: u64, env: &mut Env) {
        if !self.waiting.contains_key(&number) {
            return;
        }
        let rate = env.weather.http;
        if !env.fails(rate) {
            let delay = env.delay(20);
            env.agenda
                .after(delay, Event::Server(None, ServerEvent::Publish(number)));
        }
        let again = Duration::from_secs(1) + env.delay(1_000);
        env.agenda.after(again, Event::PublisherSends(number));
    }

    /// The update is stored, and its publisher knows.
    pub fn heard(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// What is to be published under a number.
    pub fn draft(&self, number: u64) -> Option<&ChangeDraft> {
        self.waiting.get(&number)
    }

    /// Whether somebody does not know yet that his update is stored.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
