// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two ends of a channel in a memory that counts what is done to it, for the tests of channels.

#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod cost;
pub(crate) mod document;

use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::session::{claim, Config, Session};
use ivshmem_protocol::channel::transfer::{Next, Pieces};
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use std::cell::{Cell, RefCell};

/// What happens to the words between two accesses.
pub(crate) type Meanwhile = Box<dyn FnMut(&mut [u32])>;

/// Memory that counts the accesses of the protocol (not of messages), notes where stores go, and lets something
/// happen before each load.
pub(crate) struct Counted {
    pub(crate) words: RefCell<Vec<u32>>,
    pub(crate) loads: Cell<u32>,
    pub(crate) stores: Cell<u32>,
    pub(crate) barriers: Cell<u32>,
    pub(crate) stored_at: RefCell<Vec<usize>>,
    pub(crate) meanwhile: RefCell<Option<Meanwhile>>,
}

impl Counted {
    /// `size` bytes, all 0.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            words: RefCell::new(vec![0; size / 4]),
            loads: Cell::new(0),
            stores: Cell::new(0),
            barriers: Cell::new(0),
            stored_at: RefCell::default(),
            meanwhile: RefCell::default(),
        }
    }

    /// Loads, stores and full barriers since the last call.
    pub(crate) fn cost(&self) -> (u32, u32, u32) {
        self.stored_at.borrow_mut().clear();
        (self.loads.take(), self.stores.take(), self.barriers.take())
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        self.words.borrow()[at / 4]
    }

    pub(crate) fn set(&self, at: usize, value: u32) {
        self.words.borrow_mut()[at / 4] = value;
    }

    /// Writes a message into its place.
    pub(crate) fn write(&self, pieces: &Pieces, bytes: &[u8]) {
        let mut words = self.words.borrow_mut();
        for (at, byte) in pieces.0.iter().cloned().flatten().zip(bytes) {
            let shift = 8 * (at % 4);
            words[at / 4] = (words[at / 4] & !(0xff << shift)) | (u32::from(*byte) << shift);
        }
    }

    /// Copies a message from its place.
    pub(crate) fn read(&self, pieces: &Pieces) -> Vec<u8> {
        let words = self.words.borrow();
        let byte = |at: usize| words[at / 4].to_le_bytes()[at % 4];
        pieces.0.iter().cloned().flatten().map(byte).collect()
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let words = self.words.borrow();
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

impl Memory for Counted {
    fn size(&self) -> usize {
        self.words.borrow().len() * 4
    }

    fn load(&self, offset: usize, _: LoadOrder) -> Result<u32, OutOfBounds> {
        self.loads.set(self.loads.get() + 1);
        if let Some(happen) = &mut *self.meanwhile.borrow_mut() {
            happen(&mut self.words.borrow_mut());
        }
        let words = self.words.borrow();
        words.get(offset / 4).copied().ok_or(OutOfBounds { offset })
    }

    fn store(&self, offset: usize, value: u32, _: StoreOrder) -> Result<(), OutOfBounds> {
        self.stores.set(self.stores.get() + 1);
        self.stored_at.borrow_mut().push(offset);
        let mut words = self.words.borrow_mut();
        let word = words.get_mut(offset / 4).ok_or(OutOfBounds { offset })?;
        *word = value;
        Ok(())
    }
}

impl Barriers for Counted {
    fn full_barrier(&self) {
        self.barriers.set(self.barriers.get() + 1);
    }
    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
}

/// The output section of `peer` on a link of `max_peers` with sections of `size` bytes.
pub(crate) fn section(peer: u16, size: u32, max_peers: u16) -> Section {
    Section {
        offset: peer as usize * size as usize,
        size,
        max_peers,
    }
}

/// What the end `own` of a channel with `peer` is, in sections of `size` bytes; it wants to be rung on vector 1.
pub(crate) fn config(own: u16, peer: u16, size: u32, max_peers: u16) -> Config {
    let section = |peer| section(peer, size, max_peers);
    Config {
        own: section(own),
        peer: section(peer),
        own_id: own,
        peer_id: peer,
        ring: section(own).share(own, peer).expect("a ring"),
        vector: Some(1),
        entropy: 0,
    }
}

/// Ends 0 and 1 of a link of two, up.
pub(crate) fn connected(memory: &Counted, size: u32) -> [Session; 2] {
    for peer in 0..2 {
        claim(memory, section(peer, size, 2)).expect("it is there");
    }
    let start = |own: u16| Session::start(memory, &config(own, 1 - own, size, 2)).expect("starts");
    let mut ends = [start(0), start(1)];
    bring_up(memory, &mut ends);
    ends
}

/// Lets both look until they are up.
pub(crate) fn bring_up(memory: &Counted, ends: &mut [Session; 2]) {
    for _ in 0..2 {
        for end in &mut *ends {
            end.look(memory).expect("all is well");
        }
    }
    assert!(ends.iter().all(Session::is_up), "{ends:?}");
}

/// Sends a message; true if the peer is to be rung.
pub(crate) fn send(memory: &Counted, end: &mut Session, bytes: &[u8]) -> bool {
    let slot = end.reserve(memory, bytes.len() as u32).expect("room");
    memory.write(&slot.pieces, bytes);
    end.commit(memory, slot).expect("all is well")
}

/// Receives a message; the flag is true if the peer is to be rung.
pub(crate) fn receive(memory: &Counted, end: &mut Session) -> Option<(Vec<u8>, bool)> {
    match end.next(memory).expect("all is well") {
        Next::Message(message) => {
            let bytes = memory.read(&message.pieces);
            Some((bytes, end.take(memory, message).expect("all is well")))
        }
        Next::Nothing | Next::End => None,
    }
}
