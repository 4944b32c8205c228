// SPDX-License-Identifier: GPL-2.0

//! Looking at events without taking part: for debugfs and fdinfo.

use super::{
    Cursor,
    Events, //
};
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// How often something has happened.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    /// How often since the device was bound.
    pub(crate) count: u64,
    /// `CLOCK_MONOTONIC` time of the last, in nanoseconds; 0 if there was none.
    pub(crate) time: i64,
}

impl Events {
    /// Interrupts taken on `vector`.
    pub(crate) fn vector(&self, vector: u16) -> Option<Tally> {
        let table = self.table.lock();
        let vector = table.vectors.get(usize::from(vector))?;
        Some(Tally {
            count: vector.count,
            time: vector.time,
        })
    }

    /// Times in which the device could not interrupt.
    pub(crate) fn times_lost(&self) -> u64 {
        self.table.lock().lost
    }

    /// State of `peer` when it was last looked at, and changes of it that were seen.
    pub(crate) fn peer(&self, peer: u16) -> Option<(u32, Tally)> {
        let table = self.table.lock();
        let peer = table.peers.get(usize::from(peer))?;
        let tally = Tally {
            count: peer.changes,
            time: peer.time,
        };
        Some((peer.state, tally))
    }
}

/// What a file is subscribed to, of one kind.
pub(crate) struct Subscribed {
    /// To all of them.
    pub(crate) all: bool,
    /// To which, in ascending order.
    pub(crate) ranges: KVVec<RangeInclusive<usize>>,
}

impl Subscribed {
    fn new(wanted: impl ExactSizeIterator<Item = bool>) -> Result<Self> {
        let length = wanted.len();
        let mut ranges = KVVec::<RangeInclusive<usize>>::new();
        for (index, _) in wanted.enumerate().filter(|&(_, wanted)| wanted) {
            match ranges.last_mut() {
                Some(last) if last.end() + 1 == index => *last = *last.start()..=index,
                _ => ranges.push(index..=index, GFP_KERNEL)?,
            }
        }
        let all = matches!(&ranges[..], [one] if one.clone().count() == length);
        Ok(Self { all, ranges })
    }
}

impl Cursor {
    /// Vectors and peers that the file is subscribed to.
    pub(crate) fn subscribed(&self) -> Result<[Subscribed; 2]> {
        let seen = self.seen.lock();
        Ok([
            Subscribed::new(seen.vectors.iter().map(|vector| vector.wanted))?,
            Subscribed::new(seen.peers.iter().map(|peer| peer.wanted))?,
        ])
    }
}
