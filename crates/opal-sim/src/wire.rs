//! How what is sent arrives: late, twice, or never.

use std::time::Duration;

use opal_protocol::{DataSourceConfig, PolicyBundle, Position, feed::BaseSnapshot};
use rand::Rng;

use crate::env::Env;
use crate::event::{ClientEvent, ClientRef, Event, HttpRequest, ServerEvent};
use crate::network::{Direction, Frame, LinkId, Network};

/// An answer of the server; without content if it is an error.
#[derive(Debug)]
pub enum HttpAnswer {
    /// To a request for a bundle.
    Bundle(Option<Box<(PolicyBundle, Option<Position>)>>),
    /// To a request for the data sources.
    Sources(Option<DataSourceConfig>),
    /// To a request for the base.
    Base(Option<Box<BaseSnapshot>>),
}

impl HttpAnswer {
    /// No answer to `request`.
    pub fn none(request: &HttpRequest) -> Self {
        match request {
            HttpRequest::Bundle(_) => Self::Bundle(None),
            HttpRequest::Sources => Self::Sources(None),
            HttpRequest::Base(..) => Self::Base(None),
        }
    }

    fn lost(self) -> Self {
        match self {
            Self::Bundle(_) => Self::Bundle(None),
            Self::Sources(_) => Self::Sources(None),
            Self::Base(_) => Self::Base(None),
        }
    }
}

impl From<HttpAnswer> for ClientEvent {
    fn from(answer: HttpAnswer) -> Self {
        match answer {
            HttpAnswer::Bundle(answer) => Self::Bundle(answer),
            HttpAnswer::Sources(answer) => Self::Sources(answer),
            HttpAnswer::Base(answer) => Self::Base(answer),
        }
    }
}

/// How long a client waits for an answer that does not come.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

impl Env {
    /// Sends a frame. It arrives after those sent before, or never.
    pub fn send(&mut self, link: LinkId, direction: Direction, frame: Frame) {
        let by_itself = self.time() + self.delay(5);
        let Some(at) = self.network.arrival(link, direction, by_itself) else {
            return;
        };
        let event = match direction {
            Direction::ToServer => Event::Server(None, ServerEvent::Frame(link, frame)),
            Direction::ToClient => {
                let Some(ends) = self.network.link(link) else {
                    return;
                };
                ends.unread += frame.size();
                Event::Client(ends.client, ClientEvent::Frame(link, frame))
            }
        };
        self.agenda.at(at, event);
    }

    /// The client has read so many bytes: there is room for more.
    pub fn was_read(&mut self, link: LinkId, bytes: usize) {
        let Some(ends) = self.network.link(link) else {
            return;
        };
        let was_full = ends.unread >= Network::WINDOW;
        ends.unread = ends.unread.saturating_sub(bytes);
        if was_full && ends.unread < Network::WINDOW && !ends.is_broken {
            let delay = self.delay(5);
            self.agenda
                .after(delay, Event::Server(None, ServerEvent::Writable(link)));
        }
    }

    /// Frames on this connection are lost from now on. Who is to be told learns of it after so long.
    pub fn break_link(
        &mut self,
        link: LinkId,
        tell_client: Option<Duration>,
        tell_server: Option<Duration>,
    ) {
        let Some(ends) = self.network.link(link) else {
            return;
        };
        ends.is_broken = true;
        let client = ends.client;
        if let Some(delay) = tell_client {
            self.agenda
                .after(delay, Event::Client(client, ClientEvent::Broken(link)));
        }
        if let Some(delay) = tell_server {
            self.agenda
                .after(delay, Event::Server(None, ServerEvent::Broken(link)));
        }
    }

    /// The connection breaks; both ends learn of it some time, or by silence.
    pub fn cut(&mut self, link: LinkId) {
        let mut noticed = || {
            let is_noticed = self.rng.random_bool(0.8);
            is_noticed.then(|| Duration::from_millis(self.rng.random_range(1..3_000)))
        };
        let (client, server) = (noticed(), noticed());
        self.note(format_args!("connection {} is cut", link.0));
        self.break_link(link, client, server);
    }

    /// Sends a request. It is always answered, by nothing if it was lost.
    pub fn request(&mut self, client: ClientRef, is_cut_off: bool, request: HttpRequest) {
        let rate = self.weather.http;
        if is_cut_off || self.fails(rate) {
            let hangs = self.rng.random_bool(0.2);
            let delay = if hangs { HTTP_TIMEOUT } else { self.delay(50) };
            let answer = HttpAnswer::none(&request).into();
            self.agenda.after(delay, Event::Client(client, answer));
            return;
        }
        let delay = self.delay(20);
        let event = ServerEvent::Http(client, request);
        self.agenda.after(delay, Event::Server(None, event));
    }

    /// Sends an answer, which may be lost.
    pub fn answer(&mut self, client: ClientRef, answer: HttpAnswer) {
        let rate = self.weather.http;
        let (delay, answer) = match self.fails(rate / 2.0) {
            true => (HTTP_TIMEOUT, answer.lost()),
            false => (self.delay(40), answer),
        };
        self.agenda
            .after(delay, Event::Client(client, answer.into()));
    }
}
