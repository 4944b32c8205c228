// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a link is made of: the numbers from the command line, checked, and what follows from them
//! (BARs, place of the MSI-X table, which parts of the memory a client may map).
//!
//! A [`LinkSpec`] exists only for numbers that make a device; it never changes afterwards.

use crate::fault::Fault;
use crate::fault::FaultSpec;
use clap::ValueEnum;
use ivshmem_protocol::config::Protocol;
use ivshmem_protocol::layout::Geometry;
use ivshmem_protocol::layout::Layout;
use ivshmem_protocol::layout::LayoutError;
use ivshmem_protocol::layout::Section;
use ivshmem_protocol::registers;
use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;
use thiserror::Error;

/// Most vectors of a device: what an MSI-X capability can say.
pub const VECTORS_MAX: u16 = 2048;

/// Offset of the pending bits in BAR 1, as on Jailhouse, if the table leaves room.
const PBA_OFFSET_MIN: u32 = 0x100;

const MSIX_ENTRY_SIZE: u32 = 16;

/// Where a guest finds the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// At the address in the vendor capability, as on Jailhouse; BAR 2 does not exist
    Jailhouse,
    /// In BAR 2, 64-bit and prefetchable
    Bar2,
}

/// What happens when a guest stores where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Only what a peer may write is mapped; the rest traps: stores are dropped and counted, loads
    /// cost a round trip
    Trap,
    /// All is mapped, nothing traps; damage is found by canaries
    Mapped,
}

/// Why numbers make no link.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// The sections do not make a region.
    #[error("{0}: change the sizes or the number of peers")]
    Layout(LayoutError),
    /// More vectors than MSI-X has.
    #[error("{0} vectors are more than MSI-X has: use at most {VECTORS_MAX}, or 0 for INTx")]
    Vectors(u16),
    /// The region does not fit this machine's address space.
    #[error("a region of {0:#x} bytes is too large for this machine: use smaller sections")]
    TooLarge(u64),
    /// A fault is for a peer that does not exist.
    #[error(
        "fault {fault} is for peer {peer}, but peer IDs end at {last}: name a peer of the link"
    )]
    FaultPeer {
        /// The fault.
        fault: Fault,
        /// The peer it is for.
        peer: u16,
        /// The last peer of the link.
        last: u16,
    },
    /// A fault has no meaning in the chosen shape.
    #[error("fault {fault} needs --shape {needed}: choose that shape or another fault")]
    FaultShape {
        /// The fault.
        fault: Fault,
        /// The shape that has what the fault changes.
        needed: &'static str,
    },
}

/// Numbers of a link, not yet checked.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Number of peers: 2..=4096.
    pub max_peers: u16,
    /// Size of the state table in bytes.
    pub state_size: u32,
    /// Size of the read/write section in bytes, or 0.
    pub rw_size: u64,
    /// Size of each output section in bytes, or 0.
    pub output_size: u64,
    /// Number of MSI-X vectors, or 0 for INTx.
    pub vectors: u16,
    /// The protocol in the class code.
    pub protocol: Protocol,
    /// Where guests find the memory.
    pub shape: Shape,
    /// What happens to forbidden stores.
    pub protection: Protection,
    /// What is to be wrong.
    pub faults: Vec<FaultSpec>,
}

impl Default for LinkOptions {
    /// The link of Jailhouse's demonstration, with two peers and four vectors.
    fn default() -> Self {
        Self {
            max_peers: 2,
            state_size: 0x1000,
            rw_size: 0x9000,
            output_size: 0x2000,
            vectors: 4,
            protocol: Protocol::UNDEFINED,
            shape: Shape::Jailhouse,
            protection: Protection::Trap,
            faults: Vec::new(),
        }
    }
}

/// A link whose numbers have been checked.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    options: LinkOptions,
    layout: Layout,
    memory_bar_size: u64,
}

impl LinkSpec {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// [`SpecError`] naming the first that is wrong and what to do.
    pub fn new(options: LinkOptions) -> Result<Self, SpecError> {
        if options.vectors > VECTORS_MAX {
            return Err(SpecError::Vectors(options.vectors));
        }
        let layout = Self::check_layout(&options, 0)?;
        // A guard behind the region, so that a store behind its end is seen in `mapped` too; a BAR
        // has a power of two of bytes.
        let too_large = SpecError::TooLarge(layout.region_size());
        let memory_bar_size = (layout.region_size() + 0x1000)
            .checked_next_power_of_two()
            .filter(|&size| isize::try_from(size).is_ok());
        let Some(memory_bar_size) = memory_bar_size else {
            return Err(too_large);
        };
        for &FaultSpec { fault, peer } in &options.faults {
            let last = options.max_peers - 1;
            if peer > last {
                return Err(SpecError::FaultPeer { fault, peer, last });
            }
            if let Some(needed) = fault
                .needs_shape()
                .filter(|&needed| needed != options.shape)
            {
                let needed = match needed {
                    Shape::Jailhouse => "jailhouse",
                    Shape::Bar2 => "bar2",
                };
                return Err(SpecError::FaultShape { fault, needed });
            }
        }
        Ok(Self {
            options,
            layout,
            memory_bar_size,
        })
    }

    fn check_layout(options: &LinkOptions, id: u16) -> Result<Layout, SpecError> {
        Layout::new(&Geometry {
            id: id.into(),
            max_peers: options.max_peers.into(),
            state_table_size: options.state_size,
            rw_size: options.rw_size,
            output_size: options.output_size,
        })
        .map_err(SpecError::Layout)
    }

    /// The numbers.
    #[must_use]
    pub fn options(&self) -> &LinkOptions {
        &self.options
    }

    /// The region as `peer` sees it. A peer that does not exist sees it as peer 0.
    #[must_use]
    pub fn layout(&self, peer: u16) -> Layout {
        Self::check_layout(&self.options, peer).unwrap_or(self.layout)
    }

    /// All peer IDs.
    #[must_use]
    pub fn peers(&self) -> Range<u16> {
        0..self.options.max_peers
    }

    /// Number of doorbell vectors: those of MSI-X, or the one that INTx stands for.
    #[must_use]
    pub fn doorbell_vectors(&self) -> u16 {
        self.options.vectors.max(1)
    }

    /// The faults of `peer`.
    pub fn faults(&self, peer: u16) -> impl Iterator<Item = Fault> + '_ {
        let of_peer = move |spec: &&FaultSpec| spec.peer == peer;
        self.options.faults.iter().filter(of_peer).map(|s| s.fault)
    }

    /// Number of the BAR that holds the memory: 2, or for the shape of Jailhouse 4, of which a
    /// driver knows nothing (QEMU can map memory only into a BAR).
    #[must_use]
    pub fn memory_bar(&self) -> u8 {
        match self.options.shape {
            Shape::Jailhouse => 4,
            Shape::Bar2 => 2,
        }
    }

    /// Size of the BAR that holds the memory, in bytes: a power of two, at least a page more than
    /// the region.
    #[must_use]
    pub fn memory_bar_size(&self) -> u64 {
        self.memory_bar_size
    }

    /// Size of each BAR in bytes. The upper half of a 64-bit BAR has none of its own.
    #[must_use]
    pub fn bar_sizes(&self) -> [u64; 6] {
        let mut sizes = [0; 6];
        sizes[0] = registers::BAR_SIZE as u64;
        sizes[1] = self.msix_bar_size();
        sizes[usize::from(self.memory_bar())] = self.memory_bar_size;
        sizes
    }

    /// Offset of the pending bits in BAR 1: 100h, or behind a table of more than 16 vectors.
    #[must_use]
    pub fn pba_offset(&self) -> u32 {
        self.msix_table_size().max(PBA_OFFSET_MIN)
    }

    /// Size of the MSI-X table in bytes.
    #[must_use]
    pub fn msix_table_size(&self) -> u32 {
        u32::from(self.options.vectors) * MSIX_ENTRY_SIZE
    }

    /// 0 without MSI-X, else 4 KiB or, for many vectors, the next power of two.
    fn msix_bar_size(&self) -> u64 {
        if self.options.vectors == 0 {
            return 0;
        }
        let pba_size = u32::from(self.options.vectors).div_ceil(64) * 8;
        u64::from(self.pba_offset() + pba_size)
            .next_power_of_two()
            .max(0x1000)
    }

    /// The parts of the memory BAR that `peer`'s client may map; in order, not empty, not touching
    /// each other.
    #[must_use]
    pub fn mappable(&self, peer: u16) -> Vec<Section> {
        if self.options.protection == Protection::Mapped {
            return vec![Section {
                offset: 0,
                size: self.memory_bar_size,
            }];
        }
        let layout = self.layout(peer);
        let mut areas: Vec<Section> = Vec::new();
        for section in [layout.rw(), layout.output()] {
            match areas.last_mut() {
                _ if section.size == 0 => {}
                Some(last) if last.end() == section.offset => last.size += section.size,
                _ => areas.push(section),
            }
        }
        areas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut LinkOptions)) -> Result<LinkSpec, SpecError> {
        let mut options = LinkOptions::default();
        change(&mut options);
        LinkSpec::new(options)
    }

    fn areas(spec: &LinkSpec, peer: u16) -> Vec<(u64, u64)> {
        let area = |area: &Section| (area.offset, area.end());
        spec.mappable(peer).iter().map(area).collect()
    }

    #[test]
    fn sections_of_the_demo_fill_e000h_bytes_and_a_bar_of_10000h() {
        let spec = spec(|_| {}).unwrap();
        assert_eq!(spec.layout(0).region_size(), 0xe000);
        assert_eq!(spec.memory_bar_size(), 0x10000);
        assert_eq!(spec.bar_sizes(), [0x1000, 0x1000, 0, 0, 0x10000, 0]);
    }

    #[test]
    fn a_region_of_a_power_of_two_still_has_a_guard_behind_it() {
        let spec = spec(|o| (o.rw_size, o.output_size) = (0x1000, 0x1000)).unwrap();
        assert_eq!(spec.layout(0).region_size(), 0x4000);
        assert_eq!(spec.memory_bar_size(), 0x8000);
    }

    #[test]
    fn msix_bar_is_jailhouse_s_up_to_16_vectors_and_grows_then() {
        for (vectors, pba, bar) in [
            (0, 0x100, 0),
            (1, 0x100, 0x1000),
            (16, 0x100, 0x1000),
            (17, 0x110, 0x1000),
            (253, 0xfd0, 0x1000),
            (254, 0xfe0, 0x1000),
            (255, 0xff0, 0x2000),
            (2048, 0x8000, 0x10000),
        ] {
            let spec = spec(|o| o.vectors = vectors).unwrap();
            assert_eq!(spec.pba_offset(), pba, "{vectors} vectors");
            assert_eq!(spec.bar_sizes()[1], bar, "{vectors} vectors");
        }
    }

    #[test]
    fn trap_maps_only_what_the_peer_may_write() {
        let spec = spec(|o| o.max_peers = 3).unwrap();
        assert_eq!(areas(&spec, 0), [(0x1000, 0xc000)]);
        assert_eq!(areas(&spec, 1), [(0x1000, 0xa000), (0xc000, 0xe000)]);
        assert_eq!(areas(&spec, 2), [(0x1000, 0xa000), (0xe000, 0x10000)]);
    }

    #[test]
    fn trap_without_sections_maps_nothing() {
        let spec = spec(|o| (o.rw_size, o.output_size) = (0, 0)).unwrap();
        assert!(spec.mappable(0).is_empty());
    }

    #[test]
    fn mapped_maps_the_whole_bar() {
        let spec = spec(|o| o.protection = Protection::Mapped).unwrap();
        assert_eq!(areas(&spec, 1), [(0, 0x10000)]);
    }

    #[test]
    fn bad_numbers_are_refused_with_what_to_do() {
        let message = |change: fn(&mut LinkOptions)| spec(change).unwrap_err().to_string();
        assert_eq!(
            message(|o| o.rw_size = 0x9001),
            "R/W section size 0x9001 is not divisible by 0x1000: change the sizes or the number \
             of peers"
        );
        assert!(message(|o| o.state_size = 0).contains("state table size 0x0"));
        assert!(message(|o| o.max_peers = 1).contains("maximum peers 1"));
        assert!(message(|o| o.max_peers = 4097).contains("maximum peers 4097"));
        assert!(message(|o| o.vectors = 2049).contains("2049 vectors"));
        assert!(message(|o| o.rw_size = 1 << 62).contains("too large"));
        assert!(message(|o| o.output_size = u64::MAX - 0xfff).contains("too large a region"));
        let fault = |fault, peer| FaultSpec { fault, peer };
        assert!(spec(|o| o.faults.push(fault(Fault::NoCapability, 2)))
            .unwrap_err()
            .to_string()
            .contains("peer 2"));
        assert!(spec(|o| o.faults.push(fault(Fault::BeyondBar, 0)))
            .unwrap_err()
            .to_string()
            .contains("--shape bar2"));
    }
}
