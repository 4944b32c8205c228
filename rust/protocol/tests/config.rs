// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The PCI side: protocols in class codes, and the walk along the list of capabilities.

mod common;

use common::{walk, Config};
use ivshmem_protocol::config::{
    find_capability, read_u16, ConfigSpace, FindError, Protocol, COMMAND_INTX_DISABLE,
    COMMAND_MASTER, COMMAND_MEMORY,
};
use proptest::prelude::*;
use std::cell::Cell;

/// Spaces with lists: every dword behind the header may be a capability, IDs from few.
fn lists() -> impl Strategy<Value = Box<[u8; 256]>> {
    let next = prop_oneof![
        16 => (0x10_u8..0x40).prop_map(|n| n * 4),
        1 => Just(0),
        1 => any::<u8>(),
    ];
    let capability = (0_u8..32, next);
    (proptest::collection::vec(capability, 48), 0x10_u8..0x40).prop_map(|(list, first)| {
        let mut config = Config::empty();
        config.set(0x34, &[first * 4]);
        for (place, (id, next)) in list.into_iter().enumerate() {
            config.set(0x40 + place * 4, &[id, next]);
        }
        Box::new(config.0)
    })
}

fn any_space() -> impl Strategy<Value = Box<[u8; 256]>> {
    proptest::collection::vec(any::<u8>(), 256)
        .prop_map(|bytes| Box::new(<[u8; 256]>::try_from(bytes).unwrap()))
}

proptest! {
    #[test]
    fn arbitrary_bytes_agree_with_the_walk(space in any_space(), id: u8) {
        prop_assert_eq!(find_capability(&*space, id), walk(&space, id));
    }

    #[test]
    fn lists_agree_with_the_walk(space in lists(), id in 0_u8..34) {
        prop_assert_eq!(find_capability(&*space, id), walk(&space, id));
    }

    /// A device that answers each read as it likes cannot hold the walk, and what is found is
    /// where a capability can be.
    #[test]
    fn a_changing_space_ends_the_walk(words in proptest::collection::vec(any::<u8>(), 64)) {
        struct Hostile {
            words: Vec<u8>,
            reads: Cell<usize>,
        }
        impl ConfigSpace for Hostile {
            fn read(&self, offset: u8) -> u32 {
                assert_eq!(offset % 4, 0);
                let n = self.reads.get();
                self.reads.set(n + 1);
                let pointer = 0x40 | (self.words[n % 64] & 0xbc);
                0x0010_0000 | (u32::from(pointer) << 8) | u32::from(pointer)
            }
        }
        let hostile = Hostile { words, reads: Cell::new(0) };
        if let Ok(offset) = find_capability(&hostile, 0x48) {
            prop_assert!(offset >= 0x40 && offset % 4 == 0);
        }
        prop_assert!(hostile.reads.get() <= 64);
    }

    #[test]
    fn read_u16_reads_the_half(space in any_space(), word in 0_usize..128) {
        let expected = u16::from_le_bytes([space[word * 2], space[word * 2 + 1]]);
        prop_assert_eq!(read_u16(&*space, word as u8 * 2), expected);
    }

    #[test]
    fn class_code_round_trip(protocol: u16) {
        let class = Protocol(protocol).class_code();
        prop_assert_eq!(class, 0x00ff_0000 + u32::from(protocol));
        prop_assert_eq!(Protocol::from_class_code(class), Some(Protocol(protocol)));
    }

    #[test]
    fn other_classes_have_no_protocol(class: u32) {
        prop_assume!(class / 0x1_0000 != 0xff);
        prop_assert_eq!(Protocol::from_class_code(class), None);
    }
}

/// A list in which every place behind the header is a capability.
fn full_list(last_next: u8) -> Config {
    let mut config = Config::empty();
    for place in (0x40..0x100).step_by(4) {
        config.set(
            place,
            &[
                0x01,
                if place == 0xfc {
                    last_next
                } else {
                    place as u8 + 4
                },
            ],
        );
    }
    config
}

#[test]
fn the_longest_list_is_walked_to_its_end() {
    let mut config = full_list(0);
    assert_eq!(
        find_capability(&config.0, 0x09),
        Err(FindError::Missing { id: 0x09 })
    );
    config.set(0xfc, &[0x09]);
    assert_eq!(find_capability(&config.0, 0x09), Ok(0xfc));
}

#[test]
fn a_loop_is_found() {
    assert_eq!(
        find_capability(&full_list(0x40).0, 0x09),
        Err(FindError::Endless)
    );
    let mut config = Config::empty();
    config.set(0x40, &[0x01, 0x40]);
    assert_eq!(find_capability(&config.0, 0x09), Err(FindError::Endless));
}

#[test]
fn no_list_no_capability() {
    let mut config = Config::with_capability(0x40, 0x18, (0, 0, 0), 0);
    assert_eq!(find_capability(&config.0, 0x09), Ok(0x40));
    config.set(0x06, &[0xef, 0xff]);
    assert_eq!(
        find_capability(&config.0, 0x09),
        Err(FindError::Missing { id: 0x09 })
    );
}

#[test]
fn pointers_into_the_header_or_off_a_dword_are_refused() {
    for pointer in (1..=0xff_u8).filter(|p| *p < 0x40 || p % 4 != 0) {
        let bad = Err(FindError::BadPointer { pointer });
        let mut config = Config::empty();
        config.0.fill(0x09);
        config.set(0x06, &[0x10]);
        config.set(0x34, &[pointer]);
        assert_eq!(find_capability(&config.0, 0x09), bad);

        let mut config = Config::empty();
        config.set(0x40, &[0x01, pointer]);
        assert_eq!(find_capability(&config.0, 0x09), bad);
    }
}

#[test]
fn raw_protocols() {
    for (protocol, raw) in [
        (0x0000, true),
        (0x0001, false),
        (0x0002, false),
        (0x3fff, false),
        (0x4000, true),
        (0x7fff, true),
        (0x8000, false),
        (0xc000, false),
        (0xffff, false),
    ] {
        assert_eq!(Protocol(protocol).is_raw(), raw, "{protocol:#x}");
    }
    assert_eq!(Protocol(0x4001).to_string(), "0x4001");
}

/// The text of the specification calls Bus Master bit 3; PCI and Jailhouse have bit 2.
#[test]
fn command_bits() {
    assert_eq!(
        COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE,
        0x0406
    );
    assert_eq!(COMMAND_MEMORY, 0x0002);
    assert_eq!(COMMAND_MASTER, 0x0004);
}
