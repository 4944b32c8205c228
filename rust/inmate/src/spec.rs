// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers of "IVSHMEM Device Specification" version 2 and of PCI that the
//! inmate needs. Section names are those of the specification.

/// PCI vendor ID ("Header Registers").
pub const VENDOR_ID: u16 = 0x110a;
/// PCI device ID ("Header Registers").
pub const DEVICE_ID: u16 = 0x4106;
/// Both IDs, as the first dword of the configuration header has them.
pub const IDS: u32 = ((DEVICE_ID as u32) << 16) | VENDOR_ID as u32;
/// Base class FFh, with the 16-bit protocol type below it ("Header Registers").
pub const CLASS_BASE: u32 = 0xff_0000;

/// Offsets of the 32-bit registers in BAR 0 ("Register Region").
pub mod register {
    /// Own peer ID, read-only.
    pub const ID: u64 = 0x00;
    /// Number of peers that the link can have, read-only.
    pub const MAX_PEERS: u64 = 0x04;
    /// Bit 0 enables interrupts from doorbells and state changes.
    pub const INT_CTRL: u64 = 0x08;
    /// Write-only: vector in bits 0-15, target peer in bits 16-31.
    pub const DOORBELL: u64 = 0x0c;
    /// Own state, copied into the state table by the device.
    pub const STATE: u64 = 0x10;
    /// Size of the part of BAR 0 that the inmate maps, in bytes.
    pub const PAGE: u64 = 0x1000;
}

/// Smallest number of peers of a link ("Register Region", Maximum Peers).
pub const MIN_PEERS: u32 = 2;
/// Largest number of peers of a link.
pub const MAX_PEERS: u32 = 65536;

/// Offsets in the vendor specific capability.
pub mod vendor {
    /// Length of the capability in bytes, 8 bits.
    pub const LENGTH: u8 = 0x02;
    /// Privileged control, 8 bits: bit 0 is one-shot interrupt mode.
    pub const PRIVILEGED_CONTROL: u8 = 0x03;
    /// State table size in bytes, 32 bits.
    pub const STATE_TABLE_SIZE: u8 = 0x04;
    /// R/W section size in bytes, 64 bits.
    pub const RW_SECTION_SIZE: u8 = 0x08;
    /// Size of one output section in bytes, 64 bits.
    pub const OUTPUT_SECTION_SIZE: u8 = 0x10;
    /// Address of the shared memory, 64 bits; only if the length says so.
    pub const BASE_ADDRESS: u8 = 0x18;
    /// Length without base address.
    pub const LENGTH_SHORT: u8 = 0x18;
    /// Length with base address.
    pub const LENGTH_LONG: u8 = 0x20;
}

/// The unit of all section sizes and of the shared memory's address, in bytes
/// ("Shared Memory Region Layout": a mappable page).
pub const PAGE_SIZE: u64 = 0x1000;

/// Registers of the PCI configuration header.
pub mod header {
    /// Vendor ID in bits 0-15, device ID in bits 16-31.
    pub const IDS: u8 = 0x00;
    /// Command register, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status register, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Revision in bits 0-7, class code in bits 8-31.
    pub const CLASS: u8 = 0x08;
    /// Header type, 8 bits; bit 7 says that there are more functions.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// First base address register.
    pub const BAR0: u8 = 0x10;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u8 = 0x34;
    /// IRQ that the firmware has routed the pin to, 8 bits.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// INTx pin, 1 to 4, or 0 for none, 8 bits. The text of the specification
    /// has it at 3Eh; PCI and Jailhouse have it here.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Bits of the command register.
pub mod command {
    /// The device answers to its memory BARs.
    pub const MEMORY: u16 = 1 << 1;
    /// The device may send MSI-X messages. The text of the specification calls
    /// it bit 3; PCI and Jailhouse have it at bit 2.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The device must not use its INTx line.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status register: there is a list of capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Capability ID: vendor specific.
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// Capability ID: MSI-X.
pub const CAPABILITY_MSIX: u8 = 0x11;

/// The MSI-X capability and its table.
pub mod msix {
    /// Message control, 16 bits: number of vectors - 1 in bits 0-10.
    pub const CONTROL: u8 = 0x02;
    /// Message control: MSI-X is on.
    pub const ENABLE: u16 = 1 << 15;
    /// Message control: all vectors are masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Number of the BAR in bits 0-2, offset of the table in the rest.
    pub const TABLE: u8 = 0x04;
    /// Length of the capability in bytes.
    pub const LENGTH: u8 = 12;
    /// Size of a table entry in bytes.
    pub const ENTRY_SIZE: u64 = 16;
    /// In an entry: message address, bits 0-31.
    pub const ADDRESS_LOW: u64 = 0;
    /// In an entry: message address, bits 32-63.
    pub const ADDRESS_HIGH: u64 = 4;
    /// In an entry: message data.
    pub const DATA: u64 = 8;
    /// In an entry: vector control, bit 0 masks the vector.
    pub const VECTOR_CONTROL: u64 = 12;
}
