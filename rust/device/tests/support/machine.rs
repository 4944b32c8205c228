// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine on the bench: QEMU without a guest, with devices of the model, whose BARs and MSI-X
//! vectors have been programmed as firmware and a driver do it. MSI-X messages go to guest RAM, where
//! the test finds them.

use super::qemu::Function;
use super::qemu::Qemu;
use super::wait_for;
use super::Setup;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Shape;
use std::path::Path;
use std::path::PathBuf;

pub(crate) const COMMAND: u8 = 0x04;
pub(crate) const VENDOR_CAPABILITY: u8 = 0x40;
pub(crate) const MSIX_CAPABILITY: u8 = 0x60;

pub(crate) const INT_CTRL: u64 = 0x08;
pub(crate) const DOORBELL: u64 = 0x0c;
pub(crate) const STATE: u64 = 0x10;

/// Guest RAM that receives messages.
const MAILBOX: u64 = 0x10_0000;

/// A QEMU with the n-th device in the n-th slot.
pub(crate) struct Machine {
    pub(crate) qemu: Qemu,
}

/// Where the n-th device's BAR 0 is.
pub(crate) fn registers(n: u64) -> u64 {
    0xe000_0000 + n * 0x10_0000
}

/// Where its BAR 1 is.
pub(crate) fn msix_table(n: u64) -> u64 {
    registers(n) + 0x1_0000
}

/// Where its memory is.
pub(crate) fn memory(n: u64) -> u64 {
    0x1_0000_0000 + n * 0x100_0000
}

/// Where its messages arrive.
pub(crate) fn mailbox(n: u64, vector: u64) -> u64 {
    MAILBOX + n * 0x1_0000 + vector * 4
}

/// Its PCI function.
pub(crate) fn function(n: u64) -> Function {
    Qemu::function(n as u8)
}

impl Machine {
    /// A machine with devices for these peers of the model.
    pub(crate) fn new(setup: &Setup, peers: &[u16]) -> Self {
        let sockets: Vec<_> = peers.iter().map(|&peer| setup.socket(peer)).collect();
        let options = setup.model.link().lock().spec().options().clone();
        Self::start(setup.directory.path(), &sockets, &options)
    }

    /// A machine with a device for each socket, of a link with `options`.
    pub(crate) fn start(directory: &Path, sockets: &[PathBuf], options: &LinkOptions) -> Self {
        let mut machine = Self {
            qemu: Qemu::start(directory, sockets),
        };
        for n in 0..sockets.len() as u64 {
            machine.program_bars(n, options.shape);
            if options.vectors != 0 {
                for vector in 0..u64::from(options.vectors) {
                    machine.program_vector(n, vector);
                }
                machine.msix(n, 0x8000);
            }
        }
        machine
    }

    fn program_bars(&mut self, n: u64, shape: Shape) {
        for (bar, address) in [(0x10, registers(n)), (0x14, msix_table(n))] {
            self.qemu.config_write(function(n), bar, u32::MAX);
            self.qemu.config_write(function(n), bar, address as u32);
        }
        let memory_bar = match shape {
            Shape::Jailhouse => 0x20,
            Shape::Bar2 => 0x18,
        };
        self.place_memory(n, memory_bar, memory(n));
        self.command(n, 0x0006);
    }

    /// Sizes a 64-bit BAR and gives it an address.
    pub(crate) fn place_memory(&mut self, n: u64, bar: u8, address: u64) {
        let halves = [address as u32, (address >> 32) as u32];
        for (register, half) in (bar..).step_by(4).zip(halves) {
            self.qemu.config_write(function(n), register, u32::MAX);
            self.qemu.config_write(function(n), register, half);
        }
    }

    /// Points a vector at guest RAM.
    fn program_vector(&mut self, n: u64, vector: u64) {
        let entry = msix_table(n) + 16 * vector;
        self.qemu.writel(entry, mailbox(n, vector) as u32);
        self.qemu.writel(entry + 4, 0);
        self.qemu.writel(entry + 8, message(vector));
        self.qemu.writel(entry + 12, 0);
    }

    /// Writes the command register.
    pub(crate) fn command(&mut self, n: u64, value: u16) {
        self.qemu.config_write_u16(function(n), COMMAND, value);
    }

    /// Writes the MSI-X control register.
    pub(crate) fn msix(&mut self, n: u64, value: u16) {
        let offset = MSIX_CAPABILITY + 2;
        self.qemu.config_write_u16(function(n), offset, value);
    }

    pub(crate) fn get(&mut self, n: u64, register: u64) -> u32 {
        self.qemu.readl(registers(n) + register)
    }

    pub(crate) fn set(&mut self, n: u64, register: u64, value: u32) {
        self.qemu.writel(registers(n) + register, value);
    }

    /// The n-th device rings a peer.
    pub(crate) fn ring(&mut self, n: u64, peer: u32, vector: u32) {
        self.set(n, DOORBELL, (peer << 16) | vector);
    }

    pub(crate) fn load(&mut self, n: u64, offset: u64) -> u32 {
        self.qemu.readl(memory(n) + offset)
    }

    pub(crate) fn store(&mut self, n: u64, offset: u64, value: u32) {
        self.qemu.writel(memory(n) + offset, value);
    }

    /// Whether a message has arrived.
    pub(crate) fn has_message(&mut self, n: u64, vector: u64) -> bool {
        self.qemu.readl(mailbox(n, vector)) == message(vector)
    }

    /// Waits for a message, and clears the mailbox.
    pub(crate) fn wait_message(&mut self, n: u64, vector: u64) {
        wait_for("an MSI-X message", || {
            self.has_message(n, vector).then_some(())
        });
        self.qemu.writel(mailbox(n, vector), 0);
    }
}

fn message(vector: u64) -> u32 {
    0x1000 + vector as u32
}
