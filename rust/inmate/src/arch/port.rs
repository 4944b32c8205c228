// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O ports that this program uses, a closed list: a [`Port`] can be made
//! only here, and none of these can reach the program's memory.

use core::arch::asm;

/// An I/O port.
#[derive(Clone, Copy)]
pub(crate) struct Port(u16);

pub(crate) const SERIAL_DATA: Port = Port(0x3f8);
pub(crate) const SERIAL_INTERRUPTS: Port = Port(0x3f9);
pub(crate) const SERIAL_FIFO: Port = Port(0x3fa);
pub(crate) const SERIAL_LINE_CONTROL: Port = Port(0x3fb);
pub(crate) const SERIAL_MODEM_CONTROL: Port = Port(0x3fc);
pub(crate) const SERIAL_LINE_STATUS: Port = Port(0x3fd);
pub(crate) const PCI_ADDRESS: Port = Port(0xcf8);
/// The four bytes of the configuration dword.
pub(crate) const PCI_DATA: [Port; 4] = [Port(0xcfc), Port(0xcfd), Port(0xcfe), Port(0xcff)];
/// QEMU's `isa-debug-exit`, `iobase=0xf4,iosize=4`.
pub(crate) const DEBUG_EXIT: Port = Port(0xf4);
pub(super) const PIC_COMMAND: [Port; 2] = [Port(0x20), Port(0xa0)];
pub(super) const PIC_DATA: [Port; 2] = [Port(0x21), Port(0xa1)];
/// Edge or level triggering of the PICs' lines.
pub(super) const PIC_TRIGGER: [Port; 2] = [Port(0x4d0), Port(0x4d1)];
pub(super) const PIT_CHANNEL_2: Port = Port(0x42);
pub(super) const PIT_CONTROL: Port = Port(0x43);
/// Gate and output of the PIT's channel 2, among other things.
pub(super) const SYSTEM_CONTROL: Port = Port(0x61);

impl Port {
    /// Reads a byte.
    pub(crate) fn read8(self) -> u8 {
        let value;
        // SAFETY: no port of the list above has an effect on memory.
        unsafe {
            asm!("in al, dx", in("dx") self.0, out("al") value, options(nomem, nostack, preserves_flags))
        }
        value
    }

    /// Reads a dword.
    pub(crate) fn read32(self) -> u32 {
        let value;
        // SAFETY: no port of the list above has an effect on memory.
        unsafe {
            asm!("in eax, dx", in("dx") self.0, out("eax") value, options(nomem, nostack, preserves_flags))
        }
        value
    }

    /// Writes a byte.
    pub(crate) fn write8(self, value: u8) {
        // SAFETY: no port of the list above has an effect on memory.
        unsafe {
            asm!("out dx, al", in("dx") self.0, in("al") value, options(nomem, nostack, preserves_flags))
        }
    }

    /// Writes a word.
    pub(crate) fn write16(self, value: u16) {
        // SAFETY: no port of the list above has an effect on memory.
        unsafe {
            asm!("out dx, ax", in("dx") self.0, in("ax") value, options(nomem, nostack, preserves_flags))
        }
    }

    /// Writes a dword.
    pub(crate) fn write32(self, value: u32) {
        // SAFETY: no port of the list above has an effect on memory; IVSHMEM
        // devices, the only ones that the program turns on, access none.
        unsafe {
            asm!("out dx, eax", in("dx") self.0, in("eax") value, options(nomem, nostack, preserves_flags))
        }
    }
}
