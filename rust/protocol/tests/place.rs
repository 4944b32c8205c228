// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the region is: BAR 2 or an address.

mod common;

use common::demo;
use ivshmem_protocol::layout::{Geometry, Layout, LayoutError, Place};
use proptest::prelude::*;

/// The demo link: a region of 64 KiB.
fn layout() -> Layout {
    Layout::new(&demo(0)).unwrap()
}

#[test]
fn a_bar_counts_before_an_address() {
    for bar in [0x10000, 0x20000, 1 << 40] {
        for address in [None, Some(0), Some(0x1234), Some(0x7faf_0000)] {
            assert_eq!(Place::find(&layout(), bar, address), Ok(Place::Bar));
        }
    }
}

#[test]
fn a_bar_holds_the_whole_region() {
    for bar in [1, 0x1000, 0x8000, 0xffff] {
        assert_eq!(
            Place::find(&layout(), bar, Some(0x7faf_0000)),
            Err(LayoutError::BeyondBar {
                region: 0x10000,
                bar
            })
        );
    }
}

#[test]
fn without_a_bar_there_is_an_address() {
    for none in [None, Some(0)] {
        assert_eq!(Place::find(&layout(), 0, none), Err(LayoutError::NoAddress));
    }
    let at = |address| Place::find(&layout(), 0, Some(address));
    assert_eq!(at(0x7faf_0000), Ok(Place::Address(0x7faf_0000)));
    assert_eq!(at(0x1000), Ok(Place::Address(0x1000)));
    for value in [1, 0xfff, 0x7faf_0800, 0x7faf_0001] {
        assert_eq!(
            at(value),
            Err(LayoutError::Misaligned {
                field: "base address",
                value
            })
        );
    }
    let last = u64::MAX - 0xffff - 0x1000;
    assert_eq!(at(last), Ok(Place::Address(last)));
    for address in [last + 0x1000, u64::MAX - 0xfff] {
        assert_eq!(
            at(address),
            Err(LayoutError::AddressOverflow {
                address,
                region: 0x10000
            })
        );
    }
}

proptest! {
    #[test]
    fn a_place_holds_the_region(
        pages in 0_u64..1 << 51,
        bar in prop_oneof![Just(0), any::<u64>()],
        address in proptest::option::of(prop_oneof![
            any::<u64>(),
            any::<u64>().prop_map(|a| a & !0xfff),
        ]),
    ) {
        let geometry = Geometry { rw_size: pages * 0x1000, ..demo(0) };
        let Ok(layout) = Layout::new(&geometry) else {
            return Ok(());
        };
        let region = i128::from(layout.region_size());
        match Place::find(&layout, bar, address) {
            Ok(Place::Bar) => prop_assert!(bar > 0 && region <= i128::from(bar)),
            Ok(Place::Address(found)) => {
                prop_assert_eq!((bar, address), (0, Some(found)));
                prop_assert!(found != 0 && found & 0xfff == 0);
                prop_assert!(i128::from(found) + region < 1 << 64);
            }
            Err(LayoutError::BeyondBar { .. }) => {
                prop_assert!(bar != 0 && i128::from(bar) < region);
            }
            Err(LayoutError::NoAddress) => prop_assert!(bar == 0 && address.unwrap_or(0) == 0),
            Err(LayoutError::Misaligned { field: "base address", value }) => {
                prop_assert_eq!((bar, address), (0, Some(value)));
                prop_assert_ne!(value & 0xfff, 0);
            }
            Err(LayoutError::AddressOverflow { address: at, .. }) => {
                prop_assert_eq!((bar, address), (0, Some(at)));
                prop_assert!(i128::from(at) + region >= 1 << 64);
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}

/// Jailhouse places regions on pages of 4 KiB. On a kernel with larger ones, offsets within the
/// region that fall on pages say nothing about the address.
#[test]
fn a_region_off_a_page_cannot_be_mapped() {
    let at = Place::Address(0x7faf_1000);
    assert!(at.is_mappable(0x1000));
    assert!(!at.is_mappable(0x4000));
    assert!(!at.is_mappable(0x10000));
    assert!(!at.is_mappable(0));
    assert!(Place::Address(0x7faf_0000).is_mappable(0x10000));
    assert!(Place::Bar.is_mappable(0x10000));
}
