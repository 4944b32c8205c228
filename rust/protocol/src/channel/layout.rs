// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where what stands in an output section: header, blocks, rings.

use super::position::RingSize;
use core::ops::Range;

/// Value of `magic`: the bytes `IVCH`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"IVCH");

/// Value of `version`.
pub const VERSION: u32 = 1;

/// Ports for which this version has blocks: port 0 only.
pub const PORTS: u32 = 1;

/// Value of `vector` of one who polls and is never rung.
pub const NO_VECTOR: u32 = u32::MAX;

/// Size of a block in bytes, also of the header; blocks and rings are aligned to it.
pub const BLOCK_SIZE: u32 = 64;

/// Offsets of the header's fields from the start of the section, in bytes.
pub mod header {
    /// `magic`
    pub const MAGIC: usize = 0;
    /// `version`
    pub const VERSION: usize = 4;
    /// `max_peers`
    pub const MAX_PEERS: usize = 8;
    /// `ports`
    pub const PORTS: usize = 12;
    /// The first word that is reserved; all from here to the first block are 0.
    pub const RESERVED: usize = 16;
}

/// Offsets of a block's fields from its start, in bytes.
pub mod block {
    /// `epoch`
    pub const EPOCH: usize = 0;
    /// `echo`
    pub const ECHO: usize = 4;
    /// `features`
    pub const FEATURES: usize = 8;
    /// `accepted`
    pub const ACCEPTED: usize = 12;
    /// `vector`
    pub const VECTOR: usize = 16;
    /// `ring_offset`
    pub const RING_OFFSET: usize = 20;
    /// `ring_size`
    pub const RING_SIZE: usize = 24;
    /// `fin`
    pub const FIN: usize = 28;
    /// `written`
    pub const WRITTEN: usize = 32;
    /// `consumed`
    pub const CONSUMED: usize = 36;
    /// `confirmed`
    pub const CONFIRMED: usize = 40;
    /// `data_event`
    pub const DATA_EVENT: usize = 44;
    /// `room_event`
    pub const ROOM_EVENT: usize = 48;
    /// `confirm_event`
    pub const CONFIRM_EVENT: usize = 52;
    /// `last_epoch`
    pub const LAST_EPOCH: usize = 56;
}

/// An output section, as a place in the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// Offset in the shared memory, in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: u32,
    /// Peers of the link.
    pub max_peers: u16,
}

impl Section {
    /// Offset of the block for `peer`, port 0, from the start of the section.
    const fn block_in_section(self, peer: u16) -> u32 {
        BLOCK_SIZE * (1 + peer as u32)
    }

    /// Where the rings may be, from the start of the section.
    const fn rings(self) -> Range<u32> {
        self.block_in_section(self.max_peers)..self.size
    }

    /// Offset of the block for `peer`, port 0, in the shared memory; [`None`] if the section has no room for
    /// the blocks of all peers, or the link no such peer.
    #[must_use]
    pub fn block(self, peer: u16) -> Option<usize> {
        let fits = self.rings().start <= self.size && peer < self.max_peers;
        fits.then(|| self.offset + self.block_in_section(peer) as usize)
    }

    /// The ring that a block names with `ring_offset` and `ring_size`, if it is one (rule B2).
    #[must_use]
    pub fn ring(self, offset: u32, size: u32) -> Option<Ring> {
        let end = offset.checked_add(size)?;
        let inside = offset >= self.rings().start && end <= self.rings().end;
        let size = RingSize::new(size)?;
        (inside && offset % BLOCK_SIZE == 0).then(|| Ring {
            in_section: offset,
            offset: self.offset + offset as usize,
            size,
        })
    }

    /// The ring of this section for `peer`, where all other peers than `own` get equal shares; [`None`] if the
    /// section is too small for that.
    #[must_use]
    pub fn share(self, own: u16, peer: u16) -> Option<Ring> {
        if peer == own || peer >= self.max_peers || own >= self.max_peers {
            return None;
        }
        let rings = self.rings();
        let others = u32::from(self.max_peers) - 1;
        let room = rings.end.checked_sub(rings.start)?;
        let share = (room / others / BLOCK_SIZE * BLOCK_SIZE).min((1 << 30) - BLOCK_SIZE);
        let number = u32::from(rank(own, peer));
        self.ring(rings.start + number * share, share)
    }
}

/// Which of the other peers `peer` is for `own`, from 0 on.
const fn rank(own: u16, peer: u16) -> u16 {
    if peer > own {
        peer - 1
    } else {
        peer
    }
}

/// On which of its `vectors` vectors the peer `own` had best be rung by `peer`: on one that no other peer rings, as far
/// as there are enough, and not on the first, on which changes of state come. [`None`] if it has none.
#[must_use]
pub const fn vector_for(own: u16, peer: u16, vectors: u16) -> Option<u16> {
    match vectors {
        0 => None,
        1 => Some(0),
        _ => Some(1 + rank(own, peer) % (vectors - 1)),
    }
}

/// A ring, as a place in the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    /// Field `ring_offset`: from the start of its section, in bytes.
    pub(super) in_section: u32,
    /// Offset in the shared memory, in bytes.
    pub(super) offset: usize,
    /// Its size.
    pub(super) size: RingSize,
}

impl Ring {
    /// The largest message that it can carry, in bytes.
    #[must_use]
    pub const fn largest_message(&self) -> u32 {
        self.size.largest_message()
    }
}
