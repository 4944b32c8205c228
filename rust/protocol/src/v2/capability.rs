// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The vendor capability (specification: "Vendor Specific Capability"): sizes of the sections,
//! perhaps the address of the region, and the switch for one-shot interrupts.

use super::config;
use super::config::ConfigSpace;
use super::config::FindError;
use core::fmt;

/// Offset of the length byte from the start of the capability.
pub const LENGTH: u8 = 0x02;

/// Offset of the privileged control byte.
pub const PRIVILEGED_CONTROL: u8 = 0x03;

/// Offset of the state table's size: 32 bits, in bytes.
pub const STATE_TABLE_SIZE: u8 = 0x04;

/// Offset of the read/write section's size: 64 bits, in bytes, may be 0.
pub const RW_SIZE: u8 = 0x08;

/// Offset of the size of one output section: 64 bits, in bytes, may be 0.
pub const OUTPUT_SIZE: u8 = 0x10;

/// Offset of the region's guest-physical address: 64 bits, only in capabilities of
/// [`LENGTH_WITH_ADDRESS`] or more.
pub const BASE_ADDRESS: u8 = 0x18;

/// Length of a capability without address: the region is in BAR 2.
pub const LENGTH_MIN: u8 = 0x18;

/// Length of a capability with address.
pub const LENGTH_WITH_ADDRESS: u8 = 0x20;

/// Bit in the privileged control byte: the device clears its interrupt enable with each
/// interrupt. 0 after reset; a driver that does not want it has to clear it, as a previous
/// user of the device may have set it.
pub const CONTROL_ONE_SHOT: u8 = 1 << 0;

/// What the capability says, as read from the device. Only its form has been checked; whether the
/// numbers make a region is for [`Layout`](super::layout::Layout) to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorCapability {
    /// Where it is in the configuration space.
    pub offset: u8,
    /// Size of the state table in bytes.
    pub state_table_size: u32,
    /// Size of the read/write section in bytes, or 0.
    pub rw_size: u64,
    /// Size of each peer's output section in bytes, or 0.
    pub output_size: u64,
    /// Guest-physical address of the region, if the capability is long enough to have one.
    pub base_address: Option<u64>,
}

/// Why a device has no usable vendor capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapabilityError {
    /// There is none.
    NotFound(FindError),
    /// It is too short to hold the sizes.
    Short {
        /// Its length byte.
        length: u8,
    },
    /// It reaches beyond the configuration space.
    Beyond {
        /// Where it begins.
        offset: u8,
        /// Its length byte.
        length: u8,
    },
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFound(why) => write!(f, "vendor capability: {why}"),
            Self::Short { length } => write!(
                f,
                "vendor capability: length {length:#04x} is less than {LENGTH_MIN:#04x}"
            ),
            Self::Beyond { offset, length } => write!(
                f,
                "vendor capability: offset {offset:#04x} and length {length:#04x} reach beyond \
                 the configuration space"
            ),
        }
    }
}

impl core::error::Error for CapabilityError {}

impl From<FindError> for CapabilityError {
    fn from(why: FindError) -> Self {
        Self::NotFound(why)
    }
}

impl VendorCapability {
    /// Finds and reads the capability. Each field is read once.
    ///
    /// # Errors
    ///
    /// [`CapabilityError`] if it is missing, too short for the sizes, or reaches beyond the
    /// configuration space.
    pub fn read<C: ConfigSpace + ?Sized>(config: &C) -> Result<Self, CapabilityError> {
        let offset = config::find_capability(config, config::CAPABILITY_VENDOR)?;
        let length = (config.read(offset) >> 16) as u8;
        if length < LENGTH_MIN {
            return Err(CapabilityError::Short { length });
        }
        if u16::from(offset) + u16::from(length) > 0x100 {
            return Err(CapabilityError::Beyond { offset, length });
        }

        // Sums of `offset` and a field stay below 0x100: what `length` spans ends there at the latest.
        let u64_at = |field: u8| {
            let low = u64::from(config.read(offset + field));
            low | (u64::from(config.read(offset + field + 4)) << 32)
        };
        Ok(Self {
            offset,
            state_table_size: config.read(offset + STATE_TABLE_SIZE),
            rw_size: u64_at(RW_SIZE),
            output_size: u64_at(OUTPUT_SIZE),
            base_address: (length >= LENGTH_WITH_ADDRESS).then(|| u64_at(BASE_ADDRESS)),
        })
    }
}
