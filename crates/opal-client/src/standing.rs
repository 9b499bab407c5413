//! Where the client stands with its server, and since when: what `/ready` and `/healthy` know beside
//! the transactions. A value that is told the time: no I/O, no clock.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use opal_protocol::{Epoch, Position, Revision};

use crate::replica::ReplicaStatus;
use crate::transactions::Reason;

/// A client that has lacked something that it knows of for longer than this is not healthy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One moment by both clocks: to measure, and to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// To measure.
    pub instant: Instant,
    /// To show.
    pub utc: DateTime<Utc>,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            utc: Utc::now(),
        }
    }
}

/// The protocol that is spoken with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Changes have positions, and what was missed follows.
    Feed,
    /// The server has no feed for us, or is a released one.
    Released,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Standing {
    status: Option<ReplicaStatus>,
    /// Since when there is a connection, or is none.
    connection_since: Moment,
    /// What the store lacks.
    lack: Option<Lack>,
    /// Whether the store was filled once in this process, from the server or from a file.
    filled: bool,
}

/// Something that was in our hands and not in the store: gone once the store is there.
#[derive(Debug, Clone, Copy)]
struct Lack {
    epoch: Epoch,
    revision: Revision,
    since: Moment,
}

impl Standing {
    /// Of a client that starts `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            status: None,
            connection_since: now,
            lack: None,
            filled: false,
        }
    }

    /// The store was filled from a file.
    pub fn restored(&mut self) {
        self.filled = true;
    }

    /// Takes note of where the client is. Returns whether that is news.
    pub fn update(&mut self, status: ReplicaStatus, now: Moment) -> bool {
        if self.status.as_ref() == Some(&status) {
            return false;
        }
        if status.is_connected != self.is_connected() {
            self.connection_since = now;
        }
        let lacked = self.lack_within(&status);
        self.lack = self.lack_of(&status, now);
        let caught_up = match lacked {
            Some(lack) => lack.is_met_by(status.held),
            None => status.held.is_some() && self.lack.is_none(),
        };
        self.filled |= caught_up;
        self.status = Some(status);
        true
    }

    /// What the store lacks from now on. One that is still lacked stays, so that its age is that of
    /// something that was lacked all the time: under a steady stream there is always something new.
    fn lack_of(&self, status: &ReplicaStatus, now: Moment) -> Option<Lack> {
        let received = status.received?;
        let still = self.lack_within(status);
        let still = still.filter(|lack| !lack.is_met_by(status.held));
        let new = Lack {
            epoch: received.epoch,
            revision: received.revision,
            since: now,
        };
        still.or((!new.is_met_by(status.held)).then_some(new))
    }

    /// What was lacked until now, in the feed as it is now.
    fn lack_within(&self, status: &ReplicaStatus) -> Option<Lack> {
        Some(self.lack?.within(status.received?))
    }

    /// Whether there is a connection to the server.
    pub fn is_connected(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.is_connected)
    }

    /// Since when there is one, or is none.
    pub fn connection_since(&self) -> DateTime<Utc> {
        self.connection_since.utc
    }

    /// How we talk to the server; unknown before the first connection.
    pub fn mode(&self) -> Option<Mode> {
        let status = self.status.as_ref()?;
        match status.received {
            Some(_) => Some(Mode::Feed),
            None => status.is_connected.then_some(Mode::Released),
        }
    }

    /// Where the client is; unknown before it began.
    pub fn status(&self) -> Option<&ReplicaStatus> {
        self.status.as_ref()
    }

    /// Since when the store has lacked something that we know of.
    pub fn behind_since(&self) -> Option<DateTime<Utc>> {
        Some(self.lack?.since.utc)
    }

    /// Why the client is not ready: a store that was never whole has the first snapshot to come.
    pub fn unready(&self) -> Option<Reason> {
        let lack = self.lack.filter(|_| !self.filled)?;
        Some(Reason::SnapshotPending {
            since: lack.since.utc,
        })
    }

    /// Why the client is not healthy: it knows that it is behind, and has been for too long.
    pub fn unhealthy(&self, now: Instant) -> Option<Reason> {
        let lack = self.lack?;
        let status = self.status.as_ref()?;
        let age = now.saturating_duration_since(lack.since.instant);
        (age > PATIENCE).then_some(Reason::Behind {
            changes: status.outstanding,
            snapshot: status.awaits_snapshot,
            since: lack.since.utc,
        })
    }
}

impl Lack {
    fn is_met_by(&self, held: Option<(Epoch, Revision)>) -> bool {
        held.is_some_and(|(epoch, revision)| self.epoch == epoch && self.revision <= revision)
    }

    /// The same in the feed that `received` is of, which may have begun anew or lost its end.
    fn within(self, received: Position) -> Self {
        let revision = match self.epoch == received.epoch {
            true => self.revision.min(received.revision),
            false => received.revision,
        };
        Self {
            epoch: received.epoch,
            revision,
            since: self.since,
        }
    }
}

#[cfg(test)]
mod tests;
