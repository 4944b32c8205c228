// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The state table over memories that are too small, refuse, or change under the reader.

mod common;

use common::demo;
use ivshmem_protocol::layout::{Geometry, Layout};
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use ivshmem_protocol::state_table::{entry_offset, StateTable, ABSENT, ENTRY_SIZE};
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Well-behaved shared memory.
struct Words(Vec<AtomicU32>);

impl Words {
    fn new(words: usize) -> Self {
        Self(
            (0..words as u32)
                .map(|n| AtomicU32::new(1000 + n))
                .collect(),
        )
    }

    fn at(&self, offset: usize) -> Result<&AtomicU32, OutOfBounds> {
        if offset % 4 != 0 {
            return Err(OutOfBounds { offset });
        }
        self.0.get(offset / 4).ok_or(OutOfBounds { offset })
    }
}

impl Memory for Words {
    fn size(&self) -> usize {
        self.0.len() * 4
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        Ok(self.at(offset)?.load(match order {
            LoadOrder::Relaxed => Ordering::Relaxed,
            LoadOrder::Acquire => Ordering::Acquire,
        }))
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        self.at(offset)?.store(
            value,
            match order {
                StoreOrder::Relaxed => Ordering::Relaxed,
                StoreOrder::Release => Ordering::Release,
            },
        );
        Ok(())
    }
}

/// Memory of a hostile peer: each load gives something else, and is written down. A store ends the
/// test, as it would end the cell.
struct Hostile<'a> {
    size: usize,
    loads: &'a RefCell<Vec<(usize, LoadOrder)>>,
}

impl Memory for Hostile<'_> {
    fn size(&self) -> usize {
        self.size
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        let mut loads = self.loads.borrow_mut();
        loads.push((offset, order));
        Ok(0xdead_0000 + loads.len() as u32)
    }

    fn store(&self, offset: usize, _: u32, _: StoreOrder) -> Result<(), OutOfBounds> {
        panic!("store to the state table at {offset:#x}");
    }
}

fn link(max_peers: u32) -> Layout {
    Layout::new(&Geometry {
        max_peers,
        state_table_size: 0x4000,
        ..demo(0)
    })
    .unwrap()
}

#[test]
fn entries_are_words() {
    assert_eq!(ENTRY_SIZE, 4);
    assert_eq!(ABSENT, 0);
    assert_eq!(entry_offset(0), 0);
    assert_eq!(entry_offset(3), 12);
    assert_eq!(entry_offset(0xffff), 0x3_fffc);
}

#[test]
fn each_peer_has_its_word() {
    let table = StateTable::new(Words::new(1024), &link(3)).ok().unwrap();
    assert_eq!(table.peers(), 3);
    for peer in 0..3 {
        assert_eq!(table.get(peer), Some(1000 + u32::from(peer)));
    }
}

#[test]
fn a_peer_that_the_link_does_not_have_is_not_looked_at() {
    let loads = RefCell::new(Vec::new());
    let memory = Hostile {
        size: 0x1000,
        loads: &loads,
    };
    let table = StateTable::new(memory, &link(3)).ok().unwrap();
    for peer in [3, 4, 1023, 1024, 0xffff] {
        assert_eq!(table.get(peer), None);
    }
    assert_eq!(*loads.borrow(), []);
}

#[test]
fn memory_has_to_hold_all_entries() {
    for (size, fits) in [(0, false), (4, false), (8, false), (11, false), (12, true)] {
        let loads = RefCell::new(Vec::new());
        let memory = Hostile {
            size,
            loads: &loads,
        };
        let table = StateTable::new(memory, &link(3));
        assert_eq!(
            table.err(),
            (!fits).then_some(OutOfBounds { offset: 8 }),
            "{size}"
        );
        assert_eq!(*loads.borrow(), []);
    }
}

#[test]
fn memory_that_refuses_is_no_state() {
    /// Claims to be larger than it is.
    struct Liar(Words);
    impl Memory for Liar {
        fn size(&self) -> usize {
            usize::MAX
        }
        fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
            self.0.load(offset, order)
        }
        fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
            self.0.store(offset, value, order)
        }
    }
    let table = StateTable::new(Liar(Words::new(2)), &link(3)).ok().unwrap();
    assert_eq!(table.get(1), Some(1001));
    assert_eq!(table.get(2), None);
}

proptest! {
    /// Whatever happens between two accesses: there is only one, in the right place, and with it
    /// comes what the peer wrote before.
    #[test]
    fn one_acquire_load_for_each_look(max_peers in 2_u32..=4096, peers: Vec<u16>) {
        let loads = RefCell::new(Vec::new());
        let memory = Hostile { size: 0x4000, loads: &loads };
        let table = StateTable::new(memory, &link(max_peers)).ok().unwrap();
        for peer in peers {
            let before = loads.borrow().len();
            let state = table.get(peer);
            let after = loads.borrow()[before..].to_vec();
            if u32::from(peer) < max_peers {
                prop_assert_eq!(state, Some(0xdead_0001 + before as u32));
                prop_assert_eq!(after, [(usize::from(peer) * 4, LoadOrder::Acquire)]);
            } else {
                prop_assert_eq!(state, None);
                prop_assert_eq!(after, []);
            }
        }
    }
}

/// A peer that changes its state all the time: a look sees one of its values, never a mixture.
#[test]
fn states_are_seen_whole() {
    let words = Words::new(1024);
    let table = StateTable::new(&words, &link(2)).ok().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000_u32 {
                let value = if n % 2 == 0 { 0 } else { u32::MAX };
                words.store(4, value, StoreOrder::Release).unwrap();
            }
            words.store(4, 7, StoreOrder::Release).unwrap();
        });
        loop {
            match table.get(1) {
                Some(7) => break,
                state => assert!(matches!(state, Some(0 | 1001 | u32::MAX)), "{state:?}"),
            }
        }
    });
}
