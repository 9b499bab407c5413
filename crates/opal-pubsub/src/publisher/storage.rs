//! Where changes are made durable before anybody hears of them.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::feed::journal_file::{Journal, JournalError};
use crate::feed::{Change, FeedLog};

/// A journal, written by a thread that may block; or none, and what is staged is as good as stored.
#[derive(Debug)]
pub(super) enum Storage {
    Memory,
    Idle(Box<Journal>),
    Writing(JoinHandle<(Box<Journal>, Result<(), JournalError>)>),
}

impl Storage {
    pub(super) fn new(journal: Option<Journal>) -> Self {
        journal.map_or(Self::Memory, |journal| Self::Idle(Box::new(journal)))
    }

    /// Starts to make `changes` durable, which are staged in `feed`; [`Storage::written`] says how it
    /// went. Returns whether there is anything to wait for.
    pub(super) fn write(&mut self, feed: &FeedLog, changes: Vec<Arc<Change>>) -> bool {
        if changes.is_empty() {
            return false;
        }
        match std::mem::replace(self, Self::Memory) {
            Self::Idle(mut journal) => {
                let image = journal.needs_rotation().then(|| feed.image());
                *self = Self::Writing(spawn_blocking(move || {
                    let stored = journal.store(image.as_ref(), &changes);
                    (journal, stored)
                }));
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        matches!(self, Self::Writing(_))
    }

    /// Waits for what is being written; for ever if nothing is. Whoever stops waiting can wait again.
    pub(super) async fn written(&mut self) -> Result<(), JournalError> {
        let Self::Writing(writing) = self else {
            return std::future::pending().await;
        };
        match writing.await {
            Ok((journal, stored)) => {
                *self = Self::Idle(journal);
                stored
            }
            // Without its journal the hub can accept nothing; its end ends the server.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }
}
