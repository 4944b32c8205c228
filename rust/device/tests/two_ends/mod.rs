// SPDX-License-Identifier: MIT OR Apache-2.0

//! One memory that two ends of a channel reach, each by its own view: `rust/protocol`'s and the
//! bare-metal inmate's. It interrupts the one who works between any two accesses, and crashes it at any store.

use ivshmem_inmate::layout::Layout;
use ivshmem_inmate::link::Link as BareLink;
use ivshmem_protocol::channel::transfer::Pieces;
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use std::cell::{Cell, RefCell};

/// State table, then the output sections of peer 0, `rust/protocol`'s, and peer 1, the inmate's.
pub(crate) const PAGE: usize = 0x1000;

/// Peers of the link: so many that their blocks leave little room for rings.
pub(crate) const PEERS: u16 = 60;

/// Size of each end's ring in bytes: all that there is.
pub(crate) const RING: u32 = PAGE as u32 - 64 * (1 + PEERS as u32);

/// What both ends reach.
pub(crate) struct Shared {
    pub(crate) words: RefCell<Vec<u32>>,
    /// Stores of the one who is at work until it crashes.
    pub(crate) stores_left: Cell<Option<u32>>,
    pub(crate) accesses_left: Cell<Option<u32>>,
    pub(crate) interruption: RefCell<Option<Box<dyn FnOnce()>>>,
    /// Who has been rung.
    pub(crate) rung: [Cell<bool>; 2],
}

impl Shared {
    pub(crate) fn new(garbage: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(garbage.into());
        let mut words = vec![1; 2];
        words.resize(PAGE / 4, 0);
        let word = |_| {
            if garbage == 0 {
                0
            } else {
                rng.u32(..) >> rng.u8(..31)
            }
        };
        words.extend((0..2 * PAGE / 4).map(word));
        Self {
            words: RefCell::new(words),
            stores_left: Cell::new(None),
            accesses_left: Cell::new(None),
            interruption: RefCell::new(None),
            rung: Default::default(),
        }
    }

    /// An access is about to happen.
    pub(crate) fn access(&self) {
        match self.accesses_left.get() {
            Some(0) => {
                self.accesses_left.set(None);
                let stores_left = self.stores_left.take();
                if let Some(happen) = self.interruption.take() {
                    happen();
                }
                self.stores_left.set(stores_left);
            }
            Some(left) => self.accesses_left.set(Some(left - 1)),
            None => {}
        }
    }

    pub(crate) fn get(&self, at: usize) -> u32 {
        self.access();
        self.words.borrow()[at / 4]
    }

    /// False if whoever stores has crashed.
    pub(crate) fn put(&self, at: usize, value: u32) -> bool {
        self.access();
        match self.stores_left.get() {
            Some(0) => return false,
            Some(left) => self.stores_left.set(Some(left - 1)),
            None => {}
        }
        self.words.borrow_mut()[at / 4] = value;
        true
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.stores_left.get() == Some(0)
    }
}

/// `rust/protocol`'s view.
pub(crate) struct View<'a>(pub(crate) &'a Shared);

impl Memory for View<'_> {
    fn size(&self) -> usize {
        3 * PAGE
    }
    fn load(&self, offset: usize, _: LoadOrder) -> Result<u32, OutOfBounds> {
        Ok(self.0.get(offset))
    }
    fn store(&self, offset: usize, value: u32, _: StoreOrder) -> Result<(), OutOfBounds> {
        let stored = self.0.put(offset, value);
        stored.then_some(()).ok_or(OutOfBounds { offset })
    }
}

impl Barriers for View<'_> {
    fn full_barrier(&self) {}
    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
}

impl View<'_> {
    pub(crate) fn write(&self, pieces: &Pieces, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let places: Vec<_> = pieces.0.iter().cloned().flatten().step_by(4).collect();
        for (at, chunk) in places.into_iter().zip(bytes.chunks(4)) {
            let mut word = [0xaa; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.store(at, u32::from_le_bytes(word), StoreOrder::Relaxed)?;
        }
        Ok(())
    }

    pub(crate) fn read(&self, pieces: &Pieces) -> Vec<u8> {
        let word = |at: usize| self.0.get(at).to_le_bytes();
        let places = pieces.0.iter().cloned().flatten();
        let length = places.clone().count();
        let mut bytes: Vec<_> = places.step_by(4).flat_map(word).collect();
        bytes.truncate(length);
        bytes
    }
}

/// The inmate's view. A processor that has crashed stores nothing.
pub(crate) struct Hardware<'a>(pub(crate) &'a Shared, pub(crate) Layout);

impl BareLink for Hardware<'_> {
    fn layout(&self) -> &Layout {
        &self.1
    }
    fn present(&self) -> bool {
        true
    }
    fn vectors(&self) -> u32 {
        4
    }
    fn enable_interrupts(&mut self, _: bool) {}
    fn set_state(&mut self, _: u32) {}
    fn state(&self, peer: u32) -> u32 {
        self.0.get(4 * peer as usize)
    }
    fn rw(&self, _: u32) -> Option<u32> {
        None
    }
    fn set_rw(&mut self, _: u32, _: u32) {}
    fn output(&self, _: u32) -> Option<u32> {
        None
    }
    fn write_output(&mut self, _: &[u8]) {}
    fn output_word(&self, peer: u32, offset: u64) -> u32 {
        assert!(offset < PAGE as u64);
        self.0.get((1 + peer as usize) * PAGE + offset as usize)
    }
    fn set_output_word(&mut self, offset: u64, value: u32) {
        assert!(offset < PAGE as u64);
        self.0.put(2 * PAGE + offset as usize, value);
    }
    fn barrier(&self) {}
    fn ring(&mut self, target: u32, vector: u32) {
        assert_eq!((target, vector), (0, 2));
        self.0.rung[0].set(!self.0.has_crashed() || self.0.rung[0].get());
    }
}
