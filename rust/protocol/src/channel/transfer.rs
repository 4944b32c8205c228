// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sending, receiving and confirming (rules T1 to T5, E2).

use super::super::v2::memory::LoadOrder;
use super::super::v2::memory::StoreOrder;
use super::layout::block;
use super::layout::Ring;
use super::position::Position;
use super::position::RECORD_HEADER;
use super::session::Ended;
use super::session::Link;
use super::session::Outgoing;
use super::session::Session;
use super::Barriers;
use core::ops::Range;

/// Most messages that may wait for confirmation (rule T5).
const UNCONFIRMED_MAX: u64 = 1 << 31;

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer is not there yet.
    Waiting,
    /// Not now: no room, or too much is unconfirmed.
    Full,
    /// A message has 1 byte at least, and [`Session::largest_message`] at most.
    Length,
    /// The peer has closed its end.
    Finished,
    /// The session has ended.
    Ended(Ended),
}

impl<E: Into<Ended>> From<E> for SendError {
    fn from(error: E) -> Self {
        Self::Ended(error.into())
    }
}

/// The bytes of a message in the shared memory: the first piece, and what is behind the ring's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces(pub [Range<usize>; 2]);

impl Pieces {
    /// `length` bytes of `ring` from `from` on.
    fn new(ring: &Ring, from: Position, length: u32) -> Self {
        let begin = ring.size.byte(from);
        let first = length.min(ring.size.bytes() - begin);
        let at = ring.offset + begin as usize;
        let rest = ring.offset..ring.offset + (length - first) as usize;
        Self([at..at + first as usize, rest])
    }
}

/// Room for a message, to be filled. Only the last one that [`Session::reserve`] gave can be sent, once.
#[derive(Debug)]
pub struct Slot {
    /// Where its bytes go.
    pub pieces: Pieces,
    end: Position,
}

/// A message, to be copied. Only the last one that [`Session::next`] gave can be taken, once.
#[derive(Debug)]
pub struct Message {
    /// Its length in bytes.
    pub length: u32,
    /// Where its bytes are. They may change until [`Session::take`] says that they have not.
    pub pieces: Pieces,
    end: Position,
}

/// What there is to receive.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Message(Message),
    /// Nothing yet.
    Nothing,
    /// The peer has closed its end, and everything has been received.
    End,
}

impl Session {
    /// The largest message that we can send, in bytes.
    #[must_use]
    pub const fn largest_message(&self) -> u32 {
        self.ring.largest_message()
    }

    /// Messages sent, and how many of them were confirmed when we last looked.
    #[must_use]
    pub const fn sent(&self) -> (u64, u64) {
        (self.outgoing.sent, self.outgoing.confirmed)
    }

    /// Messages received, and how many of them we have confirmed.
    #[must_use]
    pub const fn received(&self) -> (u64, u64) {
        (self.incoming.received, self.incoming.acknowledged)
    }

    /// Up, or why not.
    pub(super) fn up(&self) -> Result<(), SendError> {
        match self.link {
            Link::Up => Ok(()),
            Link::Waiting => Err(SendError::Waiting),
            Link::Ended(why) => Err(why.into()),
        }
    }

    /// What a message of `length` bytes takes of the ring, for [`Self::await_room`]; [`None`] if there is no such
    /// message.
    #[must_use]
    pub fn record(&self, length: u32) -> Option<u32> {
        self.ring.size.record(length)
    }

    /// Bytes of our ring that are free as of the last look at the peer; there may be more.
    #[must_use]
    pub const fn known_room(&self) -> u32 {
        let size = self.ring.size;
        size.bytes()
            .saturating_sub(size.distance(self.outgoing.consumed, self.outgoing.written))
    }

    /// Bytes of our ring that are free.
    pub(super) fn free<M: Barriers>(&mut self, memory: &M) -> Result<u32, Ended> {
        let consumed = memory.load(self.peer + block::CONSUMED, LoadOrder::Acquire)?;
        self.check(memory)?;
        let size = self.ring.size;
        match size.position(consumed) {
            Some(consumed) if size.distance(consumed, self.outgoing.written) <= size.bytes() => {
                self.outgoing.consumed = consumed;
                Ok(self.known_room())
            }
            _ => Err(self.end(Ended::Broken)),
        }
    }

    /// Room for a message of `length` bytes (rule T1). Nothing is sent before [`Self::commit`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn reserve<M: Barriers>(&mut self, memory: &M, length: u32) -> Result<Slot, SendError> {
        let record = self.ring.size.record(length).ok_or(SendError::Length)?;
        self.up()?;
        if self.peer_has_finished(memory)? {
            return Err(SendError::Finished);
        }
        let unconfirmed = self.outgoing.sent - self.outgoing.confirmed;
        let many = unconfirmed >= UNCONFIRMED_MAX
            && self.outgoing.sent - self.confirmations(memory)? >= UNCONFIRMED_MAX;
        // What was free stays so, and costs no look at the peer.
        if many || (self.known_room() < record && self.free(memory)? < record) {
            return Err(SendError::Full);
        }
        let written = self.outgoing.written;
        let size = self.ring.size;
        let header = self.ring.offset + size.byte(written) as usize;
        memory.store(header, length, StoreOrder::Relaxed)?;
        memory.store(header + 4, 0, StoreOrder::Relaxed)?;
        Ok(Slot {
            pieces: Pieces::new(&self.ring, size.advance(written, RECORD_HEADER), length),
            end: size.advance(written, record),
        })
    }

    /// Sends the message whose bytes are in `slot`. True if the peer is to be rung.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn commit<M: Barriers>(&mut self, memory: &M, slot: Slot) -> Result<bool, Ended> {
        self.unless_ended(())?;
        let before = self.outgoing.written;
        self.outgoing.written = slot.end;
        self.outgoing.sent += 1;
        memory.store(
            self.own + block::WRITTEN,
            slot.end.get(),
            StoreOrder::Release,
        )?;
        memory.full_barrier();
        self.written_is_awaited(memory, before)
    }

    /// What there is to receive (rules T2, E2).
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn next<M: Barriers>(&mut self, memory: &M) -> Result<Next, Ended> {
        let (Link::Up, Some(ring)) = (self.link, self.peer_ring) else {
            self.unless_ended(())?;
            return Ok(Next::Nothing);
        };
        let size = ring.size;
        let from = self.incoming.consumed;
        if from == self.incoming.written {
            let finished = self.finished(memory)?;
            let written = memory.load(self.peer + block::WRITTEN, LoadOrder::Acquire)?;
            if written == from.get() {
                self.check(memory)?;
                return Ok(if finished { Next::End } else { Next::Nothing });
            }
            match size.position(written) {
                Some(written) if size.distance(from, written) <= size.bytes() => {
                    self.incoming.written = written;
                }
                _ => return Err(self.wrong(memory)),
            }
        }
        let header = ring.offset + size.byte(from) as usize;
        let length = memory.load(header, LoadOrder::Relaxed)?;
        let reserved = memory.load(header + 4, LoadOrder::Relaxed)?;
        match size.record(length) {
            Some(record)
                if record <= size.distance(from, self.incoming.written) && reserved == 0 =>
            {
                Ok(Next::Message(Message {
                    length,
                    pieces: Pieces::new(&ring, size.advance(from, RECORD_HEADER), length),
                    end: size.advance(from, record),
                }))
            }
            _ => Err(self.wrong(memory)),
        }
    }

    /// Says whether `message`, whose bytes have been copied, was what the peer sent, and gives the room back
    /// (rules T2, T3). Only then may it be delivered. True if the peer is to be rung.
    ///
    /// # Errors
    ///
    /// The session has ended, and the copy is worth nothing.
    pub fn take<M: Barriers>(&mut self, memory: &M, message: Message) -> Result<bool, Ended> {
        let before = self.put_consumed(memory, &message)?;
        memory.full_barrier();
        self.consumed_is_awaited(memory, before)
    }

    /// Like [`Self::take`], and confirms all that has been received, this message as the last (rule T4).
    /// Both are announced together, so that the peer is rung once. True if it is to be rung.
    ///
    /// # Errors
    ///
    /// The session has ended, and the copy is worth nothing.
    pub fn take_and_confirm<M: Barriers>(
        &mut self,
        memory: &M,
        message: Message,
    ) -> Result<bool, Ended> {
        let before = self.put_consumed(memory, &message)?;
        let confirmed = self.incoming.acknowledged;
        self.put_confirmed(memory, self.incoming.received)?;
        memory.full_barrier();
        let room = self.consumed_is_awaited(memory, before)?;
        Ok(self.confirmed_is_awaited(memory, confirmed)? || room)
    }

    /// Rule T3: `consumed` was this, and is behind `message` now.
    fn put_consumed<M: Barriers>(
        &mut self,
        memory: &M,
        message: &Message,
    ) -> Result<Position, Ended> {
        self.check(memory)?;
        let before = self.incoming.consumed;
        self.incoming.consumed = message.end;
        self.incoming.received += 1;
        memory.store(
            self.own + block::CONSUMED,
            message.end.get(),
            StoreOrder::Release,
        )?;
        Ok(before)
    }

    /// Confirms all messages up to `number`, counted from 1 (rule T4); those that have not been received stay
    /// unconfirmed. True if the peer is to be rung.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn confirm<M: Barriers>(&mut self, memory: &M, number: u64) -> Result<bool, Ended> {
        self.unless_ended(())?;
        let before = self.incoming.acknowledged;
        let number = number.min(self.incoming.received);
        if number <= before {
            return Ok(false);
        }
        self.put_confirmed(memory, number)?;
        memory.full_barrier();
        self.confirmed_is_awaited(memory, before)
    }

    /// Rule T4.
    fn put_confirmed<M: Barriers>(&mut self, memory: &M, number: u64) -> Result<(), Ended> {
        self.incoming.acknowledged = number;
        // CAST: Mod 2^32, as the field says.
        let number = number as u32;
        Ok(memory.store(self.own + block::CONFIRMED, number, StoreOrder::Release)?)
    }

    /// How many messages the peer has confirmed (rule T5).
    ///
    /// # Errors
    ///
    /// The session has ended. What had been confirmed stays in [`Self::sent`].
    pub fn confirmations<M: Barriers>(&mut self, memory: &M) -> Result<u64, Ended> {
        if !self.is_up() {
            return self.unless_ended(self.outgoing.confirmed);
        }
        let confirmed = memory.load(self.peer + block::CONFIRMED, LoadOrder::Acquire)?;
        self.check(memory)?;
        let Outgoing {
            sent,
            confirmed: before,
            ..
        } = self.outgoing;
        // CAST: Mod 2^32, as the field says.
        let more = u64::from(confirmed.wrapping_sub(before as u32));
        if more > sent - before {
            return Err(self.end(Ended::Broken));
        }
        self.outgoing.confirmed = before + more;
        Ok(self.outgoing.confirmed)
    }
}
