// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives the device its place in the address space, as far as no firmware has
//! done so. Called by `ivshmem.rs` before anything of the device is mapped.

use ivshmem_inmate::bar::Bars;
use ivshmem_inmate::error::Error;
use ivshmem_inmate::pci;
use ivshmem_inmate::pci::{Address, ConfigSpace};
use ivshmem_inmate::range::Range;
use ivshmem_inmate::spec::{command, header};

use crate::pci_ports::PortSpace;

/// Reads the BARs, places those that no firmware has placed, and turns memory
/// decoding on.
pub(crate) fn place_bars(space: &mut PortSpace, address: Address) -> Result<Bars, Error> {
    space.write16(header::COMMAND, command::INTX_DISABLE);
    let mut bars = Bars::read(space)?;
    if bars.any_unplaced() {
        let mut occupied = Occupied::default();
        for (other, mut space) in pci::functions(PortSpace::new) {
            if other != address {
                occupied.add(&mut space)?;
            }
        }
        bars.place(space, occupied.ranges())?;
    }
    space.write16(header::COMMAND, command::INTX_DISABLE | command::MEMORY);
    Ok(bars)
}

/// The ranges of other functions' BARs that are in use.
struct Occupied {
    ranges: [Range; Self::MOST],
    count: usize,
}

impl Default for Occupied {
    fn default() -> Self {
        Self {
            ranges: [Self::PLACEHOLDER; Self::MOST],
            count: 0,
        }
    }
}

impl Occupied {
    const MOST: usize = 128;
    const PLACEHOLDER: Range = match Range::new(0, 1) {
        Some(range) => range,
        None => unreachable!(),
    };

    /// Adds what the function decodes; sizing its BARs needs its decoding off
    /// for a moment.
    fn add(&mut self, space: &mut PortSpace) -> Result<(), Error> {
        let command = space.read16(header::COMMAND);
        let is_bridge = space.read8(header::HEADER_TYPE) & 0x7f != 0;
        if command & command::MEMORY == 0 || is_bridge {
            return Ok(());
        }
        space.write16(header::COMMAND, command & !command::MEMORY);
        let bars = Bars::read(space);
        space.write16(header::COMMAND, command);
        for range in bars?.ranges() {
            if let Some(slot) = self.ranges.get_mut(self.count) {
                *slot = range;
                self.count += 1;
            }
        }
        Ok(())
    }

    fn ranges(&self) -> &[Range] {
        &self.ranges[..self.count]
    }
}
