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
pub(super) const UNCONFIRMED_MAX: u64 = 1 << 31;

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The peer is not there yet.
    Waiting,
    /// Not now: no room. [`Session::await_room`] waits for it.
    Full,
    /// Not now: too many messages are not confirmed. [`Session::await_confirmation`] of what
    /// [`Session::needed_confirmation`] says waits for that.
    Unconfirmed,
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
    /// Where its bytes are. They may change until [`Session::take`] says that they have not, and its length may be
    /// none until then or until [`Session::length_of`] says that it is.
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

    /// Which message has to be confirmed before another one may be sent, as of the last look at the peer; [`None`] if
    /// none has (rule T5).
    #[must_use]
    pub const fn needed_confirmation(&self) -> Option<u64> {
        let first = self.outgoing.sent + 1;
        let needed = first.saturating_sub(self.unconfirmed_max);
        if needed > self.outgoing.confirmed {
            Some(needed)
        } else {
            None
        }
    }

    /// Stops sending when `most` messages are not confirmed, 1 at least. Without this call, and at most, it is as many as
    /// rule T5 has.
    pub fn limit_unconfirmed(&mut self, most: u64) {
        self.unconfirmed_max = most.clamp(1, UNCONFIRMED_MAX);
    }

    /// Looks at all that a sender wants to know of the peer, behind one check (rule S6): whether it has closed its end,
    /// what it has confirmed (rule T5), and, if `room` is asked for, how far it has read (rule R3).
    ///
    /// True if it has closed. Then the rest is the last word.
    pub(super) fn observe<M: Barriers>(&mut self, memory: &M, room: bool) -> Result<bool, Ended> {
        let get = |field| memory.load(self.peer + field, LoadOrder::Acquire);
        let finished = get(block::FIN)? != 0;
        let consumed = if room {
            Some(get(block::CONSUMED)?)
        } else {
            None
        };
        let confirmed = get(block::CONFIRMED)?;
        self.check(memory)?;
        self.note_fin(finished)?;
        if let Some(consumed) = consumed {
            self.note_consumed(consumed)?;
        }
        self.note_confirmed(confirmed)?;
        Ok(finished)
    }

    /// The peer's `consumed`, valid.
    fn note_consumed(&mut self, consumed: u32) -> Result<(), Ended> {
        let size = self.ring.size;
        match size.position(consumed) {
            Some(consumed) if size.distance(consumed, self.outgoing.written) <= size.bytes() => {
                self.outgoing.consumed = consumed;
                Ok(())
            }
            _ => Err(self.end(Ended::Broken)),
        }
    }

    /// The peer's `confirmed`, valid.
    fn note_confirmed(&mut self, confirmed: u32) -> Result<(), Ended> {
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
        Ok(())
    }

    /// Room for a message of `length` bytes (rule T1). Nothing is sent before [`Self::commit`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn reserve<M: Barriers>(&mut self, memory: &M, length: u32) -> Result<Slot, SendError> {
        let record = self.ring.size.record(length).ok_or(SendError::Length)?;
        self.up()?;
        // What was free stays so.
        let room = self.known_room() < record;
        if self.observe(memory, room)? {
            return Err(SendError::Finished);
        }
        if self.needed_confirmation().is_some() {
            return Err(SendError::Unconfirmed);
        }
        if self.known_room() < record {
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
            // All up to here has been taken, so what was read with it was valid.
            self.finished |= self.incoming.is_last;
            let get = |field| memory.load(self.peer + field, LoadOrder::Acquire);
            let finished = get(block::FIN)? != 0;
            let written = get(block::WRITTEN)?;
            if written == from.get() {
                self.check(memory)?;
                self.note_fin(finished)?;
                self.incoming.is_last = finished;
                return Ok(if finished { Next::End } else { Next::Nothing });
            }
            // Rule E1: nothing follows, and it stays so.
            let follows = !self.incoming.is_last && (finished || !self.finished);
            match size.position(written) {
                Some(written) if size.distance(from, written) <= size.bytes() && follows => {
                    self.incoming.written = written;
                    self.incoming.is_last = finished;
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

    /// The length of `message`, for one who wants to know it and does not take the message.
    ///
    /// # Errors
    ///
    /// The session has ended, and there is no such message.
    pub fn length_of<M: Barriers>(&mut self, memory: &M, message: &Message) -> Result<u32, Ended> {
        self.check(memory)?;
        Ok(message.length)
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
        self.peer_has_finished(memory)?;
        Ok(self.outgoing.confirmed)
    }
}
