// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How the shared memory region is divided, and who may write where (specification: "Shared
//! Memory Region Layout").
//!
//! ```text
//! 0                 state table      nobody writes: the hypervisor does
//! + state table     R/W section      everybody writes; may be missing
//! + R/W section     output section   of peer 0: only peer 0 writes
//! + output section  ...              one per peer; may be missing
//! ```
//!
//! A [`Layout`] exists only for numbers that have passed every check, so its users need none. On
//! Jailhouse a store where the layout forbids it stops the cell that does it: [`Layout::write`]
//! and [`Layout::map`] decide that here, once.

use super::capability::VendorCapability;
use super::registers;
use super::state_table;
use core::fmt;
use core::ops::Range;

/// Every section's size is divisible by this: the smallest page of any architecture, in bytes.
pub const SECTION_ALIGN: u64 = 0x1000;

/// Fewest peers of a link.
pub const MAX_PEERS_MIN: u32 = 2;

/// Most peers of a link that we support. The specification allows 65536 (Jailhouse: 12); the limit
/// bounds the work of one interrupt, which looks at every peer's state.
pub const MAX_PEERS_LIMIT: u32 = 4096;

/// Largest region that we support, in bytes: offsets have to fit a file position.
pub const REGION_SIZE_MAX: u64 = i64::MAX as u64;

/// The sizes of a link, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Own peer ID, from the register.
    pub id: u32,
    /// Number of peers, from the register.
    pub max_peers: u32,
    /// Size of the state table in bytes.
    pub state_table_size: u32,
    /// Size of the read/write section in bytes, or 0.
    pub rw_size: u64,
    /// Size of each output section in bytes, or 0.
    pub output_size: u64,
}

impl Geometry {
    /// The sizes from a device's capability, the numbers from its registers.
    #[must_use]
    pub const fn new(id: u32, max_peers: u32, capability: &VendorCapability) -> Self {
        Self {
            id,
            max_peers,
            state_table_size: capability.state_table_size,
            rw_size: capability.rw_size,
            output_size: capability.output_size,
        }
    }
}

/// Which number of a device makes no valid region. Its `Display` names field and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The registers read all-ones: no device answers.
    NotThere,
    /// Fewer than [`MAX_PEERS_MIN`] or more than [`MAX_PEERS_LIMIT`] peers.
    MaxPeers(u32),
    /// The own ID is not below the number of peers.
    Id {
        /// The ID.
        id: u32,
        /// The number of peers.
        max_peers: u32,
    },
    /// The state table has no room for all peers.
    StateTableSmall {
        /// Its size in bytes.
        size: u32,
        /// The number of peers.
        max_peers: u32,
    },
    /// A size or address is not divisible by [`SECTION_ALIGN`].
    Misaligned {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The sections together are larger than [`REGION_SIZE_MAX`].
    TooLarge {
        /// Size of the read/write section.
        rw_size: u64,
        /// Size of each output section.
        output_size: u64,
    },
    /// The region reaches beyond the BAR that holds it.
    BeyondBar {
        /// Size of the region in bytes.
        region: u64,
        /// Size of the BAR in bytes.
        bar: u64,
    },
    /// The region has no place: no BAR, and no address in the capability.
    NoAddress,
    /// The region reaches beyond the end of the address space.
    AddressOverflow {
        /// Its address.
        address: u64,
        /// Its size.
        region: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotThere => write!(f, "registers read all-ones, the device does not answer"),
            Self::MaxPeers(n) => write!(
                f,
                "maximum peers {n} is not in {MAX_PEERS_MIN}..={MAX_PEERS_LIMIT}"
            ),
            Self::Id { id, max_peers } => {
                write!(f, "peer ID {id} is not below maximum peers {max_peers}")
            }
            Self::StateTableSmall { size, max_peers } => write!(
                f,
                "state table size {size:#x} has no room for {max_peers} peers"
            ),
            Self::Misaligned { field, value } => write!(
                f,
                "{field} {value:#x} is not divisible by {SECTION_ALIGN:#x}"
            ),
            Self::TooLarge {
                rw_size,
                output_size,
            } => write!(
                f,
                "R/W section size {rw_size:#x} and output section size {output_size:#x} make \
                 too large a region"
            ),
            Self::BeyondBar { region, bar } => write!(
                f,
                "region size {region:#x} reaches beyond BAR 2 of size {bar:#x}"
            ),
            Self::NoAddress => write!(
                f,
                "base address is missing: no BAR 2, and none in the vendor capability"
            ),
            Self::AddressOverflow { address, region } => write!(
                f,
                "base address {address:#x} and region size {region:#x} reach beyond the address \
                 space"
            ),
        }
    }
}

impl core::error::Error for LayoutError {}

/// A part of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Offset from the start of the region, in bytes.
    pub offset: u64,
    /// Size in bytes, or 0 if the link has no such section.
    pub size: u64,
}

impl Section {
    /// Offset of the first byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        // Never saturates in a section of a `Layout`: those end at `REGION_SIZE_MAX` at the latest.
        self.offset.saturating_add(self.size)
    }

    /// Whether the byte at `offset` is in it.
    #[must_use]
    pub const fn contains(&self, offset: u64) -> bool {
        offset >= self.offset && offset < self.end()
    }

    /// Whether a kernel with pages of `page_size` bytes (a power of two) can map it alone, in a
    /// region that begins on a page ([`Place::is_mappable`]).
    #[must_use]
    pub const fn is_mappable(&self, page_size: u64) -> bool {
        self.size != 0 && on_page(self.offset, page_size) && on_page(self.size, page_size)
    }
}

/// Why a write or a mapping is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Only the hypervisor or another peer writes there.
    ReadOnly,
    /// It begins at or beyond the end of the region, or a mapping reaches beyond it.
    Beyond,
    /// A mapping does not begin and end on a page of this kernel, or touches a section that does
    /// not.
    NotMappable,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "this peer may not write there",
            Self::Beyond => "beyond the end of the shared memory region",
            Self::NotMappable => "not on page boundaries of this kernel",
        })
    }
}

impl core::error::Error for Refused {}

/// Where the region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the start of BAR 2.
    Bar,
    /// At a guest-physical address.
    Address(u64),
}

impl Place {
    /// Where the region of `layout` is, given the size of BAR 2 (0 if there is none) and the
    /// capability's address. The BAR counts if there are both. The end of a region at an address
    /// is an address too: it fits 64 bits.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if it has no place, does not fit there, or is not aligned.
    pub const fn find(
        layout: &Layout,
        bar_size: u64,
        base_address: Option<u64>,
    ) -> Result<Self, LayoutError> {
        let region = layout.region_size();
        if bar_size != 0 {
            if region > bar_size {
                return Err(LayoutError::BeyondBar {
                    region,
                    bar: bar_size,
                });
            }
            return Ok(Self::Bar);
        }
        let address = match base_address {
            // A region at 0 would lie over the interrupt vectors or the start of RAM: firmware
            // or hypervisor have not filled the field.
            None | Some(0) => return Err(LayoutError::NoAddress),
            Some(address) => address,
        };
        if address % SECTION_ALIGN != 0 {
            return Err(LayoutError::Misaligned {
                field: "base address",
                value: address,
            });
        }
        if address.checked_add(region).is_none() {
            return Err(LayoutError::AddressOverflow { address, region });
        }
        Ok(Self::Address(address))
    }

    /// Whether the region begins on a page of a kernel with pages of `page_size` bytes (a power of
    /// two). If not, nothing of it can be mapped, whatever [`Layout::map`] says: that knows only
    /// offsets. A BAR is aligned to its own size, which is no less than any section in it.
    #[must_use]
    pub const fn is_mappable(self, page_size: u64) -> bool {
        match self {
            Self::Bar => true,
            Self::Address(address) => on_page(address, page_size),
        }
    }
}

/// A region as one peer sees it. Every number in it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    id: u16,
    max_peers: u16,
    state_table_size: u64,
    rw_size: u64,
    output_size: u64,
}

impl Layout {
    /// Checks the numbers of a device.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] naming the first that is wrong.
    pub const fn new(geometry: &Geometry) -> Result<Self, LayoutError> {
        let &Geometry {
            id,
            max_peers,
            state_table_size,
            rw_size,
            output_size,
        } = geometry;

        if id == registers::ALL_ONES && max_peers == registers::ALL_ONES {
            return Err(LayoutError::NotThere);
        }
        if max_peers < MAX_PEERS_MIN || max_peers > MAX_PEERS_LIMIT {
            return Err(LayoutError::MaxPeers(max_peers));
        }
        if id >= max_peers {
            return Err(LayoutError::Id { id, max_peers });
        }
        if (state_table_size as u64) < max_peers as u64 * state_table::ENTRY_SIZE as u64 {
            return Err(LayoutError::StateTableSmall {
                size: state_table_size,
                max_peers,
            });
        }
        if let Err(why) = aligned("state table size", state_table_size as u64) {
            return Err(why);
        }
        if let Err(why) = aligned("R/W section size", rw_size) {
            return Err(why);
        }
        if let Err(why) = aligned("output section size", output_size) {
            return Err(why);
        }

        let too_large = LayoutError::TooLarge {
            rw_size,
            output_size,
        };
        let Some(outputs) = output_size.checked_mul(max_peers as u64) else {
            return Err(too_large);
        };
        let Some(shared) = rw_size.checked_add(state_table_size as u64) else {
            return Err(too_large);
        };
        match shared.checked_add(outputs) {
            Some(size) if size <= REGION_SIZE_MAX => {}
            _ => return Err(too_large),
        }

        Ok(Self {
            // Neither is above `MAX_PEERS_LIMIT`.
            id: id as u16,
            max_peers: max_peers as u16,
            state_table_size: state_table_size as u64,
            rw_size,
            output_size,
        })
    }

    /// Own peer ID.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Number of peers that the link has room for, at most [`MAX_PEERS_LIMIT`].
    #[must_use]
    pub const fn max_peers(&self) -> u16 {
        self.max_peers
    }

    /// `peer` as an ID of this link; [`None`] if there is no such peer.
    #[must_use]
    pub const fn peer(&self, peer: u32) -> Option<u16> {
        if peer < self.max_peers as u32 {
            Some(peer as u16)
        } else {
            None
        }
    }

    /// Size of the whole region in bytes, at most [`REGION_SIZE_MAX`].
    #[must_use]
    pub const fn region_size(&self) -> u64 {
        self.outputs().end()
    }

    /// The state table.
    #[must_use]
    pub const fn state_table(&self) -> Section {
        Section {
            offset: 0,
            size: self.state_table_size,
        }
    }

    /// The read/write section.
    #[must_use]
    pub const fn rw(&self) -> Section {
        Section {
            offset: self.state_table_size,
            size: self.rw_size,
        }
    }

    /// The output sections of all peers together.
    #[must_use]
    pub const fn outputs(&self) -> Section {
        Section {
            offset: self.state_table_size + self.rw_size,
            size: self.output_size * self.max_peers as u64,
        }
    }

    /// `peer`'s output section; [`None`] if there is no such peer.
    #[must_use]
    pub const fn output_of(&self, peer: u16) -> Option<Section> {
        if peer >= self.max_peers {
            return None;
        }
        Some(Section {
            offset: self.outputs().offset + peer as u64 * self.output_size,
            size: self.output_size,
        })
    }

    /// The own output section.
    #[must_use]
    pub const fn output(&self) -> Section {
        Section {
            offset: self.outputs().offset + self.id as u64 * self.output_size,
            size: self.output_size,
        }
    }

    /// How many of `len` bytes can be read at `offset`: 0 at and beyond the end.
    #[must_use]
    pub const fn read(&self, offset: u64, len: u64) -> u64 {
        min(len, self.region_size().saturating_sub(offset))
    }

    /// How many of `len` bytes this peer may write at `offset`, at least 1 unless `len` is 0: up
    /// to where it must not write any more.
    ///
    /// # Errors
    ///
    /// [`Refused::ReadOnly`] or [`Refused::Beyond`] if it may not write the first of them.
    pub const fn write(&self, offset: u64, len: u64) -> Result<u64, Refused> {
        let (rw, output) = (self.rw(), self.output());
        let end = if rw.contains(offset) {
            // The own output section follows the R/W section without a gap for peer 0.
            if output.size != 0 && output.offset == rw.end() {
                output.end()
            } else {
                rw.end()
            }
        } else if output.contains(offset) {
            output.end()
        } else if offset < self.region_size() {
            return Err(Refused::ReadOnly);
        } else {
            return Err(Refused::Beyond);
        };
        Ok(min(len, end - offset))
    }

    /// Whether `range` can be mapped, for writing too if `writable`, by a kernel with pages of
    /// `page_size` bytes (a power of two), in a region that begins on a page
    /// ([`Place::is_mappable`]).
    ///
    /// # Errors
    ///
    /// [`Refused::Beyond`] if the range is empty or not within the region, else
    /// [`Refused::NotMappable`] if it does not begin and end on a page, or a page of it would show
    /// a piece of a section that is not mappable, else [`Refused::ReadOnly`] if it is to be
    /// writable and is not within one section that this peer may write.
    pub fn map(&self, range: Range<u64>, writable: bool, page_size: u64) -> Result<(), Refused> {
        if range.end > self.region_size() || range.start >= range.end {
            return Err(Refused::Beyond);
        }
        if !on_page(range.start, page_size) || !on_page(range.end, page_size) {
            return Err(Refused::NotMappable);
        }
        let touches = |s: &Section| s.size != 0 && s.offset < range.end && range.start < s.end();
        for section in [self.state_table(), self.rw()] {
            if touches(&section) && !section.is_mappable(page_size) {
                return Err(Refused::NotMappable);
            }
        }
        // They are of equal size and follow each other: all are mappable if one of them is.
        let outputs = self.outputs();
        if touches(&outputs) && !self.output().is_mappable(page_size) {
            return Err(Refused::NotMappable);
        }
        let within = |s: &Section| range.start >= s.offset && range.end <= s.end();
        if writable && !within(&self.rw()) && !within(&self.output()) {
            return Err(Refused::ReadOnly);
        }
        Ok(())
    }
}

const fn aligned(field: &'static str, value: u64) -> Result<(), LayoutError> {
    if value % SECTION_ALIGN == 0 {
        Ok(())
    } else {
        Err(LayoutError::Misaligned { field, value })
    }
}

/// Whether `value` is divisible by `page_size`, a power of two. For 0, which is none, only 0 is.
const fn on_page(value: u64, page_size: u64) -> bool {
    value & page_size.wrapping_sub(1) == 0
}

const fn min(a: u64, b: u64) -> u64 {
    if a < b {
        a
    } else {
        b
    }
}
