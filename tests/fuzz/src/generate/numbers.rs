// SPDX-License-Identifier: MIT OR Apache-2.0
//! Offsets and lengths: near borders, inside, and of any magnitude.

use crate::facts::Facts;
use crate::random::Random;

/// An offset in the region, mostly.
pub(super) fn offset(r: &mut Random, facts: &Facts) -> i64 {
    let peer = r.below(facts.peers.into()) as u32;
    let borders = [
        0,
        facts.rw.offset,
        facts.rw.end(),
        facts.output_of(peer).offset,
        facts.output_of(peer).end(),
        facts.region,
    ];
    match r.below(16) {
        0 => r.magnitude() as i64,
        1..=3 => r.pick(&borders) as i64 + r.below(16) as i64 - 8,
        4..=6 => (r.below(facts.region) & !7) as i64,
        7 => r.below(facts.region) as i64,
        // Where writing is allowed, and reading is cheap.
        8..=11 => facts.rw.offset as i64 + r.below(facts.rw.size.max(1)) as i64,
        _ => {
            let peer = r.below(2) as u32;
            let output = facts.output_of(peer);
            output.offset as i64 + (r.below(output.size.max(1)) & !3) as i64
        }
    }
}

/// A length, mostly short: each access to a foreign section may be a trap.
pub(super) fn length(r: &mut Random, facts: &Facts) -> u64 {
    match r.below(64) {
        0 => r.magnitude(),
        1 => r.below(facts.region * 2),
        2..=5 => r.below(1024),
        6..=9 => 0,
        10..=30 => 4,
        31..=45 => 8,
        _ => r.below(64),
    }
}
