// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What users read in the log: each error names the field and its value.

use ivshmem_protocol::capability::CapabilityError;
use ivshmem_protocol::config::FindError;
use ivshmem_protocol::layout::{LayoutError, Refused};
use ivshmem_protocol::memory::OutOfBounds;
use std::error::Error;

fn check(cases: &[(&dyn Error, &str)]) {
    for (error, text) in cases {
        assert_eq!(error.to_string(), *text);
        assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn capability() {
    check(&[
        (
            &CapabilityError::NotFound(FindError::Missing { id: 0x09 }),
            "vendor capability: no PCI capability with ID 0x09",
        ),
        (
            &CapabilityError::NotFound(FindError::BadPointer { pointer: 0x3e }),
            "vendor capability: PCI capability pointer 0x3e is not valid",
        ),
        (
            &CapabilityError::NotFound(FindError::Endless),
            "vendor capability: the list of PCI capabilities has a loop",
        ),
        (
            &CapabilityError::Short { length: 0x17 },
            "vendor capability: length 0x17 is less than 0x18",
        ),
        (
            &CapabilityError::Beyond {
                offset: 0xf0,
                length: 0x20,
            },
            "vendor capability: offset 0xf0 and length 0x20 reach beyond the configuration space",
        ),
        (
            &FindError::Missing { id: 0x11 },
            "no PCI capability with ID 0x11",
        ),
    ]);
}

#[test]
fn numbers() {
    check(&[
        (
            &LayoutError::NotThere,
            "registers read all-ones, the device does not answer",
        ),
        (
            &LayoutError::MaxPeers(1),
            "maximum peers 1 is not in 2..=4096",
        ),
        (
            &LayoutError::Id {
                id: 3,
                max_peers: 3,
            },
            "peer ID 3 is not below maximum peers 3",
        ),
        (
            &LayoutError::StateTableSmall {
                size: 0x1000,
                max_peers: 1025,
            },
            "state table size 0x1000 has no room for 1025 peers",
        ),
        (
            &LayoutError::Misaligned {
                field: "R/W section size",
                value: 0x9001,
            },
            "R/W section size 0x9001 is not divisible by 0x1000",
        ),
        (
            &LayoutError::TooLarge {
                rw_size: 0x9000,
                output_size: 0xffff_ffff_ffff_f000,
            },
            "R/W section size 0x9000 and output section size 0xfffffffffffff000 make too large a \
             region",
        ),
        (
            &LayoutError::BeyondBar {
                region: 0x10000,
                bar: 0x8000,
            },
            "region size 0x10000 reaches beyond BAR 2 of size 0x8000",
        ),
        (
            &LayoutError::NoAddress,
            "base address is missing: no BAR 2, and none in the vendor capability",
        ),
        (
            &LayoutError::AddressOverflow {
                address: 0xffff_ffff_ffff_f000,
                region: 0x10000,
            },
            "base address 0xfffffffffffff000 and region size 0x10000 reach beyond the address \
             space",
        ),
    ]);
}

#[test]
fn accesses() {
    check(&[
        (&Refused::ReadOnly, "this peer may not write there"),
        (
            &Refused::Beyond,
            "beyond the end of the shared memory region",
        ),
        (
            &Refused::NotMappable,
            "not on page boundaries of this kernel",
        ),
        (
            &OutOfBounds { offset: 0x2ffe },
            "offset 0x2ffe has no whole word of shared memory",
        ),
    ]);
}
