// SPDX-License-Identifier: MIT OR Apache-2.0

//! The model under its real client: stock QEMU, with the test in the place of the guest's CPU.

mod support;

use ivshmem_device::fault::Fault;
use ivshmem_device::fault::FaultSpec;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Protection;
use ivshmem_device::spec::Shape;
use std::ops::Deref;
use std::ops::DerefMut;
use support::machine::*;
use support::wait_for;
use support::Setup;

const ID: u64 = 0x00;
const MAX_PEERS: u64 = 0x04;

const RW: u64 = 0x1000;
const OUTPUT_0: u64 = 0xa000;
/// State of peer 1.
const OWN_STATE: u64 = 4;
const OUTPUT_1: u64 = 0xc000;
const END: u64 = 0xe000;

/// Both peers of a link in one machine; device n is peer n.
struct Pair {
    machine: Machine,
    setup: Setup,
}

impl Pair {
    fn new(options: LinkOptions) -> Self {
        let setup = Setup::new(options);
        Self {
            machine: Machine::new(&setup, &[0, 1]),
            setup,
        }
    }
}

impl Deref for Pair {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

fn options(shape: Shape, protection: Protection) -> LinkOptions {
    LinkOptions {
        shape,
        protection,
        ..LinkOptions::default()
    }
}

/// A test for both shapes and both protections.
fn for_all(test: impl Fn(&mut Pair)) {
    for shape in [Shape::Jailhouse, Shape::Bar2] {
        for protection in [Protection::Trap, Protection::Mapped] {
            test(&mut Pair::new(options(shape, protection)));
        }
    }
}

#[test]
fn both_peers_have_their_id_and_see_the_same_number_of_peers() {
    for_all(|pair| {
        for n in [0, 1] {
            assert_eq!(pair.qemu.config_read(function(n), 0), 0x4106_110a);
            assert_eq!(pair.get(n, ID), n as u32);
            assert_eq!(pair.get(n, MAX_PEERS), 2);
        }
        assert_eq!(pair.setup.statistics().fatal_accesses, 0);
    });
}

#[test]
fn a_guest_sees_the_configuration_space_of_jailhouse() {
    let mut pair = Pair::new(LinkOptions {
        vectors: 16,
        ..LinkOptions::default()
    });
    for (offset, expected) in [
        (0x00, 0x4106_110a),
        (0x04, 0x0010_0006),
        (0x08, 0xff00_0000),
        (0x0c, 0x0000_0000),
        (0x10, registers(0) as u32),
        (0x14, msix_table(0) as u32),
        (0x18, 0),
        (0x1c, 0),
        (0x2c, 0x4106_110a),
        (0x30, 0),
        (0x40, 0x0020_6009),
        (0x44, 0x0000_1000),
        (0x48, 0x0000_9000),
        (0x4c, 0),
        (0x50, 0x0000_2000),
        (0x54, 0),
        (0x58, memory(0) as u32),
        (0x5c, (memory(0) >> 32) as u32),
        (0x60, 0x800f_0011),
        (0x64, 0x0000_0001),
        (0x68, 0x0000_0101),
        (0x80, 0xffff_ffff),
        (0xfc, 0xffff_ffff),
    ] {
        let actual = pair.qemu.config_read(function(0), offset);
        assert_eq!(actual, expected, "offset {offset:#04x}");
    }
}

#[test]
fn a_guest_sees_a_capability_without_address_in_the_shape_bar2() {
    let mut pair = Pair::new(options(Shape::Bar2, Protection::Trap));
    let word = pair.qemu.config_read(function(0), VENDOR_CAPABILITY);
    assert_eq!(word, 0x0018_6009);
    assert_eq!(pair.qemu.config_read(function(0), 0x18) & 0xf, 0xc);
}

#[test]
fn base_address_follows_bar_4_when_it_is_moved() {
    let mut pair = Pair::new(LinkOptions::default());
    let base = VENDOR_CAPABILITY + 0x18;
    for address in [memory(0), memory(5), memory(2)] {
        pair.command(0, 0x0000);
        pair.place_memory(0, 0x20, address);
        pair.command(0, 0x0006);
        let low = pair.qemu.config_read(function(0), base);
        let high = pair.qemu.config_read(function(0), base + 4);
        let seen = u64::from(low) | (u64::from(high) << 32);
        assert_eq!(seen, address);
        pair.qemu.writel(seen + RW, address as u32);
        assert_eq!(pair.load(1, RW), address as u32);
    }
}

#[test]
fn memory_is_the_same_at_both_peers() {
    for_all(|pair| {
        for (n, offset) in [
            (0, RW),
            (1, RW + 4),
            (0, OUTPUT_0),
            (1, OUTPUT_1),
            (1, END - 4),
        ] {
            let value = 0x1234_0000 + offset as u32;
            pair.store(n, offset, value);
            assert_eq!(pair.load(1 - n, offset), value, "{offset:#x}");
        }
        let width = |pair: &mut Pair, width, value: u64| {
            pair.qemu.write(width, memory(0) + RW + 0x10, value);
            pair.qemu.read(width, memory(1) + RW + 0x10)
        };
        assert_eq!(
            width(pair, 'q', 0x1122_3344_5566_7788),
            0x1122_3344_5566_7788
        );
        assert_eq!(width(pair, 'b', 0x99), 0x99);
        assert_eq!(
            pair.qemu.read('q', memory(0) + RW + 0x10),
            0x1122_3344_5566_7799
        );
        assert_eq!(pair.setup.statistics().fatal_accesses, 0);
    });
}

#[test]
fn mapped_sections_do_not_trap() {
    let mut pair = Pair::new(LinkOptions::default());
    for _ in 0..10 {
        pair.store(0, RW, 1);
        pair.store(0, OUTPUT_0, 1);
        pair.load(1, RW);
    }
    let peer = pair.setup.peer(0);
    assert_eq!((peer.memory_reads, peer.memory_writes), (0, 0));
    // The state table does, in this protection.
    pair.load(1, 0);
    assert_eq!(pair.setup.peer(1).memory_reads, 1);
}

#[test]
fn trap_drops_and_counts_stores_to_the_state_table_and_to_foreign_outputs() {
    for shape in [Shape::Jailhouse, Shape::Bar2] {
        let mut pair = Pair::new(options(shape, Protection::Trap));
        pair.set(0, STATE, 7);
        pair.store(1, 0, 8);
        pair.store(0, 0, 8);
        pair.store(1, OUTPUT_0, 8);
        pair.store(0, OUTPUT_1, 8);
        pair.store(0, END, 8);
        assert_eq!(pair.load(1, 0), 7);
        assert_eq!(pair.load(0, OUTPUT_0), 0);
        assert_eq!(pair.load(1, OUTPUT_1), 0);
        let statistics = pair.setup.statistics();
        for peer in &statistics.peers {
            assert_eq!(peer.fatal.state_table_stores, 1);
            assert_eq!(peer.fatal.foreign_output_stores, 1);
        }
        assert_eq!(statistics.peers[0].fatal.beyond_region, 1);
        assert_eq!(statistics.fatal_accesses, 5);
    }
}

#[test]
fn mapped_lets_such_stores_pass_and_its_canaries_tell() {
    for shape in [Shape::Jailhouse, Shape::Bar2] {
        let mut pair = Pair::new(options(shape, Protection::Mapped));
        pair.set(0, STATE, 7);
        pair.store(1, 0, 8);
        pair.store(1, END + 0x10, 8);
        assert_eq!(pair.load(0, 0), 8);
        let statistics = pair.setup.statistics();
        assert_eq!(statistics.canaries.state_table_words, 1);
        assert_eq!(statistics.canaries.guard_words, 1);
        assert_eq!(statistics.fatal_accesses, 2);
        assert_eq!(pair.load(0, 0), 7);
    }
}

#[test]
fn a_doorbell_arrives_as_an_msix_message_on_each_vector() {
    for_all(|pair| {
        for n in [0, 1] {
            pair.set(n, INT_CTRL, 1);
        }
        for vector in 0..4 {
            // The last is to itself.
            for (from, to) in [(0, 1), (1, 0), (0, 0)] {
                pair.ring(from, to, vector);
                pair.wait_message(to.into(), vector.into());
            }
        }
        let statistics = pair.setup.statistics();
        assert_eq!(statistics.fatal_accesses, 0);
        assert_eq!(statistics.peers[0].doorbells.sent, 8);
        assert_eq!(statistics.peers[0].register_writes.doorbell, 8);
        assert_eq!(statistics.peers[0].register_reads.total(), 0);
        assert_eq!(statistics.peers[0].interrupts.delivered, 8);
        assert_eq!(statistics.peers[1].interrupts.delivered, 4);
        // Receiving costs no access.
        assert_eq!(statistics.peers[1].register_reads.total(), 0);
    });
}

#[test]
fn many_vectors_work_to_the_last() {
    for vectors in [1, 16, 17, 255, 2048] {
        let mut pair = Pair::new(LinkOptions {
            vectors,
            ..LinkOptions::default()
        });
        pair.set(1, INT_CTRL, 1);
        let last = u32::from(vectors) - 1;
        pair.ring(0, 1, last);
        pair.wait_message(1, last.into());
        pair.ring(0, 1, last + 1);
        assert_eq!(pair.setup.peer(0).doorbells.bad_vector, 1);
    }
}

#[test]
fn a_state_change_arrives_on_vector_0_after_it_is_in_the_table() {
    for_all(|pair| {
        pair.set(0, INT_CTRL, 1);
        pair.set(1, STATE, 0x55);
        pair.wait_message(0, 0);
        assert_eq!(pair.load(0, 4), 0x55);
        assert_eq!(pair.get(1, STATE), 0x55);
    });
}

#[test]
fn what_cannot_be_delivered_is_dropped() {
    let mut pair = Pair::new(LinkOptions::default());
    pair.ring(0, 1, 1);
    pair.set(1, INT_CTRL, 1);
    pair.command(1, 0x0002);
    pair.ring(0, 1, 1);
    pair.command(1, 0x0006);
    pair.msix(1, 0x0000);
    pair.ring(0, 1, 1);
    pair.msix(1, 0xc000);
    pair.ring(0, 1, 1);
    pair.msix(1, 0x8000);
    // Of all these none comes after all; the next doorbell is the first message.
    pair.ring(0, 1, 2);
    pair.wait_message(1, 2);
    assert!(!pair.has_message(1, 1));
    let interrupts = pair.setup.peer(1).interrupts;
    let dropped = interrupts.dropped;
    assert_eq!(
        (
            dropped.disabled,
            dropped.bus_master_off,
            dropped.msix_off,
            dropped.function_masked,
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(interrupts.delivered, 1);
}

/// What the documentation says that the model cannot show.
#[test]
fn qemu_keeps_the_interrupt_of_a_masked_vector_where_jailhouse_drops_it() {
    let mut pair = Pair::new(LinkOptions::default());
    pair.set(1, INT_CTRL, 1);
    let control = msix_table(1) + 16 + 12;
    pair.qemu.writel(control, 1);
    pair.ring(0, 1, 1);
    pair.ring(0, 1, 2);
    pair.wait_message(1, 2);
    assert!(!pair.has_message(1, 1));
    assert_eq!(pair.setup.peer(1).interrupts.dropped.total(), 0);
    pair.qemu.writel(control, 0);
    pair.wait_message(1, 1);
}

/// What the documentation says that the model cannot show.
#[test]
fn qemu_does_not_pass_on_accesses_while_memory_decoding_is_off() {
    let mut pair = Pair::new(LinkOptions::default());
    pair.command(0, 0x0004);
    pair.qemu.readl(registers(0));
    pair.set(0, STATE, 1);
    pair.command(0, 0x0006);
    assert_eq!(pair.get(0, STATE), 0);
    assert_eq!(pair.setup.statistics().fatal_accesses, 0);
}

#[test]
fn one_shot_is_switched_by_the_privileged_control_byte() {
    let mut pair = Pair::new(LinkOptions::default());
    let control = VENDOR_CAPABILITY + 3;
    pair.qemu.config_write_u8(function(1), control, 0xff);
    let word = pair.qemu.config_read(function(1), VENDOR_CAPABILITY);
    assert_eq!(word >> 24, 1);
    pair.set(1, INT_CTRL, 1);
    pair.ring(0, 1, 1);
    pair.wait_message(1, 1);
    assert_eq!(pair.get(1, INT_CTRL), 0);
    pair.ring(0, 1, 1);
    assert_eq!(pair.setup.peer(1).interrupts.dropped.disabled, 1);
}

#[test]
fn accesses_of_other_widths_act_as_on_jailhouse() {
    let mut pair = Pair::new(LinkOptions::default());
    pair.set(1, STATE, 0x1122_3344);
    pair.qemu.write('b', registers(1) + STATE, 0x55);
    assert_eq!(pair.get(1, STATE), 0x55);
    pair.qemu.write('w', registers(1) + STATE, 0x6677);
    assert_eq!(pair.get(1, STATE), 0x6677);
    assert_eq!(pair.qemu.read('w', registers(1)), 1);
    assert_eq!(pair.qemu.read('q', registers(1)), 1);
    let peer = pair.setup.peer(1);
    assert_eq!((peer.odd_width_accesses, peer.fatal_accesses), (4, 0));
}

#[test]
fn unbacked_and_unaligned_registers_read_0_and_are_counted() {
    let mut pair = Pair::new(LinkOptions::default());
    assert_eq!(pair.get(1, 0x14), 0);
    assert_eq!(pair.get(1, 0xffc), 0);
    pair.set(1, 0x14, 1);
    assert_eq!(pair.qemu.read('b', registers(1) + 1), 0);
    let fatal = pair.setup.peer(1).fatal;
    assert_eq!(
        (fatal.unbacked_registers, fatal.unaligned_registers),
        (3, 1)
    );
}

#[test]
fn config_writes_that_jailhouse_forbids_are_counted_and_others_are_not() {
    let mut pair = Pair::new(LinkOptions::default());
    let function = function(0);
    pair.qemu.config_write(function, 0x0c, 0xffff_ffff);
    pair.qemu.config_write(function, 0x30, 0xffff_ffff);
    pair.qemu.config_write_u8(function, 0x3c, 11);
    assert_eq!(pair.setup.statistics().fatal_accesses, 0);
    pair.qemu.config_write(function, 0x2c, 0);
    pair.qemu.config_write(function, 0x80, 0);
    assert_eq!(pair.setup.peer(0).fatal.config_writes, 2);
    assert_eq!(pair.qemu.config_read(function, 0x2c), 0x4106_110a);
}

#[test]
fn a_guest_s_reboot_resets_its_device_and_tells_the_other() {
    let setup = Setup::new(LinkOptions::default());
    let mut a = Machine::new(&setup, &[0]);
    let mut b = Machine::new(&setup, &[1]);
    a.set(0, INT_CTRL, 1);
    b.set(0, STATE, 5);
    a.wait_message(0, 0);
    let before = setup.peer(1).resets;
    // The reset control register of the chipset.
    b.qemu.outb(0xcf9, 0x06);
    a.wait_message(0, 0);
    assert_eq!(a.load(0, 4), 0);
    assert!(setup.peer(1).resets > before);
    assert_eq!(setup.peer(1).detaches, 0);
}

#[test]
fn qemu_killed_and_the_other_side_goes_on_and_it_can_come_back() {
    for protection in [Protection::Trap, Protection::Mapped] {
        let setup = Setup::new(options(Shape::Jailhouse, protection));
        let mut a = Machine::new(&setup, &[0]);
        a.set(0, INT_CTRL, 1);
        for round in 1..=2 {
            let mut b = Machine::new(&setup, &[1]);
            b.set(0, INT_CTRL, 1);
            b.store(0, OUTPUT_1, round);
            b.set(0, STATE, round);
            a.wait_message(0, 0);
            assert_eq!(a.load(0, 4), round);
            a.ring(0, 1, 3);
            b.wait_message(0, 3);
            b.qemu.kill();
            a.wait_message(0, 0);
            assert_eq!(a.load(0, 4), 0);
            assert_eq!(a.load(0, OUTPUT_1), round);
        }
        let statistics = setup.statistics();
        assert_eq!(
            (statistics.peers[1].attaches, statistics.peers[1].detaches),
            (2, 2)
        );
        assert_eq!(statistics.fatal_accesses, 0);
    }
}

#[test]
fn intx_is_a_level_until_the_guest_touches_a_bar_and_merges_meanwhile() {
    let mut pair = Pair::new(LinkOptions {
        vectors: 0,
        ..LinkOptions::default()
    });
    assert_eq!((pair.qemu.config_read(function(1), 0x3c) >> 8) & 0xff, 1);
    assert_eq!(pair.qemu.config_read(function(1), 0x40), 0x0020_0009);
    pair.qemu.route_intx_to_irq_10();
    pair.set(1, INT_CTRL, 1);
    for round in 1..=3 {
        pair.ring(0, 1, 0);
        wait_for("the line", || pair.qemu.irq_10().then_some(()));
        pair.ring(0, 1, 0);
        pair.ring(0, 1, 0);
        let interrupts = pair.setup.peer(1).interrupts;
        assert_eq!(interrupts.delivered, 2 * round - 1);
        assert_eq!(interrupts.merged, 2 * round);
        // A config read does not lower it.
        pair.qemu.config_read(function(1), 0);
        assert!(pair.qemu.irq_10());
        // Any BAR access is the end of the interrupt; what came meanwhile is one more.
        pair.load(1, OWN_STATE);
        wait_for("the second interrupt", || {
            (pair.setup.peer(1).interrupts.delivered == 2 * round).then_some(())
        });
        wait_for("the line", || pair.qemu.irq_10().then_some(()));
        pair.load(1, OWN_STATE);
        wait_for("the line to fall", || (!pair.qemu.irq_10()).then_some(()));
    }
    assert_eq!(pair.setup.statistics().fatal_accesses, 0);
}

#[test]
fn intx_that_another_access_has_lowered_comes_back_until_it_is_acknowledged() {
    let mut pair = Pair::new(LinkOptions {
        vectors: 0,
        ..LinkOptions::default()
    });
    pair.qemu.route_intx_to_irq_10();
    pair.set(1, INT_CTRL, 1);
    pair.ring(0, 1, 0);
    for count in 0..=3 {
        wait_for("the line", || pair.qemu.irq_10().then_some(()));
        assert_eq!(pair.setup.peer(1).interrupts.repeated, count);
        // The state of somebody else is none of it.
        pair.load(1, 0);
    }
    wait_for("the line", || pair.qemu.irq_10().then_some(()));
    pair.load(1, OWN_STATE);
    wait_for("the line to fall", || (!pair.qemu.irq_10()).then_some(()));
    let interrupts = pair.setup.peer(1).interrupts;
    assert_eq!((interrupts.delivered, interrupts.repeated), (1, 4));
}

/// What the documentation says that the model cannot show.
#[test]
fn with_intx_all_accesses_to_the_memory_trap_after_the_first_interrupt_and_are_judged() {
    let mut pair = Pair::new(LinkOptions {
        vectors: 0,
        protection: Protection::Mapped,
        ..LinkOptions::default()
    });
    pair.qemu.route_intx_to_irq_10();
    pair.set(1, INT_CTRL, 1);
    pair.load(1, RW);
    assert_eq!(pair.setup.peer(1).memory_reads, 0);
    pair.ring(0, 1, 0);
    wait_for("the line", || pair.qemu.irq_10().then_some(()));
    pair.store(1, RW, 0x1234);
    pair.store(1, OUTPUT_1, 0x1234);
    pair.store(1, OUTPUT_0, 0x1234);
    for (offset, expected) in [(RW, 0x1234), (OUTPUT_1, 0x1234), (OUTPUT_0, 0)] {
        assert_eq!(pair.load(1, offset), expected, "{offset:#x}");
        assert_eq!(pair.load(0, offset), expected, "{offset:#x}");
    }
    let peer = pair.setup.peer(1);
    assert_eq!((peer.memory_writes, peer.memory_reads), (3, 3));
    assert_eq!(peer.fatal.foreign_output_stores, 1);
}

/// A guest can be shown each fault but one; that a driver finds them is for tests of the driver.
#[test]
fn each_fault_is_what_the_guest_sees() {
    for (fault, shape, offset, expected) in [
        (Fault::NoCapability, Shape::Jailhouse, 0x34, 0x60),
        (Fault::ShortCapability, Shape::Jailhouse, 0x40, 0x0010_6009),
        (Fault::ZeroStateTable, Shape::Jailhouse, 0x44, 0),
        (Fault::MisalignedStateTable, Shape::Jailhouse, 0x44, 0x1ffc),
        (Fault::MisalignedRw, Shape::Jailhouse, 0x48, 0x9008),
        (Fault::MisalignedOutput, Shape::Jailhouse, 0x50, 0x2008),
        (Fault::OverflowingRw, Shape::Jailhouse, 0x4c, u32::MAX),
        (Fault::OverflowingOutput, Shape::Bar2, 0x54, 1 << 31),
        (Fault::BeyondBar, Shape::Bar2, 0x48, 0x10000),
        (Fault::NoAddress, Shape::Jailhouse, 0x5c, 0),
        (
            Fault::MisalignedAddress,
            Shape::Jailhouse,
            0x58,
            memory(1) as u32 + 0x800,
        ),
        (Fault::OverflowingAddress, Shape::Jailhouse, 0x5c, u32::MAX),
    ] {
        let mut pair = Pair::new(LinkOptions {
            shape,
            faults: vec![FaultSpec { fault, peer: 1 }],
            ..LinkOptions::default()
        });
        let bad = pair.qemu.config_read(function(1), offset);
        assert_eq!(bad, expected, "{fault}");
        let good = pair.qemu.config_read(function(0), offset);
        assert_ne!(good, expected, "{fault} is at peer 1 only");
    }
    for (fault, offset, expected) in [
        (Fault::IdOutOfRange, 0, 2),
        (Fault::NoPeers, 4, 0),
        (Fault::OnePeer, 4, 1),
        (Fault::ManyPeers, 4, 1_000_000),
        (Fault::DeadRegisters, 0, u32::MAX),
    ] {
        let mut pair = Pair::new(LinkOptions {
            faults: vec![FaultSpec { fault, peer: 1 }],
            ..LinkOptions::default()
        });
        assert_eq!(pair.get(1, offset), expected, "{fault}");
        assert_ne!(pair.get(0, offset), expected, "{fault}");
    }
}
