// SPDX-License-Identifier: MIT OR Apache-2.0
//! `IVSHMEM_IOC_INFO` tells what the device model was told to be.

use super::{Env, Test};
use ivshmem::{uapi, InterruptMode, Section};

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "ID, peers, vectors and protocol are those of the device",
        numbers,
    ),
    Test::new(
        "interrupts are MSI-X with every vector that the device offers, up to 64",
        interrupts,
    ),
    Test::new("sections lie where the device's sizes put them", sections),
    Test::new(
        "rights: own output section and read/write section only",
        rights,
    ),
    Test::new("sections on page borders can be mapped", mappable),
    Test::new("the ABI version is that of the header", abi),
];

fn numbers(env: &Env) {
    let (info, expected) = (*env.open().info(), env.expected());
    assert_eq!(info.id, expected.peer);
    assert_eq!(info.max_peers, expected.peers);
    assert_eq!(info.vectors, expected.vectors);
    assert_eq!(info.protocol, u32::from(expected.protocol));
}

fn interrupts(env: &Env) {
    let info = *env.open().info();
    assert_eq!(info.interrupt_mode, InterruptMode::MsiX);
    assert_eq!(info.vectors_enabled, env.vectors());
}

fn sections(env: &Env) {
    let (info, expected) = (*env.open().info(), env.expected());
    assert_eq!(info.state_table.offset, 0);
    assert_eq!(info.state_table.size, expected.state_size);
    assert_eq!(info.rw.offset, expected.state_size);
    assert_eq!(info.rw.size, expected.rw_size);
    assert_eq!(info.outputs.offset, expected.output_offset(0));
    assert_eq!(
        info.outputs.size,
        expected.output_size * u64::from(expected.peers)
    );
    assert_eq!(info.output.offset, expected.output_offset(expected.peer));
    assert_eq!(info.output.size, expected.output_size);
    assert_eq!(info.region_size, expected.region_size());
}

fn rights(env: &Env) {
    let info = *env.open().info();
    for section in [info.state_table, info.rw, info.outputs, info.output] {
        if section.size > 0 {
            assert!(section.is_readable(), "{section:?}");
        }
    }
    assert!(!info.state_table.is_writable());
    assert!(!info.outputs.is_writable());
    assert_eq!(info.rw.is_writable(), info.rw.size > 0);
    assert_eq!(info.output.is_writable(), info.output.size > 0);
}

fn mappable(env: &Env) {
    let info = *env.open().info();
    let page = rustix::param::page_size() as u64;
    let on_borders = |section: Section| {
        section.size > 0 && section.offset % page == 0 && section.size % page == 0
    };
    for section in [info.state_table, info.rw, info.output] {
        assert_eq!(section.is_mappable(), on_borders(section), "{section:?}");
    }
    // All together, if each of them: not several that only together are whole pages.
    let each = on_borders(info.output);
    assert_eq!(info.outputs.is_mappable(), each, "{:?}", info.outputs);
}

fn abi(env: &Env) {
    assert_eq!(env.open().info().abi_version, uapi::IVSHMEM_ABI_VERSION);
}
