//! Fake connections: in order while they live, cut at any moment, both ends told late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::ClientRef;

/// A connection between a client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What travels on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A control frame that asks for a sign of life.
    Ping,
    /// The sign of life.
    Pong,
    /// The last frame.
    Close,
}

impl Frame {
    /// What it counts for where bytes are counted.
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ping | Self::Pong | Self::Close => 2,
        }
    }
}

/// All connections that are not over for both ends.
#[derive(Debug, Default)]
pub struct Network {
    next: u64,
    links: BTreeMap<LinkId, Link>,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// The process at the client's end.
    pub client: ClientRef,
    /// Whether frames are lost from now on.
    pub is_broken: bool,
    /// Bytes on their way to the client, or there and not read.
    pub unread: usize,
    /// When the last frame arrives, by direction: none overtakes it.
    to_server: Duration,
    to_client: Duration,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

impl Network {
    /// So many bytes a peer takes in before it is not written to any more.
    pub const WINDOW: usize = 6_000;

    /// A new connection of `client`.
    pub fn open(&mut self, client: ClientRef) -> LinkId {
        self.next += 1;
        let id = LinkId(self.next);
        self.links.insert(
            id,
            Link {
                client,
                is_broken: false,
                unread: 0,
                to_server: Duration::ZERO,
                to_client: Duration::ZERO,
            },
        );
        id
    }

    /// A connection that exists.
    pub fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// Whether frames of a connection arrive.
    pub fn is_working(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| !link.is_broken)
    }

    /// Forgets a connection of which neither end knows any more.
    pub fn forget(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    /// The connections that work.
    pub fn alive(&self) -> Vec<LinkId> {
        let alive = self.links.iter().filter(|(_, link)| !link.is_broken);
        alive.map(|(id, _)| *id).collect()
    }

    /// When a frame arrives that is sent now and takes so long by itself; never if it is lost.
    pub fn arrival(
        &mut self,
        id: LinkId,
        direction: Direction,
        by_itself: Duration,
    ) -> Option<Duration> {
        let link = self.links.get_mut(&id).filter(|link| !link.is_broken)?;
        let last = match direction {
            Direction::ToServer => &mut link.to_server,
            Direction::ToClient => &mut link.to_client,
        };
        *last = by_itself.max(*last);
        Some(*last)
    }
}
