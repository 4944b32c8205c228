// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sessions: start, link-up, reset, end (rules H1 to H3, S1 to S7, E1 to E4).

use super::super::v2::memory::LoadOrder;
use super::super::v2::memory::OutOfBounds;
use super::super::v2::memory::StoreOrder;
use super::layout::block;
use super::layout::header;
use super::layout::Ring;
use super::layout::Section;
use super::layout::MAGIC;
use super::layout::NO_VECTOR;
use super::layout::PORTS;
use super::layout::VERSION;
use super::position::Position;
use super::position::NO_EVENT;
use super::transfer::UNCONFIRMED_MAX;
use super::Barriers;
use core::fmt;

/// Features that this implementation has: none in version 1.
const FEATURES: u32 = 0;

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The peer is not there yet.
    Waiting,
    /// Messages can go both ways.
    Up,
    /// It has ended.
    Ended(Ended),
}

/// Why a session has ended, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The peer has restarted, or left without closing.
    Reset,
    /// The peer broke a rule of the protocol.
    Broken,
    /// We have closed it.
    Closed,
    /// Our own memory does not have what it was said to have.
    Memory(OutOfBounds),
}

impl From<OutOfBounds> for Ended {
    fn from(error: OutOfBounds) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the peer has restarted"),
            Self::Broken => f.write_str("the peer broke the channel protocol"),
            Self::Closed => f.write_str("the channel is closed"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Ended {}

/// Takes an output section into use for channels (rule H1): ends all sessions that a previous owner of the
/// section may have left, and writes the header.
///
/// # Errors
///
/// [`OutOfBounds`] if the section is not within the memory.
pub fn claim<M: Barriers>(memory: &M, section: Section) -> Result<(), OutOfBounds> {
    end_all(memory, section)?;
    let put =
        |field: usize, value| memory.store(section.offset + field, value, StoreOrder::Relaxed);
    put(header::VERSION, VERSION)?;
    put(header::MAX_PEERS, section.max_peers.into())?;
    put(header::PORTS, PORTS)?;
    for field in (header::RESERVED..super::layout::BLOCK_SIZE as usize).step_by(4) {
        put(field, 0)?;
    }
    memory.store(section.offset + header::MAGIC, MAGIC, StoreOrder::Release)
}

/// Ends all sessions of a section: its owner does not use it for channels any more (rule E3). Whatever it writes
/// there afterwards is behind that for all readers.
///
/// # Errors
///
/// [`OutOfBounds`] if the section is not within the memory.
pub fn end_all<M: Barriers>(memory: &M, section: Section) -> Result<(), OutOfBounds> {
    for peer in 0..section.max_peers {
        if let Some(at) = section.block(peer) {
            memory.store(at + block::EPOCH, 0, StoreOrder::Release)?;
        }
    }
    memory.write_barrier();
    Ok(())
}

/// What a session is to be.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Our output section.
    pub own: Section,
    /// The peer's output section.
    pub peer: Section,
    /// Our peer ID.
    pub own_id: u16,
    /// The peer's peer ID.
    pub peer_id: u16,
    /// Our ring for this peer, within `own`.
    pub ring: Ring,
    /// On which vector we want to be rung; [`None`] if we poll.
    pub vector: Option<u16>,
    /// A random number, or 0 where there is none.
    pub entropy: u32,
}

/// Our end of a channel, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Offset of our block in the memory.
    pub(super) own: usize,
    /// Offset of the peer's block in the memory.
    pub(super) peer: usize,
    peer_section: Section,
    pub(super) ring: Ring,
    epoch: u32,
    pub(super) link: Link,
    /// The peer's epoch that we echo, 0 for none yet.
    peer_epoch: u32,
    /// The peer's ring, of that epoch.
    pub(super) peer_ring: Option<Ring>,
    peer_vector: u32,
    /// [`Self::close`] has said to the peer that we are gone.
    told: bool,
    /// The peer has closed its end.
    pub(super) finished: bool,
    /// So many messages may wait for confirmation.
    pub(super) unconfirmed_max: u64,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
}

/// What we have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outgoing {
    pub(super) written: Position,
    /// Messages, since the start.
    pub(super) sent: u64,
    /// Of these, confirmed.
    pub(super) confirmed: u64,
    /// How far the peer had read when we last looked. It may have read more.
    pub(super) consumed: Position,
}

/// What we have received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Incoming {
    pub(super) consumed: Position,
    /// How far the peer had written when we last looked. It may have written more.
    pub(super) written: Position,
    /// It may not: it had closed its end before.
    pub(super) is_last: bool,
    /// Messages, since the start.
    pub(super) received: u64,
    /// Of these, confirmed to the peer.
    pub(super) acknowledged: u64,
}

impl Session {
    /// Starts a session (rules S1, S2). The peer is to be rung on [`Self::peer_vector`] afterwards, should it be
    /// there: [`Self::look`] says so.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if a section has no block for the other peer, or is not within the memory.
    pub fn start<M: Barriers>(memory: &M, config: &Config) -> Result<Self, OutOfBounds> {
        let missing = |section: Section| OutOfBounds {
            offset: section.offset,
        };
        let own = config
            .own
            .block(config.peer_id)
            .ok_or(missing(config.own))?;
        let peer = config
            .peer
            .block(config.own_id)
            .ok_or(missing(config.peer))?;
        let taken = [
            memory.load(own + block::LAST_EPOCH, LoadOrder::Relaxed)?,
            memory.load(own + block::EPOCH, LoadOrder::Relaxed)?,
            memory.load(peer + block::ECHO, LoadOrder::Relaxed)?,
        ];
        let epoch = new_epoch(taken, config.entropy);
        memory.store(own + block::EPOCH, 0, StoreOrder::Relaxed)?;
        memory.write_barrier();
        for (field, value) in [
            (block::ECHO, 0),
            (block::FEATURES, FEATURES),
            (block::ACCEPTED, 0),
            (block::VECTOR, config.vector.map_or(NO_VECTOR, u32::from)),
            (block::RING_OFFSET, config.ring.in_section),
            (block::RING_SIZE, config.ring.size.bytes()),
            (block::FIN, 0),
            (block::WRITTEN, Position::START.get()),
            (block::CONSUMED, Position::START.get()),
            (block::CONFIRMED, 0),
            (block::DATA_EVENT, NO_EVENT),
            (block::ROOM_EVENT, NO_EVENT),
            (block::CONFIRM_EVENT, NO_EVENT),
            (block::LAST_EPOCH, epoch),
        ] {
            memory.store(own + field, value, StoreOrder::Relaxed)?;
        }
        memory.store(own + block::EPOCH, epoch, StoreOrder::Release)?;
        Ok(Self {
            own,
            peer,
            peer_section: config.peer,
            ring: config.ring,
            epoch,
            link: Link::Waiting,
            peer_epoch: 0,
            peer_ring: None,
            peer_vector: NO_VECTOR,
            told: false,
            finished: false,
            unconfirmed_max: UNCONFIRMED_MAX,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
        })
    }

    /// How it stands, as of the last call.
    #[must_use]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// Whether messages can go both ways, as of the last call.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up)
    }

    /// Our epoch, never 0.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The peer's epoch that we echo, 0 as long as there is none.
    #[must_use]
    pub const fn peer_epoch(&self) -> u32 {
        self.peer_epoch
    }

    /// On which vector the peer wants to be rung, if it does.
    #[must_use]
    pub fn peer_vector(&self) -> Option<u16> {
        u16::try_from(self.peer_vector).ok()
    }

    /// Looks how the peer is (rules S3 to S5): after each doorbell, and now and then.
    ///
    /// True if the peer is to be rung.
    ///
    /// # Errors
    ///
    /// Why the session has ended.
    pub fn look<M: Barriers>(&mut self, memory: &M) -> Result<bool, Ended> {
        match self.link {
            Link::Ended(why) => Err(why),
            Link::Up => self.check(memory).map(|()| false),
            Link::Waiting => {
                memory.full_barrier();
                let echoed = self.echo(memory)?;
                memory.full_barrier();
                self.come_up(memory)?;
                Ok(echoed)
            }
        }
    }

    /// Rule S3. Whether there was another epoch to echo.
    fn echo<M: Barriers>(&mut self, memory: &M) -> Result<bool, Ended> {
        if !self.peer_is_there(memory)? {
            return Ok(false);
        }
        let get = |field| memory.load(self.peer + field, LoadOrder::Acquire);
        let epoch = get(block::EPOCH)?;
        if epoch == 0 || epoch == self.peer_epoch {
            return Ok(false);
        }
        let features = get(block::FEATURES)?;
        let vector = get(block::VECTOR)?;
        let ring = (get(block::RING_OFFSET)?, get(block::RING_SIZE)?);
        let echoed = get(block::ECHO)?;
        memory.read_barrier();
        if get(block::EPOCH)? != epoch {
            // It restarts just now, and will ring.
            return Ok(false);
        }
        let Some(ring) = self.peer_section.ring(ring.0, ring.1) else {
            // Memory may hold anything before its owner starts. Only one who has seen us has started.
            return if echoed == self.epoch {
                Err(self.end(Ended::Broken))
            } else {
                Ok(false)
            };
        };
        memory.store(
            self.own + block::ACCEPTED,
            features & FEATURES,
            StoreOrder::Relaxed,
        )?;
        memory.store(self.own + block::ECHO, epoch, StoreOrder::Release)?;
        self.peer_epoch = epoch;
        self.peer_ring = Some(ring);
        self.peer_vector = vector;
        Ok(true)
    }

    /// Rule H2.
    fn peer_is_there<M: Barriers>(&self, memory: &M) -> Result<bool, Ended> {
        let at = self.peer_section.offset;
        let get = |field| memory.load(at + field, LoadOrder::Acquire);
        Ok(get(header::MAGIC)? == MAGIC
            && get(header::VERSION)? == VERSION
            && get(header::MAX_PEERS)? == u32::from(self.peer_section.max_peers)
            && get(header::PORTS)? != 0)
    }

    /// Rule S4.
    fn come_up<M: Barriers>(&mut self, memory: &M) -> Result<(), Ended> {
        let get = |field| memory.load(self.peer + field, LoadOrder::Acquire);
        if self.peer_epoch == 0 || get(block::ECHO)? != self.epoch {
            return Ok(());
        }
        let accepted = get(block::ACCEPTED)?;
        memory.read_barrier();
        if get(block::EPOCH)? != self.peer_epoch || get(block::ECHO)? != self.epoch {
            return Ok(());
        }
        if accepted != memory.load(self.own + block::ACCEPTED, LoadOrder::Relaxed)? {
            return Err(self.end(Ended::Broken));
        }
        self.link = Link::Up;
        Ok(())
    }

    /// Whether what has been read of the peer before is of this session (rule S6).
    ///
    /// # Errors
    ///
    /// It is not: the session has ended.
    pub(super) fn check<M: Barriers>(&mut self, memory: &M) -> Result<(), Ended> {
        self.unless_ended(())?;
        memory.read_barrier();
        let epoch = memory.load(self.peer + block::EPOCH, LoadOrder::Acquire)?;
        let echo = memory.load(self.peer + block::ECHO, LoadOrder::Acquire)?;
        if epoch == self.peer_epoch && echo == self.epoch {
            return Ok(());
        }
        Err(self.end(Ended::Reset))
    }

    /// What was read is wrong: the peer's fault if it is of this session (rules S6, P2).
    pub(super) fn wrong<M: Barriers>(&mut self, memory: &M) -> Ended {
        match self.check(memory) {
            Ok(()) => self.end(Ended::Broken),
            Err(why) => why,
        }
    }

    pub(super) fn end(&mut self, why: Ended) -> Ended {
        self.link = Link::Ended(why);
        why
    }

    /// Whether the peer has closed its end (rule E2). Nothing that is sent now will be read; what it has sent before can
    /// still be received. What it has confirmed is in [`Self::sent`] then.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn peer_has_finished<M: Barriers>(&mut self, memory: &M) -> Result<bool, Ended> {
        match self.link {
            Link::Up => self.observe(memory, false),
            _ => self.unless_ended(false),
        }
    }

    /// `value`, or why the session has ended.
    pub(super) const fn unless_ended<T: Copy>(&self, value: T) -> Result<T, Ended> {
        match self.link {
            Link::Ended(why) => Err(why),
            _ => Ok(value),
        }
    }

    /// The peer's `fin`, valid: it does not go back (rule E1).
    pub(super) fn note_fin(&mut self, finished: bool) -> Result<(), Ended> {
        if self.finished && !finished {
            return Err(self.end(Ended::Broken));
        }
        self.finished = finished;
        Ok(())
    }

    /// To be called when the peer's entry in the state table was seen to be 0 while this session was up (rule S7):
    /// unless the peer has closed its end, it went without a word, and the session has ended.
    ///
    /// # Errors
    ///
    /// The session has ended.
    pub fn peer_is_absent<M: Barriers>(&mut self, memory: &M) -> Result<(), Ended> {
        memory.full_barrier();
        if !self.is_up() || self.peer_has_finished(memory)? {
            return self.unless_ended(());
        }
        Err(self.end(Ended::Reset))
    }

    /// Closes it: in good order (rule E1), or, if it was reset or broken, so that no other end stays up with it
    /// (rule E4). True if the peer is to be rung. Again has no effect.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if our section is not within the memory.
    pub fn close<M: Barriers>(&mut self, memory: &M) -> Result<bool, OutOfBounds> {
        if self.told {
            return Ok(false);
        }
        match self.link {
            Link::Waiting | Link::Up => {
                memory.store(self.own + block::FIN, 1, StoreOrder::Release)?;
                self.end(Ended::Closed);
            }
            Link::Ended(_) => memory.store(self.own + block::EPOCH, 0, StoreOrder::Release)?,
        }
        self.told = true;
        Ok(self.peer_epoch != 0)
    }
}

/// Rule S2: none of those that are taken, and not 0.
fn new_epoch(taken: [u32; 3], entropy: u32) -> u32 {
    let mut epoch = taken[0].wrapping_add(1).wrapping_add(entropy);
    // Of any five consecutive numbers one is none of these four.
    for _ in 0..4 {
        if epoch == 0 || taken.contains(&epoch) {
            epoch = epoch.wrapping_add(1);
        }
    }
    epoch
}
