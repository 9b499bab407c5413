//! What surrounds servers and clients: time, chance, network, git and data sources. All of it faked.

use std::time::{Duration, Instant};

use opal_protocol::Document;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::agenda::Agenda;
use crate::bug::Bug;
use crate::event::{ClientRef, Event};
use crate::git::Git;
use crate::network::Network;
use crate::sources::Sources;
use crate::trace::Trace;
use crate::weather::Weather;

/// See the module.
#[derive(Debug)]
pub struct Env {
    /// The moment that is time zero.
    base: Instant,
    /// What is to happen.
    pub agenda: Agenda<Event>,
    /// Chance, the same for the same seed.
    pub rng: StdRng,
    /// What fails, how often.
    pub weather: Weather,
    /// Connections.
    pub network: Network,
    /// The policy repository.
    pub git: Git,
    /// Where documents are fetched from.
    pub sources: Sources,
    /// What happened.
    pub trace: Trace,
    /// The mistake that is switched on.
    pub bug: Option<Bug>,
    /// What must not happen and did.
    pub violation: Option<String>,
}

impl Env {
    /// Surroundings that are the same for the same seed.
    pub fn new(seed: u64, bug: Option<Bug>, keeps_lines: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            base: Instant::now(),
            agenda: Agenda::new(),
            weather: Weather::draw(&mut rng),
            network: Network::default(),
            git: Git::new(&mut rng),
            sources: Sources::new(),
            trace: Trace::new(keeps_lines),
            bug,
            violation: None,
            rng,
        }
    }

    /// The time since the start.
    pub fn time(&self) -> Duration {
        self.agenda.now()
    }

    /// The same as an instant.
    pub fn now(&self) -> Instant {
        self.base + self.time()
    }

    /// The time since the start of an instant.
    pub fn time_of(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    /// The same by the calendar, in milliseconds since the Unix epoch.
    pub fn calendar(&self) -> u64 {
        const START: u64 = 1_700_000_000_000;
        START + u64::try_from(self.time().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.agenda.now(), what);
    }

    /// Notes that something happened which must not. The first such thing counts.
    pub fn violated(&mut self, what: String) {
        self.note(format_args!("VIOLATED: {what}"));
        self.violation.get_or_insert(what);
    }

    /// Whether something goes wrong now that does so with this probability while there are faults.
    pub fn fails(&mut self, probability: f64) -> bool {
        self.weather.is_faulty && self.rng.random_bool(probability)
    }

    /// How long something takes that usually takes up to so many milliseconds, and sometimes, while
    /// there are faults, much longer.
    pub fn delay(&mut self, usual_ms: u64) -> Duration {
        let slow = self.weather.slow;
        let longest = match self.fails(slow) {
            true => usual_ms * 40,
            false => usual_ms,
        };
        Duration::from_micros(self.rng.random_range(100..=longest.max(1) * 1000))
    }

    /// The document that a source gives a client now.
    pub fn serve(&mut self, client: ClientRef, url: &str) -> Document {
        match self.has(Bug::ApplyOlderFetchLate) {
            true => self.sources.first_answer(client.index, url),
            false => self.sources.document(url),
        }
    }

    /// Whether this mistake is switched on.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}
