// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The state table (specification: "State Table"): one 32-bit word per peer at the start of the
//! region, written by the hypervisor when a peer writes its STATE register. 0 means absent.

use super::layout::Layout;
use super::memory::LoadOrder;
use super::memory::Memory;
use super::memory::OutOfBounds;

/// Size of one entry in bytes.
pub const ENTRY_SIZE: usize = 4;

/// State of a peer that is absent, or has not published one.
pub const ABSENT: u32 = 0;

/// Offset of `peer`'s entry, in bytes from the start of the region.
#[must_use]
pub const fn entry_offset(peer: u16) -> usize {
    peer as usize * ENTRY_SIZE
}

/// The state table of a link, for reading.
///
/// On Jailhouse a store to it stops the cell, so there is no way to store through this type.
pub struct StateTable<M> {
    memory: M,
    peers: u16,
}

impl<M: Memory> StateTable<M> {
    /// The state table at the start of `memory`, which holds a region laid out as `layout` says.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if `memory` is smaller than the entries of all peers; it names the last
    /// entry.
    pub fn new(memory: M, layout: &Layout) -> Result<Self, OutOfBounds> {
        // A layout has 2 peers or more.
        let last = entry_offset(layout.max_peers() - 1);
        if memory.size() < last + ENTRY_SIZE {
            return Err(OutOfBounds { offset: last });
        }
        Ok(Self {
            memory,
            peers: layout.max_peers(),
        })
    }

    /// Number of entries.
    pub fn peers(&self) -> u16 {
        self.peers
    }

    /// What the table says of `peer` now; [`None`] if the link has no such peer.
    ///
    /// One load, ordered before all later accesses: what the peer wrote to the region before it
    /// published this state is visible afterwards.
    pub fn get(&self, peer: u16) -> Option<u32> {
        if peer >= self.peers {
            return None;
        }
        self.memory
            .load(entry_offset(peer), LoadOrder::Acquire)
            .ok()
    }
}
