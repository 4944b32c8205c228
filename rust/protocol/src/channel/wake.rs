// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who has to be woken, and when (rules W1 to W3).
//!
//! Whoever is about to say "nothing yet" calls an `await_` function first; if that says that there is something
//! after all, there is no need to wait.

use super::super::v2::memory::LoadOrder;
use super::super::v2::memory::StoreOrder;
use super::layout::block;
use super::position::count_moved_past;
use super::position::Position;
use super::position::ALIGNMENT;
use super::session::Ended;
use super::session::Session;
use super::transfer::Next;
use super::Barriers;

impl Session {
    /// Wants to be rung when there is something to receive. True if there is already.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn await_data<M: Barriers>(&mut self, memory: &M) -> Result<bool, Ended> {
        self.want(memory, block::DATA_EVENT, self.incoming.consumed.get())?;
        Ok(!matches!(self.next(memory)?, Next::Nothing))
    }

    /// Wants to be rung when `bytes` of our ring are free, at most all of it. True if there is no use in waiting:
    /// they are, or the peer has closed its end ([`Self::peer_has_finished`]). False also as long as there is a
    /// [`Self::needed_confirmation`]: that is another thing to wait for.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn await_room<M: Barriers>(&mut self, memory: &M, bytes: u32) -> Result<bool, Ended> {
        let size = self.ring.size;
        let bytes = bytes.min(size.bytes()).next_multiple_of(ALIGNMENT);
        // `consumed` has to be `bytes - size` ahead of `written`, so it moves past what is before that. Both sums
        // are mod twice the size, of which the size is one half.
        let target = size.advance(size.advance(self.outgoing.written, bytes), size.bytes());
        let event = size.advance(target, size.bytes() - ALIGNMENT);
        let event = size.advance(event, size.bytes());
        self.want(memory, block::ROOM_EVENT, event.get())?;
        if !self.is_up() {
            // The peer rings when it is there (rule W5).
            return self.unless_ended(false);
        }
        let finished = self.observe(memory, true)?;
        let room = self.known_room() >= bytes && self.needed_confirmation().is_none();
        Ok(room || finished)
    }

    /// Wants to be rung when message `number` has been confirmed. True if there is no use in waiting: it has been
    /// already, or the peer has closed its end, so that what [`Self::sent`] says now stays.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn await_confirmation<M: Barriers>(
        &mut self,
        memory: &M,
        number: u64,
    ) -> Result<bool, Ended> {
        // CAST: Mod 2^32, as the field says.
        let event = (number as u32).wrapping_sub(1);
        self.want(memory, block::CONFIRM_EVENT, event)?;
        if !self.is_up() {
            return self.unless_ended(false);
        }
        let finished = self.observe(memory, false)?;
        Ok(self.outgoing.confirmed >= number || finished)
    }

    /// Rule W2.
    fn want<M: Barriers>(&self, memory: &M, field: usize, event: u32) -> Result<(), Ended> {
        memory.store(self.own + field, event, StoreOrder::Relaxed)?;
        memory.full_barrier();
        Ok(())
    }

    /// The peer's event. A full barrier is between our move of an index and this (rule W3).
    fn awaited<M: Barriers>(&self, memory: &M, field: usize) -> Result<u32, Ended> {
        Ok(memory.load(self.peer + field, LoadOrder::Relaxed)?)
    }

    pub(super) fn written_is_awaited<M: Barriers>(
        &self,
        memory: &M,
        before: Position,
    ) -> Result<bool, Ended> {
        let event = self.awaited(memory, block::DATA_EVENT)?;
        let now = self.outgoing.written;
        Ok(self.ring.size.moved_past(event, before, now))
    }

    pub(super) fn consumed_is_awaited<M: Barriers>(
        &self,
        memory: &M,
        before: Position,
    ) -> Result<bool, Ended> {
        let event = self.awaited(memory, block::ROOM_EVENT)?;
        let now = self.incoming.consumed;
        let ring = self.peer_ring;
        Ok(ring.is_some_and(|ring| ring.size.moved_past(event, before, now)))
    }

    pub(super) fn confirmed_is_awaited<M: Barriers>(
        &self,
        memory: &M,
        before: u64,
    ) -> Result<bool, Ended> {
        let event = self.awaited(memory, block::CONFIRM_EVENT)?;
        let now = self.incoming.acknowledged;
        // CAST: Mod 2^32, as the field says.
        Ok(count_moved_past(event, before as u32, now as u32))
    }
}
