// SPDX-License-Identifier: MIT OR Apache-2.0
//! The channel protocol in this program, over a mapping of the sections and doorbells of the device
//! file: what channels of the driver are compared with.

use super::transport::{Confirm, Progress, Transport};
use ivshmem::{Deadline, Device, Error, EventBuffer, Mapping, MappingMut, Result, StateFlags};
use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::session::{claim, Config, Ended, Link, Session};
use ivshmem_protocol::channel::transfer::{Next, Pieces, SendError};
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::v2::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use std::path::Path;
use std::sync::atomic::{fence, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The output sections of both ends, at their offsets in the region.
struct Sections {
    own: (usize, MappingMut),
    theirs: (usize, Mapping),
}

impl Sections {
    /// The mapping that has `offset`, and where in it.
    fn place(&self, offset: usize) -> (&Mapping, usize) {
        let (at, own) = &self.own;
        match offset
            .checked_sub(*at)
            .filter(|&within| within < own.size())
        {
            Some(within) => (own, within),
            None => (&self.theirs.1, offset.wrapping_sub(self.theirs.0)),
        }
    }

    /// Copies the bytes of a message out of the other section.
    fn copy_out(&self, pieces: &Pieces, buffer: &mut [u8]) -> Result<()> {
        let mut rest = buffer;
        for piece in &pieces.0 {
            let (part, behind) = rest.split_at_mut(piece.len());
            self.theirs.1.read(piece.start - self.theirs.0, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// Copies the bytes of a message into our section.
    fn copy_in(&self, pieces: &Pieces, message: &[u8]) -> Result<()> {
        let mut rest = message;
        for piece in &pieces.0 {
            let (part, behind) = rest.split_at(piece.len());
            self.own.1.write(piece.start - self.own.0, part)?;
            rest = behind;
        }
        Ok(())
    }
}

impl Memory for Sections {
    fn size(&self) -> usize {
        let (own, theirs) = (&self.own, &self.theirs);
        (own.0 + own.1.size()).max(theirs.0 + theirs.1.size())
    }

    fn load(&self, offset: usize, order: LoadOrder) -> std::result::Result<u32, OutOfBounds> {
        let (mapping, within) = self.place(offset);
        let word = mapping.word(within).map_err(|_| OutOfBounds { offset })?;
        Ok(word.load(match order {
            LoadOrder::Relaxed => Ordering::Relaxed,
            LoadOrder::Acquire => Ordering::Acquire,
        }))
    }

    fn store(
        &self,
        offset: usize,
        value: u32,
        order: StoreOrder,
    ) -> std::result::Result<(), OutOfBounds> {
        let within = offset.wrapping_sub(self.own.0);
        let word = self
            .own
            .1
            .word(within)
            .map_err(|_| OutOfBounds { offset })?;
        let order = match order {
            StoreOrder::Relaxed => Ordering::Relaxed,
            StoreOrder::Release => Ordering::Release,
        };
        word.store(value, order);
        Ok(())
    }
}

impl Barriers for Sections {
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn read_barrier(&self) {
        fence(Ordering::Acquire);
    }

    fn write_barrier(&self) {
        fence(Ordering::Release);
    }
}

/// A session with the other guest.
pub(crate) struct Ring {
    session: Mutex<Session>,
    sections: Sections,
    confirm: Confirm,
    largest: usize,
    peer: u32,
    /// Two files, as each has its own record of what it has seen: for whoever sends, and receives.
    sender: Device,
    receiver: Device,
}

impl Ring {
    /// Starts a session with `peer` on the device at `node`.
    pub(crate) fn connect(node: &Path, peer: u32, confirm: Confirm) -> Result<Self> {
        let (sender, receiver) = (Device::open(node)?, Device::open(node)?);
        let info = *sender.info();
        sender.set_state(1, StateFlags::default())?;
        let theirs = info.output_of(peer)?;
        let sections = Sections {
            own: (info.output.offset as usize, sender.map_mut(info.output)?),
            theirs: (theirs.offset as usize, sender.map(theirs)?),
        };
        let section = |of: ivshmem::Section| Section {
            offset: of.offset as usize,
            size: of.size as u32,
            max_peers: info.max_peers as u16,
        };
        let own = section(info.output);
        claim(&sections, own).map_err(outside)?;
        let (own_id, peer_id) = (info.id as u16, peer as u16);
        let ring = own.share(own_id, peer_id).ok_or(Error::Empty)?;
        let config = Config {
            own,
            peer: section(theirs),
            own_id,
            peer_id,
            ring,
            vector: info.vectors_enabled.checked_sub(1).map(|last| last as u16),
            entropy: 0,
        };
        let session = Session::start(&sections, &config).map_err(outside)?;
        let this = Self {
            largest: session.largest_message() as usize,
            session: Mutex::new(session),
            sections,
            confirm,
            peer,
            sender,
            receiver,
        };
        // It may wait for us.
        this.sender.ring(peer, 0)?;
        Ok(this)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings the other end, if it is to be.
    fn ring(&self, wanted: bool, vector: Option<u16>) -> Result<()> {
        match vector.filter(|_| wanted) {
            Some(vector) => self.sender.ring(self.peer, vector.into()),
            None => Ok(()),
        }
    }

    /// Returns when the other end may have rung since the last call with that file.
    fn wait(&self, device: &Device) -> Result<()> {
        device.events(&mut EventBuffer::new(4), Deadline::NEVER)?;
        if device.state(self.peer)? != 0 {
            return Ok(());
        }
        let mut session = self.session();
        let present = session.peer_is_absent(&self.sections);
        present.map_err(|why| Self::error(&session, why))
    }

    fn error(session: &Session, why: Ended) -> Error {
        let (sent, confirmed) = session.sent();
        match why {
            Ended::Reset => Error::Reset { sent, confirmed },
            Ended::Broken => Error::Broken { sent, confirmed },
            _ => Error::Closed,
        }
    }

    /// Lets `step` look at the session until it has something to give, and waits for the other end in
    /// between. A step says too whether to ring.
    fn until<T>(
        &self,
        device: &Device,
        mut step: impl FnMut(&mut Session) -> std::result::Result<(Option<T>, bool), Ended>,
    ) -> Result<T> {
        loop {
            let (value, vector, rings) = {
                let mut session = self.session();
                let looked = session.look(&self.sections);
                let stepped = looked.and_then(|rings| {
                    let (value, more) = step(&mut session)?;
                    Ok((value, rings || more))
                });
                let (value, rings) = stepped.map_err(|why| Self::error(&session, why))?;
                (value, session.peer_vector(), rings)
            };
            self.ring(rings, vector)?;
            match value {
                Some(value) => return Ok(value),
                None => self.wait(device)?,
            }
        }
    }
}

fn outside(error: OutOfBounds) -> Error {
    Error::OutsideMapping {
        offset: error.offset,
        length: 4,
        mapped: 0,
    }
}

impl Transport for Ring {
    fn largest(&self) -> usize {
        self.largest
    }

    fn wait_up(&self) -> Result<()> {
        self.until(&self.sender, |session| {
            Ok(((session.link() == Link::Up).then_some(()), false))
        })
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let length = message.len() as u32;
        let memory = &self.sections;
        self.until(&self.sender, |session| loop {
            match session.reserve(memory, length) {
                Ok(slot) => {
                    let copied = memory.copy_in(&slot.pieces, message);
                    let rings = session.commit(memory, slot)?;
                    return Ok((Some(copied), rings));
                }
                // Half of the ring, so that one doorbell is for many messages.
                Err(SendError::Full) => {
                    let wanted = (self.largest as u32 / 2).max(length + 8);
                    if !session.await_room(memory, wanted)? {
                        return Ok((None, false));
                    }
                }
                Err(SendError::Unconfirmed) => {
                    let needed = session.needed_confirmation().unwrap_or(0);
                    if !session.await_confirmation(memory, needed)? {
                        return Ok((None, false));
                    }
                }
                Err(SendError::Waiting) => return Ok((None, false)),
                Err(SendError::Finished) => return Err(Ended::Closed),
                Err(SendError::Ended(why)) => return Err(why),
                Err(SendError::Length) => {
                    let (length, max) = (message.len(), self.largest as u32);
                    return Ok((Some(Err(Error::TooLarge { length, max })), false));
                }
            }
        })?
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let memory = &self.sections;
        self.until(&self.receiver, |session| loop {
            match session.next(memory)? {
                Next::Message(message) => {
                    let length = message.length as usize;
                    let Some(bytes) = buffer.get_mut(..length) else {
                        let size = session.length_of(memory, &message)? as usize;
                        let error = Error::BufferTooSmall { size };
                        return Ok((Some(Err(error)), false));
                    };
                    let copied = memory.copy_out(&message.pieces, bytes);
                    let rings = match self.confirm {
                        Confirm::WhenRead => session.take_and_confirm(memory, message)?,
                        Confirm::WhenTold => session.take(memory, message)?,
                    };
                    return Ok((Some(copied.map(|()| Some(length))), rings));
                }
                Next::End => return Ok((Some(Ok(None)), false)),
                Next::Nothing => {
                    if !session.await_data(memory)? {
                        return Ok((None, false));
                    }
                }
            }
        })?
    }

    fn acknowledge(&self, number: u64) -> Result<()> {
        self.until(&self.receiver, |session| {
            let rings = session.confirm(&self.sections, number)?;
            Ok((Some(()), rings))
        })
    }

    fn wait_confirmed(&self, number: u64) -> Result<()> {
        self.until(&self.sender, |session| {
            let there = session.await_confirmation(&self.sections, number)?;
            Ok((there.then_some(()), false))
        })
    }

    fn progress(&self) -> Result<Progress> {
        let mut session = self.session();
        // What had been confirmed before an end stays.
        let _ = session.confirmations(&self.sections);
        Ok(Progress {
            confirmed: session.sent().1,
            is_up: session.link() == Link::Up,
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let (rings, vector) = {
            let mut session = self.session();
            let rings = session.close(&self.sections).unwrap_or(false);
            (rings, session.peer_vector())
        };
        // Who has gone with the device needs no word.
        let _ = self.ring(rings, vector);
    }
}
