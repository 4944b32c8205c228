// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration space through the ports cf8h and cfch.

use ivshmem_inmate::pci::{Address, ConfigSpace};

use crate::arch::port;

/// Configuration space of one function.
pub(crate) struct PortSpace(Address);

impl PortSpace {
    /// The configuration space of the function at `address`, present or not.
    pub(crate) fn new(address: Address) -> Self {
        Self(address)
    }

    fn select(&self, offset: u8) {
        let Address {
            bus,
            device,
            function,
        } = self.0;
        port::PCI_ADDRESS.write32(
            (1 << 31)
                | (u32::from(bus) << 16)
                | (u32::from(device) << 11)
                | (u32::from(function) << 8)
                | u32::from(offset & !3),
        );
    }
}

impl ConfigSpace for PortSpace {
    fn read32(&self, offset: u8) -> u32 {
        self.select(offset);
        port::PCI_DATA[0].read32()
    }

    fn write32(&mut self, offset: u8, value: u32) {
        self.select(offset);
        port::PCI_DATA[0].write32(value);
    }

    fn write16(&mut self, offset: u8, value: u16) {
        self.select(offset);
        port::PCI_DATA[usize::from(offset & 2)].write16(value);
    }

    fn write8(&mut self, offset: u8, value: u8) {
        self.select(offset);
        port::PCI_DATA[usize::from(offset & 3)].write8(value);
    }
}
