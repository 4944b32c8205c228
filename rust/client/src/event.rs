// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events, the buffer that they are fetched into, and deadlines.

use crate::uapi;
use rustix::time::{clock_gettime, ClockId};
use std::time::Duration;

/// Until when to wait: an absolute time of CLOCK_MONOTONIC, so that a call which was interrupted
/// and is made again does not wait longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Do not wait.
    pub const NOW: Self = Self(uapi::IVSHMEM_DEADLINE_NOW as u64);
    /// Wait without limit.
    pub const NEVER: Self = Self(uapi::IVSHMEM_DEADLINE_NEVER);

    /// `duration` from now on. What does not fit is [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            now.tv_sec.try_into().unwrap_or(0),
            now.tv_nsec.try_into().unwrap_or(0),
        );
        Self::at(now.saturating_add(duration))
    }

    /// At a time of CLOCK_MONOTONIC. Time 0 is moved to the first nanosecond, as 0 stands for
    /// [`NOW`](Self::NOW).
    #[must_use]
    pub fn at(time: Duration) -> Self {
        Self(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1))
    }

    /// How long it is from now until then; `None` for [`NEVER`](Self::NEVER).
    pub(crate) fn time_left(self) -> Option<Duration> {
        let now = Self::after(Duration::ZERO).0;
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(now)))
    }

    /// The value as the kernel takes it, in nanoseconds.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

/// What happened to one vector or one peer since the same file last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The device could not interrupt for some time: there may have been more. Look at the
    /// shared memory, as after every event.
    pub may_have_lost: bool,
    /// CLOCK_MONOTONIC time at which the last of it was seen.
    pub time: Duration,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// Interrupts on a vector. Doorbells that follow each other closely may merge: at least 1
    /// for any number of them, never more than were rung. A peer's state change is an interrupt
    /// on vector 0 too.
    Doorbell {
        /// The vector.
        vector: u32,
        /// Interrupts taken since this file's previous event of the vector.
        count: u64,
    },
    /// The state of another peer changed.
    State {
        /// The peer.
        peer: u32,
        /// Its state at this file's previous event of it, or when the file was opened.
        old: u32,
        /// Its state now; 0 = absent.
        new: u32,
        /// How many changes were seen. More than 1 with `old == new`: the peer went and came.
        changes: u64,
    },
    /// A kind that is newer than this library.
    Other {
        /// The kernel's number for it.
        kind: u32,
        /// Which of that kind.
        index: u32,
    },
}

/// Which events a [subscription](crate::Device::subscribe) or an
/// [eventfd](crate::Device::attach_eventfd) is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Interrupts on one of the vectors that the driver has got
    /// ([`Info::vectors_enabled`](crate::Info::vectors_enabled)).
    Vector(u32),
    /// Interrupts on all vectors.
    AllVectors,
    /// Changes of one peer's state.
    Peer(u32),
    /// Changes of all other peers' states.
    AllPeers,
}

impl Subject {
    /// Kind and index as the kernel takes them.
    pub(crate) fn numbers(self) -> (u32, u32) {
        match self {
            Self::Vector(vector) => (uapi::IVSHMEM_EVENT_DOORBELL, vector),
            Self::AllVectors => (uapi::IVSHMEM_EVENT_DOORBELL, uapi::IVSHMEM_INDEX_ALL),
            Self::Peer(peer) => (uapi::IVSHMEM_EVENT_STATE, peer),
            Self::AllPeers => (uapi::IVSHMEM_EVENT_STATE, uapi::IVSHMEM_INDEX_ALL),
        }
    }
}

impl From<&uapi::ivshmem_event> for Event {
    fn from(raw: &uapi::ivshmem_event) -> Self {
        let kind = match raw.kind {
            uapi::IVSHMEM_EVENT_DOORBELL => EventKind::Doorbell {
                vector: raw.index,
                count: raw.count,
            },
            uapi::IVSHMEM_EVENT_STATE => EventKind::State {
                peer: raw.index,
                old: raw.old_state,
                new: raw.new_state,
                changes: raw.changes,
            },
            kind => EventKind::Other {
                kind,
                index: raw.index,
            },
        };
        Self {
            kind,
            may_have_lost: raw.flags & uapi::IVSHMEM_EVENT_MAY_HAVE_LOST != 0,
            time: Duration::from_nanos(raw.time),
        }
    }
}

/// Room for events, to be used again and again.
#[derive(Debug, Clone)]
pub struct EventBuffer {
    pub(crate) records: Vec<uapi::ivshmem_event>,
}

impl EventBuffer {
    /// Room for `capacity` events, at least 1. What does not fit waits for the next call; one
    /// for each vector and each peer always suffices.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, u32::MAX as usize);
        Self {
            records: vec![uapi::ivshmem_event::default(); capacity],
        }
    }
}

/// The events of one call of [`Device::events`](crate::Device::events), state changes first.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    pub(crate) records: std::slice::Iter<'a, uapi::ivshmem_event>,
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.records.next().map(Event::from)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl ExactSizeIterator for Events<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_absolute_and_never_overflow() {
        let before = Deadline::after(Duration::ZERO);
        let later = Deadline::after(Duration::from_secs(10));
        assert!(Deadline::NOW < before && before < later && later < Deadline::NEVER);
        assert!(later.as_nanos() - before.as_nanos() >= 10_000_000_000);
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert_ne!(
            Deadline::at(Duration::ZERO),
            Deadline::NOW,
            "0 means do not wait"
        );
        assert_eq!(Deadline::NEVER.time_left(), None);
        assert_eq!(Deadline::NOW.time_left(), Some(Duration::ZERO));
        assert_eq!(before.time_left(), Some(Duration::ZERO), "it has passed");
        let left = later.time_left().expect("a time");
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(1));
    }

    #[test]
    fn events_are_told_apart() {
        let raw = |kind| uapi::ivshmem_event {
            kind,
            index: 3,
            flags: uapi::IVSHMEM_EVENT_MAY_HAVE_LOST,
            old_state: 1,
            new_state: 2,
            count: 5,
            changes: 7,
            time: 9,
            ..Default::default()
        };
        let doorbell = Event::from(&raw(uapi::IVSHMEM_EVENT_DOORBELL));
        assert_eq!(
            doorbell.kind,
            EventKind::Doorbell {
                vector: 3,
                count: 5
            }
        );
        assert!(doorbell.may_have_lost);
        assert_eq!(doorbell.time, Duration::from_nanos(9));
        let state = EventKind::State {
            peer: 3,
            old: 1,
            new: 2,
            changes: 7,
        };
        assert_eq!(Event::from(&raw(uapi::IVSHMEM_EVENT_STATE)).kind, state);
        let other = EventKind::Other { kind: 99, index: 3 };
        assert_eq!(Event::from(&raw(99)).kind, other);
    }

    #[test]
    fn a_buffer_has_room_for_one_at_least() {
        assert_eq!(EventBuffer::new(0).records.len(), 1);
        assert_eq!(EventBuffer::new(5).records.len(), 5);
    }
}
