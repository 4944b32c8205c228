// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The PCI side of the device (specification: "Header Registers" and "Protocols").
//!
//! Only what the specification of IVSHMEM or of PCI fixes is here; what hypervisors differ in
//! (BAR sizes, number of vectors, place of the capabilities) has to be discovered.

use core::fmt;

/// PCI vendor ID.
pub const VENDOR_ID: u16 = 0x110a;

/// PCI device ID.
pub const DEVICE_ID: u16 = 0x4106;

/// Base class "unassigned"; the two lower bytes of the class code hold the protocol.
pub const BASE_CLASS: u8 = 0xff;

/// BAR of the register region.
pub const BAR_REGISTERS: u8 = 0;

/// BAR of the MSI-X table and pending bits. Never to be touched but by the PCI core.
pub const BAR_MSIX: u8 = 1;

/// BAR of the shared memory, where it is not at an address from the vendor capability.
pub const BAR_MEMORY: u8 = 2;

/// What runs on a link, from the class code (specification: "Protocols").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u16);

impl Protocol {
    /// Nothing in particular.
    pub const UNDEFINED: Self = Self(0x0000);

    /// Peer-to-peer Ethernet.
    pub const ETHERNET: Self = Self(0x0001);

    /// First of the user-defined protocols.
    pub const USER_FIRST: Self = Self(0x4000);

    /// Last of the user-defined protocols.
    pub const USER_LAST: Self = Self(0x7fff);

    /// Whether a program may do with the link what it likes: undefined and user-defined
    /// protocols. The others have drivers of their own.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        self.0 == Self::UNDEFINED.0 || (self.0 >= Self::USER_FIRST.0 && self.0 <= Self::USER_LAST.0)
    }

    /// The 24-bit class code of a device with this protocol.
    #[must_use]
    pub const fn class_code(self) -> u32 {
        ((BASE_CLASS as u32) << 16) | self.0 as u32
    }

    /// The protocol in a 24-bit class code; [`None`] if the base class is not [`BASE_CLASS`].
    #[must_use]
    pub const fn from_class_code(class: u32) -> Option<Self> {
        if class >> 16 == BASE_CLASS as u32 {
            Some(Self(class as u16))
        } else {
            None
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// Offset of the command register.
pub const COMMAND: u8 = 0x04;

/// Command register: the device answers accesses to its memory BARs.
pub const COMMAND_MEMORY: u16 = 1 << 1;

/// Command register: with MSI-X the device interrupts only while this is set.
pub const COMMAND_MASTER: u16 = 1 << 2;

/// Command register: the device does not use its INTx line.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Offset of the status register.
pub const STATUS: u8 = 0x06;

/// Status register: the device has a list of capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Offset of the pointer to the first capability.
pub const CAPABILITY_POINTER: u8 = 0x34;

/// ID of a vendor-specific capability.
pub const CAPABILITY_VENDOR: u8 = 0x09;

/// ID of the MSI-X capability.
pub const CAPABILITY_MSIX: u8 = 0x11;

/// End of the header, and lowest place of a capability.
const HEADER_END: u8 = 0x40;

/// How many capabilities fit behind the header: a list with more has a loop in it.
const CAPABILITIES_MAX: usize = (0x100 - HEADER_END as usize) / 4;

/// Read access to the first 256 bytes of a device's configuration space.
pub trait ConfigSpace {
    /// The dword at `offset`, which is divisible by 4.
    fn read(&self, offset: u8) -> u32;
}

impl ConfigSpace for [u8; 256] {
    fn read(&self, offset: u8) -> u32 {
        let at = |i: u8| self[usize::from((offset & !3) | i)];
        u32::from_le_bytes([at(0), at(1), at(2), at(3)])
    }
}

/// The 16-bit word at `offset`, which is divisible by 2.
#[must_use]
pub fn read_u16<C: ConfigSpace + ?Sized>(config: &C, offset: u8) -> u16 {
    (config.read(offset & !3) >> (u32::from(offset & 2) * 8)) as u16
}

/// Why a device has no capability with the ID that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindError {
    /// The list has none, or there is no list.
    Missing {
        /// The ID that was looked for.
        id: u8,
    },
    /// A pointer of the list leads into the header or to a place that is not aligned.
    BadPointer {
        /// The pointer.
        pointer: u8,
    },
    /// The list does not end.
    Endless,
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing { id } => write!(f, "no PCI capability with ID {id:#04x}"),
            Self::BadPointer { pointer } => {
                write!(f, "PCI capability pointer {pointer:#04x} is not valid")
            }
            Self::Endless => write!(f, "the list of PCI capabilities has a loop"),
        }
    }
}

impl core::error::Error for FindError {}

/// Offset of the first capability with `id`, found by following the list.
///
/// The list is what counts: Jailhouse leaves the bytes of capabilities that it has taken
/// off the list where they were.
///
/// # Errors
///
/// [`FindError`] if the list has no such capability or is damaged. The walk is bounded.
pub fn find_capability<C: ConfigSpace + ?Sized>(config: &C, id: u8) -> Result<u8, FindError> {
    if read_u16(config, STATUS) & STATUS_CAPABILITIES == 0 {
        return Err(FindError::Missing { id });
    }
    let mut pointer = config.read(CAPABILITY_POINTER) as u8;
    // Once more than there are places, so that a list that fills them all is seen to end.
    for _ in 0..=CAPABILITIES_MAX {
        if pointer == 0 {
            return Err(FindError::Missing { id });
        }
        if pointer < HEADER_END || pointer % 4 != 0 {
            return Err(FindError::BadPointer { pointer });
        }
        let head = config.read(pointer);
        if head as u8 == id {
            return Ok(pointer);
        }
        pointer = (head >> 8) as u8;
    }
    Err(FindError::Endless)
}
