// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is constant about the devices under test.

use crate::op::{Mode, Slot};

/// A section: offset and size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; 0 if it does not exist.
    pub size: u64,
}

impl Span {
    /// The first byte behind it.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset + self.size
    }

    /// Whether `begin..end` lies in it.
    #[must_use]
    pub fn holds(self, begin: u64, end: u64) -> bool {
        self.offset <= begin && begin < end && end <= self.end()
    }
}

/// A link of which this guest has two peers, `/dev/ivshmem0` with ID 0 and `/dev/ivshmem1` with ID 1,
/// alike in everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of a page.
    pub page: u64,
    /// Peers that the link has room for.
    pub peers: u32,
    /// Vectors that doorbells can be rung on.
    pub vectors: u32,
    /// Vectors that interrupt.
    pub vectors_enabled: u32,
    /// Whether the driver polls.
    pub polling: bool,
    /// All of the region.
    pub region: u64,
    /// The read/write section.
    pub rw: Span,
    /// The first peer's output section; the others follow it.
    pub output: Span,
    /// What *info* says of each device, byte by byte.
    pub info: [Vec<u8>; 2],
}

impl Facts {
    /// Peer ID of the device that a slot is for.
    pub(crate) fn own_id(slot: Slot) -> u32 {
        slot.device()
    }

    /// The output section of `peer`.
    pub(crate) fn output_of(&self, peer: u32) -> Span {
        Span {
            offset: self.output.offset + u64::from(peer) * self.output.size,
            size: self.output.size,
        }
    }

    /// Where the first byte of a transfer may be written to through `slot`.
    pub(crate) fn is_writable(&self, slot: Slot, offset: u64) -> bool {
        let output = self.output_of(Self::own_id(slot));
        [self.rw, output]
            .iter()
            .any(|span| span.holds(offset, offset.saturating_add(1)))
    }

    /// Whether a mapping of `begin..end` through `slot` may be made, if nothing else forbids it.
    pub(crate) fn is_mappable(&self, begin: u64, end: u64) -> bool {
        begin < end && end <= self.region
    }

    /// Whether it may be writable.
    pub(crate) fn is_map_writable(&self, slot: Slot, begin: u64, end: u64) -> bool {
        let output = self.output_of(Self::own_id(slot));
        slot.mode() == Mode::Both && (self.rw.holds(begin, end) || output.holds(begin, end))
    }
}
