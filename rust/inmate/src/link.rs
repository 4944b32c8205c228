// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an application on the inmate sees: its end of the link, and the events
//! to wait for. `ivshmem.rs` and `events.rs` of the program implement these for
//! the hardware, the tests in memory.

use crate::layout::Layout;

/// One peer's end of an IVSHMEM link. All words are read from the memory once
/// for each call and may have any value.
pub trait Link {
    /// The checked layout: own ID, number of peers, sizes.
    fn layout(&self) -> &Layout;

    /// Whether the device still answers.
    fn present(&self) -> bool;

    /// Number of interrupt vectors of each peer, at least 1.
    fn vectors(&self) -> u32;

    /// Lets interrupts in, or keeps them out. What comes meanwhile is lost, so
    /// look at the shared memory after enabling.
    fn enable_interrupts(&mut self, enable: bool);

    /// Publishes the own state; the device interrupts the peers on vector 0 if
    /// it is a new one.
    fn set_state(&mut self, state: u32);

    /// State of `peer`, which must be below the number of peers.
    fn state(&self, peer: u32) -> u32;

    /// Word `index` of the R/W section; `None` if the section ends before it.
    fn rw(&self, index: u32) -> Option<u32>;

    /// Stores a word of the R/W section; without effect beyond its end.
    fn set_rw(&mut self, index: u32, value: u32);

    /// First word of the output section of `peer`; `None` if there are no
    /// output sections.
    fn output(&self, peer: u32) -> Option<u32>;

    /// Stores `bytes`, padded with zeros to whole words, at the start of the own
    /// output section, which must be large enough.
    fn write_output(&mut self, bytes: &[u8]);

    /// Word at `offset` of the output section of `peer`, loaded in one access
    /// that no later one overtakes. The section must have it.
    fn output_word(&self, peer: u32, offset: u64) -> u32;

    /// Stores the word at `offset` of the own output section, in one access that
    /// overtakes no earlier one. The section must have it.
    fn set_output_word(&mut self, offset: u64, value: u32);

    /// Full barrier between accesses to the shared memory, as other processors
    /// see them.
    fn barrier(&self);

    /// Rings the doorbell: interrupts `target` on `vector`. All stores before
    /// are visible to the target when the interrupt arrives.
    fn ring(&mut self, target: u32, vector: u32);
}

/// What wakes the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Interrupts arrived on `vector`.
    Interrupt {
        /// Number of the vector of the device.
        vector: u32,
        /// Interrupts taken on it so far.
        count: u32,
        /// How many of them are new, at least 1.
        new: u32,
    },
    /// A period of the timer is over.
    Period,
    /// Time has passed; nothing to do but to look at the shared memory.
    Tick,
    /// The time allowed for the whole run is over.
    Timeout,
}

/// A source of events.
pub trait Events {
    /// Sleeps until there is an event.
    fn wait(&mut self) -> Event;
}
