// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IVSHMEM device: brought up from whatever state it was left in, checked,
//! mapped, and offered to the demo as a [`Link`].
//!
//! The own page tables give each section the rights that the hypervisor gives:
//! a stray store to the state table or to another peer's output section ends in
//! a page fault here instead of stopping the cell on Jailhouse.

use core::fmt;
use core::sync::atomic::{fence, Ordering};

use ivshmem_inmate::bar::Bars;
use ivshmem_inmate::capability::{MsixCapability, VendorCapability};
use ivshmem_inmate::error::Error;
use ivshmem_inmate::layout::Layout;
use ivshmem_inmate::link::Link;
use ivshmem_inmate::pci;
use ivshmem_inmate::pci::{Address, ConfigSpace};
use ivshmem_inmate::range::Range;
use ivshmem_inmate::spec;
use ivshmem_inmate::spec::{command, header, msix, register, vendor};

use crate::arch::interrupt::{connect_intx, device_message, disconnect_intx, MAX_VECTORS};
use crate::arch::paging::{map, Memory};
use crate::arch::pic;
use crate::mmio::Mapping;
use crate::pci_ports::PortSpace;
use crate::placement::place_bars;

/// BAR of the registers.
const REGISTER_BAR: u8 = 0;
/// BAR of the shared memory, in the shape that has one.
const MEMORY_BAR: u8 = 2;

/// The device, ready for use.
pub(crate) struct Device {
    address: Address,
    space: PortSpace,
    registers: Mapping,
    wiring: Wiring,
    layout: Layout,
    sections: Sections,
}

/// How the device interrupts the processor.
enum Wiring {
    Msix(Msix),
    /// The pin, one vector; it is one of these lines of the 8259 controllers.
    Intx(u16),
}

/// The MSI-X capability and its mapped table.
struct Msix {
    capability: MsixCapability,
    table: Mapping,
}

/// The sections of the shared memory, mapped with their rights.
struct Sections {
    state_table: Mapping,
    rw: Option<Mapping>,
    /// Output sections of the peers below and above the own ID, and the own one.
    lower: Option<Mapping>,
    own: Option<Mapping>,
    upper: Option<Mapping>,
}

impl Device {
    /// Finds the first device with protocol type `protocol` and brings it up:
    /// state 0, interrupts routed but disabled.
    pub(crate) fn open(
        protocol: u16,
        ram: impl Iterator<Item = Range> + Clone,
    ) -> Result<Self, Error> {
        let (address, mut space) = pci::find(PortSpace::new, protocol)?;
        let bars = place_bars(&mut space, address)?;
        if let Some(range) = bars
            .ranges()
            .find(|bar| ram.clone().any(|ram| ram.overlaps(bar)))
        {
            return Err(Error::OverlapsMemory { range });
        }
        // Not before the BARs are placed: in one shape the capability's address
        // follows the placement of a BAR.
        let capability = VendorCapability::read(&space)?;
        let wiring = Wiring::find(&space, &bars)?;
        let registers = map(
            bars.range(REGISTER_BAR, register::PAGE)?
                .slice(0, register::PAGE)
                .ok_or(Error::NotMemoryBar { bar: REGISTER_BAR })?,
            Memory::Registers,
            true,
        )?;

        registers.write32(register::INT_CTRL, 0);
        space.write8(capability.offset + vendor::PRIVILEGED_CONTROL, 0); // no one-shot
        registers.write32(register::STATE, 0);

        let layout = Layout::new(
            &capability,
            registers.read32(register::ID),
            registers.read32(register::MAX_PEERS),
        )?;
        let region = shared_memory(&capability, &bars, &layout)?;
        if ram.clone().any(|ram| ram.overlaps(&region)) {
            return Err(Error::OverlapsMemory { range: region });
        }
        let sections = Sections::map(&layout, &region)?;

        let mut device = Self {
            address,
            space,
            registers,
            wiring,
            layout,
            sections,
        };
        device.connect_vectors()?;
        Ok(device)
    }

    /// Number of vectors that interrupt the program, from vector 0 on; the
    /// others stay masked.
    pub(crate) fn connected_vectors(&self) -> u32 {
        self.vectors().min(MAX_VECTORS)
    }

    /// Takes the routing of the interrupts back. State and interrupt enable are
    /// the demo's: it has left both at 0, as [`Self::open`] has.
    pub(crate) fn close(mut self) {
        match &self.wiring {
            Wiring::Msix(msix) => msix.control(&mut self.space, 0),
            Wiring::Intx(_) => disconnect_intx(),
        }
        self.space
            .write16(header::COMMAND, command::INTX_DISABLE | command::MEMORY);
    }

    fn connect_vectors(&mut self) -> Result<(), Error> {
        let connected = self.connected_vectors();
        match &self.wiring {
            Wiring::Msix(msix) => {
                msix.control(&mut self.space, msix::ENABLE | msix::FUNCTION_MASK);
                for vector in 0..connected {
                    msix.set_entry(vector, device_message(vector)?);
                }
                // Without bus master the device drops its messages.
                self.space.write16(
                    header::COMMAND,
                    command::INTX_DISABLE | command::MEMORY | command::BUS_MASTER,
                );
                msix.control(&mut self.space, msix::ENABLE);
            }
            Wiring::Intx(lines) => {
                let own_state = 4 * u64::from(self.layout.id());
                connect_intx(*lines, self.sections.state_table, own_state);
                self.space.write16(header::COMMAND, command::MEMORY);
            }
        }
        Ok(())
    }
}

impl Wiring {
    /// MSI-X if the device has it, else its pin.
    fn find(space: &PortSpace, bars: &Bars) -> Result<Self, Error> {
        if let Some(capability) = MsixCapability::read(space)? {
            return Ok(Self::Msix(Msix::map(capability, bars)?));
        }
        if space.read8(header::INTERRUPT_PIN) == 0 {
            return Err(Error::NoInterrupt);
        }
        match pic::possible_lines(space.read8(header::INTERRUPT_LINE)) {
            0 => Err(Error::NoInterruptLine),
            lines => Ok(Self::Intx(lines)),
        }
    }
}

impl Msix {
    fn map(capability: MsixCapability, bars: &Bars) -> Result<Self, Error> {
        let MsixCapability {
            table_bar: bar,
            table_offset: offset,
            ..
        } = capability;
        let size = capability.table_size();
        let place = bars
            .range(bar, 1)
            .ok()
            .and_then(|range| range.slice(offset, size));
        let place = place.ok_or(Error::MsixTable { bar, offset, size })?;
        Ok(Self {
            capability,
            table: map(place, Memory::Registers, true)?,
        })
    }

    fn control(&self, space: &mut PortSpace, value: u16) {
        space.write16(self.capability.offset + msix::CONTROL, value);
    }

    /// Points an entry to `message`, (address, data), and unmasks it.
    fn set_entry(&self, vector: u32, message: (u64, u32)) {
        let entry = u64::from(vector) * msix::ENTRY_SIZE;
        let (address, data) = message;
        self.table.write32(entry + msix::VECTOR_CONTROL, 1);
        self.table
            .write32(entry + msix::ADDRESS_LOW, address as u32);
        self.table
            .write32(entry + msix::ADDRESS_HIGH, (address >> 32) as u32);
        self.table.write32(entry + msix::DATA, data);
        self.table.write32(entry + msix::VECTOR_CONTROL, 0);
    }
}

impl Sections {
    fn map(layout: &Layout, region: &Range) -> Result<Self, Error> {
        let map_all = |place: Option<Range>, writable| {
            place
                .map(|range| map(range, Memory::Shared, writable))
                .transpose()
        };
        let id = layout.id();
        let above = layout.max_peers() - id - 1;
        Ok(Self {
            state_table: map_all(layout.state_table(region), false)?
                .ok_or(Error::NoSharedMemory)?,
            rw: map_all(layout.rw_section(region), true)?,
            lower: map_all(layout.output_sections(region, 0, id), false)?,
            own: map_all(layout.output_sections(region, id, 1), true)?,
            upper: map_all(layout.output_sections(region, id + 1, above), false)?,
        })
    }
}

impl Sections {
    /// The mapping that has the output section of `peer`, and which of it.
    fn output(&self, layout: &Layout, peer: u32) -> (Option<Mapping>, u32) {
        let id = layout.id();
        match peer {
            _ if peer < id => (self.lower, peer),
            _ if peer == id => (self.own, 0),
            _ => (self.upper, peer - id - 1),
        }
    }
}

/// Where the shared memory is: in BAR 2, else where the capability says.
fn shared_memory(
    capability: &VendorCapability,
    bars: &Bars,
    layout: &Layout,
) -> Result<Range, Error> {
    let size = layout.size();
    if bars.has(MEMORY_BAR) {
        let bar = bars.range(MEMORY_BAR, 1)?;
        return bar.slice(0, size).ok_or(Error::RegionTooSmall {
            size: bar.size(),
            needed: size,
        });
    }
    let base = capability.base_address.ok_or(Error::NoSharedMemory)?;
    if base == 0 || base % spec::PAGE_SIZE != 0 {
        return Err(Error::BaseAddress { base });
    }
    Range::new(base, size).ok_or(Error::BaseAddress { base })
}

impl Link for Device {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn present(&self) -> bool {
        // Not a register: reading one costs an exit to the hypervisor too, and
        // those are counted.
        self.space.read32(header::IDS) == spec::IDS
    }

    fn vectors(&self) -> u32 {
        match &self.wiring {
            Wiring::Msix(msix) => msix.capability.vectors,
            Wiring::Intx(_) => 1,
        }
    }

    fn enable_interrupts(&mut self, enable: bool) {
        self.registers.write32(register::INT_CTRL, enable.into());
    }

    fn set_state(&mut self, state: u32) {
        self.registers.write32(register::STATE, state);
    }

    fn state(&self, peer: u32) -> u32 {
        self.sections.state_table.read32(4 * u64::from(peer))
    }

    fn rw(&self, index: u32) -> Option<u32> {
        let offset = 4 * u64::from(index);
        let section = self.sections.rw?;
        (offset < section.range().size()).then(|| section.read32(offset))
    }

    fn set_rw(&mut self, index: u32, value: u32) {
        let offset = 4 * u64::from(index);
        if let Some(section) = self.sections.rw.filter(|rw| offset < rw.range().size()) {
            section.write32(offset, value);
        }
    }

    fn output(&self, peer: u32) -> Option<u32> {
        let (section, index) = self.sections.output(&self.layout, peer);
        Some(section?.read32(u64::from(index) * self.layout.output_size()))
    }

    fn write_output(&mut self, bytes: &[u8]) {
        let Some(section) = self.sections.own else {
            return;
        };
        for (offset, chunk) in (0..).step_by(4).zip(bytes.chunks(4)) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            section.write32(offset, u32::from_le_bytes(word));
        }
    }

    fn output_word(&self, peer: u32, offset: u64) -> u32 {
        let (section, index) = self.sections.output(&self.layout, peer);
        let section = section.expect("channels are for links with output sections");
        section.read32(u64::from(index) * self.layout.output_size() + offset)
    }

    fn set_output_word(&mut self, offset: u64, value: u32) {
        let section = self.sections.own;
        let section = section.expect("channels are for links with output sections");
        section.write32(offset, value);
    }

    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn ring(&mut self, target: u32, vector: u32) {
        // On x86 the uncached store waits for the stores before it anyway.
        fence(Ordering::SeqCst);
        self.registers
            .write32(register::DOORBELL, (target << 16) | vector);
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |mapping: &Mapping| mapping.range().start();
        writeln!(f, "IVSHMEM: found device at {}", self.address)?;
        writeln!(f, "IVSHMEM: registers at {:#x}", start(&self.registers))?;
        match &self.wiring {
            Wiring::Msix(Msix { capability, table }) => writeln!(
                f,
                "IVSHMEM: MSI-X table at {:#x}, {} vectors",
                start(table),
                capability.vectors
            )?,
            Wiring::Intx(lines) => {
                write!(f, "IVSHMEM: INTx at IRQ")?;
                for line in (0..pic::LINES).filter(|line| lines & (1 << line) != 0) {
                    write!(f, " {line}")?;
                }
                writeln!(f)?;
            }
        }
        writeln!(f, "IVSHMEM: ID is {}", self.layout.id())?;
        writeln!(f, "IVSHMEM: max. peers is {}", self.layout.max_peers())?;
        let mut section = |name, place: &Option<Mapping>| match place.map(|place| place.range()) {
            Some(range) => {
                writeln!(
                    f,
                    "IVSHMEM: {name} at {:#x}, size {:#x}",
                    range.start(),
                    range.size()
                )
            }
            None => writeln!(f, "IVSHMEM: no {name}"),
        };
        section("state table", &Some(self.sections.state_table))?;
        section("R/W section", &self.sections.rw)?;
        section("output section", &self.sections.own)
    }
}
