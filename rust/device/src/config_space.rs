// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration space of one device, byte by byte as Jailhouse presents it.
//!
//! Owns the bytes and decides what a write changes. Which writes Jailhouse forbids (it stops the
//! cell) is decided here too, in [`ConfigSpace::write`]. Called by `Device`.

use crate::spec::LinkSpec;
use crate::spec::Shape;
use ivshmem_protocol::capability;
use ivshmem_protocol::config;
use std::ops::Range;

/// Bytes of the configuration space that a client sees.
pub const SIZE: usize = 0x100;

/// Place of the vendor capability.
pub const VENDOR_CAPABILITY: u8 = 0x40;

/// Place of the MSI-X capability; without MSI-X its bytes are still there, but not in the list.
pub const MSIX_CAPABILITY: u8 = 0x60;

/// Jailhouse knows the bytes below; from here on all read ffh.
const BACKED: usize = 0x80;

const REVISION_AND_CLASS: usize = 0x08;
const BAR_0: usize = 0x10;
const BARS_END: usize = 0x28;
const SUBSYSTEM: usize = 0x2c;
const INTERRUPT_PIN: usize = 0x3d;
const MSIX_CONTROL: usize = MSIX_CAPABILITY as usize + 2;
const PRIVILEGED_CONTROL: usize =
    VENDOR_CAPABILITY as usize + capability::PRIVILEGED_CONTROL as usize;
const ADDRESS: usize = VENDOR_CAPABILITY as usize + capability::BASE_ADDRESS as usize;

const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;
const COMMAND_WRITABLE: u16 =
    config::COMMAND_MEMORY | config::COMMAND_MASTER | config::COMMAND_INTX_DISABLE;

/// Type bits of a BAR: 64-bit, prefetchable.
const BAR_64_PREFETCHABLE: u32 = 0xc;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigWrite {
    /// It was carried out, as far as the register lets itself be written.
    Done,
    /// Jailhouse forbids it and stops the cell; here it was dropped.
    Forbidden,
}

/// The configuration space of one device.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    bar_masks: [u32; 6],
    shape: Shape,
}

impl ConfigSpace {
    /// The space after reset of a device of `spec`, without faults.
    #[must_use]
    pub fn new(spec: &LinkSpec) -> Self {
        let options = spec.options();
        let mut space = Self {
            bytes: [0; SIZE],
            bar_masks: [0; 6],
            shape: options.shape,
        };
        for at in [0, SUBSYSTEM] {
            space.set(at, &config::VENDOR_ID.to_le_bytes());
            space.set(at + 2, &config::DEVICE_ID.to_le_bytes());
        }
        space.set(
            config::STATUS.into(),
            &config::STATUS_CAPABILITIES.to_le_bytes(),
        );
        let class = options.protocol.class_code() << 8;
        space.set(REVISION_AND_CLASS, &class.to_le_bytes());
        space.set(config::CAPABILITY_POINTER.into(), &[VENDOR_CAPABILITY]);
        if options.vectors == 0 {
            // Jailhouse derives the pin from the slot, which a vfio-user server does not know.
            space.bytes[INTERRUPT_PIN] = 1;
        }
        space.build_capabilities(spec);
        space.build_bars(spec);
        space.bytes[BACKED..].fill(0xff);
        space
    }

    fn build_capabilities(&mut self, spec: &LinkSpec) {
        let options = spec.options();
        let (next, last_vector) = match options.vectors {
            0 => (0, 0),
            n => (MSIX_CAPABILITY, n - 1),
        };
        let length = match options.shape {
            Shape::Jailhouse => capability::LENGTH_WITH_ADDRESS,
            Shape::Bar2 => capability::LENGTH_MIN,
        };
        let at = |field: u8| usize::from(VENDOR_CAPABILITY + field);
        self.set(at(0), &[config::CAPABILITY_VENDOR, next, length, 0]);
        self.set(
            at(capability::STATE_TABLE_SIZE),
            &options.state_size.to_le_bytes(),
        );
        self.set(at(capability::RW_SIZE), &options.rw_size.to_le_bytes());
        self.set(
            at(capability::OUTPUT_SIZE),
            &options.output_size.to_le_bytes(),
        );

        let at = usize::from(MSIX_CAPABILITY);
        let bar = u32::from(config::BAR_MSIX);
        self.set(at, &[config::CAPABILITY_MSIX, 0]);
        self.set(MSIX_CONTROL, &last_vector.to_le_bytes());
        self.set(at + 4, &bar.to_le_bytes());
        self.set(at + 8, &(spec.pba_offset() | bar).to_le_bytes());
    }

    fn build_bars(&mut self, spec: &LinkSpec) {
        let sizes = spec.bar_sizes();
        for bar in [0, 1] {
            self.bar_masks[bar] = match sizes[bar] {
                0 => 0,
                size => !(size as u32 - 1),
            };
        }
        let bar = usize::from(spec.memory_bar());
        let mask = !(sizes[bar] - 1);
        self.bar_masks[bar] = mask as u32;
        self.bar_masks[bar + 1] = (mask >> 32) as u32;
        self.set(BAR_0 + 4 * bar, &BAR_64_PREFETCHABLE.to_le_bytes());
    }

    fn set(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) | (u32::from(self.u16_at(at + 2)) << 16)
    }

    /// Puts the numbers in the vendor capability right that a fault has changed.
    pub(crate) fn rebuild_capability(&mut self, spec: &LinkSpec) {
        let fresh = Self::new(spec);
        let place = usize::from(VENDOR_CAPABILITY)..usize::from(MSIX_CAPABILITY);
        let control = self.bytes[PRIVILEGED_CONTROL];
        self.bytes[place.clone()].copy_from_slice(&fresh.bytes[place]);
        self.bytes[PRIVILEGED_CONTROL] = control & capability::CONTROL_ONE_SHOT;
        self.follow_memory_bar();
    }

    /// Forgets what a driver has switched on. Addresses and memory decoding stay, as firmware set them.
    pub(crate) fn forget_driver(&mut self) {
        let kept = config::COMMAND_MEMORY.to_le_bytes();
        let command = usize::from(config::COMMAND);
        for (byte, kept) in self.bytes[command..].iter_mut().zip(kept) {
            *byte &= kept;
        }
        self.bytes[MSIX_CONTROL + 1] &= !(((MSIX_ENABLE | MSIX_FUNCTION_MASK) >> 8) as u8);
        self.bytes[PRIVILEGED_CONTROL] = 0;
    }

    /// The bytes, for a fault to change.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; SIZE] {
        &mut self.bytes
    }

    /// Copies the bytes from `offset` on to `data`; beyond the end they are ffh.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            let value = place(offset, n).and_then(|at| self.bytes.get(at));
            *byte = value.copied().unwrap_or(0xff);
        }
    }

    /// Writes `data` from `offset` on.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> ConfigWrite {
        let mut result = ConfigWrite::Done;
        for (n, &byte) in data.iter().enumerate() {
            // Jailhouse decides by dword and by which of its bytes are written; each byte alone
            // gives the same answer, as its only mask that is not all or nothing is that of the
            // interrupt line.
            let at = place(offset, n).unwrap_or(usize::MAX);
            if self.write_byte(at, byte) == ConfigWrite::Forbidden {
                result = ConfigWrite::Forbidden;
            }
        }
        self.follow_memory_bar();
        result
    }

    fn write_byte(&mut self, at: usize, byte: u8) -> ConfigWrite {
        const COMMAND: usize = config::COMMAND as usize;
        const MSIX_CONTROL_HIGH: usize = MSIX_CONTROL + 1;
        const BARS: Range<usize> = BAR_0..BARS_END;

        let writable = match at {
            0x04..0x08 => match at {
                COMMAND => COMMAND_WRITABLE as u8,
                0x05 => (COMMAND_WRITABLE >> 8) as u8,
                _ => 0,
            },
            // Cache line, latency, header type, BIST; expansion ROM; interrupt line: may be
            // written, and nothing happens. QEMU passes on what firmware and Linux write there.
            0x0c..0x10 | 0x30..0x34 | 0x3c => 0,
            at if BARS.contains(&at) => {
                let bar = at - BAR_0;
                self.bar_masks[bar / 4].to_le_bytes()[bar % 4]
            }
            PRIVILEGED_CONTROL => capability::CONTROL_ONE_SHOT,
            MSIX_CONTROL_HIGH => ((MSIX_ENABLE | MSIX_FUNCTION_MASK) >> 8) as u8,
            0x40..BACKED => 0,
            _ => return ConfigWrite::Forbidden,
        };
        if writable != 0 {
            self.bytes[at] = (self.bytes[at] & !writable) | (byte & writable);
        }
        ConfigWrite::Done
    }

    /// In the shape of Jailhouse the capability says where the memory is, and that is where
    /// firmware or system have put BAR 4. The values written while the BAR is sized pass through
    /// here too; the last write is the address.
    fn follow_memory_bar(&mut self) {
        self.change_address(|address| address);
    }

    /// Shows another address of the memory, for a fault.
    pub(crate) fn change_address(&mut self, change: impl FnOnce(u64) -> u64) {
        if self.shape == Shape::Jailhouse {
            let address = change(self.memory_address());
            self.set(ADDRESS, &address.to_le_bytes());
        }
    }

    /// The address last written to BAR 0.
    pub(crate) fn registers_address(&self) -> u64 {
        (self.u32_at(BAR_0) & !0xf).into()
    }

    /// The address last written to BAR 4.
    fn memory_address(&self) -> u64 {
        let low = u64::from(self.u32_at(BAR_0 + 4 * 4) & !0xf);
        low | (u64::from(self.u32_at(BAR_0 + 4 * 5)) << 32)
    }

    fn command(&self, bit: u16) -> bool {
        self.u16_at(config::COMMAND.into()) & bit != 0
    }

    /// Whether the device answers at its BARs.
    #[must_use]
    pub fn memory_decoding(&self) -> bool {
        self.command(config::COMMAND_MEMORY)
    }

    /// Whether the device may send MSI-X messages.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command(config::COMMAND_MASTER)
    }

    /// Whether INTx is switched off.
    #[must_use]
    pub fn intx_disabled(&self) -> bool {
        self.command(config::COMMAND_INTX_DISABLE)
    }

    /// Whether MSI-X is switched on.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        self.u16_at(MSIX_CONTROL) & MSIX_ENABLE != 0
    }

    /// Whether all MSI-X vectors are masked at once.
    #[must_use]
    pub fn function_masked(&self) -> bool {
        self.u16_at(MSIX_CONTROL) & MSIX_FUNCTION_MASK != 0
    }

    /// Whether each interrupt clears the interrupt enable.
    #[must_use]
    pub fn one_shot(&self) -> bool {
        self.bytes[PRIVILEGED_CONTROL] & capability::CONTROL_ONE_SHOT != 0
    }
}

/// Where the n-th byte of an access at `offset` is, if there is such a place.
fn place(offset: u64, n: usize) -> Option<usize> {
    usize::try_from(offset).ok()?.checked_add(n)
}
