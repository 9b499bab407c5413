//! What can happen next.

use opal_client::data::queue::{Failure, Seq};
use opal_client::policy::sync::BundleRequest;
use opal_protocol::feed::BaseSnapshot;
use opal_protocol::{AtLeast, DataSourceConfig, Document, PolicyBundle, Position, Topic};

use crate::network::{Frame, LinkId};

/// One life of one client: what was meant for an earlier life is not for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientRef {
    /// Which client.
    pub index: usize,
    /// Which of its lives.
    pub life: u64,
}

/// What can happen next.
#[derive(Debug)]
pub enum Event {
    /// The schedule does its next step.
    Step,
    /// Something happens to a client.
    Client(ClientRef, ClientEvent),
    /// A client that died comes back.
    ClientStarts(usize),
    /// Something happens to the server; in which of its lives, if it is not for any of them.
    Server(Option<u64>, ServerEvent),
    /// The server comes back.
    ServerStarts,
    /// A publisher sends its update, again or for the first time.
    PublisherSends(u64),
    /// A publisher hears that its update was stored.
    PublisherHears(u64),
    /// A data source answers.
    SourceAnswers(ClientRef, Seq, String),
    /// A client can reach the others again.
    PartitionEnds(usize),
}

/// What happens to a client.
#[derive(Debug)]
pub enum ClientEvent {
    /// Something may be due.
    Wake,
    /// The upgrade was answered; with a feed or without, or not at all.
    Connected(LinkId, Option<bool>),
    /// A frame.
    Frame(LinkId, Frame),
    /// A connection is found to be broken.
    Broken(LinkId),
    /// The server answered a request for a bundle.
    Bundle(Option<Box<(PolicyBundle, Option<Position>)>>),
    /// The server answered a request for the data sources.
    Sources(Option<DataSourceConfig>),
    /// The server answered a request for the base.
    Base(Option<Box<BaseSnapshot>>),
    /// A document was fetched, or not.
    Fetched(Seq, Result<Document, Failure>),
    /// The policy store is done with what it was given.
    Written,
}

/// What happens to a server.
#[derive(Debug)]
pub enum ServerEvent {
    /// A second has passed.
    Tick,
    /// A websocket upgrade.
    Connect(LinkId, bool),
    /// A frame.
    Frame(LinkId, Frame),
    /// A connection is found to be broken.
    Broken(LinkId),
    /// A connection takes more.
    Writable(LinkId),
    /// A connection is looked at.
    Check(LinkId),
    /// What was being written is on the disk.
    Synced,
    /// It is time to ask git what is new.
    Look,
    /// Git answered, or did not.
    Looked(bool),
    /// An update, under the number of its publisher.
    Publish(u64),
    /// A request.
    Http(ClientRef, HttpRequest),
    /// A bundle is made for a request that came when the feed was there.
    MakeBundle(ClientRef, BundleRequest, Option<Position>),
}

/// What a client asks.
#[derive(Debug, Clone)]
pub enum HttpRequest {
    /// A bundle.
    Bundle(BundleRequest),
    /// The data sources.
    Sources,
    /// What the feed comes down to.
    Base(Vec<Topic>, AtLeast),
}
