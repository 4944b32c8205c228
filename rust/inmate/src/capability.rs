// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities of the device, found by walking the list and copied once:
//! what is checked here is what is used later.

use crate::error::Error;
use crate::pci::ConfigSpace;
use crate::spec;
use crate::spec::{header, msix, vendor};

/// First offset at which a capability can lie.
const FIRST: u8 = 0x40;
/// Capabilities are 4 bytes apart at least, so no list is longer than this.
const MOST: usize = (0x100 - FIRST as usize) / 4;

/// The vendor specific capability ("Vendor Specific Capability").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorCapability {
    /// Offset in the configuration space.
    pub offset: u8,
    /// Size of the state table in bytes.
    pub state_table_size: u32,
    /// Size of the R/W section in bytes, may be 0.
    pub rw_section_size: u64,
    /// Size of each peer's output section in bytes, may be 0.
    pub output_section_size: u64,
    /// Physical address of the shared memory, if the capability is long enough
    /// to have one.
    pub base_address: Option<u64>,
}

impl VendorCapability {
    /// Finds and reads the capability. The sizes are checked by
    /// [`Layout::new`](crate::layout::Layout::new).
    ///
    /// # Errors
    /// If there is none, it is too short, or the list is broken.
    pub fn read(space: &impl ConfigSpace) -> Result<Self, Error> {
        let offset = find(space, spec::CAPABILITY_VENDOR)?.ok_or(Error::NoVendorCapability)?;
        // The length itself must be readable before it can be believed.
        check_end(spec::CAPABILITY_VENDOR, offset, vendor::LENGTH_SHORT)?;
        let length = space.read8(offset + vendor::LENGTH);
        if length < vendor::LENGTH_SHORT {
            return Err(Error::CapabilityLength {
                length,
                needed: vendor::LENGTH_SHORT,
            });
        }
        check_end(spec::CAPABILITY_VENDOR, offset, length)?;
        let base_address =
            (length >= vendor::LENGTH_LONG).then(|| space.read64(offset + vendor::BASE_ADDRESS));
        Ok(Self {
            offset,
            state_table_size: space.read32(offset + vendor::STATE_TABLE_SIZE),
            rw_section_size: space.read64(offset + vendor::RW_SECTION_SIZE),
            output_section_size: space.read64(offset + vendor::OUTPUT_SECTION_SIZE),
            base_address,
        })
    }
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixCapability {
    /// Offset in the configuration space.
    pub offset: u8,
    /// Number of vectors, 1 to 2048; each peer of the link has as many.
    pub vectors: u32,
    /// Number of the BAR that holds the table.
    pub table_bar: u8,
    /// Offset of the table in that BAR, in bytes.
    pub table_offset: u64,
}

impl MsixCapability {
    /// Finds and reads the capability; `None` if the device has no MSI-X.
    ///
    /// # Errors
    /// If the list is broken.
    pub fn read(space: &impl ConfigSpace) -> Result<Option<Self>, Error> {
        let Some(offset) = find(space, spec::CAPABILITY_MSIX)? else {
            return Ok(None);
        };
        check_end(spec::CAPABILITY_MSIX, offset, msix::LENGTH)?;
        let table = space.read32(offset + msix::TABLE);
        Ok(Some(Self {
            offset,
            vectors: u32::from(space.read16(offset + msix::CONTROL) & 0x7ff) + 1,
            table_bar: (table & 7) as u8,
            table_offset: u64::from(table & !7),
        }))
    }

    /// Size of the table in bytes.
    pub fn table_size(&self) -> u64 {
        u64::from(self.vectors) * msix::ENTRY_SIZE
    }
}

/// Walks the list to the capability with this ID.
fn find(space: &impl ConfigSpace, id: u8) -> Result<Option<u8>, Error> {
    if space.read16(header::STATUS) & spec::STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut offset = space.read8(header::CAPABILITIES) & !3;
    for _ in 0..MOST {
        if offset == 0 {
            return Ok(None);
        }
        if offset < FIRST {
            return Err(Error::CapabilityList { offset });
        }
        if space.read8(offset) == id {
            return Ok(Some(offset));
        }
        offset = space.read8(offset + 1) & !3;
    }
    Err(Error::CapabilityList { offset })
}

fn check_end(id: u8, offset: u8, length: u8) -> Result<(), Error> {
    if u16::from(offset) + u16::from(length) > 0x100 {
        return Err(Error::CapabilityBeyondEnd { id, offset });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeSpace, JAILHOUSE_ARM64, JAILHOUSE_X86};

    #[test]
    fn reads_what_jailhouse_shows() {
        let space = FakeSpace::new(&JAILHOUSE_X86);
        assert_eq!(
            VendorCapability::read(&space),
            Ok(VendorCapability {
                offset: 0x40,
                state_table_size: 0x1000,
                rw_section_size: 0x9000,
                output_section_size: 0x2000,
                base_address: Some(0x3f0f_0000),
            })
        );
        assert_eq!(
            MsixCapability::read(&space),
            Ok(Some(MsixCapability {
                offset: 0x60,
                vectors: 16,
                table_bar: 1,
                table_offset: 0
            }))
        );
    }

    #[test]
    fn follows_links_only() {
        let space = FakeSpace::new(&JAILHOUSE_ARM64);
        assert_eq!(
            VendorCapability::read(&space).unwrap().base_address,
            Some(0x7faf_0000)
        );
        assert_eq!(MsixCapability::read(&space), Ok(None));
    }

    #[test]
    fn the_short_capability_has_no_address() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.bytes[0x42] = 0x18;
        assert_eq!(VendorCapability::read(&space).unwrap().base_address, None);
        space.bytes[0x42] = 0x17;
        assert_eq!(
            VendorCapability::read(&space),
            Err(Error::CapabilityLength {
                length: 0x17,
                needed: 0x18
            })
        );
    }

    #[test]
    fn refuses_broken_lists() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.bytes[0x34] = 0x3c;
        assert_eq!(
            VendorCapability::read(&space),
            Err(Error::CapabilityList { offset: 0x3c })
        );

        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.bytes[0x61] = 0x40;
        space.bytes[0x60] = 0x05;
        assert_eq!(
            MsixCapability::read(&space),
            Err(Error::CapabilityList { offset: 0x40 })
        );

        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.bytes[0x06] = 0;
        assert_eq!(
            VendorCapability::read(&space),
            Err(Error::NoVendorCapability)
        );
    }

    #[test]
    fn refuses_what_reaches_beyond_the_end() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.bytes[0x34] = 0xec;
        space.bytes[0xec] = 0x09;
        assert_eq!(
            VendorCapability::read(&space),
            Err(Error::CapabilityBeyondEnd {
                id: 9,
                offset: 0xec
            })
        );
        space.bytes[0x34] = 0xe4;
        space.bytes[0xe4] = 0x09;
        space.bytes[0xe6] = 0x20;
        assert_eq!(
            VendorCapability::read(&space),
            Err(Error::CapabilityBeyondEnd {
                id: 9,
                offset: 0xe4
            })
        );
        space.bytes[0x34] = 0xf8;
        space.bytes[0xf8] = 0x11;
        assert_eq!(
            MsixCapability::read(&space),
            Err(Error::CapabilityBeyondEnd {
                id: 0x11,
                offset: 0xf8
            })
        );
    }
}
