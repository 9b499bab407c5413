//! One run: a server, some clients, and what happens to them.

use std::time::Duration;

use opal_protocol::Position;
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::bug::Bug;
use crate::client::Client;
use crate::client::profile::Profile;
use crate::env::Env;
use crate::event::{ClientEvent, Event};
use crate::model::{DataModel, at_commit, merged};
use crate::oracle::{Oracle, without_leftovers};
use crate::publishers::Publishers;
use crate::server::Server;
use crate::store;
use crate::updates;

/// See the module.
#[derive(Debug)]
pub struct World {
    env: Env,
    server: Server,
    clients: Vec<Client>,
    publishers: Publishers,
    steps: u32,
    /// How many losses of the disk have been covered.
    covered: u64,
    /// Whether everything was written over at the end, so that released clients know it all.
    is_covered: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What must not have happened and did.
    pub violation: Option<String>,
    /// Equal for runs in which the same happened.
    pub digest: u64,
    /// What happened, if that was asked for.
    pub lines: Vec<String>,
}

/// What a run may be asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The mistake that is made.
    pub bug: Option<Bug>,
    /// Whether to keep what happened.
    pub keeps_lines: bool,
}

/// So long everybody has to get to where the others are.
const PATIENCE: Duration = Duration::from_secs(400);

/// Runs the world of a seed to its end.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    world.live();
    let Env {
        violation, trace, ..
    } = world.env;
    Outcome {
        violation,
        digest: trace.digest(),
        lines: trace.into_lines(),
    }
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let mut env = Env::new(seed, options.bug, options.keeps_lines);
        let count = env.rng.random_range(2..=4);
        let mut clients: Vec<Client> = (0..count)
            .map(|index| Client::new(index, Profile::draw(index, &mut env.rng)))
            .collect();
        if env.rng.random_bool(0.3) {
            clients.push(Client::new(count, Profile::released(count)));
        }
        let server = Server::new(&mut env);
        Self {
            steps: env.rng.random_range(40..=160),
            env,
            server,
            clients,
            publishers: Publishers::default(),
            covered: 0,
            is_covered: false,
        }
    }

    fn live(&mut self) {
        self.server.start(&mut self.env);
        // A patch that applied to nothing may apply to what a client holds when it takes a snapshot
        // later, so that every patch of a run has a document somewhere above it.
        self.publish_cover();
        for client in &mut self.clients {
            client.start(&mut self.env);
        }
        self.env.agenda.after(Duration::ZERO, Event::Step);
        while self.steps > 0 && self.env.violation.is_none() {
            self.run_for(Duration::from_secs(1));
        }
        self.settle();
        self.compare(|client| client.profile.feed);
        if self.clients.iter().any(|client| !client.profile.feed) {
            // Released clients have no way to learn of what they missed.
            self.publish_cover();
            self.is_covered = true;
            self.settle();
            self.compare(|_| true);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.env.time() + time;
        while let Some(event) = self.env.agenda.next_until(end) {
            self.handle(event);
            if self.env.violation.is_some() {
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Step => self.step(),
            Event::Client(client, event) => {
                let oracle = Oracle {
                    history: &self.server.history,
                };
                if let Some(known) = self.clients.get_mut(client.index) {
                    known.on_event(client.life, event, oracle, env);
                }
            }
            Event::ClientStarts(index) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.start(env);
                }
            }
            Event::Server(life, event) => {
                self.server.on_event(life, event, &self.publishers, env);
            }
            Event::ServerStarts => {
                self.server.start(env);
                self.cover_losses();
            }
            Event::PublisherSends(number) => self.publishers.send(number, env),
            Event::PublisherHears(number) => self.publishers.heard(number),
            Event::SourceAnswers(client, seq, url) => {
                let document = env.serve(client, &url);
                let delay = env.delay(60);
                let event = ClientEvent::Fetched(seq, Ok(document));
                env.agenda.after(delay, Event::Client(client, event));
            }
            Event::PartitionEnds(index) => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.cut_off(false, env);
                }
            }
        }
    }

    /// What earlier epochs left is undefined until it is written over.
    fn cover_losses(&mut self) {
        if self.covered < self.server.losses {
            self.covered = self.server.losses;
            self.publish_cover();
        }
    }

    fn publish_cover(&mut self) {
        let number = self.publishers.next_number();
        let draft = updates::cover(number, &mut self.env.sources);
        self.publishers.publish(number, draft, &mut self.env);
    }

    fn publish(&mut self) {
        let number = self.publishers.next_number();
        let env = &mut self.env;
        let draft = updates::draw(number, &mut env.sources, &mut env.rng);
        self.publishers.publish(number, draft, env);
    }

    fn step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            return;
        }
        let pause = self.env.delay(600);
        self.env.agenda.after(pause, Event::Step);
        let faults = self.env.weather.schedule.clone();
        let weights = [
            40,
            8,
            3,
            6,
            faults.cut,
            faults.partition,
            faults.server_crash,
            faults.disk_loss,
            faults.client_crash,
            faults.stall,
            faults.engine_loss,
            faults.expiry,
            4,
            2,
        ];
        let total: u32 = weights.iter().sum();
        let mut drawn = self.env.rng.random_range(0..total);
        let chosen = weights.iter().position(|weight| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        self.act(chosen.unwrap_or(0));
    }

    fn act(&mut self, chosen: usize) {
        let env = &mut self.env;
        let index = env.rng.random_range(0..self.clients.len());
        let long = Duration::from_millis(env.rng.random_range(100..20_000));
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match chosen {
            1 => {
                let commit = env.git.commit(&mut env.rng);
                env.note(format_args!("commit {}", commit.short()));
            }
            2 => {
                let commit = env.git.force_push(&mut env.rng);
                env.note(format_args!("force push to {}", commit.short()));
            }
            3 => {
                let url = ["sim://u0", "sim://u1", "sim://s0", "sim://s1", "sim://q0"];
                let url = url.choose(&mut env.rng).copied().unwrap_or("sim://u0");
                env.sources.change(url);
            }
            4 => {
                let alive = env.network.alive();
                if let Some(link) = alive.choose(&mut env.rng) {
                    env.cut(*link);
                }
            }
            5 => {
                if !client.is_cut_off() {
                    client.cut_off(true, env);
                    env.agenda.after(long, Event::PartitionEnds(index));
                }
            }
            6 | 7 => {
                if self.server.is_up() {
                    self.server.crash(chosen == 7, env);
                    env.agenda.after(long / 3, Event::ServerStarts);
                }
            }
            8 => {
                client.crash(env);
                env.agenda.after(long / 2, Event::ClientStarts(index));
            }
            9 => client.stall(long, env),
            10 => client.lose_engine(env),
            11 => {
                let alive = env.network.alive();
                if let Some(link) = alive.choose(&mut env.rng) {
                    self.server.expire_token(*link, env);
                }
            }
            12 => client.save(env),
            13 => {
                let count = env.rng.random_range(5..=30);
                for _ in 0..count {
                    self.publish();
                }
            }
            _ => self.publish(),
        }
    }

    /// Stops all faults and waits until everybody is where the others are.
    fn settle(&mut self) {
        if self.env.violation.is_some() {
            return;
        }
        self.env.weather.is_faulty = false;
        self.env.note(format_args!("no more faults"));
        self.server.start(&mut self.env);
        self.cover_losses();
        for client in &mut self.clients {
            client.start(&mut self.env);
            if client.is_cut_off() {
                client.cut_off(false, &mut self.env);
            }
        }
        for url in self.env.sources.stale() {
            let number = self.publishers.next_number();
            let draft = updates::republish(number, &url, &mut self.env.sources);
            self.publishers.publish(number, draft, &mut self.env);
        }
        self.wait();
        // Long enough for polled sources to be loaded again by those who have just come back.
        self.run_for(Duration::from_secs(7));
        self.wait();
    }

    /// Waits until nothing is missing.
    fn wait(&mut self) {
        let deadline = self.env.time() + PATIENCE;
        while let Some(missing) = self.missing() {
            if self.env.violation.is_some() {
                return;
            }
            if self.env.time() >= deadline {
                return self
                    .env
                    .violated(format!("not quiet after {PATIENCE:?}: {missing}"));
            }
            self.run_for(Duration::from_millis(500));
        }
    }

    fn missing(&self) -> Option<String> {
        if self.publishers.is_waiting() || !self.server.is_settled(&self.env) {
            return Some("the server has not stored everything".to_owned());
        }
        let head = self.server.head()?;
        self.clients.iter().find_map(|client| {
            let missing = client.is_missing(&head, &self.env.network);
            // One of the released way cannot say that something of it is still to be tried again.
            let asks = self.is_covered && !client.profile.feed;
            let wrong = || self.wrong_with(client, &head).filter(|_| asks);
            let missing = missing.or_else(wrong)?;
            Some(format!("{}: {missing}", client.profile.name))
        })
    }

    /// Compares stores with the truth.
    fn compare(&mut self, is_defined: impl Fn(&Client) -> bool) {
        let Some(head) = self.server.head().filter(|_| self.env.violation.is_none()) else {
            return;
        };
        let wrong = self
            .clients
            .iter()
            .filter(|client| is_defined(client))
            .find_map(|client| Some((client, self.wrong_with(client, &head)?)));
        if let Some((client, wrong)) = wrong {
            let name = &client.profile.name;
            self.env.violated(format!("at the end, {name}: {wrong}"));
        }
    }

    fn wrong_with(&self, client: &Client, head: &Position) -> Option<String> {
        let profile = &client.profile;
        let store = client.store()?;
        let git = &self.env.git;
        let reference = at_commit(git, &git.head(), profile.interests.directories());
        let mut expected = serde_json::Value::Object(serde_json::Map::new());
        if profile.policy {
            if store::policies(store) != store::policies(&reference) {
                return Some("its policies are not the current ones".to_owned());
            }
            expected = reference.data();
        }
        if profile.data {
            let mut model = DataModel::new(&profile.interests, &self.env.sources);
            let history = &self.server.history;
            model.advance(
                head.revision,
                history,
                &profile.interests,
                &self.env.sources,
            );
            expected = merged(expected, model.data());
        }
        let (found, expected) = (without_leftovers(store.data()), without_leftovers(expected));
        (found != expected).then(|| format!("it holds {found}, not {expected}"))
    }
}
