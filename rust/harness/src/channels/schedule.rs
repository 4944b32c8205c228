// SPDX-License-Identifier: MIT OR Apache-2.0
//! When and how one side is restarted: a function of a seed, handed out one by one to the guest that
//! is to carry it out. It outlives the guest, which forgets all when it is reset.

use std::sync::atomic::{AtomicU64, Ordering};

/// Longest time from a session's beginning to the restart, in microseconds.
const DELAY_MAX: u64 = 200_000;

/// One way to restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The process is killed.
    Kill,
    /// The process is killed at any moment after its start, perhaps before it has a session.
    EarlyKill,
    /// The driver is unbound and bound.
    Unbind,
    /// The guest is reset.
    Reset,
}

/// The restarts to come.
#[derive(Debug)]
pub(crate) struct Schedule {
    seed: u64,
    count: u64,
    /// How many answers were given.
    given: AtomicU64,
}

impl Schedule {
    /// `count` restarts.
    pub(crate) fn new(seed: u64, count: u64) -> Self {
        Self {
            seed,
            count,
            given: AtomicU64::new(0),
        }
    }

    /// How restart `number` is done, and after how many microseconds.
    fn restart(&self, number: u64) -> (Kind, u64) {
        let random = mix(self.seed.wrapping_add(mix(number)));
        let kind = match (number, random % 8) {
            // Few restarts have each kind, too.
            (0, _) => Kind::Reset,
            (1, _) => Kind::Unbind,
            (2, _) => Kind::Kill,
            (3, _) | (_, 0) => Kind::EarlyKill,
            (_, 1..=2) => Kind::Reset,
            (_, 3..=4) => Kind::Unbind,
            _ => Kind::Kill,
        };
        (kind, (random >> 8) % DELAY_MAX)
    }

    /// How many restarts are of that kind.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        let is_so = |&number: &u64| self.restart(number).0 == kind;
        (0..self.count).filter(is_so).count() as u64
    }

    /// How many restarts have been handed out.
    pub(crate) fn done(&self) -> u64 {
        self.given.load(Ordering::Relaxed).min(self.count)
    }

    /// What the guest is to do next: a word, microseconds, perhaps `early`; or `end`.
    pub(crate) fn next(&self) -> String {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        if number >= self.count {
            return "end 0".into();
        }
        let (kind, delay) = self.restart(number);
        match kind {
            Kind::Kill => format!("kill {delay}"),
            Kind::EarlyKill => format!("kill {} early", delay / 8),
            Kind::Unbind => format!("unbind {delay}"),
            Kind::Reset => format!("reset {delay}"),
        }
    }

    /// Whether no session follows the present one.
    pub(crate) fn is_over(&self) -> bool {
        self.given.load(Ordering::Relaxed) > self.count
    }
}

/// Mixes all bits of `value` (the finalizer of splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_come_and_then_the_end() {
        let schedule = Schedule::new(1, 200);
        let kinds = [Kind::Kill, Kind::EarlyKill, Kind::Unbind, Kind::Reset];
        let counts = kinds.map(|kind| schedule.count(kind));
        assert_eq!(counts.iter().sum::<u64>(), 200);
        assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
        let given: Vec<_> = (0..200).map(|_| schedule.next()).collect();
        assert!(given.iter().all(|text| !text.starts_with("end")));
        assert!(!schedule.is_over());
        assert_eq!(schedule.next(), "end 0");
        assert!(schedule.is_over());
        assert_eq!(schedule.done(), 200);
    }

    #[test]
    fn a_seed_says_all() {
        let [one, same, other] = [1, 1, 2].map(|seed| {
            let schedule = Schedule::new(seed, 50);
            (0..50).map(|_| schedule.next()).collect::<Vec<_>>()
        });
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
