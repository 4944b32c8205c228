// SPDX-License-Identifier: MIT OR Apache-2.0
//! A configuration space in memory for the unit tests, with what a real
//! Jailhouse shows on x86-64 (MSI-X) and arm64 (INTx).

use crate::pci::ConfigSpace;

/// First 128 bytes of 0000:00:0e.0 in a root cell on x86-64.
pub(crate) const JAILHOUSE_X86: [u8; 128] = dump(
    0x60,
    [0x00, 0x00, 0x00, 0x40],
    [0x00, 0x10, 0x00, 0x40],
    0x00,
    [0x00, 0x00, 0x0f, 0x3f],
    0x0f,
);

/// First 128 bytes of 0001:00:00.0 in a root cell on arm64. The bytes of an
/// MSI-X capability are there, but no link leads to them.
pub(crate) const JAILHOUSE_ARM64: [u8; 128] = dump(
    0x00,
    [0x00, 0x00, 0x10, 0x0b],
    [0; 4],
    0x01,
    [0x00, 0x00, 0xaf, 0x7f],
    0x00,
);

const fn dump(
    next: u8,
    bar0: [u8; 4],
    bar1: [u8; 4],
    pin: u8,
    base: [u8; 4],
    msix_control: u8,
) -> [u8; 128] {
    let mut bytes = [0; 128];
    let fixed: [(usize, u8); 19] = [
        (0x00, 0x0a),
        (0x01, 0x11),
        (0x02, 0x06),
        (0x03, 0x41),
        (0x06, 0x10),
        (0x0b, 0xff),
        (0x2c, 0x0a),
        (0x2d, 0x11),
        (0x2e, 0x06),
        (0x2f, 0x41),
        (0x34, 0x40),
        (0x40, 0x09),
        (0x42, 0x20),
        (0x45, 0x10),
        (0x49, 0x90),
        (0x51, 0x20),
        (0x60, 0x11),
        (0x64, 0x01),
        (0x68, 0x01),
    ];
    let mut i = 0;
    while i < fixed.len() {
        bytes[fixed[i].0] = fixed[i].1;
        i += 1;
    }
    i = 0;
    while i < 4 {
        bytes[0x10 + i] = bar0[i];
        bytes[0x14 + i] = bar1[i];
        bytes[0x58 + i] = base[i];
        i += 1;
    }
    bytes[0x3d] = pin;
    bytes[0x41] = next;
    bytes[0x62] = msix_control;
    bytes[0x69] = 0x01;
    bytes
}

/// 128 bytes of configuration space, all ones above them as in Jailhouse, and
/// BARs that can be sized.
#[derive(Clone)]
pub(crate) struct FakeSpace {
    pub(crate) bytes: [u8; 256],
    /// Writable bits of each BAR register.
    pub(crate) bar_masks: [u32; 6],
}

impl FakeSpace {
    pub(crate) fn new(dump: &[u8; 128]) -> Self {
        let mut bytes = [0xff; 256];
        bytes[..128].copy_from_slice(dump);
        Self {
            bytes,
            bar_masks: [0xffff_f000, 0xffff_f000, 0, 0, 0, 0],
        }
    }

    pub(crate) fn absent() -> Self {
        Self {
            bytes: [0xff; 256],
            bar_masks: [0; 6],
        }
    }

    pub(crate) fn set32(&mut self, offset: u8, value: u32) {
        let offset = usize::from(offset);
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

impl ConfigSpace for FakeSpace {
    fn read32(&self, offset: u8) -> u32 {
        let offset = usize::from(offset);
        u32::from_le_bytes(self.bytes[offset..offset + 4].try_into().unwrap())
    }

    fn write32(&mut self, offset: u8, value: u32) {
        if (0x10..0x28).contains(&offset) {
            let mask = self.bar_masks[usize::from(offset - 0x10) / 4];
            let kept = self.read32(offset) & !mask;
            self.set32(offset, kept | value & mask);
        } else {
            self.set32(offset, value);
        }
    }

    fn write16(&mut self, offset: u8, value: u16) {
        let offset = usize::from(offset);
        self.bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn write8(&mut self, offset: u8, value: u8) {
        self.bytes[usize::from(offset)] = value;
    }
}
