// SPDX-License-Identifier: MIT OR Apache-2.0

//! The model under its real client: stock QEMU, with the test in the place of the guest's CPU.

mod support;

use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Protection;
use ivshmem_device::spec::Shape;
use support::qemu::Function;
use support::qemu::Qemu;
use support::wait_for;
use support::Setup;

const COMMAND: u8 = 0x04;
const VENDOR_CAPABILITY: u8 = 0x40;
const MSIX_CAPABILITY: u8 = 0x60;

const INT_CTRL: u64 = 0x08;
const DOORBELL: u64 = 0x0c;
const STATE: u64 = 0x10;

const RW: u64 = 0x1000;
const OUTPUT: u64 = 0xa000;
const OUTPUT_SIZE: u64 = 0x2000;

/// Guest RAM that receives MSI-X messages.
const MAILBOX: u64 = 0x10_0000;

/// Two peers in one QEMU, BARs and MSI-X programmed.
struct Pair {
    qemu: Qemu,
    setup: Setup,
}

/// Where the n-th device's BARs are.
fn registers(n: u64) -> u64 {
    0xe000_0000 + n * 0x10_0000
}

fn msix_table(n: u64) -> u64 {
    registers(n) + 0x1_0000
}

fn memory(n: u64) -> u64 {
    0x1_0000_0000 + n * 0x100_0000
}

fn mailbox(n: u64, vector: u64) -> u64 {
    MAILBOX + n * 0x1000 + vector * 4
}

fn function(n: u64) -> Function {
    Qemu::function(n as u8)
}

impl Pair {
    fn new(options: LinkOptions) -> Self {
        let (shape, vectors) = (options.shape, options.vectors);
        let setup = Setup::new(options);
        let (a, b) = (setup.socket(0), setup.socket(1));
        let qemu = Qemu::start(setup.directory.path(), &[&a, &b]);
        let mut pair = Self { qemu, setup };
        for n in [0, 1] {
            pair.program_bars(n, shape);
            for vector in 0..u64::from(vectors) {
                pair.program_vector(n, vector);
            }
            if vectors != 0 {
                pair.qemu
                    .config_write_u16(function(n), MSIX_CAPABILITY + 2, 0x8000);
            }
        }
        pair
    }

    /// Does what firmware does.
    fn program_bars(&mut self, n: u64, shape: Shape) {
        let function = function(n);
        let memory_bar = match shape {
            Shape::Jailhouse => 0x20,
            Shape::Bar2 => 0x18,
        };
        for (bar, address) in [(0x10, registers(n)), (0x14, msix_table(n))] {
            self.qemu.config_write(function, bar, u32::MAX);
            self.qemu.config_write(function, bar, address as u32);
        }
        self.qemu.config_write(function, memory_bar, u32::MAX);
        self.qemu.config_write(function, memory_bar + 4, u32::MAX);
        self.qemu
            .config_write(function, memory_bar, memory(n) as u32);
        self.qemu
            .config_write(function, memory_bar + 4, (memory(n) >> 32) as u32);
        self.qemu.config_write_u16(function, COMMAND, 0x0006);
    }

    /// Points a vector at guest RAM.
    fn program_vector(&mut self, n: u64, vector: u64) {
        let entry = msix_table(n) + 16 * vector;
        self.qemu.writel(entry, mailbox(n, vector) as u32);
        self.qemu.writel(entry + 4, 0);
        self.qemu.writel(entry + 8, 0x100 + vector as u32);
        self.qemu.writel(entry + 12, 0);
    }

    fn ring(&mut self, from: u64, to: u64, vector: u64) {
        let value = ((to << 16) | vector) as u32;
        self.qemu.writel(registers(from) + DOORBELL, value);
    }

    /// Waits for a message, and clears the mailbox.
    fn wait_message(&mut self, n: u64, vector: u64) {
        let (address, expected) = (mailbox(n, vector), 0x100 + vector as u32);
        wait_for("an MSI-X message", || {
            (self.qemu.readl(address) == expected).then_some(())
        });
        self.qemu.writel(address, 0);
    }
}

fn options(shape: Shape, protection: Protection) -> LinkOptions {
    LinkOptions {
        shape,
        protection,
        ..LinkOptions::default()
    }
}

#[test]
fn both_peers_have_their_id_and_see_the_same_number_of_peers() {
    for shape in [Shape::Jailhouse, Shape::Bar2] {
        let mut pair = Pair::new(options(shape, Protection::Trap));
        for n in [0, 1] {
            assert_eq!(pair.qemu.config_read(function(n), 0), 0x4106_110a);
            assert_eq!(pair.qemu.readl(registers(n)), n as u32);
            assert_eq!(pair.qemu.readl(registers(n) + 4), 2);
        }
        assert_eq!(pair.setup.statistics().fatal_accesses, 0);
    }
}

#[test]
fn a_doorbell_arrives_as_an_msix_message_on_each_vector() {
    for shape in [Shape::Jailhouse, Shape::Bar2] {
        for protection in [Protection::Trap, Protection::Mapped] {
            let mut pair = Pair::new(options(shape, protection));
            for n in [0, 1] {
                pair.qemu.writel(registers(n) + INT_CTRL, 1);
            }
            for vector in 0..4 {
                pair.ring(0, 1, vector);
                pair.wait_message(1, vector);
                pair.ring(1, 0, vector);
                pair.wait_message(0, vector);
                // To itself.
                pair.ring(0, 0, vector);
                pair.wait_message(0, vector);
            }
            let statistics = pair.setup.statistics();
            assert_eq!(statistics.fatal_accesses, 0);
            assert_eq!(statistics.peers[0].doorbells.sent, 8);
            assert_eq!(statistics.peers[0].interrupts.delivered, 8);
            assert_eq!(statistics.peers[1].interrupts.delivered, 4);
        }
    }
}
