// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the inmate gives up. Each text is one sentence that names the value
//! found; `main.rs` prints it behind `IVSHMEM: error: `.

use core::fmt;

use crate::pci::Address;
use crate::range::Range;

/// A failure that ends the inmate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the texts below say what each variant and field is
pub enum Error {
    NoDevice {
        class: u32,
    },
    OtherProtocol {
        address: Address,
        class: u32,
        wanted: u32,
    },
    CapabilityList {
        offset: u8,
    },
    NoVendorCapability,
    CapabilityLength {
        length: u8,
        needed: u8,
    },
    CapabilityBeyondEnd {
        id: u8,
        offset: u8,
    },
    NoInterrupt,
    NoInterruptLine,
    MsixTable {
        bar: u8,
        offset: u64,
        size: u64,
    },
    NotMemoryBar {
        bar: u8,
    },
    BarTooSmall {
        bar: u8,
        size: u64,
        needed: u64,
    },
    BarPlace {
        bar: u8,
        start: u64,
        size: u64,
    },
    NoRoomForBar {
        bar: u8,
        size: u64,
    },
    MaxPeers {
        max_peers: u32,
    },
    PeerId {
        id: u32,
        max_peers: u32,
    },
    StateTableSize {
        size: u32,
        max_peers: u32,
    },
    SectionSize {
        name: &'static str,
        size: u64,
    },
    LayoutOverflow,
    RegionTooSmall {
        size: u64,
        needed: u64,
    },
    NoSharedMemory,
    BaseAddress {
        base: u64,
    },
    OverlapsMemory {
        range: Range,
    },
    Map {
        range: Range,
    },
    NoPageTables {
        range: Range,
    },
    StartInfo {
        magic: u32,
    },
    CommandLine,
    ApicId {
        id: u32,
    },
    NoTimer,
    Period {
        period_ms: u32,
    },
    Target {
        target: u32,
        max_peers: u32,
    },
    Vector {
        vector: u32,
        vectors: u32,
    },
    OutputSection {
        needed: usize,
        size: u64,
    },
    Timeout {
        seconds: u32,
    },
    DeviceGone,
    Console,
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        Self::Console
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDevice { class } => {
                write!(f, "no PCI device 110a:4106 with class {class:06x} found")
            }
            Self::OtherProtocol { address, class, wanted } => write!(
                f,
                "device 110a:4106 at {address} has class {class:06x}, not {wanted:06x}; give its protocol with protocol=0x{:04x}",
                class & 0xffff
            ),
            Self::CapabilityList { offset } => {
                write!(f, "the list of capabilities is broken at offset {offset:02x}h")
            }
            Self::NoVendorCapability => write!(f, "the device has no vendor capability"),
            Self::CapabilityLength { length, needed } => write!(
                f,
                "the vendor capability is {length:02x}h bytes long, at least {needed:02x}h are needed"
            ),
            Self::CapabilityBeyondEnd { id, offset } => write!(
                f,
                "capability {id:02x}h at offset {offset:02x}h reaches beyond the configuration space"
            ),
            Self::NoInterrupt => {
                write!(f, "the device has neither an MSI-X capability nor an interrupt pin")
            }
            Self::NoInterruptLine => {
                write!(f, "the firmware has not routed the device's interrupt pin to any line")
            }
            Self::MsixTable { bar, offset, size } => write!(
                f,
                "the MSI-X table (BAR {bar}, offset {offset:#x}, size {size:#x}) does not lie inside a memory BAR"
            ),
            Self::NotMemoryBar { bar } => write!(f, "BAR {bar} is not a memory BAR"),
            Self::BarTooSmall { bar, size, needed } => write!(
                f,
                "BAR {bar} has {size:#x} bytes, at least {needed:#x} are needed"
            ),
            Self::BarPlace { bar, start, size } => {
                write!(f, "BAR {bar} at {start:#x}, size {size:#x} is in an impossible place")
            }
            Self::NoRoomForBar { bar, size } => {
                write!(f, "there is no room in the address space for BAR {bar}, size {size:#x}")
            }
            Self::MaxPeers { max_peers } => {
                write!(f, "maximum peers is {max_peers}, it must be 2 to 65536")
            }
            Self::PeerId { id, max_peers } => {
                write!(f, "own ID is {id}, it must be below maximum peers, {max_peers}")
            }
            Self::StateTableSize { size, max_peers } => write!(
                f,
                "the state table has {size:#x} bytes, too few for {max_peers} peers or no multiple of a page"
            ),
            Self::SectionSize { name, size } => {
                write!(f, "the {name} section has {size:#x} bytes, no multiple of a page")
            }
            Self::LayoutOverflow => write!(f, "the sizes of the sections overflow"),
            Self::RegionTooSmall { size, needed } => write!(
                f,
                "the shared memory of {size:#x} bytes is too small for its sections, {needed:#x} bytes"
            ),
            Self::NoSharedMemory => write!(
                f,
                "the device has neither BAR 2 nor a base address in its vendor capability"
            ),
            Self::BaseAddress { base } => {
                write!(f, "the shared memory's address {base:#x} is zero, misaligned or too high")
            }
            Self::OverlapsMemory { range } => write!(
                f,
                "the device's range {:#x}-{:#x} overlaps the inmate's own memory",
                range.start(),
                range.end() - 1
            ),
            Self::Map { range } => write!(
                f,
                "cannot map {:#x}-{:#x}: not addressable, or already mapped in another way",
                range.start(),
                range.end() - 1
            ),
            Self::NoPageTables { range } => write!(
                f,
                "cannot map {:#x}-{:#x}: out of page tables",
                range.start(),
                range.end() - 1
            ),
            Self::StartInfo { magic } => {
                write!(f, "not booted through PVH, the start info has magic {magic:08x}")
            }
            Self::CommandLine => {
                write!(f, "the command line is longer than 2047 bytes or not UTF-8")
            }
            Self::ApicId { id } => {
                write!(f, "local APIC ID {id} does not fit into an MSI-X message")
            }
            Self::NoTimer => write!(f, "the timer cannot be calibrated, there is no working PIT"),
            Self::Period { period_ms } => {
                write!(f, "the timer cannot run with a period of {period_ms} ms")
            }
            Self::Target { target, max_peers } => {
                write!(f, "target={target} is out of range, maximum peers is {max_peers}")
            }
            Self::Vector { vector, vectors } => {
                write!(f, "vector={vector} is out of range, the device has {vectors} vectors")
            }
            Self::OutputSection { needed, size } => write!(
                f,
                "the greeting needs {needed} bytes, the output section has {size:#x}"
            ),
            Self::Timeout { seconds } => write!(f, "not finished after timeout={seconds} seconds"),
            Self::DeviceGone => write!(f, "the device does not answer any more"),
            Self::Console => write!(f, "the console failed"),
        }
    }
}
