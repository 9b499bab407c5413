//! What is still to be written to one subscriber.
//!
//! Filled by the hub, emptied by the connection's task. The frames are shared, so a waiting frame
//! costs a pointer; the bytes are counted as if they were not, since they must all be written.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

use crate::session::call_id_of;

/// Why a connection is ended from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It took too long to read what it subscribed to.
    TooSlow,
    /// The server stops.
    ShuttingDown,
    /// Its client follows the feed by a newer connection.
    Superseded,
}

/// The queue of one subscriber. Never waits; see [`Outbox::push`] for what happens when it fills.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
    ended: Option<Ended>,
}

/// What the connection's task does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this.
    Frame(Utf8Bytes),
    /// Close.
    End(Ended),
}

impl Outbox {
    /// Bytes that may wait. More is still taken, since nothing that was subscribed to is dropped,
    /// but a subscriber that stays above this is disconnected and starts anew.
    pub const LIMIT: usize = 8 * 1024 * 1024;

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement, so a panic elsewhere cannot break it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame and returns how many bytes wait now. Ignored once ended.
    pub fn push(&self, frame: Utf8Bytes) -> usize {
        let mut state = self.lock();
        if state.ended.is_some() {
            return 0;
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let bytes = state.bytes;
        drop(state);
        self.news.notify_one();
        bytes
    }

    /// Drops the frames that wait and ask for no answer: those of a feed.
    pub(crate) fn drop_events(&self) {
        let mut state = self.lock();
        state.frames.retain(|frame| call_id_of(frame).is_some());
        state.bytes = state.frames.iter().map(|frame| frame.len()).sum();
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Drops what waits and makes the connection's task close.
    pub fn end(&self, why: Ended) {
        let mut state = self.lock();
        state.frames.clear();
        state.bytes = 0;
        state.ended.get_or_insert(why);
        drop(state);
        self.news.notify_one();
    }

    /// The next thing to do, if there is one already.
    pub fn try_next(&self) -> Option<Next> {
        let mut state = self.lock();
        if let Some(why) = state.ended {
            return Some(Next::End(why));
        }
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.len();
        if state.frames.is_empty() && state.frames.capacity() > 64 {
            state.frames = VecDeque::new();
        }
        Some(Next::Frame(frame))
    }

    /// Waits for the next thing to do. Cancel-safe; for one waiting task.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.news.notified().await;
        }
    }

    /// Waits until the connection is to be closed. Cancel-safe; for the task that writes.
    pub async fn ended(&self) -> Ended {
        loop {
            if let Some(why) = self.lock().ended {
                return why;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_and_an_end_overtakes_them() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push("one".into()), 3);
        assert_eq!(outbox.push("two".into()), 6);
        assert_eq!(outbox.next().await, Next::Frame("one".into()));
        outbox.end(Ended::TooSlow);
        assert_eq!(outbox.next().await, Next::End(Ended::TooSlow));
        assert_eq!(outbox.push("late".into()), 0);
    }
}
