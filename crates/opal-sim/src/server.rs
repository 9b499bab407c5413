//! A server: the shell around the real [`Hub`], [`Session`] and feed, as the tasks of the daemon are.
//! Disk, git and network are faked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opal_protocol::rpc;
use opal_protocol::{
    AtLeast, CommitHash, Epoch, PolicyUpdateMessage, Position, RepoPath, Revision, ScopeId, Topic,
};
use opal_pubsub::ChangeDraft;
use opal_pubsub::feed::{Appended, Change, FeedLimits, FeedLog, PolicyChange, journal, new_epoch};
use opal_pubsub::hub::{Delivery, Hub, Peer, SubscriberId};
use opal_pubsub::outbox::{Next, Outbox};
use opal_pubsub::session::{Action, Session, SessionLimits};
use rand::Rng;

use crate::disk::Disk;
use crate::env::Env;
use crate::event::{ClientRef, Event, HttpRequest, ServerEvent};
use crate::history::History;
use crate::network::{Direction, Frame, LinkId, Network};
use crate::publishers::Publishers;
use crate::wire::HttpAnswer;

/// A server through all its lives.
#[derive(Debug)]
pub struct Server {
    life: u64,
    process: Option<Process>,
    disk: Disk,
    limits: FeedLimits,
    /// The clone of the policy repository, which lies on another disk.
    clone: Option<CommitHash>,
    /// Every change of the epoch, for the truth.
    pub history: History,
    /// How often the disk was lost.
    pub losses: u64,
}

/// One life.
#[derive(Debug)]
struct Process {
    life: u64,
    hub: Hub,
    connections: BTreeMap<LinkId, Connection>,
    next_subscriber: u64,
    /// Waiting to be made durable.
    waiting: Vec<Publish>,
    /// Being made durable.
    storing: Option<Vec<Stored>>,
    /// What was announced last, asked of the feed at the start.
    announced: Option<CommitHash>,
    /// Whether the clone was compared with its remote since the start.
    was_synced: bool,
    is_announcing: bool,
}

#[derive(Debug)]
struct Connection {
    id: SubscriberId,
    session: Session,
    outbox: Arc<Outbox>,
    /// Since when there is something to write and no room.
    blocked_since: Option<Duration>,
}

/// Something to publish.
#[derive(Debug)]
enum Publish {
    /// For a publisher.
    Update(u64, ChangeDraft),
    /// A policy change to this commit.
    Policy(ChangeDraft, CommitHash),
}

/// Something that is staged.
#[derive(Debug)]
struct Stored {
    publish: Publish,
    appended: Appended,
}

impl Stored {
    fn change(&self) -> Option<Arc<Change>> {
        match &self.appended {
            Appended::New(change) => Some(Arc::clone(change)),
            Appended::Repeated(_) => None,
        }
    }
}

impl Server {
    /// A server that was not started yet, with this much history.
    pub fn new(env: &mut Env) -> Self {
        let changes = env.rng.random_range(3..=20);
        Self {
            life: 0,
            process: None,
            disk: Disk::default(),
            limits: FeedLimits {
                changes,
                ..FeedLimits::default()
            },
            clone: None,
            history: History::new(Epoch(0), Revision(0)),
            losses: 0,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Where its feed is.
    pub fn head(&self) -> Option<Position> {
        let process = self.process.as_ref()?;
        Some(process.hub.feed().head(&ScopeId::default()))
    }

    /// The commit that its bundles are of.
    pub fn clone_head(&self) -> Option<&CommitHash> {
        self.clone.as_ref()
    }

    /// Whether all that git has was announced and nothing waits to be stored.
    pub fn is_settled(&self, env: &Env) -> bool {
        self.process.as_ref().is_some_and(|process| {
            process.announced.as_ref() == Some(&env.git.head())
                && process.waiting.is_empty()
                && process.storing.is_none()
        })
    }

    /// Starts, with what the disk has.
    pub fn start(&mut self, env: &mut Env) {
        if self.process.is_some() {
            return;
        }
        self.life += 1;
        let log = self.open(env);
        let head = log.head(&ScopeId::default());
        env.note(format_args!("the server starts at {head}"));
        let announced = log.commit(&ScopeId::default()).cloned();
        self.process = Some(Process {
            life: self.life,
            hub: Hub::new(log),
            connections: BTreeMap::new(),
            next_subscriber: 0,
            waiting: Vec::new(),
            storing: None,
            announced,
            was_synced: false,
            is_announcing: false,
        });
        let mut soon = |event| {
            env.agenda.after(
                Duration::from_millis(1),
                Event::Server(Some(self.life), event),
            );
        };
        soon(ServerEvent::Tick);
        soon(ServerEvent::Look);
    }

    /// Dies. What is on its way to the disk may be lost; sometimes the whole disk is.
    pub fn crash(&mut self, loses_disk: bool, env: &mut Env) {
        let Some(process) = self.process.take() else {
            return;
        };
        env.note(format_args!(
            "the server crashes, its disk is lost: {loses_disk}"
        ));
        for link in process.connections.into_keys() {
            let late = env.delay(300);
            env.break_link(link, Some(late), None);
        }
        if let Some(stored) = &process.storing {
            // It may turn out that they were stored all the same.
            env.note(format_args!("{} changes were being stored", stored.len()));
        }
        self.disk.crash(&mut env.rng);
        if loses_disk {
            self.disk = Disk::default();
            if env.rng.random_bool(0.5) {
                self.clone = None;
            }
        }
    }

    /// Something happens to it.
    pub fn on_event(
        &mut self,
        life: Option<u64>,
        event: ServerEvent,
        publishers: &Publishers,
        env: &mut Env,
    ) {
        let Some(process) = self.process.as_mut() else {
            return refuse(event, env);
        };
        if life.is_some_and(|life| life != process.life) {
            if let ServerEvent::MakeBundle(client, ..) = event {
                env.answer(client, HttpAnswer::Bundle(None));
            }
            return;
        }
        match event {
            ServerEvent::Tick => process.tick(env),
            ServerEvent::Connect(link, feed) => process.connect(link, feed, env),
            ServerEvent::Frame(link, frame) => process.on_frame(link, frame, env),
            ServerEvent::Broken(link) => process.end(link, "it broke", env),
            ServerEvent::Writable(link) => process.pump(link, env),
            ServerEvent::Check(link) => process.check(link, env),
            ServerEvent::Publish(number) => {
                if let Some(draft) = publishers.draft(number) {
                    process.waiting.push(Publish::Update(number, draft.clone()));
                }
            }
            ServerEvent::Look => process.look(env),
            ServerEvent::Looked(found) => {
                process.looked(found, &mut self.clone, env);
                self.clone.iter().for_each(|head| self.history.cloned(head));
            }
            ServerEvent::Synced => {
                self.disk.sync();
                process.stored(&mut self.history, env);
                self.rotate_sometimes(env);
            }
            ServerEvent::Http(client, request) => {
                process.on_http(client, request, self.clone.as_ref(), env);
            }
            ServerEvent::MakeBundle(client, request, position) => {
                let bundle = self.clone.as_ref().map(|head| {
                    let base = request.base.as_ref();
                    Box::new((env.git.bundle(head, &request.directories, base), position))
                });
                env.answer(client, HttpAnswer::Bundle(bundle));
            }
        }
        if let Some(process) = &mut self.process {
            process.store_next(&mut self.disk, env);
            process.pump_all(env);
        }
    }

    /// A connection's token expires.
    pub fn expire_token(&mut self, link: LinkId, env: &mut Env) {
        if let Some(process) = &mut self.process {
            process.end(link, "its token expired", env);
        }
    }

    /// Begins a new journal with what the feed consists of, now and then.
    fn rotate_sometimes(&mut self, env: &mut Env) {
        if let Some(process) = &self.process
            && env.rng.random_bool(0.1)
        {
            let image = process.hub.feed().image();
            self.disk
                .replace(journal::encode_image(&image).flatten().collect());
        }
    }

    fn open(&mut self, env: &mut Env) -> FeedLog {
        if self.disk.bytes().is_empty() {
            return self.begin(env);
        }
        match journal::recover(self.disk.bytes(), self.limits) {
            Ok(recovered) => {
                self.disk.truncate(recovered.valid_len);
                let (before, kept) = kept(&recovered.log);
                if let Err(wrong) = self.history.recovered(before, &kept) {
                    env.violated(wrong);
                }
                recovered.log
            }
            Err(error) => {
                env.violated(format!("the journal cannot be read: {error}"));
                self.begin(env)
            }
        }
    }

    /// A feed without a past, and its journal.
    fn begin(&mut self, env: &mut Env) -> FeedLog {
        let log = FeedLog::new(new_epoch(&mut env.rng), self.limits);
        let is_first = self.life == 1;
        let defined_from = Revision(u64::MAX);
        self.history = History::new(log.epoch(), defined_from);
        self.clone.iter().for_each(|head| self.history.cloned(head));
        self.losses += u64::from(!is_first);
        self.disk
            .replace(journal::encode_image(&log.image()).flatten().collect());
        log
    }
}

/// The changes that a feed keeps, and the revision before them.
fn kept(log: &FeedLog) -> (Revision, Vec<Arc<Change>>) {
    let scope = ScopeId::default();
    let head = log.head(&scope).revision;
    let revisions = (1..=head.0).map(Revision);
    let kept: Vec<Arc<Change>> = revisions
        .filter_map(|revision| log.change(&scope, revision).cloned())
        .collect();
    (Revision(head.0 - kept.len() as u64), kept)
}

/// Nobody is there.
fn refuse(event: ServerEvent, env: &mut Env) {
    match event {
        ServerEvent::Connect(link, _) => {
            env.break_link(link, Some(Duration::from_millis(1)), None);
        }
        ServerEvent::Http(client, request) => env.answer(client, HttpAnswer::none(&request)),
        ServerEvent::MakeBundle(client, ..) => env.answer(client, HttpAnswer::Bundle(None)),
        _ => {}
    }
}

impl Process {
    fn tick(&mut self, env: &mut Env) {
        self.hub.tick(env.now());
        let life = Some(self.life);
        env.agenda.after(
            Duration::from_secs(1),
            Event::Server(life, ServerEvent::Tick),
        );
        // Polling. Nobody calls a webhook here.
        if !self.is_announcing && env.rng.random_bool(0.3) {
            let delay = env.delay(500);
            env.agenda
                .after(delay, Event::Server(life, ServerEvent::Look));
        }
    }

    fn connect(&mut self, link: LinkId, feed: bool, env: &mut Env) {
        if !env.network.is_working(link) {
            return;
        }
        self.next_subscriber += 1;
        let id = SubscriberId(self.next_subscriber);
        let outbox = Arc::new(Outbox::default());
        let channel_id = format!("channel-{}", link.0);
        let peer = Peer {
            channel_id: channel_id.clone(),
            ..Peer::default()
        };
        self.hub.register(id, Arc::clone(&outbox), peer, env.now());
        let limits = SessionLimits::default();
        let session = Session::new(channel_id, None, None, limits, env.now());
        let session = if feed { session.with_feed() } else { session };
        self.connections.insert(
            link,
            Connection {
                id,
                session,
                outbox,
                blocked_since: None,
            },
        );
        self.check_later(link, env);
        let answer = crate::event::ClientEvent::Connected(link, Some(feed));
        let delay = env.time() + env.delay(5);
        if let Some(at) = env.network.arrival(link, Direction::ToClient, delay)
            && let Some(ends) = env.network.link(link)
        {
            let client = ends.client;
            env.agenda.at(at, Event::Client(client, answer));
        }
    }

    fn check_later(&self, link: LinkId, env: &mut Env) {
        let every = SessionLimits::default().check_every;
        let event = Event::Server(Some(self.life), ServerEvent::Check(link));
        env.agenda.after(every, event);
    }

    fn check(&mut self, link: LinkId, env: &mut Env) {
        let Some(connection) = self.connections.get(&link) else {
            return;
        };
        let within = connection.session.limits().write_within;
        let blocked = connection.blocked_since;
        if let Some(fault) = connection.session.overdue(env.now()) {
            return self.end(link, &fault.to_string(), env);
        }
        if blocked.is_some_and(|since| env.time() >= since + within) {
            return self.end(link, "it did not read what it subscribed to", env);
        }
        env.send(link, Direction::ToClient, Frame::Ping);
        self.check_later(link, env);
    }

    fn end(&mut self, link: LinkId, why: &str, env: &mut Env) {
        let Some(connection) = self.connections.remove(&link) else {
            return;
        };
        env.note(format_args!("the server ends connection {}: {why}", link.0));
        self.hub.remove(connection.id, env.now());
        env.send(link, Direction::ToClient, Frame::Close);
    }

    fn on_frame(&mut self, link: LinkId, frame: Frame, env: &mut Env) {
        if !env.network.is_working(link) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        match frame {
            Frame::Text(text) => {
                let action = connection.session.on_text(&text, env.now());
                self.act(link, action, env);
            }
            Frame::Ping => {
                connection.session.heard(env.now());
                env.send(link, Direction::ToClient, Frame::Pong);
            }
            Frame::Pong => connection.session.heard(env.now()),
            Frame::Close => self.end(link, "the peer closed it", env),
        }
    }

    fn act(&mut self, link: LinkId, action: Action, env: &mut Env) {
        let Some(id) = self.connections.get(&link).map(|connection| connection.id) else {
            return;
        };
        let reply = match action {
            Action::Nothing => return,
            Action::Reply(reply) => reply,
            Action::Subscribe(topics, call_id) => {
                let granted = self.hub.subscribe(id, topics);
                rpc::response_text(&granted, "bool", call_id.as_deref())
            }
            Action::Resume(arguments, call_id) => {
                let position = arguments.position;
                match self.hub.resume(id, arguments, env.now()) {
                    Ok(answer) => {
                        env.note(format_args!(
                            "connection {} resumes from {position:?}: {answer:?}",
                            link.0
                        ));
                        rpc::response_text(&answer, "dict", call_id.as_deref())
                    }
                    Err(_) => rpc::response_text(&false, "bool", call_id.as_deref()),
                }
            }
            Action::Applied(arguments) => {
                env.note(format_args!("connection {} reports {arguments:?}", link.0));
                if let Err(fault) = self.hub.applied(id, arguments, env.now()) {
                    env.violated(format!(
                        "a report of connection {} is void: {fault}",
                        link.0
                    ));
                }
                return;
            }
            other => {
                env.violated(format!("connection {} asks for {other:?}", link.0));
                return;
            }
        };
        env.send(link, Direction::ToClient, Frame::Text(reply));
    }

    fn pump_all(&mut self, env: &mut Env) {
        let links: Vec<LinkId> = self.connections.keys().copied().collect();
        for link in links {
            self.pump(link, env);
        }
    }

    /// Writes what waits, as far as there is room.
    fn pump(&mut self, link: LinkId, env: &mut Env) {
        while let Some(connection) = self.connections.get_mut(&link) {
            let unread = env.network.link(link).map_or(0, |link| link.unread);
            if unread >= Network::WINDOW {
                if connection.outbox.bytes() > 0 {
                    connection.blocked_since.get_or_insert(env.time());
                }
                return;
            }
            connection.blocked_since = None;
            if !connection.session.may_notify() {
                return;
            }
            match connection.outbox.try_next() {
                None => return,
                Some(Next::End(why)) => return self.end(link, &format!("{why:?}"), env),
                Some(Next::Frame(frame)) => {
                    connection.session.notified(&frame, env.now());
                    let frame = Frame::Text(frame.as_str().to_owned());
                    let rate = env.weather.twice;
                    let is_event =
                        matches!(&frame, Frame::Text(text) if text.contains(r#""call_id":null"#));
                    if is_event && env.fails(rate) {
                        env.send(link, Direction::ToClient, frame.clone());
                    }
                    env.send(link, Direction::ToClient, frame);
                }
            }
        }
    }

    fn look(&mut self, env: &mut Env) {
        if self.is_announcing {
            return;
        }
        self.is_announcing = true;
        let rate = env.weather.git;
        let found = !env.fails(rate);
        let delay = env.delay(100);
        let life = Some(self.life);
        env.agenda
            .after(delay, Event::Server(life, ServerEvent::Looked(found)));
    }

    fn looked(&mut self, found: bool, clone: &mut Option<CommitHash>, env: &mut Env) {
        if found {
            *clone = Some(env.git.head());
            self.was_synced = true;
        }
        let Some(head) = clone.clone() else {
            self.is_announcing = false;
            return;
        };
        if self.announced.as_ref() == Some(&head) {
            self.is_announcing = false;
            return;
        }
        let mut changed = env.git.changed_directories(self.announced.as_ref(), &head);
        if self.announced.is_none() && changed.is_empty() {
            changed.push(RepoPath::root());
        }
        if changed.is_empty() {
            // Nobody is told of a commit that changes nothing.
            self.announced = Some(head);
            self.is_announcing = false;
            return;
        }
        let message = PolicyUpdateMessage {
            old_policy_hash: self.announced.clone().unwrap_or_else(|| head.clone()),
            new_policy_hash: head.clone(),
            changed_directories: changed,
        };
        let scope = ScopeId::default();
        let topics: Vec<Topic> = message
            .changed_directories
            .iter()
            .map(|directory| Topic::policy(&scope, directory))
            .collect();
        let current = self.hub.feed().commit(&scope).cloned();
        let draft = ChangeDraft {
            id: format!("policy-{:x}", env.rng.random::<u64>())
                .as_str()
                .into(),
            topics: topics.into(),
            payload: PolicyChange::new(current, &message).into(),
        };
        self.waiting.push(Publish::Policy(draft, head));
    }

    /// Stages everything that waits and begins to make it durable.
    fn store_next(&mut self, disk: &mut Disk, env: &mut Env) {
        if self.storing.is_some() || self.waiting.is_empty() {
            return;
        }
        let scope = ScopeId::default();
        let mut stored = Vec::new();
        for publish in std::mem::take(&mut self.waiting) {
            let (Publish::Update(_, draft) | Publish::Policy(draft, _)) = &publish;
            let at = env.calendar();
            match self.hub.feed_mut().stage(&scope, None, draft.clone(), at) {
                Ok(appended) => stored.push(Stored { publish, appended }),
                Err(error) => {
                    env.note(format_args!("refused: {error}"));
                    if matches!(publish, Publish::Policy(..)) {
                        self.is_announcing = false;
                    }
                }
            }
        }
        let changes: Vec<Arc<Change>> = stored.iter().filter_map(Stored::change).collect();
        if !changes.is_empty() {
            disk.write(&journal::encode_changes(&changes));
        }
        self.storing = Some(stored);
        let delay = env.delay(20);
        env.agenda
            .after(delay, Event::Server(Some(self.life), ServerEvent::Synced));
    }

    /// What was staged is durable: it is part of the feed, delivered and answered.
    fn stored(&mut self, history: &mut History, env: &mut Env) {
        self.hub.feed_mut().commit_staged();
        for Stored { publish, appended } in self.storing.take().unwrap_or_default() {
            if let Appended::New(change) = &appended {
                let text = change.draft.payload.data().text();
                let position = change.position;
                env.note(format_args!("revision {position}: {text}"));
                history.append(change);
                self.hub.deliver(change, Delivery::default(), env.now());
            }
            match publish {
                Publish::Update(number, _) => {
                    history.accepted(appended.position());
                    let rate = env.weather.http;
                    if !env.fails(rate / 2.0) {
                        let delay = env.delay(20);
                        env.agenda.after(delay, Event::PublisherHears(number));
                    }
                }
                Publish::Policy(_, commit) => {
                    self.announced = Some(commit);
                    self.is_announcing = false;
                }
            }
        }
    }

    fn on_http(
        &mut self,
        client: ClientRef,
        request: HttpRequest,
        clone: Option<&CommitHash>,
        env: &mut Env,
    ) {
        let scope = ScopeId::default();
        match request {
            HttpRequest::Sources => {
                let config = env.sources.config();
                env.answer(client, HttpAnswer::Sources(Some(config)));
            }
            HttpRequest::Base(topics, at_least) => {
                let base = match self.position(Some(at_least), true, clone) {
                    Ok(_) => Some(Box::new(self.hub.feed_mut().base(&scope, &topics))),
                    Err(Behind) => None,
                };
                env.answer(client, HttpAnswer::Base(base));
            }
            HttpRequest::Bundle(request) => {
                match self.position(request.at_least, false, clone) {
                    Ok(position) => {
                        // The bundle is made after the position was read.
                        let event = ServerEvent::MakeBundle(client, request, position);
                        let delay = env.delay(50);
                        env.agenda
                            .after(delay, Event::Server(Some(self.life), event));
                    }
                    Err(Behind) => env.answer(client, HttpAnswer::Bundle(None)),
                }
            }
        }
    }

    /// Where the feed is, before an answer is made from there. As `position.rs` of the server.
    fn position(
        &self,
        wanted: Option<AtLeast>,
        from_feed: bool,
        clone: Option<&CommitHash>,
    ) -> Result<Option<Position>, Behind> {
        let scope = ScopeId::default();
        let feed = self.hub.feed();
        let (head, commit) = (feed.head(&scope), feed.commit(&scope));
        let is_known = commit.is_some() && (self.was_synced || clone == commit);
        let is_current = from_feed || is_known;
        match wanted {
            None => Ok(is_current.then_some(head)),
            Some(wanted) if is_current && wanted.is_met_by(&head) => Ok(Some(head)),
            Some(_) => Err(Behind),
        }
    }
}

/// The feed is not where a request asks for.
struct Behind;
