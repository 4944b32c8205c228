// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the boot loader says: `hvm_start_info` of the PVH boot protocol, of
//! which the inmate needs the command line and the map of the RAM. Both are
//! copied at once, because the memory they lie in belongs to nobody.

use core::str::{from_utf8, Utf8Error};

use ivshmem_inmate::error::Error;
use ivshmem_inmate::range::Range;

use crate::arch::paging;
use crate::mmio::Mapping;

const MAGIC: u32 = 0x336e_c578;
/// Fields of the start info.
const VERSION: u64 = 4;
const COMMAND_LINE: u64 = 24;
const MEMORY_MAP: u64 = 40;
const MEMORY_MAP_ENTRIES: u64 = 48;
/// Length of the start info without and with the memory map (version 1).
const LENGTH_V0: u64 = 40;
const LENGTH_V1: u64 = 56;

/// An entry of the memory map: address, size, type.
const ENTRY_LENGTH: u64 = 24;
const ENTRY_SIZE: u64 = 8;
const ENTRY_TYPE: u64 = 16;
const TYPE_RAM: u32 = 1;

const COMMAND_LINE_MAX: usize = 2048;
const RAM_MAX: usize = 32;

/// A copy of what the boot loader says.
pub(crate) struct BootInfo {
    command_line: [u8; COMMAND_LINE_MAX],
    length: usize,
    ram: [Option<Range>; RAM_MAX],
}

impl BootInfo {
    /// Reads the start info at physical `address`.
    pub(crate) fn read(address: u64) -> Result<Self, Error> {
        let info = place(address, LENGTH_V0)?;
        let magic = info.read32(0);
        if magic != MAGIC {
            return Err(Error::StartInfo { magic });
        }
        let mut boot = Self {
            command_line: [0; COMMAND_LINE_MAX],
            length: 0,
            ram: [None; RAM_MAX],
        };
        boot.copy_command_line(read64(&info, COMMAND_LINE))?;
        if info.read32(VERSION) >= 1 {
            boot.copy_ram(&place(address, LENGTH_V1)?)?;
        }
        Ok(boot)
    }

    /// The command line.
    pub(crate) fn command_line(&self) -> Result<&str, Utf8Error> {
        from_utf8(&self.command_line[..self.length])
    }

    /// The RAM of the machine, as far as it is known; at most 32 pieces.
    pub(crate) fn ram(&self) -> impl Iterator<Item = Range> + Clone + '_ {
        self.ram.iter().copied().flatten()
    }

    fn copy_command_line(&mut self, address: u64) -> Result<(), Error> {
        if address == 0 {
            return Ok(());
        }
        for index in 0..COMMAND_LINE_MAX {
            // Byte by byte: what lies behind the end may not be mappable.
            let byte = place(address + index as u64, 1)?.read8(0);
            if byte == 0 {
                self.length = index;
                return Ok(());
            }
            self.command_line[index] = byte;
        }
        Err(Error::CommandLine)
    }

    fn copy_ram(&mut self, info: &Mapping) -> Result<(), Error> {
        let count = u64::from(info.read32(MEMORY_MAP_ENTRIES));
        let Some(length) = count
            .checked_mul(ENTRY_LENGTH)
            .filter(|length| *length != 0)
        else {
            return Ok(());
        };
        let map = place(read64(info, MEMORY_MAP), length)?;
        let ram = (0..count)
            .map(|index| index * ENTRY_LENGTH)
            .filter(|entry| map.read32(entry + ENTRY_TYPE) == TYPE_RAM)
            .filter_map(|entry| Range::new(read64(&map, entry), read64(&map, entry + ENTRY_SIZE)));
        for (slot, range) in self.ram.iter_mut().zip(ram) {
            *slot = Some(range);
        }
        Ok(())
    }
}

fn place(address: u64, length: u64) -> Result<Mapping, Error> {
    let range = Range::new(address, length).ok_or(Error::StartInfo { magic: 0 })?;
    paging::boot_data(range)
}

fn read64(mapping: &Mapping, offset: u64) -> u64 {
    u64::from(mapping.read32(offset)) | (u64::from(mapping.read32(offset + 4)) << 32)
}
