//! What is to happen, in order. Time passes only from one event to the next.

use std::collections::BTreeMap;
use std::time::Duration;

/// Events by virtual time; those of one moment in the order in which they were added.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Duration,
    next: u64,
    events: BTreeMap<(Duration, u64), E>,
}

impl<E> Agenda<E> {
    /// Nothing to happen, at time zero.
    pub fn new() -> Self {
        Self {
            now: Duration::ZERO,
            next: 0,
            events: BTreeMap::new(),
        }
    }

    /// The time of the last event that was taken.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Adds an event after `delay`.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Adds an event at `time`, or now if that has passed.
    pub fn at(&mut self, time: Duration, event: E) {
        self.events.insert((time.max(self.now), self.next), event);
        self.next += 1;
    }

    /// Takes the next event that is not later than `end`; without one it is `end`.
    pub fn next_until(&mut self, end: Duration) -> Option<E> {
        let first = self
            .events
            .first_entry()
            .filter(|entry| entry.key().0 <= end);
        match first {
            Some(entry) => {
                let ((time, _), event) = entry.remove_entry();
                self.now = time;
                Some(event)
            }
            None => {
                self.now = self.now.max(end);
                None
            }
        }
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_in_which_they_were_added() {
        let mut agenda = Agenda::new();
        let ms = Duration::from_millis;
        agenda.after(ms(5), 'b');
        agenda.after(ms(5), 'c');
        agenda.after(ms(1), 'a');
        let taken: String = std::iter::from_fn(|| agenda.next_until(ms(5))).collect();
        assert_eq!(taken, "abc");
        agenda.after(ms(1), 'd');
        assert_eq!(agenda.next_until(ms(5)), None);
        assert_eq!(agenda.next_until(ms(6)), Some('d'));
    }
}
