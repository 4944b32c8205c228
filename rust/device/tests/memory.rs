// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may store where: accesses that trap, and canaries for those that do not.

mod support;

use ivshmem_device::link::Space;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::Protection;
use support::bench::*;

const RW: u64 = 0x1000;
const OUTPUT_0: u64 = 0xa000;
const OUTPUT_1: u64 = 0xc000;
const OUTPUT_2: u64 = 0xe000;
const END: u64 = 0x1_0000;

fn three() -> LinkOptions {
    LinkOptions {
        max_peers: 3,
        ..LinkOptions::default()
    }
}

fn store(bench: &mut Bench, peer: u16, offset: u64) {
    bench
        .link
        .write(peer, Space::Memory, offset, &0x5555_5555_u32.to_le_bytes());
}

#[test]
fn stores_to_the_rw_and_the_own_output_section_are_carried_out() {
    let mut bench = Bench::new(three());
    for offset in [RW, OUTPUT_0 - 4, OUTPUT_1, OUTPUT_2 - 4] {
        store(&mut bench, 1, offset);
        assert_eq!(bench.word(offset as usize), 0x5555_5555, "{offset:#x}");
    }
    let peer = &bench.statistics().peers[1];
    assert_eq!((peer.memory_writes, peer.fatal_accesses), (4, 0));
}

#[test]
fn stores_to_the_state_table_are_dropped_and_fatal() {
    let mut bench = Bench::new(three());
    for offset in [0, 4, 0xffc] {
        store(&mut bench, 1, offset);
        assert_eq!(bench.word(offset as usize), 0, "{offset:#x}");
    }
    let statistics = bench.statistics();
    assert_eq!(statistics.peers[1].fatal.state_table_stores, 3);
    assert_eq!(statistics.fatal_accesses, 3);
    assert_eq!(statistics.canaries.damage(), 0);
}

#[test]
fn stores_to_foreign_output_sections_are_dropped_and_fatal() {
    let mut bench = Bench::new(three());
    for offset in [OUTPUT_0, OUTPUT_1 - 4, OUTPUT_2, END - 4] {
        store(&mut bench, 1, offset);
        assert_eq!(bench.word(offset as usize), 0, "{offset:#x}");
    }
    let fatal = &bench.statistics().peers[1].fatal;
    assert_eq!(fatal.foreign_output_stores, 4);
}

#[test]
fn a_store_across_a_border_stops_there_and_is_fatal() {
    let mut bench = Bench::new(three());
    bench.link.write(1, Space::Memory, OUTPUT_0 - 4, &[0x77; 8]);
    assert_eq!(bench.word(OUTPUT_0 as usize - 4), 0x7777_7777);
    assert_eq!(bench.word(OUTPUT_0 as usize), 0);
    let fatal = &bench.statistics().peers[1].fatal;
    assert_eq!(fatal.foreign_output_stores, 1);
}

#[test]
fn accesses_behind_the_region_are_fatal_and_read_all_ones() {
    let mut bench = Bench::new(three());
    store(&mut bench, 1, END);
    let mut data = [0; 8];
    bench.link.read(1, Space::Memory, END - 4, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    bench.link.read(1, Space::Memory, u64::MAX - 3, &mut data);
    assert_eq!(data, [0xff; 8]);
    let statistics = bench.statistics();
    assert_eq!(statistics.peers[1].fatal.beyond_region, 3);
    assert_eq!(statistics.canaries.damage(), 0);
}

#[test]
fn loads_from_anywhere_in_the_region_are_served() {
    let mut bench = Bench::new(three());
    bench.set(2, STATE, 0x0102_0304);
    bench.poke(OUTPUT_0 as usize, 0x0506_0708);
    let mut data = [0; 4];
    bench.link.read(1, Space::Memory, 8, &mut data);
    assert_eq!(u32::from_ne_bytes(data), 0x0102_0304);
    bench.link.read(1, Space::Memory, OUTPUT_0, &mut data);
    assert_eq!(u32::from_ne_bytes(data), 0x0506_0708);
    let peer = &bench.statistics().peers[1];
    assert_eq!((peer.memory_reads, peer.fatal_accesses), (2, 0));
}

fn mapped() -> Bench {
    Bench::new(LinkOptions {
        protection: Protection::Mapped,
        ..three()
    })
}

#[test]
fn canary_finds_and_repairs_a_store_to_the_state_table() {
    let mut bench = mapped();
    bench.set(0, STATE, 3);
    bench.poke(0, 0);
    bench.poke(0x800, 1);
    let statistics = bench.statistics();
    assert_eq!(statistics.canaries.state_table_words, 2);
    assert_eq!(statistics.fatal_accesses, 2);
    assert_eq!((bench.word(0), bench.word(0x800)), (3, 0));
    // Each is counted once.
    assert_eq!(bench.statistics().fatal_accesses, 2);
}

#[test]
fn canary_finds_a_store_to_the_state_table_that_a_state_write_would_hide() {
    let mut bench = mapped();
    bench.poke(4, 9);
    bench.set(1, STATE, 9);
    assert_eq!(bench.statistics().canaries.state_table_words, 1);
}

#[test]
fn canary_finds_a_store_behind_the_region() {
    let mut bench = mapped();
    bench.poke(END as usize, 0);
    bench.poke(END as usize + 0x1_0000 - 4, 0);
    assert_eq!(bench.statistics().canaries.guard_words, 2);
    assert_eq!(bench.statistics().fatal_accesses, 2);
}

#[test]
fn canary_finds_a_store_to_the_output_section_of_a_peer_that_never_was_there() {
    let mut bench = Bench::empty(LinkOptions {
        protection: Protection::Mapped,
        ..three()
    });
    bench.come(0);
    bench.poke(OUTPUT_0 as usize, 1);
    bench.poke(OUTPUT_2 as usize, 1);
    let statistics = bench.statistics();
    assert_eq!(statistics.canaries.unused_output_words, 1);
    assert_eq!(statistics.fatal_accesses, 1);
}

#[test]
fn canaries_are_silent_when_all_keep_to_the_rules() {
    let mut bench = mapped();
    for peer in 0..3 {
        bench.set(peer, STATE, u32::from(peer) + 1);
        bench.poke(RW as usize + 4 * usize::from(peer), 1);
        bench.poke(OUTPUT_0 as usize + 0x2000 * usize::from(peer), 1);
    }
    bench.link.detach(2);
    let statistics = bench.statistics();
    assert_eq!(statistics.canaries.checks, 1);
    assert_eq!(statistics.fatal_accesses, 0);
}
