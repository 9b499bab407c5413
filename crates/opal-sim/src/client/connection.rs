//! What the subscriber of a client does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use opal_protocol::ScopeId;
use opal_protocol::feed::ClientInfo;
use opal_pubsub::applied::Pacing;
use opal_pubsub::conversation::{Conversation, Opening, applied_text};
use opal_pubsub::{Event as Told, Start};

use super::{INBOX, Process};
use crate::bug::Bug;
use crate::env::Env;
use crate::event::{Event, ServerEvent};
use crate::network::{Direction, Frame, LinkId, Network};

/// What there is of a connection.
#[derive(Debug)]
pub(super) enum Connection {
    /// None; one is tried at that time.
    Waits(Duration),
    /// The upgrade is not answered.
    Upgrades(LinkId, Duration),
    /// There is one.
    Open(Box<Open>),
}

/// A connection after the upgrade.
#[derive(Debug)]
pub(super) struct Open {
    link: LinkId,
    conversation: Conversation,
    has_feed: bool,
    since: Instant,
    /// Events for which there is no room. Nothing is read meanwhile.
    waiting: VecDeque<Told>,
    /// Frames that are here and not read.
    unread: VecDeque<Frame>,
    pacing: Option<Pacing>,
    /// When something was last heard.
    heard: Duration,
    pings_at: Duration,
    /// Whether the last start was a replay whose first change has not come.
    replays: bool,
}

const PING_EVERY: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Default for Connection {
    fn default() -> Self {
        Self::Waits(Duration::ZERO)
    }
}

impl Connection {
    fn link(&self) -> Option<LinkId> {
        match self {
            Self::Waits(_) => None,
            Self::Upgrades(link, _) => Some(*link),
            Self::Open(open) => Some(open.link),
        }
    }

    /// Whether events come.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Open(open) if open.conversation.is_live())
    }

    /// Whether frames arrive.
    pub(super) fn is_working(&self, network: &Network) -> bool {
        self.link().is_some_and(|link| network.is_working(link))
    }

    /// The process at this end is gone.
    pub(super) fn abandon(&self, env: &mut Env) {
        if let Some(link) = self.link() {
            let late = env.delay(500);
            env.break_link(link, None, Some(late));
        }
    }

    /// Frames are lost from now on, and both ends notice some time.
    pub(super) fn cut(&self, env: &mut Env) {
        if let Some(link) = self.link() {
            env.cut(link);
        }
    }
}

impl Process {
    pub(super) fn on_connected(&mut self, link: LinkId, feed: Option<bool>, env: &mut Env) {
        let Connection::Upgrades(expected, _) = self.connection else {
            return;
        };
        if expected != link {
            return;
        }
        let Some(feed) = feed else {
            return self.on_broken(link, "it was refused", env);
        };
        let has_feed = feed && self.profile.feed;
        let opening = Opening {
            feed: has_feed,
            scope: ScopeId::default(),
            topics: self.profile.topics(),
            client: ClientInfo {
                id: self.profile.name.clone(),
                ..ClientInfo::default()
            },
            channel_id: format!("{}-{}", self.profile.name, self.me.life),
            position: self.received,
        };
        let (conversation, first) = Conversation::open(opening, format!("call-{}", link.0));
        self.connection = Connection::Open(Box::new(Open {
            link,
            conversation,
            has_feed,
            since: env.now(),
            waiting: VecDeque::new(),
            unread: VecDeque::new(),
            pacing: None,
            heard: env.time(),
            pings_at: env.time() + PING_EVERY,
            replays: false,
        }));
        env.send(link, Direction::ToServer, Frame::Text(first));
    }

    pub(super) fn on_frame(&mut self, link: LinkId, frame: Frame, _env: &mut Env) {
        if let Connection::Open(open) = &mut self.connection
            && open.link == link
        {
            open.unread.push_back(frame);
        }
    }

    pub(super) fn on_broken(&mut self, link: LinkId, why: &str, env: &mut Env) {
        if self.connection.link() != Some(link) {
            return;
        }
        let name = &self.profile.name;
        env.note(format_args!("{name} loses connection {}: {why}", link.0));
        let late = env.delay(200);
        env.break_link(link, None, Some(late));
        let now = env.now();
        let ended = std::mem::take(&mut self.connection);
        let pause = match ended {
            Connection::Open(open) if open.conversation.is_live() => {
                self.received = open.conversation.received();
                self.inbox.push_back(Told::Disconnected);
                self.reconnect.lost(open.since, now, &mut env.rng)
            }
            Connection::Open(open) => {
                self.received = open.conversation.received();
                self.reconnect.failed(now, &mut env.rng)
            }
            _ => self.reconnect.failed(now, &mut env.rng),
        };
        self.connection = Connection::Waits(env.time() + pause);
    }

    /// Whether anything was done.
    pub(super) fn drive_connection(&mut self, is_cut_off: bool, env: &mut Env) -> bool {
        match &mut self.connection {
            Connection::Waits(at) if *at <= env.time() => {
                self.connect(is_cut_off, env);
                true
            }
            Connection::Waits(_) => false,
            Connection::Upgrades(link, until) => {
                let (link, is_over) = (*link, *until <= env.time());
                if is_over {
                    self.on_broken(link, "no answer to its upgrade", env);
                }
                is_over
            }
            Connection::Open(_) => self.hand_over(env) || self.read(env) || self.ping(env),
        }
    }

    fn connect(&mut self, is_cut_off: bool, env: &mut Env) {
        let link = env.network.open(self.me);
        let name = &self.profile.name;
        env.note(format_args!("{name} connects as {}", link.0));
        self.connection = Connection::Upgrades(link, env.time() + ANSWER_WITHIN);
        let rate = env.weather.connect;
        if is_cut_off || env.fails(rate) {
            env.break_link(link, Some(Duration::from_millis(50)), None);
            return;
        }
        let event = ServerEvent::Connect(link, self.profile.feed);
        let delay = env.delay(20);
        env.agenda.after(delay, Event::Server(None, event));
    }

    fn hand_over(&mut self, env: &mut Env) -> bool {
        let Connection::Open(open) = &mut self.connection else {
            return false;
        };
        let has_room = self.inbox.len() < INBOX;
        if !has_room && !env.has(Bug::DropOnFullQueue) {
            return false;
        }
        let Some(event) = open.waiting.pop_front() else {
            return false;
        };
        open.conversation.handed_over(&event);
        open.pacing = pacing_from(&event, &self.applied).or(open.pacing.take());
        if let Told::Subscribed(start) = &event {
            open.replays = matches!(start, Start::Resumed { .. });
        }
        let is_change = matches!(event, Told::Change(_));
        let skips = is_change && std::mem::take(&mut open.replays);
        let is_dropped = is_change && !has_room;
        if is_dropped || skips && env.has(Bug::SkipChangeOnReconnect) {
            return true;
        }
        let event = match (event, self.received) {
            (Told::Subscribed(Start::Snapshot { head, .. }), Some(held))
                if env.has(Bug::TrustOldEpoch) && held.epoch != head.epoch =>
            {
                self.inbox
                    .push_back(Told::Subscribed(Start::Resumed { head }));
                Told::Position(head)
            }
            (event, _) => event,
        };
        self.inbox.push_back(event);
        true
    }

    fn read(&mut self, env: &mut Env) -> bool {
        let Connection::Open(open) = &mut self.connection else {
            return false;
        };
        if !open.waiting.is_empty() {
            return false;
        }
        let Some(frame) = open.unread.pop_front() else {
            return false;
        };
        open.heard = env.time();
        let link = open.link;
        env.was_read(link, frame.size());
        match frame {
            Frame::Text(text) => match open.conversation.on_text(&text) {
                Ok(heard) => {
                    open.waiting.extend(heard.events);
                    for reply in heard.replies {
                        env.send(link, Direction::ToServer, Frame::Text(reply));
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    self.on_broken(link, &error, env);
                }
            },
            Frame::Ping => env.send(link, Direction::ToServer, Frame::Pong),
            Frame::Pong => {}
            Frame::Close => self.on_broken(link, "the server closed it", env),
        }
        true
    }

    fn ping(&mut self, env: &mut Env) -> bool {
        let Connection::Open(open) = &mut self.connection else {
            return false;
        };
        let link = open.link;
        let is_silent = env.time().saturating_sub(open.heard) > PING_EVERY * 3;
        let is_stuck =
            !open.conversation.is_live() && env.now().duration_since(open.since) >= ANSWER_WITHIN;
        if is_stuck {
            self.on_broken(link, "no answer to its first call", env);
            return true;
        }
        if open.pings_at > env.time() {
            return false;
        }
        open.pings_at = env.time() + PING_EVERY;
        if is_silent && open.waiting.is_empty() {
            self.on_broken(link, "the server fell silent", env);
            return true;
        }
        env.send(link, Direction::ToServer, Frame::Ping);
        true
    }

    /// Sends what was applied, if it is time. Whether it was.
    pub(super) fn send_report(&mut self, env: &mut Env) -> bool {
        let Connection::Open(open) = &mut self.connection else {
            return false;
        };
        let Some(pacing) = open.pacing.as_mut().filter(|_| open.has_feed) else {
            return false;
        };
        let outgoing = self.applied.subscribe();
        let applied = pacing.take(&outgoing.borrow(), env.now());
        let Some(applied) = applied else {
            return false;
        };
        let frame = Frame::Text(applied_text(&applied));
        let rate = env.weather.twice;
        if env.fails(rate) {
            env.send(open.link, Direction::ToServer, frame.clone());
        }
        env.send(open.link, Direction::ToServer, frame);
        true
    }

    /// When the connection has something to do without anything else happening.
    pub(super) fn connection_wake(&self, env: &Env) -> Option<Duration> {
        match &self.connection {
            Connection::Waits(at) | Connection::Upgrades(_, at) => Some(*at),
            Connection::Open(open) => {
                let outgoing = self.applied.subscribe();
                let report = open.pacing.as_ref();
                let report = report.and_then(|pacing| pacing.due(&outgoing.borrow(), env.now()));
                let report = report.map(|at| env.time_of(at));
                let stuck = env.time_of(open.since) + ANSWER_WITHIN;
                let stuck = (!open.conversation.is_live()).then_some(stuck);
                report.into_iter().chain(stuck).chain([open.pings_at]).min()
            }
        }
    }
}

fn pacing_from(event: &Told, applied: &opal_pubsub::AppliedSender) -> Option<Pacing> {
    match event {
        Told::Subscribed(Start::Resumed { head }) => Some(Pacing::resumed(head.epoch)),
        Told::Subscribed(Start::Snapshot { head, .. }) => {
            Some(Pacing::anew(head.epoch, &applied.subscribe().borrow()))
        }
        _ => None,
    }
}
