// SPDX-License-Identifier: MIT OR Apache-2.0

//! The model held against a real Jailhouse: dumps and behaviour that were observed there (master of
//! January 2023, root cells on arm64 and x86-64). Each test is one observation. Constants are written
//! out here on purpose: a wrong one in the sources must not be wrong everywhere.

mod support;

use ivshmem_device::lines::IrqRequest;
use ivshmem_device::link::Space;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Shape;
use support::bench::*;

fn demo(vectors: u16) -> LinkOptions {
    LinkOptions {
        max_peers: 3,
        vectors,
        ..LinkOptions::default()
    }
}

fn parse_dump(text: &str) -> Vec<u8> {
    text.lines()
        .flat_map(|line| {
            line.split_once(':')
                .map_or("", |(_, bytes)| bytes)
                .split_whitespace()
        })
        .map(|byte| u8::from_str_radix(byte, 16).expect("a hexadecimal byte"))
        .collect()
}

/// arm64, with INTx, before a driver was bound.
const ARM64: &str = "
00: 0a 11 06 41 00 00 10 00 00 00 00 ff 00 00 00 00
10: 00 00 10 0b 00 00 00 00 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 0a 11 06 41
30: 00 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00
40: 09 00 20 00 00 10 00 00 00 90 00 00 00 00 00 00
50: 00 20 00 00 00 00 00 00 00 00 af 7f 00 00 00 00
60: 11 00 00 00 01 00 00 00 01 01 00 00 00 00 00 00
70: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00";

/// x86-64, with 16 MSI-X vectors.
const X86_64: &str = "
00: 0a 11 06 41 00 00 10 00 00 00 00 ff 00 00 00 00
10: 00 00 00 40 00 10 00 40 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 0a 11 06 41
30: 00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00
40: 09 60 20 00 00 10 00 00 00 90 00 00 00 00 00 00
50: 00 20 00 00 00 00 00 00 00 00 0f 3f 00 00 00 00
60: 11 00 0f 00 01 00 00 00 01 01 00 00 00 00 00 00
70: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00";

/// Programs the BARs as in the dump and compares all bytes. Two differ, as the memory is in BAR 4
/// here: the BAR itself, which does not exist on Jailhouse, and the address, aligned as a BAR is.
fn check_dump(vectors: u16, dump: &str) {
    let mut expected = parse_dump(dump);
    expected.resize(256, 0xff);
    let mut bench = Bench::empty(demo(vectors));
    let bars: [u8; 8] = expected[0x10..0x18].try_into().unwrap();
    bench.link.write(0, Space::Config, 0x10, &bars);
    let address: [u8; 8] = expected[0x58..0x60].try_into().unwrap();
    let aligned = u64::from_le_bytes(address) & !0x1_ffff;
    bench
        .link
        .write(0, Space::Config, 0x20, &aligned.to_le_bytes());
    expected[0x20..0x28].copy_from_slice(&(aligned | 0xc).to_le_bytes());
    expected[0x58..0x60].copy_from_slice(&aligned.to_le_bytes());
    for (at, (actual, expected)) in bench.config(0).iter().zip(&expected).enumerate() {
        assert_eq!(actual, expected, "byte {at:#04x}");
    }
}

#[test]
fn configuration_space_is_that_of_the_arm64_dump() {
    check_dump(0, ARM64);
}

#[test]
fn configuration_space_is_that_of_the_x86_64_dump() {
    check_dump(16, X86_64);
}

#[test]
fn class_code_has_the_protocol() {
    let mut bench = Bench::empty(LinkOptions {
        protocol: ivshmem_protocol::config::Protocol(0x4001),
        ..demo(1)
    });
    assert_eq!(bench.config(0)[0x08..0x0c], [0x00, 0x01, 0x40, 0xff]);
}

#[test]
fn bar2_shape_has_a_short_capability_and_a_64_bit_prefetchable_bar() {
    let mut bench = Bench::empty(LinkOptions {
        shape: Shape::Bar2,
        ..demo(16)
    });
    let config = bench.config(0);
    assert_eq!(config[0x40..0x44], [0x09, 0x60, 0x18, 0x00]);
    assert_eq!(config[0x58..0x60], [0; 8]);
    assert_eq!(config[0x18], 0x0c);
    assert_eq!(config[0x20], 0x00);
}

#[test]
fn bytes_from_80h_on_read_ffh() {
    let mut bench = Bench::empty(demo(16));
    assert!(bench.config(0)[0x80..].iter().all(|&b| b == 0xff));
    let mut beyond = [0; 8];
    bench.link.read(0, Space::Config, 0xfc, &mut beyond);
    assert_eq!(beyond, [0xff; 8]);
}

#[test]
fn command_ffffh_reads_back_as_0406h() {
    let mut bench = Bench::empty(demo(16));
    bench.command(0, 0xffff);
    assert_eq!(bench.config(0)[0x04..0x08], [0x06, 0x04, 0x10, 0x00]);
}

#[test]
fn interrupt_line_is_not_writable_and_writing_it_is_not_fatal() {
    let mut bench = Bench::empty(demo(16));
    bench.link.write(0, Space::Config, 0x3c, &[0x0b]);
    assert_eq!(bench.config(0)[0x3c], 0);
    assert_eq!(bench.statistics().fatal_accesses, 0);
}

#[test]
fn privileged_control_only_bit_0_sticks() {
    let mut bench = Bench::empty(demo(16));
    bench.link.write(0, Space::Config, 0x43, &[0xff]);
    assert_eq!(bench.config(0)[0x40..0x44], [0x09, 0x60, 0x20, 0x01]);
}

#[test]
fn msix_control_only_enable_and_function_mask_stick() {
    let mut bench = Bench::empty(demo(16));
    bench.msix(0, 0xffff);
    assert_eq!(bench.config(0)[0x60..0x64], [0x11, 0x00, 0x0f, 0xc0]);
}

#[test]
fn what_firmware_and_linux_write_is_not_fatal() {
    let mut bench = Bench::empty(demo(16));
    for (offset, data) in [
        (0x04, &[0x06, 0x00, 0xff, 0xff][..]),
        (0x0c, &[0xff; 4]),
        (0x10, &[0xff; 4]),
        (0x24, &[0xff; 4]),
        (0x30, &[0xff; 4]),
        (0x3c, &[0xff]),
        (0x40, &[0xff; 4]),
        (0x44, &[0xff; 4]),
        (0x62, &[0x00, 0x80]),
        (0x7c, &[0xff; 4]),
    ] {
        bench.link.write(0, Space::Config, offset, data);
    }
    assert_eq!(bench.statistics().peers[0].fatal_accesses, 0);
    assert_eq!(bench.config(0)[0x44..0x48], [0x00, 0x10, 0x00, 0x00]);
}

#[test]
fn forbidden_config_writes_are_dropped_and_counted_as_fatal() {
    for (offset, data) in [
        (0x00, &[0; 4][..]),
        (0x08, &[0; 4]),
        (0x28, &[0; 4]),
        (0x2c, &[0; 4]),
        (0x34, &[0; 1]),
        (0x38, &[0; 4]),
        (0x3c, &[0; 4]),
        (0x3d, &[0; 1]),
        (0x80, &[0; 4]),
        (0xff, &[0; 1]),
    ] {
        let mut bench = Bench::empty(demo(16));
        let before = bench.config(0);
        bench.link.write(0, Space::Config, offset, data);
        assert_eq!(bench.config(0), before, "offset {offset:#x}");
        let statistics = bench.statistics();
        assert_eq!(statistics.peers[0].fatal.config_writes, 1, "{offset:#x}");
        assert_eq!(statistics.fatal_accesses, 1);
    }
}

#[test]
fn base_address_follows_bar_4_and_is_0_before() {
    let mut bench = Bench::empty(demo(16));
    assert_eq!(bench.config(0)[0x58..0x60], [0; 8]);
    // Sizing, then the address, the upper half last.
    bench.link.write(0, Space::Config, 0x20, &[0xff; 4]);
    assert_eq!(bench.config(0)[0x20..0x24], 0xfffe_000c_u32.to_le_bytes());
    bench.link.write(0, Space::Config, 0x24, &[0xff; 4]);
    bench
        .link
        .write(0, Space::Config, 0x20, &[0, 0, 0x12, 0x34]);
    bench.link.write(0, Space::Config, 0x24, &[0x05, 0, 0, 0]);
    let expected = 0x5_3412_0000_u64.to_le_bytes();
    assert_eq!(bench.config(0)[0x58..0x60], expected);
}

#[test]
fn id_and_max_peers_ignore_writes() {
    let mut bench = Bench::new(demo(16));
    for peer in 0..3 {
        bench.set(peer, ID, 0x1234);
        bench.set(peer, MAX_PEERS, 0x1234);
        assert_eq!(bench.get(peer, ID), u32::from(peer));
        assert_eq!(bench.get(peer, MAX_PEERS), 3);
    }
}

#[test]
fn reserved_offsets_read_0_and_ignore_writes_and_are_counted() {
    let mut bench = Bench::new(demo(16));
    let offsets = (0x14..=0xffc).step_by(4);
    let count = offsets.clone().count() as u64;
    for offset in offsets {
        bench.set(0, offset, u32::MAX);
        assert_eq!(bench.get(0, offset), 0);
    }
    let peer = &bench.statistics().peers[0];
    assert_eq!(peer.fatal.unbacked_registers, 2 * count);
    assert_eq!(peer.register_reads.other, count);
    assert_eq!(peer.register_writes.other, count);
}

#[test]
fn unaligned_offsets_read_0_and_ignore_writes_and_are_counted() {
    let mut bench = Bench::new(demo(16));
    bench.set(0, STATE, 0x1122_3344);
    for offset in [0x01, 0x06, 0x0b, 0x0e, 0x11, 0x12] {
        bench.set(0, offset, u32::MAX);
        assert_eq!(bench.get(0, offset), 0);
    }
    assert_eq!(bench.get(0, STATE), 0x1122_3344);
    assert_eq!(bench.statistics().peers[0].fatal.unaligned_registers, 12);
}

#[test]
fn doorbell_reads_0() {
    let mut bench = Bench::new(demo(16));
    assert_eq!(bench.get(1, DOORBELL), 0);
}

#[test]
fn int_ctrl_only_bit_0_sticks() {
    let mut bench = Bench::new(demo(16));
    bench.set(0, INT_CTRL, 0xffff_ffff);
    assert_eq!(bench.get(0, INT_CTRL), 1);
    bench.set(0, INT_CTRL, 0xffff_fffe);
    assert_eq!(bench.get(0, INT_CTRL), 0);
}

#[test]
fn an_8_bit_write_acts_on_the_whole_register() {
    let mut bench = Bench::new(demo(16));
    bench.set(0, STATE, 0x1122_3344);
    bench.link.write(0, Space::Registers, STATE, &[0x55]);
    assert_eq!(bench.get(0, STATE), 0x55);
    bench.link.write(0, Space::Registers, STATE, &[0x66, 0x77]);
    assert_eq!(bench.get(0, STATE), 0x7766);
    let peer = &bench.statistics().peers[0];
    assert_eq!((peer.odd_width_accesses, peer.fatal_accesses), (2, 0));
}

#[test]
fn a_64_bit_read_of_id_returns_only_id() {
    let mut bench = Bench::new(demo(16));
    let mut data = [0xff; 8];
    bench.link.read(2, Space::Registers, ID, &mut data);
    assert_eq!(data, [2, 0, 0, 0, 0, 0, 0, 0]);
    bench.link.write(2, Space::Registers, STATE, &[7; 8]);
    assert_eq!(bench.get(2, STATE), 0x0707_0707);
}

#[test]
fn one_shot_int_ctrl_reads_0_after_an_interrupt_and_has_to_be_set_again() {
    let mut bench = Bench::new(demo(16));
    bench.one_shot(1, true);
    bench.ring(0, 1, 3);
    assert_eq!(bench.arrived(1, 3), 1);
    assert_eq!(bench.get(1, INT_CTRL), 0);
    bench.ring(0, 1, 3);
    assert_eq!(bench.arrived(1, 3), 0);
    bench.set(1, INT_CTRL, 1);
    bench.ring(0, 1, 3);
    assert_eq!(bench.arrived(1, 3), 1);
}

#[test]
fn without_one_shot_interrupts_keep_coming() {
    let mut bench = Bench::new(demo(16));
    for _ in 0..5 {
        bench.ring(0, 1, 3);
    }
    assert_eq!(bench.arrived(1, 3), 5);
    assert_eq!(bench.get(1, INT_CTRL), 1);
}

#[test]
fn one_shot_clears_int_ctrl_even_if_the_interrupt_cannot_be_delivered() {
    let mut bench = Bench::new(demo(16));
    bench.one_shot(1, true);
    bench.command(1, COMMAND_MEMORY);
    bench.ring(0, 1, 3);
    assert_eq!(bench.all_arrived(), 0);
    assert_eq!(bench.get(1, INT_CTRL), 0);
}

/// Rings while `off`, then switches on again: nothing may arrive but a later doorbell.
fn check_dropped(vectors: u16, off: impl Fn(&mut Bench), on: impl Fn(&mut Bench)) -> Bench {
    let mut bench = Bench::new(demo(vectors));
    off(&mut bench);
    bench.ring(0, 1, 0);
    bench.set(0, STATE, 1);
    on(&mut bench);
    assert_eq!(bench.arrived(1, 0), 0);
    assert_eq!(bench.statistics().peers[1].interrupts.dropped.total(), 2);
    bench.ring(0, 1, 0);
    assert_eq!(bench.arrived(1, 0), 1);
    bench
}

#[test]
fn a_doorbell_while_int_ctrl_is_0_is_dropped_not_pended() {
    for vectors in [0, 16] {
        let mut bench = check_dropped(
            vectors,
            |b| b.set(1, INT_CTRL, 0),
            |b| b.set(1, INT_CTRL, 1),
        );
        assert_eq!(bench.statistics().peers[1].interrupts.dropped.disabled, 2);
    }
}

#[test]
fn a_doorbell_while_intx_is_disabled_is_dropped_not_pended() {
    let mut bench = check_dropped(
        0,
        |b| b.command(1, COMMAND_MEMORY | COMMAND_INTX_DISABLE),
        |b| b.command(1, COMMAND_MEMORY),
    );
    let dropped = &bench.statistics().peers[1].interrupts.dropped;
    assert_eq!(dropped.intx_disabled, 2);
}

#[test]
fn a_doorbell_while_bus_master_is_off_is_dropped_not_pended_with_msix() {
    let mut bench = check_dropped(
        16,
        |b| b.command(1, COMMAND_MEMORY),
        |b| b.command(1, COMMAND_MEMORY | COMMAND_MASTER),
    );
    let dropped = &bench.statistics().peers[1].interrupts.dropped;
    assert_eq!(dropped.bus_master_off, 2);
}

#[test]
fn a_doorbell_while_msix_is_off_or_masked_is_dropped_not_pended() {
    let mut bench = check_dropped(16, |b| b.msix(1, 0), |b| b.msix(1, MSIX_ENABLE));
    assert_eq!(bench.statistics().peers[1].interrupts.dropped.msix_off, 2);
    let mut bench = check_dropped(
        16,
        |b| b.msix(1, MSIX_ENABLE | MSIX_FUNCTION_MASK),
        |b| b.msix(1, MSIX_ENABLE),
    );
    let dropped = &bench.statistics().peers[1].interrupts.dropped;
    assert_eq!(dropped.function_masked, 2);
}

#[test]
fn a_doorbell_on_a_vector_that_is_not_set_up_is_dropped_not_pended() {
    let mut bench = check_dropped(
        16,
        |b| b.link.irq_request(1, IrqRequest::ClearVectors),
        |b| b.set_lines(1),
    );
    let dropped = &bench.statistics().peers[1].interrupts.dropped;
    assert_eq!(dropped.vector_off, 2);
}

#[test]
fn intx_does_not_need_bus_master() {
    let mut bench = Bench::new(demo(0));
    bench.command(1, COMMAND_MEMORY);
    bench.ring(0, 1, 0);
    assert_eq!(bench.arrived(1, 0), 1);
}

#[test]
fn the_intx_disable_bit_does_not_affect_msix() {
    let mut bench = Bench::new(demo(16));
    bench.command(1, COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE);
    bench.ring(0, 1, 5);
    assert_eq!(bench.arrived(1, 5), 1);
}

#[test]
fn a_doorbell_to_the_own_id_is_delivered() {
    for vectors in [0, 16] {
        let mut bench = Bench::new(demo(vectors));
        bench.ring(2, 2, 0);
        assert_eq!(bench.arrived(2, 0), 1);
    }
}

#[test]
fn doorbells_out_of_range_and_to_absent_peers_have_no_effect() {
    let mut bench = Bench::empty(demo(16));
    bench.come(0);
    bench.come(1);
    bench.ring(0, 1, 16);
    bench.ring(0, 1, 0xffff);
    bench.ring(0, 2, 0);
    bench.ring(0, 3, 0);
    bench.ring(0, 0xffff, 0);
    assert_eq!(bench.all_arrived(), 0);
    let statistics = bench.statistics();
    let doorbells = &statistics.peers[0].doorbells;
    assert_eq!((doorbells.bad_vector, doorbells.bad_peer), (2, 2));
    assert_eq!((doorbells.sent, statistics.fatal_accesses), (1, 0));
}

#[test]
fn vectors_0_3_and_15_each_have_their_own_line_and_16_is_ignored() {
    let mut bench = Bench::new(demo(16));
    for vector in [0, 3, 15] {
        bench.ring(0, 1, vector);
        assert_eq!(bench.arrived(1, vector), 1);
        assert_eq!(bench.all_arrived(), 0);
    }
    bench.ring(0, 1, 16);
    assert_eq!(bench.all_arrived(), 0);
}

#[test]
fn with_intx_only_vector_0_exists() {
    let mut bench = Bench::new(demo(0));
    bench.ring(0, 1, 1);
    assert_eq!(bench.all_arrived(), 0);
    assert_eq!(bench.statistics().peers[0].doorbells.bad_vector, 1);
}

#[test]
fn a_state_write_changes_register_and_table_and_interrupts_only_the_others() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 0x1234_5678);
    assert_eq!(bench.get(1, STATE), 0x1234_5678);
    assert_eq!((bench.word(0), bench.word(4)), (0, 0x1234_5678));
    assert_eq!(bench.arrived(0, 0), 1);
    assert_eq!(bench.arrived(2, 0), 1);
    assert_eq!(bench.all_arrived(), 0);
}

#[test]
fn a_state_write_of_the_same_value_interrupts_nobody() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 5);
    bench.all_arrived();
    bench.set(1, STATE, 5);
    assert_eq!(bench.all_arrived(), 0);
    assert_eq!(bench.statistics().peers[1].state_changes, 1);
}

#[test]
fn life_of_a_peer_0_to_2_then_end_is_one_interrupt_each() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 2);
    assert_eq!(bench.arrived(0, 0), 1);
    bench.link.detach(1);
    assert_eq!(bench.word(4), 0);
    assert_eq!(bench.arrived(0, 0), 1);
}

#[test]
fn the_end_of_a_peer_whose_state_is_0_interrupts_nobody() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 2);
    bench.set(1, STATE, 0);
    bench.all_arrived();
    bench.link.detach(1);
    assert_eq!(bench.all_arrived(), 0);
}

#[test]
fn reset_clears_state_int_ctrl_one_shot_command_and_bars_and_tells_the_others() {
    let mut bench = Bench::new(demo(16));
    let fresh = Bench::empty(demo(16)).config(1);
    bench.link.write(1, Space::Config, 0x10, &[0xff; 24]);
    bench.one_shot(1, true);
    bench.set(1, STATE, 7);
    bench.set(1, INT_CTRL, 1);
    bench.all_arrived();
    bench.link.reset(1);
    assert_eq!(bench.config(1), fresh);
    assert_eq!(bench.word(4), 0);
    assert_eq!(bench.arrived(0, 0), 1);
    bench.command(1, COMMAND_MEMORY);
    assert_eq!(bench.get(1, INT_CTRL), 0);
    assert_eq!(bench.get(1, STATE), 0);
}

#[test]
fn sections_keep_their_contents_over_reset_and_death_and_the_table_does_not() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 7);
    bench.poke(0x1000, 0xaa);
    bench.poke(0xc000, 0xbb);
    bench.link.reset(1);
    bench.link.detach(1);
    assert_eq!((bench.word(0x1000), bench.word(0xc000)), (0xaa, 0xbb));
    assert_eq!(bench.word(4), 0);
}

#[test]
fn a_new_client_finds_a_fresh_device_and_can_be_rung() {
    let mut bench = Bench::new(demo(16));
    bench.set(1, STATE, 7);
    bench.link.detach(1);
    bench.ring(0, 1, 3);
    assert_eq!(bench.arrived(1, 3), 0);
    bench.come(1);
    assert_eq!(bench.get(1, STATE), 0);
    bench.ring(0, 1, 3);
    assert_eq!(bench.arrived(1, 3), 1);
    let peer = &bench.statistics().peers[1];
    assert_eq!((peer.attaches, peer.detaches), (2, 1));
}

#[test]
fn registers_do_not_answer_while_memory_decoding_is_off() {
    let mut bench = Bench::new(demo(16));
    bench.command(0, COMMAND_MASTER);
    assert_eq!(bench.get(0, ID), u32::MAX);
    bench.set(0, STATE, 1);
    let mut entry = [0; 4];
    bench.link.read(0, Space::MsixTable, 0, &mut entry);
    assert_eq!(entry, [0xff; 4]);
    bench.command(0, COMMAND_MEMORY);
    assert_eq!(bench.get(0, STATE), 0);
    assert_eq!(bench.statistics().peers[0].fatal.decode_off, 3);
}

#[test]
fn msix_table_is_masked_after_reset_and_keeps_what_is_written() {
    let mut bench = Bench::new(demo(4));
    let mut entry = [0xff; 16];
    bench.link.read(0, Space::MsixTable, 0x30, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    bench.link.write(0, Space::MsixTable, 0x38, &[1, 2, 3, 4]);
    bench.link.read(0, Space::MsixTable, 0x30, &mut entry);
    assert_eq!(entry[8..12], [1, 2, 3, 4]);
    assert_eq!(bench.statistics().fatal_accesses, 0);
}

#[test]
fn pending_bits_read_0_and_bad_accesses_to_bar_1_are_fatal() {
    let mut bench = Bench::new(demo(4));
    let mut data = [0xff; 8];
    bench.link.read(0, Space::MsixTable, 0x100, &mut data);
    assert_eq!(data, [0; 8]);
    assert_eq!(bench.statistics().fatal_accesses, 0);
    bench.link.write(0, Space::MsixTable, 0x100, &[1; 4]);
    bench.link.write(0, Space::MsixTable, 0x40, &[1; 4]);
    bench.link.read(0, Space::MsixTable, 0x02, &mut data);
    assert_eq!(bench.statistics().peers[0].fatal.msix_table, 3);
}
