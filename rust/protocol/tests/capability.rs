// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The vendor capability: what is read from where, and which forms are refused.

mod common;

use common::Config;
use ivshmem_protocol::capability::{CapabilityError, VendorCapability};
use ivshmem_protocol::config::{ConfigSpace, FindError};
use proptest::prelude::*;
use std::cell::Cell;

/// The capability from the table of the specification, with 64-bit fields in one piece.
fn expected(space: &[u8; 256], offset: u8) -> Result<VendorCapability, CapabilityError> {
    let length = space[usize::from(offset) + 2];
    if length < 0x18 {
        return Err(CapabilityError::Short { length });
    }
    let end = usize::from(offset) + usize::from(length);
    let Some(bytes) = space.get(usize::from(offset)..end) else {
        return Err(CapabilityError::Beyond { offset, length });
    };
    let wide = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    Ok(VendorCapability {
        offset,
        state_table_size: u32::from_le_bytes(bytes[4..8].try_into().unwrap()),
        rw_size: wide(0x08),
        output_size: wide(0x10),
        base_address: (length >= 0x20).then(|| wide(0x18)),
    })
}

fn any_space() -> impl Strategy<Value = Box<[u8; 256]>> {
    proptest::collection::vec(any::<u8>(), 256)
        .prop_map(|bytes| Box::new(<[u8; 256]>::try_from(bytes).unwrap()))
}

proptest! {
    #[test]
    fn arbitrary_spaces_do_no_harm(space in any_space()) {
        match VendorCapability::read(&*space) {
            Ok(found) => prop_assert_eq!(expected(&space, found.offset), Ok(found)),
            Err(CapabilityError::NotFound(_)) => {}
            Err(CapabilityError::Short { length }) => prop_assert!(length < 0x18),
            Err(CapabilityError::Beyond { offset, length }) => {
                prop_assert!(usize::from(offset) + usize::from(length) > 256);
            }
        }
    }

    /// A capability of any content at every place that the list can name, of every length.
    #[test]
    fn every_place_and_length(space in any_space(), place in 0x10_u8..0x40, length: u8) {
        let mut config = Config(*space);
        let offset = place * 4;
        config.set(0x06, &[0x10]);
        config.set(0x34, &[offset]);
        config.set(usize::from(offset), &[0x09, 0x00, length]);
        prop_assert_eq!(
            VendorCapability::read(&config.0),
            expected(&config.0, offset)
        );
    }

    /// The device may change between two reads: what is refused or accepted then is up to what
    /// was read, and nothing is read outside of the configuration space or off a dword.
    #[test]
    fn a_changing_space_does_no_harm(words in proptest::collection::vec(any::<u32>(), 97)) {
        struct Hostile {
            words: Vec<u32>,
            reads: Cell<usize>,
        }
        impl ConfigSpace for Hostile {
            fn read(&self, offset: u8) -> u32 {
                assert_eq!(offset % 4, 0);
                let n = self.reads.get();
                self.reads.set(n + 1);
                match offset {
                    0x04 => 0x0010_0000,
                    0x34 => 0xfc - self.words[n % 97] % 48 * 4,
                    // Now the right ID, now a long or short capability.
                    _ if n % 3 == 2 => self.words[n % 97] & 0x3f_fc00 | 0x09,
                    _ => self.words[n % 97],
                }
            }
        }
        let hostile = Hostile { words, reads: Cell::new(0) };
        if let Ok(capability) = VendorCapability::read(&hostile) {
            prop_assert!(capability.offset >= 0x40 && capability.offset <= 0xe8);
        }
        prop_assert!(hostile.reads.get() <= 2 + 49 + 8);
    }
}

const SIZES: (u32, u64, u64) = (0x1000, 0x1_0000_9000, 0x2_0000_2000);

#[test]
fn address_only_where_the_length_says_so() {
    for (length, address) in [
        (0x18, None),
        (0x1c, None),
        (0x1f, None),
        (0x20, Some(0x12_3456_7000)),
        (0x24, Some(0x12_3456_7000)),
    ] {
        let mut config = Config::with_capability(0x44, length, SIZES, 0);
        config.set(0x5c, &0x12_3456_7000_u64.to_le_bytes());
        assert_eq!(
            VendorCapability::read(&config.0),
            Ok(VendorCapability {
                offset: 0x44,
                state_table_size: 0x1000,
                rw_size: 0x1_0000_9000,
                output_size: 0x2_0000_2000,
                base_address: address,
            })
        );
    }
}

#[test]
fn short_ones_are_refused() {
    for length in 0..0x18 {
        let config = Config::with_capability(0x40, length, SIZES, 0);
        assert_eq!(
            VendorCapability::read(&config.0),
            Err(CapabilityError::Short { length })
        );
    }
}

#[test]
fn the_last_place_that_holds_one_is_usable() {
    for (offset, length, fits) in [
        (0xe8, 0x18, true),
        (0xe8, 0x19, false),
        (0xe8, 0x20, false),
        (0xe0, 0x20, true),
        (0xe0, 0x21, false),
        (0xec, 0x18, false),
        (0xfc, 0x20, false),
        (0xfc, 0xff, false),
        (0x40, 0xc0, true),
        (0x40, 0xc1, false),
    ] {
        let config = Config::with_capability(offset, length, SIZES, 0x1000);
        let read = VendorCapability::read(&config.0);
        if fits {
            assert_eq!(read, expected(&config.0, offset));
            assert!(read.is_ok());
        } else {
            assert_eq!(read, Err(CapabilityError::Beyond { offset, length }));
        }
    }
}

#[test]
fn a_missing_one_says_why() {
    assert_eq!(
        VendorCapability::read(&Config::empty().0),
        Err(CapabilityError::NotFound(FindError::Missing { id: 0x09 }))
    );
    let mut config = Config::empty();
    config.set(0x34, &[0x3c]);
    assert_eq!(
        VendorCapability::read(&config.0),
        Err(CapabilityError::NotFound(FindError::BadPointer {
            pointer: 0x3c
        }))
    );
}

#[test]
fn the_one_of_the_list_counts_and_not_the_bytes() {
    // Bytes of a capability at 40h that is not linked; the linked one is behind another at 80h.
    let mut config = Config::with_capability(0x40, 0x20, (1, 2, 3), 4);
    config.set(0x34, &[0x80]);
    config.set(0x80, &[0x11, 0xc0]);
    config.set(0xc0, &[0x09, 0x00, 0x18, 0x01]);
    config.set(0xc4, &[0x00, 0x20]);
    let capability = VendorCapability::read(&config.0).unwrap();
    assert_eq!(capability.offset, 0xc0);
    assert_eq!(capability.state_table_size, 0x2000);
}
