// SPDX-License-Identifier: GPL-2.0

//! Reading and writing messages.
//!
//! A message is copied once on each side, between the program and the ring, while the caller is inside of the
//! device and pages that are not there stop the copy. For such a page it leaves the device, has it fetched, and
//! goes on where it was; what it had reserved or found stays its own, as it is its turn.

use super::channel::{
    Channel,
    Outcome,
    State, //
};
use crate::{
    abi::{
        anon::Patience,
        copy::Fetch,
        memory::SharedMemory,
        trace,
        wait::Deadline, //
    },
    link::Inside,
    protocol::channel::{
        session::{
            self,
            Ended, //
        },
        transfer::{
            Message,
            Next,
            Pieces,
            SendError,
            Slot, //
        },
    },
};
use core::ops::Range;
use kernel::{
    current,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};

/// What a program sees of a session's end.
pub(super) fn failure(why: Ended) -> Error {
    match why {
        Ended::Reset => ECONNRESET,
        Ended::Broken => EPROTO,
        // Nobody calls what has been closed.
        Ended::Closed => ENOTCONN,
        // A region that shrinks is none.
        Ended::Memory(_) => EIO,
    }
}

/// How far an attempt to move a message came.
enum Attempt {
    /// It has been moved, so many bytes.
    Done(usize),
    /// There is nothing, or no room.
    Blocked,
    /// A page of the program is not there; so many bytes are left to copy.
    Absent(usize),
}

/// The part of the bytes in `pieces` that begins `done` bytes behind their start, up to the end of a piece.
fn rest(pieces: &Pieces, done: usize) -> Option<Range<usize>> {
    let [first, second] = &pieces.0;
    let (piece, done) = if done < first.len() {
        (first, done)
    } else {
        (second, done - first.len())
    };
    let rest = piece.start + done..piece.end;
    (!rest.is_empty()).then_some(rest)
}

impl State {
    /// What [`Self::await_room`] asks for: enough for the last message that found no room, but half of the ring at
    /// least, so that a link that is full does not cost a doorbell for each message.
    fn wanted_room(&self) -> u32 {
        self.refused.max(self.session.largest_message() / 2)
    }

    /// Whether a writer had better try (rule W2); if not, the peer is asked to say so when it had.
    pub(super) fn await_room(&mut self, memory: &SharedMemory) -> Outcome<bool> {
        match self.session.link() {
            session::Link::Up => {
                // First: as long as too much is unconfirmed, there is no use in room.
                if let Some(number) = self.session.needed_confirmation() {
                    if self.confirmation(memory, number).is_none() {
                        return Outcome::new(false, false);
                    }
                }
                let wanted = self.wanted_room();
                // An error is something to try for, too.
                Outcome::new(
                    self.session.await_room(memory, wanted).unwrap_or(true),
                    false,
                )
            }
            _ => self.await_link(memory),
        }
    }

    /// Likewise for a reader.
    pub(super) fn await_data(&mut self, memory: &SharedMemory) -> Outcome<bool> {
        match self.session.link() {
            session::Link::Up => {
                Outcome::new(self.session.await_data(memory).unwrap_or(true), false)
            }
            _ => self.await_link(memory),
        }
    }

    /// Whether the link is up, or has ended: coming up is always announced.
    fn await_link(&mut self, memory: &SharedMemory) -> Outcome<bool> {
        let ring = self.look(memory);
        Outcome::new(self.session.link() != session::Link::Waiting, ring)
    }

    /// Room for a message, or none now. What the peer has confirmed by now is known afterwards, even if it restarts before
    /// anybody asks.
    fn reserve(&mut self, memory: &SharedMemory, length: u32) -> Result<Option<Slot>> {
        match self.session.reserve(memory, length) {
            Ok(slot) => Ok(Some(slot)),
            Err(SendError::Full) => {
                self.refused = self.session.record(length).ok_or(EMSGSIZE)?;
                Ok(None)
            }
            // What is missing is found out again by whoever waits.
            Err(SendError::Unconfirmed | SendError::Waiting) => Ok(None),
            Err(SendError::Length) => Err(EMSGSIZE),
            Err(SendError::Finished) => Err(EPIPE),
            Err(SendError::Ended(why)) => Err(failure(why)),
        }
    }

    fn commit(&mut self, memory: &SharedMemory, slot: Slot) -> Outcome<Result<u64>> {
        self.refused = 0;
        match self.session.commit(memory, slot) {
            Ok(ring) => Outcome::new(Ok(self.session.sent().0), ring),
            Err(why) => Outcome::new(Err(failure(why)), false),
        }
    }

    /// The next message, which may still turn out to be none, to be copied to `most` bytes.
    fn next(&mut self, memory: &SharedMemory, most: usize) -> Result<Next> {
        let next = self.session.next(memory).map_err(failure)?;
        if let Next::Message(message) = &next {
            if message.length as usize > most {
                self.session.length_of(memory, message).map_err(failure)?;
                return Err(EMSGSIZE);
            }
        }
        Ok(next)
    }

    /// Size of the next message, 0 if there is none.
    pub(super) fn next_size(&mut self, memory: &SharedMemory) -> Result<u32> {
        match self.session.next(memory).map_err(failure)? {
            Next::Message(message) => self.session.length_of(memory, &message).map_err(failure),
            Next::Nothing | Next::End => Ok(0),
        }
    }

    /// `message` has been copied: makes sure of it, gives its room back, and confirms it if that is due.
    fn take(
        &mut self,
        memory: &SharedMemory,
        message: Message,
        confirm: bool,
    ) -> Outcome<Result<u64>> {
        let taken = if confirm {
            self.session.take_and_confirm(memory, message)
        } else {
            self.session.take(memory, message)
        };
        match taken {
            Ok(ring) => Outcome::new(Ok(self.session.received().0), ring),
            Err(why) => Outcome::new(Err(failure(why)), false),
        }
    }
}

/// How often a page that has been fetched may be gone again when it is wanted.
const FETCHES_MAX: u32 = 100;

/// Pages that are fetched for a message.
#[derive(Default)]
struct Fetches {
    /// How many bytes were left to copy when one was last fetched, and how often in a row that was so.
    last: Option<(usize, u32)>,
}

impl Fetches {
    /// Has the next `left` bytes of `memory` fetched.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they cannot be, or are never there afterwards: another thread may take them away again and again.
    /// `ERESTARTSYS` on a signal.
    fn fetch(&mut self, memory: &mut impl Fetch, left: usize) -> Result {
        if current!().signal_pending() {
            return Err(ERESTARTSYS);
        }
        let times = match self.last {
            Some((before, times)) if before == left => times + 1,
            _ => 0,
        };
        if times >= FETCHES_MAX {
            return Err(EFAULT);
        }
        self.last = Some((left, times));
        memory.fetch(left)
    }
}

/// How often one who does not want to wait tries again, because it has been told that there is something.
const TRIES_MAX: u32 = 4;

/// Somebody who may have to wait.
#[derive(Default)]
struct Patient {
    /// How often it has waited before, and has been told that there is something.
    tries: u32,
}

impl Patient {
    /// Waits until `step` says that there is something. Whatever that says, nobody tries for ever because of it
    /// who does not want to wait, or has got a signal.
    ///
    /// # Errors
    ///
    /// Those of [`Channel::wait`]. `EAGAIN` comes behind a look that has asked the peer, but for the last try.
    fn wait(
        &mut self,
        channel: &Channel,
        patience: Patience,
        step: fn(&mut State, &SharedMemory) -> Outcome<bool>,
    ) -> Result {
        if patience != Patience::Wait && self.tries == TRIES_MAX {
            return Err(EAGAIN);
        }
        if self.tries > 0 && current!().signal_pending() {
            return Err(ERESTARTSYS);
        }
        self.tries = self.tries.saturating_add(1);
        match patience {
            Patience::Wait => channel.wait_having_looked(step),
            Patience::Nonblocking | Patience::NoWait => channel.wait(Deadline::Now, step),
        }
    }
}

/// A message that is being written.
#[derive(Default)]
struct Outgoing {
    slot: Option<Slot>,
    copied: usize,
}

/// A message that is being read.
#[derive(Default)]
struct Incoming {
    message: Option<Message>,
    copied: usize,
}

impl Channel {
    /// Sends a message.
    ///
    /// # Errors
    ///
    /// As include/uapi/linux/ivshmem.h has them for `write`.
    pub(super) fn send(&self, patience: Patience, from: &mut IovIterSource<'_>) -> Result<usize> {
        let length = match from.len() {
            0 => return Err(EINVAL),
            length => u32::try_from(length).map_err(|_| EMSGSIZE)?,
        };
        let _turn = self.writing.take(self, patience)?;
        let mut outgoing = Outgoing::default();
        let mut patient = Patient::default();
        let mut fetches = Fetches::default();
        loop {
            match self.try_send(&mut outgoing, length, from)? {
                Attempt::Done(length) => return Ok(length),
                Attempt::Blocked => patient.wait(self, patience, State::await_room)?,
                Attempt::Absent(_) if patience == Patience::NoWait => return Err(EAGAIN),
                Attempt::Absent(left) => fetches.fetch(from, left)?,
            }
        }
    }

    /// Does as much of it as can be done without waiting.
    fn try_send(
        &self,
        outgoing: &mut Outgoing,
        length: u32,
        from: &mut IovIterSource<'_>,
    ) -> Result<Attempt> {
        let inside = self.link.enter()?;
        let memory = inside.memory()?;
        let slot = match outgoing.slot.take() {
            Some(slot) => {
                // If it has, the ring may be another session's.
                self.unless_ended()?;
                slot
            }
            None => match self.reserve(&inside, &memory, length)? {
                Some(slot) => slot,
                None => return Ok(Attempt::Blocked),
            },
        };
        while let Some(rest) = rest(&slot.pieces, outgoing.copied) {
            let wanted = rest.len();
            let copied = memory.fill(rest, from)?;
            outgoing.copied += copied;
            if copied < wanted {
                outgoing.slot = Some(slot);
                return Ok(Attempt::Absent(length as usize - outgoing.copied));
            }
        }
        let number =
            self.step_inside(&inside, &memory, |state, memory| state.commit(memory, slot))?;
        self.link.counters.messages_sent.increment();
        trace::channel_send(
            self.link.identity.number,
            self.peer().into(),
            number,
            length,
        );
        Ok(Attempt::Done(length as usize))
    }

    /// Receives a message; 0 is the end.
    ///
    /// # Errors
    ///
    /// As include/uapi/linux/ivshmem.h has them for `read`.
    pub(super) fn receive(&self, patience: Patience, to: &mut IovIterDest<'_>) -> Result<usize> {
        if to.is_empty() {
            return Err(EINVAL);
        }
        let _turn = self.reading.take(self, patience)?;
        let mut incoming = Incoming::default();
        let mut patient = Patient::default();
        let mut fetches = Fetches::default();
        loop {
            match self.try_receive(&mut incoming, to)? {
                Attempt::Done(length) => return Ok(length),
                Attempt::Blocked => patient.wait(self, patience, State::await_data)?,
                Attempt::Absent(_) if patience == Patience::NoWait => return Err(EAGAIN),
                Attempt::Absent(left) => fetches.fetch(to, left)?,
            }
        }
    }

    /// Does as much of it as can be done without waiting.
    fn try_receive(&self, incoming: &mut Incoming, to: &mut IovIterDest<'_>) -> Result<Attempt> {
        let inside = self.link.enter()?;
        let memory = inside.memory()?;
        let message = match incoming.message.take() {
            Some(message) => message,
            None => match self.next_message(&inside, &memory, to.len())? {
                Next::Message(message) => message,
                Next::Nothing => return Ok(Attempt::Blocked),
                Next::End => return Ok(Attempt::Done(0)),
            },
        };
        let length = message.length;
        while let Some(rest) = rest(&message.pieces, incoming.copied) {
            let wanted = rest.len();
            let copied = memory.pour(rest, to)?;
            incoming.copied += copied;
            if copied < wanted {
                incoming.message = Some(message);
                return Ok(Attempt::Absent(length as usize - incoming.copied));
            }
        }
        let confirm = !self.options.explicit_ack;
        let number = self.step_inside(&inside, &memory, |state, memory| {
            state.take(memory, message, confirm)
        })?;
        self.link.counters.messages_received.increment();
        trace::channel_receive(
            self.link.identity.number,
            self.peer().into(),
            number,
            length,
        );
        Ok(Attempt::Done(length as usize))
    }

    /// Room for a message, for somebody who is inside of the device.
    fn reserve(
        &self,
        inside: &Inside<'_>,
        memory: &SharedMemory,
        length: u32,
    ) -> Result<Option<Slot>> {
        self.step_inside(inside, memory, |state, memory| {
            Outcome::new(state.reserve(memory, length), false)
        })
    }

    /// The next message, for somebody who is inside of the device and has room for `most` bytes.
    fn next_message(
        &self,
        inside: &Inside<'_>,
        memory: &SharedMemory,
        most: usize,
    ) -> Result<Next> {
        self.step_inside(inside, memory, |state, memory| {
            Outcome::new(state.next(memory, most), false)
        })
    }
}
