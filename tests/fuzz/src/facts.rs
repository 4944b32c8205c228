// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is constant about the devices under test.

use crate::op::{Mode, Slot, THIRD};

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

/// Who is at the other ends of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// There are no channels.
    None,
    /// Besides the peers in this guest, perhaps one that keeps to the rules.
    Honest,
    /// Besides them one that breaks the rules.
    Hostile,
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
    /// Which channels there are.
    pub channels: Channels,
    /// The device whose channels this process has, mostly.
    pub home: u32,
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

    /// Whether there are channels.
    pub(crate) fn has_channels(&self) -> bool {
        self.channels != Channels::None
    }

    /// Whether the peer at the other end of `channel` may break the protocol.
    pub(crate) fn is_peer_hostile(&self, channel: Slot) -> bool {
        self.channels == Channels::Hostile && channel.peer() == THIRD
    }

    /// The largest message that a channel carries: each other peer has an equal share of the section, in lines of 64
    /// bytes, behind a header and a block for each peer of as many.
    pub(crate) fn largest_message(&self) -> u64 {
        let peers = u64::from(self.peers);
        let rings = self.output.size.saturating_sub(64 * (1 + peers));
        (rings / (peers - 1) / 64 * 64).saturating_sub(8)
    }

    /// Whether `begin..end` of the region has a part of the own output section.
    pub(crate) fn is_in_output(&self, slot: Slot, begin: u64, end: u64) -> bool {
        let output = self.output_of(Self::own_id(slot));
        begin < output.end() && end > output.offset
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

#[cfg(test)]
impl Facts {
    /// Those of a link for tests.
    pub(crate) fn sample(channels: Channels) -> Self {
        Self {
            page: 4096,
            peers: 3,
            vectors: 4,
            vectors_enabled: 4,
            polling: false,
            region: 0x10000,
            rw: Span {
                offset: 0x1000,
                size: 0x9000,
            },
            output: Span {
                offset: 0xa000,
                size: 0x2000,
            },
            info: [vec![0; 136], vec![0; 136]],
            channels,
            home: 0,
        }
    }
}
