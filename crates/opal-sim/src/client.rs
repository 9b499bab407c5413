//! A client: the shell around the real [`Replica`] and [`Conversation`](opal_pubsub::conversation),
//! as the tasks of the daemon are.
//!
//! `connection` does what the subscriber does, `work` what the updater does. Network, store and
//! clock are faked.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::DateTime;
use opal_client::policy_store::MemoryStore;
use opal_client::replica::{Replica, ReplicaOptions};
use opal_protocol::{CommitHash, Position};
use opal_pubsub::reconnect::Reconnect;
use opal_pubsub::{AppliedSender, Event as Told};
use rand::Rng;

use crate::env::Env;
use crate::event::{ClientEvent, ClientRef, Event};
use crate::network::Network;
use crate::oracle::{Claims, Oracle};

mod connection;
pub mod profile;
mod work;

use connection::Connection;
use profile::Profile;
use work::Work;

/// A client through all its lives.
#[derive(Debug)]
pub struct Client {
    /// What it follows.
    pub profile: Profile,
    index: usize,
    life: u64,
    process: Option<Process>,
    saved: Option<Saved>,
    /// Whether it can reach nobody.
    is_cut_off: bool,
    claims: Claims,
}

/// What a client keeps where it survives a crash: a position, and the data that it stands for.
#[derive(Debug)]
struct Saved {
    position: Position,
    commit: Option<CommitHash>,
    store: MemoryStore,
}

/// One life.
#[derive(Debug)]
struct Process {
    me: ClientRef,
    profile: Profile,
    replica: Replica,
    store: MemoryStore,
    work: Work,
    /// Where the next connection resumes.
    received: Option<Position>,
    connection: Connection,
    reconnect: Reconnect,
    applied: AppliedSender,
    /// Events that the replica has not taken yet.
    inbox: VecDeque<Told>,
    /// The updater does nothing before this time.
    stalled_until: Duration,
    /// When it will be woken already.
    wakes_at: Option<Duration>,
}

/// So many events wait for the replica.
const INBOX: usize = 4;

impl Client {
    /// A client that was not started yet.
    pub fn new(index: usize, profile: Profile) -> Self {
        Self {
            claims: Claims::default(),
            profile,
            index,
            life: 0,
            process: None,
            saved: None,
            is_cut_off: false,
        }
    }

    /// Which client and life this is.
    pub fn me(&self) -> ClientRef {
        ClientRef {
            index: self.index,
            life: self.life,
        }
    }

    /// Starts a new life, from what was saved if there is anything.
    pub fn start(&mut self, env: &mut Env) {
        if self.process.is_some() {
            return;
        }
        self.life += 1;
        self.claims = Claims::default();
        let mut process = Process::new(self.me(), &self.profile, env);
        if let Some(saved) = &self.saved {
            process.restore(saved);
        }
        let restored = process.received;
        let name = &self.profile.name;
        env.note(format_args!("{name} starts, restored {restored:?}"));
        self.process = Some(process);
        env.agenda
            .after(Duration::ZERO, Event::Client(self.me(), ClientEvent::Wake));
    }

    /// Dies. What was not saved is lost; sometimes what was saved too.
    pub fn crash(&mut self, env: &mut Env) {
        let Some(process) = self.process.take() else {
            return;
        };
        env.note(format_args!("{} crashes", self.profile.name));
        process.connection.abandon(env);
        if env.rng.random_bool(0.3) {
            self.saved = None;
        }
    }

    /// Saves what it holds, if that stands for a position.
    pub fn save(&mut self, env: &mut Env) {
        let Some(process) = self.process.as_ref().filter(|_| self.profile.saves) else {
            return;
        };
        if let Some(position) = process
            .replica
            .clean_position()
            .filter(|_| process.work.is_not_writing())
        {
            env.note(format_args!("{} saves at {position}", self.profile.name));
            self.saved = Some(Saved {
                position,
                commit: process.replica.commit().cloned(),
                store: process.store.clone(),
            });
        }
    }

    /// Does nothing for a while; what it is told waits.
    pub fn stall(&mut self, pause: Duration, env: &mut Env) {
        if let Some(process) = &mut self.process {
            env.note(format_args!("{} stalls for {pause:?}", self.profile.name));
            process.stalled_until = env.time() + pause;
        }
    }

    /// Its engine loses what it holds.
    pub fn lose_engine(&mut self, env: &mut Env) {
        if let Some(process) = &mut self.process {
            env.note(format_args!("{} loses its engine", self.profile.name));
            process.store = MemoryStore::new();
            process.work.engine_lost();
            process.replica.take_everything(env.now());
            env.agenda
                .after(Duration::ZERO, Event::Client(self.me(), ClientEvent::Wake));
        }
    }

    /// Can reach nobody from now on, or everybody again.
    pub fn cut_off(&mut self, is_cut_off: bool, env: &mut Env) {
        self.is_cut_off = is_cut_off;
        env.note(format_args!(
            "{} is cut off: {is_cut_off}",
            self.profile.name
        ));
        if is_cut_off && let Some(process) = &self.process {
            process.connection.cut(env);
        }
    }

    /// Whether it can reach nobody.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Something happens to it.
    pub fn on_event(&mut self, life: u64, event: ClientEvent, oracle: Oracle<'_>, env: &mut Env) {
        let Some(process) = self.process.as_mut().filter(|_| life == self.life) else {
            return;
        };
        process.on_event(event, self.is_cut_off, env);
        process.drive(self.is_cut_off, env, |process, report, env| {
            if process.work.engine_is_lost() {
                return;
            }
            oracle.reported(
                &process.profile,
                &mut self.claims,
                report,
                &process.store,
                env,
            );
        });
        if process.work.engine_is_lost() {
            return;
        }
        let store = (&process.store, process.work.writes());
        oracle.looked_at(
            &process.profile,
            &mut self.claims,
            &process.replica,
            store,
            env,
        );
    }

    /// What is missing for it to be where the others are; nothing if it is there.
    pub fn is_missing(&self, head: &Position, network: &Network) -> Option<String> {
        let Some(process) = &self.process else {
            return Some("it is not running".to_owned());
        };
        if !process.connection.is_live() {
            return Some("it is not connected".to_owned());
        }
        if !self.profile.feed {
            // It has no way to know of what it was not told.
            let is_cut = !process.connection.is_working(network);
            return is_cut
                .then(|| "its connection is cut".to_owned())
                .or_else(|| process.is_busy());
        }
        let status = process.replica.status();
        match process.replica.clean_position() {
            Some(position) if position == *head => None,
            Some(position) => Some(format!("it is at {position}")),
            None => Some(format!("it is not clean: {status:?}")),
        }
    }

    /// What it holds.
    pub fn store(&self) -> Option<&MemoryStore> {
        self.process.as_ref().map(|process| &process.store)
    }

    /// The commit that it says it holds.
    pub fn commit(&self) -> Option<&CommitHash> {
        self.process.as_ref()?.replica.commit()
    }
}

impl Process {
    fn new(me: ClientRef, profile: &Profile, env: &mut Env) -> Self {
        let replica = Replica::new(ReplicaOptions {
            interests: profile.interests.clone(),
            policy: profile.policy,
            data: profile.data,
            workers: profile.workers,
            id_seed: env.rng.random(),
            started: (env.now(), DateTime::UNIX_EPOCH),
        });
        Self {
            me,
            profile: profile.clone(),
            replica,
            store: MemoryStore::new(),
            work: Work::default(),
            received: None,
            connection: Connection::default(),
            reconnect: Reconnect::new(),
            applied: AppliedSender::new(),
            inbox: VecDeque::new(),
            stalled_until: Duration::ZERO,
            wakes_at: None,
        }
    }

    fn restore(&mut self, saved: &Saved) {
        self.store = saved.store.clone();
        self.received = Some(saved.position);
        self.replica.restored(saved.position, saved.commit.clone());
    }

    fn on_event(&mut self, event: ClientEvent, is_cut_off: bool, env: &mut Env) {
        match event {
            ClientEvent::Wake => self.wakes_at = None,
            ClientEvent::Connected(link, answer) => self.on_connected(link, answer, env),
            ClientEvent::Frame(link, frame) => self.on_frame(link, frame, env),
            ClientEvent::Broken(link) => self.on_broken(link, "it broke", env),
            other => self.on_work(other, is_cut_off, env),
        }
    }

    /// Everything that can be done now, and when to be woken again.
    fn drive(
        &mut self,
        is_cut_off: bool,
        env: &mut Env,
        mut reported: impl FnMut(&Self, &opal_client::replica::Report, &mut Env),
    ) {
        loop {
            let mut is_news = self.drive_connection(is_cut_off, env);
            if self.stalled_until <= env.time() {
                is_news |= self.drive_work(is_cut_off, env);
                while let Some(report) = self.replica.take_report() {
                    reported(self, &report, env);
                    self.applied
                        .report(report.epoch, report.applied, report.urgent);
                    is_news = true;
                }
            }
            is_news |= self.send_report(env);
            if !is_news {
                break;
            }
        }
        self.schedule_wake(env);
    }

    fn schedule_wake(&mut self, env: &mut Env) {
        let now = env.now();
        let replica = self.replica.next_wake(now).map(|at| env.time_of(at));
        // A stalled updater has its own things to do when it goes on.
        let updater = match self.stalled_until > env.time() {
            true => Some(self.stalled_until),
            false => replica,
        };
        if let Some(at) = updater.filter(|at| *at <= env.time()) {
            let name = &self.profile.name;
            env.violated(format!(
                "{name} does nothing and wants to be woken at {at:?}"
            ));
        }
        let connection = self.connection_wake(env);
        let Some(at) = updater.into_iter().chain(connection).min() else {
            return;
        };
        // Never in a tight loop.
        let at = at.max(env.time() + Duration::from_micros(50));
        if self.wakes_at.is_none_or(|known| at < known) {
            self.wakes_at = Some(at);
            env.agenda.at(at, Event::Client(self.me, ClientEvent::Wake));
        }
    }

    /// What it still does; nothing if there is nothing.
    fn is_busy(&self) -> Option<String> {
        let is_idle = self.work.is_idle() && self.inbox.is_empty();
        (!is_idle).then(|| "it is busy".to_owned())
    }
}
