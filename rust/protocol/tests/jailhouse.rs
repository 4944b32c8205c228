// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The crate against a real device: configuration spaces of both links in a root cell, as Jailhouse
//! (git e57d1eff, "v0.12") presented them on arm64 and x86-64 before a driver was bound.

mod common;

use common::{parse, ARM64, X86};
use ivshmem_protocol::capability::{VendorCapability, CONTROL_ONE_SHOT, PRIVILEGED_CONTROL};
use ivshmem_protocol::config::{self, find_capability, ConfigSpace, FindError, Protocol};
use ivshmem_protocol::layout::{Geometry, Layout, Place, Section};

/// The second device of the arm64 root cell, a virtual Ethernet link. Its record says in what it
/// differs from the first; the address is the end of the first one's region.
fn ethernet() -> [u8; 256] {
    let mut bytes = parse(ARM64);
    bytes[0x09] = 0x01;
    bytes[0x3d] = 0x02;
    bytes[0x48..0x50].fill(0);
    bytes[0x50..0x54].copy_from_slice(&0x7f000_u32.to_le_bytes());
    bytes[0x58..0x5c].copy_from_slice(&0x7fb0_0000_u32.to_le_bytes());
    bytes
}

fn section(offset: u64, size: u64) -> Section {
    Section { offset, size }
}

#[test]
fn identity_and_protocol() {
    for (space, protocol) in [
        (parse(ARM64), Protocol::UNDEFINED),
        (parse(X86), Protocol::UNDEFINED),
        (ethernet(), Protocol::ETHERNET),
    ] {
        assert_eq!(config::read_u16(&space, 0x00), config::VENDOR_ID);
        assert_eq!(config::read_u16(&space, 0x02), config::DEVICE_ID);
        let class = space.read(0x08) >> 8;
        assert_eq!(Protocol::from_class_code(class), Some(protocol));
        assert_eq!(protocol.class_code(), class);
        assert_eq!(config::read_u16(&space, config::COMMAND), 0);
        assert_eq!(
            config::read_u16(&space, config::STATUS),
            config::STATUS_CAPABILITIES
        );
    }
    assert!(Protocol::UNDEFINED.is_raw());
    assert!(!Protocol::ETHERNET.is_raw());
}

#[test]
fn both_architectures_have_the_demo_link() {
    for (dump, address) in [(ARM64, 0x7faf_0000), (X86, 0x3f0f_0000)] {
        let capability = VendorCapability::read(&parse(dump));
        assert_eq!(
            capability,
            Ok(VendorCapability {
                offset: 0x40,
                state_table_size: 0x1000,
                rw_size: 0x9000,
                output_size: 0x2000,
                base_address: Some(address),
            })
        );
    }
}

#[test]
fn one_shot_is_off_after_reset() {
    for dump in [ARM64, X86] {
        let control = parse(dump)[0x40 + usize::from(PRIVILEGED_CONTROL)];
        assert_eq!(control & CONTROL_ONE_SHOT, 0);
    }
}

#[test]
fn arm64_has_bytes_of_msix_but_no_capability() {
    let space = parse(ARM64);
    assert_eq!(space[0x60], config::CAPABILITY_MSIX);
    assert_eq!(
        find_capability(&space, config::CAPABILITY_MSIX),
        Err(FindError::Missing { id: 0x11 })
    );
    assert_eq!(find_capability(&space, config::CAPABILITY_VENDOR), Ok(0x40));
}

#[test]
fn x86_has_16_vectors_in_bar_1() {
    let space = parse(X86);
    let msix = find_capability(&space, config::CAPABILITY_MSIX).unwrap();
    assert_eq!(msix, 0x60);
    assert_eq!((config::read_u16(&space, msix + 2) & 0x7ff) + 1, 16);
    // Table and pending bits: BAR in the three lower bits, offset in the others.
    assert_eq!(space.read(msix + 4) & 7, u32::from(config::BAR_MSIX));
    assert_eq!(space.read(msix + 8), 0x100 | u32::from(config::BAR_MSIX));
}

#[test]
fn demo_link_layout() {
    let space = parse(ARM64);
    let capability = VendorCapability::read(&space).unwrap();
    let root = Layout::new(&Geometry::new(0, 3, &capability)).unwrap();
    assert_eq!(root.region_size(), 0x10000);
    assert_eq!(root.state_table(), section(0, 0x1000));
    assert_eq!(root.rw(), section(0x1000, 0x9000));
    assert_eq!(root.outputs(), section(0xa000, 0x6000));
    assert_eq!(root.output(), section(0xa000, 0x2000));
    // What the classic demo prints as in@0x0000, in@0x2000 and in@0x4000.
    for (peer, classic) in [(0, 0x0000), (1, 0x2000), (2, 0x4000)] {
        let output = root.output_of(peer).unwrap();
        assert_eq!(output, section(0xa000 + classic, 0x2000));
        let own = Layout::new(&Geometry::new(u32::from(peer), 3, &capability)).unwrap();
        assert_eq!(own.output(), output);
        assert_eq!(own.id(), peer);
    }
    assert_eq!(root.output_of(3), None);
    assert_eq!(
        Place::find(&root, 0, capability.base_address),
        Ok(Place::Address(0x7faf_0000))
    );
}

#[test]
fn ethernet_link_has_no_rw_section() {
    let capability = VendorCapability::read(&ethernet()).unwrap();
    let layout = Layout::new(&Geometry::new(1, 2, &capability)).unwrap();
    assert_eq!(layout.rw(), section(0x1000, 0));
    assert_eq!(layout.output_of(0), Some(section(0x1000, 0x7f000)));
    assert_eq!(layout.output(), section(0x80000, 0x7f000));
    assert_eq!(layout.region_size(), 0xff000);
    assert_eq!(
        Place::find(&layout, 0, capability.base_address),
        Ok(Place::Address(0x7fb0_0000))
    );
}

/// While decoding is off or the device has gone, everything reads ff.
#[test]
fn a_device_that_does_not_answer_is_refused() {
    let error = VendorCapability::read(&[0xff; 256]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vendor capability: PCI capability pointer 0xff is not valid"
    );
}
