// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory that lets a call get as far as its next access.
//!
//! A call of the core is a function of the values that it loads. So a call that has stopped in its middle is
//! the log of these values; it goes on by being made anew, with the log, until the first access that the log
//! does not have. That one happens, the one behind it stops the call.

use super::{Fault, Scenario, SECTION};
use ivshmem_protocol::channel::layout::{block, BLOCK_SIZE};
use ivshmem_protocol::channel::session::Session;
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use std::cell::{Cell, RefCell};

pub(crate) struct Replay<'a> {
    /// What the call has got of the memory so far; 0 for a store.
    pub(crate) log: RefCell<Vec<u32>>,
    pub(crate) words: RefCell<&'a mut [u32]>,
    position: Cell<usize>,
    /// The access that others see has happened.
    pub(crate) spent: Cell<bool>,
    /// The call has not come to its end.
    pub(crate) stopped: Cell<bool>,
    end: usize,
    fault: Fault,
    claims: bool,
    /// The epoch and echo that the end expects of the peer, for [`Fault::Blind`].
    expected: Option<(u32, u32)>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        end: usize,
        log: Vec<u32>,
        words: &'a mut [u32],
        scenario: &Scenario,
        session: Option<&Session>,
    ) -> Self {
        let up = session.filter(|session| session.is_up());
        Self {
            log: RefCell::new(log),
            words: RefCell::new(words),
            position: Cell::new(0),
            spent: Cell::new(false),
            stopped: Cell::new(false),
            end,
            fault: scenario.fault,
            claims: scenario.claims,
            expected: up.map(|session| (session.peer_epoch(), session.epoch())),
        }
    }

    fn known(&self) -> Option<u32> {
        let position = self.position.get();
        self.position.set(position + 1);
        self.log.borrow().get(position).copied()
    }

    /// An access that is not known; `seen` by others or a scheduling point for another reason.
    fn happens(&self, offset: usize, seen: bool) -> Result<(), OutOfBounds> {
        if self.stopped.get() || (seen && self.spent.get()) {
            self.stopped.set(true);
            return Err(OutOfBounds { offset });
        }
        if seen {
            self.spent.set(true);
        }
        Ok(())
    }

    /// Offset of a field of the block of `end`.
    fn at(end: usize, field: usize) -> usize {
        super::section(end).block(1 - end as u16).expect("a block") + field
    }
}

impl Memory for Replay<'_> {
    fn size(&self) -> usize {
        2 * SECTION
    }

    fn load(&self, offset: usize, _: LoadOrder) -> Result<u32, OutOfBounds> {
        if let Some(value) = self.known() {
            return Ok(value);
        }
        // Nobody else writes into our section, and nobody but a claim changes a header.
        let own = offset / SECTION == self.end;
        let constant = !self.claims && offset % SECTION < BLOCK_SIZE as usize;
        self.happens(offset, !own && !constant)?;
        let value = match (self.fault, self.expected) {
            (Fault::Blind, Some((epoch, _))) if offset == Self::at(1 - self.end, block::EPOCH) => {
                epoch
            }
            (Fault::Blind, Some((_, echo))) if offset == Self::at(1 - self.end, block::ECHO) => {
                echo
            }
            (Fault::Forgets, _) if offset == Self::at(self.end, block::LAST_EPOCH) => 0,
            _ => self.words.borrow()[offset / 4],
        };
        self.log.borrow_mut().push(value);
        Ok(value)
    }

    fn store(&self, offset: usize, value: u32, _: StoreOrder) -> Result<(), OutOfBounds> {
        if self.known().is_some() {
            return Ok(());
        }
        assert_eq!(
            offset / SECTION,
            self.end,
            "an end stores into its own section"
        );
        // What does not change anything is seen by nobody.
        let changes = self.words.borrow()[offset / 4] != value;
        self.happens(offset, changes)?;
        let silent = self.fault == Fault::KeepsEpoch
            && value == 0
            && offset == Self::at(self.end, block::EPOCH);
        if !silent {
            self.words.borrow_mut()[offset / 4] = value;
        }
        self.log.borrow_mut().push(0);
        Ok(())
    }
}

/// All accesses happen in the order of the program here; what other orders do is for the tests with loom.
impl Barriers for Replay<'_> {
    fn full_barrier(&self) {}
    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
}
