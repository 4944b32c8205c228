// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the device is: peers, vectors, sections. Constant while a file is open.

use crate::uapi;
use crate::{Error, Result};

/// A part of the shared memory region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where it begins in the region, in bytes.
    pub offset: u64,
    /// Its size in bytes; 0 if the link has no such section.
    pub size: u64,
    flags: u32,
}

impl Section {
    /// Whether this peer can read it by [`Device::read_at`](crate::Device::read_at).
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.flags & uapi::IVSHMEM_SECTION_READ != 0
    }

    /// Whether this peer may write it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags & uapi::IVSHMEM_SECTION_WRITE != 0
    }

    /// Whether it can be mapped: not if it is smaller than a page, or begins inside one.
    #[must_use]
    pub fn is_mappable(&self) -> bool {
        self.flags & uapi::IVSHMEM_SECTION_MMAP != 0
    }

    /// Offset of the first byte behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

impl From<uapi::ivshmem_section> for Section {
    fn from(raw: uapi::ivshmem_section) -> Self {
        Self {
            offset: raw.offset,
            size: raw.size,
            flags: raw.flags,
        }
    }
}

/// How the driver learns of doorbells and state changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterruptMode {
    /// Message-signalled, one interrupt for each vector.
    MsiX,
    /// One line, perhaps shared with neighbours: counts may include theirs.
    Intx,
    /// No interrupts. State changes are noticed by a timer, doorbells not at all.
    Polling,
    /// A mode that is newer than this library.
    Other(u32),
}

impl From<u32> for InterruptMode {
    fn from(mode: u32) -> Self {
        match mode {
            uapi::IVSHMEM_INTERRUPT_MSIX => Self::MsiX,
            uapi::IVSHMEM_INTERRUPT_INTX => Self::Intx,
            uapi::IVSHMEM_INTERRUPT_POLLING => Self::Polling,
            other => Self::Other(other),
        }
    }
}

/// What [`Device::info`](crate::Device::info) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Version of the interface that the driver implements; 0 until it is frozen.
    pub abi_version: u32,
    /// This peer's ID, below [`max_peers`](Self::max_peers).
    pub id: u32,
    /// How many peers the link has room for, this one included.
    pub max_peers: u32,
    /// How many vectors each peer has; doorbells take `0..vectors`.
    pub vectors: u32,
    /// How many of its own vectors this kernel could get. Doorbells on the others are lost.
    pub vectors_enabled: u32,
    /// How the driver learns of doorbells.
    pub interrupt_mode: InterruptMode,
    /// What runs on the link: 0 = undefined, 0x4000 to 0x7fff = user-defined.
    pub protocol: u32,
    /// Size of the whole region in bytes.
    pub region_size: u64,
    /// The state table: one word per peer, read-only.
    pub state_table: Section,
    /// The section that every peer may write.
    pub rw: Section,
    /// The output sections of all peers, one after the other.
    pub outputs: Section,
    /// This peer's own output section.
    pub output: Section,
}

impl Info {
    /// The output section of `peer`: only that peer writes it, all others read it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPeer`].
    pub fn output_of(&self, peer: u32) -> Result<Section> {
        if peer == self.id {
            return Ok(self.output);
        }
        if peer >= self.max_peers {
            return Err(Error::NoSuchPeer {
                peer,
                max_peers: self.max_peers,
            });
        }
        // Each is a part of `outputs`, which the driver has checked: nothing overflows.
        Ok(Section {
            offset: self.outputs.offset + u64::from(peer) * self.output.size,
            size: self.output.size,
            flags: self.output.flags & !uapi::IVSHMEM_SECTION_WRITE,
        })
    }
}

impl From<uapi::ivshmem_info> for Info {
    fn from(raw: uapi::ivshmem_info) -> Self {
        Self {
            abi_version: raw.abi_version,
            id: raw.id,
            max_peers: raw.max_peers,
            vectors: raw.vectors,
            vectors_enabled: raw.vectors_enabled,
            interrupt_mode: raw.interrupt_mode.into(),
            protocol: raw.protocol,
            region_size: raw.region_size,
            state_table: raw.state_table.into(),
            rw: raw.rw.into(),
            outputs: raw.outputs.into(),
            output: raw.output.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_of_three() -> Info {
        let section = |offset, size, flags| uapi::ivshmem_section {
            offset,
            size,
            flags,
            reserved: 0,
        };
        let readable = uapi::IVSHMEM_SECTION_READ | uapi::IVSHMEM_SECTION_MMAP;
        let writable = readable | uapi::IVSHMEM_SECTION_WRITE;
        Info::from(uapi::ivshmem_info {
            id: 1,
            max_peers: 3,
            vectors: 4,
            interrupt_mode: uapi::IVSHMEM_INTERRUPT_MSIX,
            state_table: section(0, 0x1000, readable),
            rw: section(0x1000, 0x9000, writable),
            outputs: section(0xa000, 0x6000, readable),
            output: section(0xc000, 0x2000, writable),
            region_size: 0x1_0000,
            ..Default::default()
        })
    }

    #[test]
    fn output_sections_of_all_peers() {
        let info = link_of_three();
        let offsets: Vec<_> = (0..3)
            .map(|peer| info.output_of(peer).expect("exists").offset)
            .collect();
        assert_eq!(offsets, [0xa000, 0xc000, 0xe000]);
        for peer in 0..3 {
            let section = info.output_of(peer).expect("exists");
            assert_eq!(section.is_writable(), peer == 1, "peer {peer}");
            assert!(section.is_readable() && section.is_mappable());
        }
        let error = info.output_of(3).expect_err("no such peer");
        assert_eq!(
            error.to_string(),
            "peer 3 does not exist: the link has peers 0 to 2"
        );
    }

    #[test]
    fn modes_of_later_drivers_are_kept() {
        assert_eq!(InterruptMode::from(2), InterruptMode::Intx);
        assert_eq!(InterruptMode::from(77), InterruptMode::Other(77));
    }
}
