// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why the inmate gives up. Each text is one sentence that names the value
//! found; `main.rs` prints it behind `IVSHMEM: error: `.

use core::fmt;

use crate::pci::Address;
use crate::range::Range;

/// A failure that ends the inmate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the values that the variant names"
)]
pub enum Error {
    /// No 110a:4106 at all.
    NoDevice { class: u32 },
    /// There is one, but its class code is not the wanted one.
    OtherProtocol {
        address: Address,
        class: u32,
        wanted: u32,
    },
    /// The list of capabilities leads into the header or in circles.
    CapabilityList { offset: u8 },
    /// The device has no vendor capability.
    NoVendorCapability,
    /// The vendor capability is too short for its fields.
    CapabilityLength { length: u8, needed: u8 },
    /// A capability does not end inside the configuration space.
    CapabilityBeyondEnd { id: u8, offset: u8 },
    /// Neither MSI-X nor an interrupt pin.
    NoInterrupt,
    /// An interrupt pin, but no line that it could be routed to.
    NoInterruptLine,
    /// The MSI-X table is not inside a memory BAR.
    MsixTable { bar: u8, offset: u64, size: u64 },
    /// A BAR that must be there is missing or for I/O ports.
    NotMemoryBar { bar: u8 },
    /// A BAR is smaller than what must be in it.
    BarTooSmall { bar: u8, size: u64, needed: u64 },
    /// The addresses of a BAR overflow, or its upper half is missing.
    BarPlace { bar: u8, start: u64, size: u64 },
    /// A BAR without address cannot be placed.
    NoRoomForBar { bar: u8, size: u64 },
    /// Maximum peers is out of range.
    MaxPeers { max_peers: u32 },
    /// The own ID is not below maximum peers.
    PeerId { id: u32, max_peers: u32 },
    /// The state table cannot have this size.
    StateTableSize { size: u32, max_peers: u32 },
    /// A section cannot have this size.
    SectionSize { name: &'static str, size: u64 },
    /// The sum of the sections' sizes overflows.
    LayoutOverflow,
    /// BAR 2 is smaller than the sections.
    RegionTooSmall { size: u64, needed: u64 },
    /// Neither BAR 2 nor an address in the vendor capability.
    NoSharedMemory,
    /// The address in the vendor capability cannot be.
    BaseAddress { base: u64 },
    /// The device claims addresses of the RAM or of the program.
    OverlapsMemory { range: Range },
    /// The processor cannot address this, or it is mapped in another way.
    Map { range: Range },
    /// The page tables that the program has are used up.
    NoPageTables { range: Range },
    /// What the boot loader left is not the start info of PVH.
    StartInfo { magic: u32 },
    /// The command line is too long or not UTF-8.
    CommandLine,
    /// The processor's local APIC is out of reach of MSI-X messages.
    ApicId { id: u32 },
    /// There is nothing to measure the local APIC's timer with.
    NoTimer,
    /// The local APIC's timer cannot make this period.
    Period { period_ms: u32 },
    /// Option `target=` is out of range for this link.
    Target { target: u32, max_peers: u32 },
    /// Option `vector=` is out of range for this link.
    Vector { vector: u32, vectors: u32 },
    /// The greeting does not fit into the output section.
    OutputSection { needed: usize, size: u64 },
    /// Option `timeout=` has come true.
    Timeout { seconds: u32 },
    /// The device has stopped answering.
    DeviceGone,
    /// The console failed.
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
