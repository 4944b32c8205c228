// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions: how they are named, how their configuration space is reached,
//! and how the IVSHMEM device is found among them.

use core::fmt;

use crate::error::Error;
use crate::spec;
use crate::spec::header;

/// Place of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// The 256 bytes of configuration space of one function. Offsets are naturally
/// aligned for the access.
pub trait ConfigSpace {
    /// Reads the dword at `offset`; all ones where there is nothing.
    fn read32(&self, offset: u8) -> u32;
    /// Writes the dword at `offset`.
    fn write32(&mut self, offset: u8, value: u32);
    /// Writes the word at `offset` and nothing beside it.
    fn write16(&mut self, offset: u8, value: u16);
    /// Writes the byte at `offset` and nothing beside it.
    fn write8(&mut self, offset: u8, value: u8);

    /// Reads the word at `offset`.
    fn read16(&self, offset: u8) -> u16 {
        (self.read32(offset & !3) >> ((offset & 2) * 8)) as u16
    }

    /// Reads the byte at `offset`.
    fn read8(&self, offset: u8) -> u8 {
        (self.read32(offset & !3) >> ((offset & 3) * 8)) as u8
    }

    /// Reads the two dwords from `offset` on, the low one first.
    fn read64(&self, offset: u8) -> u64 {
        u64::from(self.read32(offset)) | (u64::from(self.read32(offset + 4)) << 32)
    }
}

/// All functions that answer, in the order of their addresses.
pub fn functions<C: ConfigSpace>(
    open: impl Fn(Address) -> C,
) -> impl Iterator<Item = (Address, C)> {
    (0..=u16::MAX).filter_map(move |number| {
        let address = Address {
            bus: (number >> 8) as u8,
            device: (number >> 3) as u8 & 0x1f,
            function: number as u8 & 7,
        };
        if address.function != 0 {
            let first = open(Address {
                function: 0,
                ..address
            });
            let multifunction =
                first.read16(header::IDS) != 0xffff && first.read8(header::HEADER_TYPE) & 0x80 != 0;
            if !multifunction {
                return None;
            }
        }
        let space = open(address);
        (space.read16(header::IDS) != 0xffff).then_some((address, space))
    })
}

/// Finds the first IVSHMEM device with protocol type `protocol`.
///
/// # Errors
/// [`Error::NoDevice`], or [`Error::OtherProtocol`] if there are only devices
/// that speak something else.
pub fn find<C: ConfigSpace>(
    open: impl Fn(Address) -> C,
    protocol: u16,
) -> Result<(Address, C), Error> {
    let wanted = spec::CLASS_BASE | u32::from(protocol);
    let mut failure = Error::NoDevice { class: wanted };
    for (address, space) in functions(open) {
        if space.read32(header::IDS) != spec::IDS {
            continue;
        }
        let class = space.read32(header::CLASS) >> 8;
        if class == wanted {
            return Ok((address, space));
        }
        failure = Error::OtherProtocol {
            address,
            class,
            wanted,
        };
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeSpace, JAILHOUSE_ARM64, JAILHOUSE_X86};

    fn bus_with(device: u8, dump: &'static [u8; 128]) -> impl Fn(Address) -> FakeSpace {
        move |address| {
            if (address.bus, address.device, address.function) == (0, device, 0) {
                FakeSpace::new(dump)
            } else {
                FakeSpace::absent()
            }
        }
    }

    #[test]
    fn finds_the_device_of_jailhouse() {
        for dump in [&JAILHOUSE_X86, &JAILHOUSE_ARM64] {
            let (address, _) = find(bus_with(14, dump), 0).unwrap();
            assert_eq!(format!("{address}"), "00:0e.0");
        }
    }

    #[test]
    fn tells_another_protocol_from_no_device() {
        assert_eq!(
            find(bus_with(14, &JAILHOUSE_X86), 0x4000).err(),
            Some(Error::OtherProtocol {
                address: Address {
                    bus: 0,
                    device: 14,
                    function: 0
                },
                class: 0xff0000,
                wanted: 0xff4000
            })
        );
        let nothing = |_: Address| FakeSpace::absent();
        assert_eq!(
            find(nothing, 0).err(),
            Some(Error::NoDevice { class: 0xff0000 })
        );
    }

    #[test]
    fn reads_parts_of_dwords() {
        let space = FakeSpace::new(&JAILHOUSE_X86);
        assert_eq!(space.read16(2), 0x4106);
        assert_eq!(space.read8(0x42), 0x20);
        assert_eq!(space.read64(0x58), 0x3f0f_0000);
    }
}
