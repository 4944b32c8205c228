// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of a channel, written from Documentation/channel-protocol.md alone:
//! sessions, receiving, and sending back. The letters and numbers in comments
//! are that document's rules.
//!
//! There is no buffer: a message is copied from the peer's ring into the own
//! one, and both indices move when it is known to be valid.

pub mod number;
pub mod ring;

use crate::channel::number::{block, header};
use crate::channel::ring::Ring;
use crate::link::Link;

/// The most bytes of a ring.
const LONGEST_RING: u64 = (1 << 30) - 8;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// S5, S7: the peer has started anew, or has gone.
    Reset,
    /// P2: the peer has broken a rule.
    Broken,
    /// E2: the peer has closed, and everything has been received.
    Finished,
}

impl End {
    /// The same as a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reset => "the peer has restarted or left",
            Self::Broken => "the peer has broken the protocol",
            Self::Finished => "the peer has closed it",
        }
    }
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A message was sent back; there may be another.
    Echoed,
    /// A message was received that could not be sent back, for nobody reads or
    /// it is larger than the own ring.
    Dropped,
    /// Nothing to do until the peer rings.
    Nothing,
}

/// The peer of a session, as it was when its epoch was echoed.
#[derive(Clone, Copy, Debug)]
struct Peer {
    epoch: u32,
    ring: Ring,
    vector: u32,
}

/// One end, from S1 to its end.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    peer_id: u32,
    own_id: u32,
    epoch: u32,
    ring: Ring,
    /// S3: whom we have echoed.
    peer: Option<Peer>,
    up: bool,
    /// E1: once the peer has closed, how far it had written.
    last: Option<u32>,
    written: u32,
    consumed: u32,
    confirmed: u32,
}

/// Offset of the block for `peer`, port 0.
fn block_of(peer: u32) -> u64 {
    64 + 64 * u64::from(peer)
}

/// Where rings may begin.
fn rings(link: &impl Link) -> u64 {
    block_of(link.layout().max_peers())
}

/// Size that an output section must have for a channel, in bytes.
pub fn smallest_section(max_peers: u32) -> u64 {
    block_of(max_peers) + 64
}

/// H1: takes the own section into use.
pub fn claim(link: &mut impl Link) {
    let max_peers = link.layout().max_peers();
    for peer in 0..max_peers {
        link.set_output_word(block_of(peer) + block::EPOCH, 0);
    }
    link.barrier();
    for (field, value) in [
        (header::VERSION, number::VERSION),
        (header::MAX_PEERS, max_peers),
        (header::PORTS, 1),
    ] {
        link.set_output_word(field, value);
    }
    for field in (header::RESERVED..64).step_by(4) {
        link.set_output_word(field, 0);
    }
    link.set_output_word(header::MAGIC, number::MAGIC);
}

impl Session {
    /// S1: starts a session with `peer`, to be rung on `vector`. The own ring is
    /// all that the section has behind its blocks, of which it must have
    /// [`smallest_section`].
    pub fn start(link: &mut impl Link, peer: u32, vector: u32) -> Self {
        let own_id = link.layout().id();
        let begin = rings(link);
        let room = (link.layout().output_size() - begin).min(LONGEST_RING);
        let ring = Ring {
            begin,
            size: room as u32 / 8 * 8,
        };
        let own = block_of(peer);
        // S2.
        let taken = [
            link.output_word(own_id, own + block::LAST_EPOCH),
            link.output_word(own_id, own + block::EPOCH),
            link.output_word(peer, block_of(own_id) + block::ECHO),
            0,
        ];
        let mut epoch = taken[0].wrapping_add(1);
        while taken.contains(&epoch) {
            epoch = epoch.wrapping_add(1);
        }
        link.set_output_word(own + block::EPOCH, 0);
        link.barrier();
        for (field, value) in [
            (block::ECHO, 0),
            (block::FEATURES, 0),
            (block::ACCEPTED, 0),
            (block::VECTOR, vector),
            (block::RING_OFFSET, begin as u32),
            (block::RING_SIZE, ring.size),
            (block::FIN, 0),
            (block::WRITTEN, 0),
            (block::CONSUMED, 0),
            (block::CONFIRMED, 0),
            (block::DATA_EVENT, number::NO_EVENT),
            (block::ROOM_EVENT, number::NO_EVENT),
            (block::CONFIRM_EVENT, number::NO_EVENT),
            (block::LAST_EPOCH, epoch),
            (block::RESERVED, 0),
        ] {
            link.set_output_word(own + field, value);
        }
        link.barrier();
        link.set_output_word(own + block::EPOCH, epoch);
        Self {
            peer_id: peer,
            own_id,
            epoch,
            ring,
            peer: None,
            up: false,
            last: None,
            written: 0,
            consumed: 0,
            confirmed: 0,
        }
    }

    /// Whether messages can go.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// A word of the peer's block.
    fn theirs(&self, link: &impl Link, field: u64) -> u32 {
        link.output_word(self.peer_id, block_of(self.own_id) + field)
    }

    /// Stores a word of the own block.
    fn put(&self, link: &mut impl Link, field: u64, value: u32) {
        link.set_output_word(block_of(self.peer_id) + field, value);
    }

    /// W4.
    fn ring_bell(&self, link: &mut impl Link) {
        if let Some(peer) = self.peer.filter(|peer| peer.vector < link.vectors()) {
            link.ring(self.peer_id, peer.vector);
        }
    }

    /// S3, S4: looks at a peer with whom it is not up yet.
    ///
    /// # Errors
    /// [`End::Broken`] only.
    pub fn look(&mut self, link: &mut impl Link) -> Result<(), End> {
        link.barrier();
        if !self.header_is_right(link) {
            return Ok(());
        }
        let epoch = self.theirs(link, block::EPOCH);
        if epoch == 0 {
            return Ok(());
        }
        if self.peer.is_none_or(|peer| peer.epoch != epoch) {
            let vector = self.theirs(link, block::VECTOR);
            let begin = self.theirs(link, block::RING_OFFSET);
            let size = self.theirs(link, block::RING_SIZE);
            let echo = self.theirs(link, block::ECHO);
            link.barrier();
            if self.theirs(link, block::EPOCH) != epoch {
                return Ok(());
            }
            let section = rings(link)..link.layout().output_size();
            let Some(ring) = Ring::checked(begin, size, section) else {
                return if echo == self.epoch {
                    Err(End::Broken)
                } else {
                    Ok(())
                };
            };
            self.peer = Some(Peer {
                epoch,
                ring,
                vector,
            });
            // This end has no features, so there are none that both have.
            self.put(link, block::ACCEPTED, 0);
            link.barrier();
            self.put(link, block::ECHO, epoch);
            self.ring_bell(link);
        }
        link.barrier();
        if self.theirs(link, block::ECHO) != self.epoch {
            return Ok(());
        }
        let accepted = self.theirs(link, block::ACCEPTED);
        if self.is_valid(link) {
            if accepted != 0 {
                return Err(End::Broken);
            }
            self.up = true;
        }
        Ok(())
    }

    /// H2.
    fn header_is_right(&self, link: &impl Link) -> bool {
        let word = |field| link.output_word(self.peer_id, field);
        word(header::MAGIC) == number::MAGIC
            && word(header::VERSION) == number::VERSION
            && word(header::MAX_PEERS) == link.layout().max_peers()
            && word(header::PORTS) > 0
    }

    /// S6.
    fn is_valid(&self, link: &impl Link) -> bool {
        link.barrier();
        let Some(peer) = self.peer else {
            return false;
        };
        self.theirs(link, block::EPOCH) == peer.epoch
            && self.theirs(link, block::ECHO) == self.epoch
    }

    fn valid(&self, link: &impl Link) -> Result<(), End> {
        if self.is_valid(link) {
            Ok(())
        } else {
            Err(End::Reset)
        }
    }

    /// P2: something is wrong, which is the peer's fault if it is valid.
    fn wrong(&self, link: &impl Link) -> End {
        self.valid(link).err().unwrap_or(End::Broken)
    }

    /// Sends the next message back, if there is one and there is room for it.
    ///
    /// # Errors
    /// The session is over; [`Self::close`] it.
    pub fn step(&mut self, link: &mut impl Link) -> Result<Step, End> {
        let Some(peer) = self.peer.filter(|_| self.up) else {
            return Ok(Step::Nothing);
        };
        self.valid(link)?;
        // S7.
        if link.state(self.peer_id) == 0 {
            link.barrier();
            if self.theirs(link, block::FIN) == 0 {
                return Err(End::Reset);
            }
        }
        let mut filled = self.data(link, peer)?;
        if filled == 0 {
            // W2.
            self.put(link, block::DATA_EVENT, self.consumed);
            link.barrier();
            filled = self.data(link, peer)?;
        }
        if filled == 0 {
            return Ok(Step::Nothing);
        }
        // R2, R3: the header is read once.
        let at = peer.ring.at(self.consumed);
        let length = link.output_word(self.peer_id, at);
        let reserved = link.output_word(self.peer_id, at + 4);
        let record = match peer.ring.record(length) {
            Some(record) if reserved == 0 && record <= filled => record,
            _ => return Err(self.wrong(link)),
        };
        // Nobody reads what is sent to one who has closed (E2).
        let reads = self.theirs(link, block::FIN) == 0;
        if self.ring.record(length).is_none() || !reads {
            self.valid(link)?;
            self.advance(link, peer, record, 0);
            return Ok(Step::Dropped);
        }
        if !self.there_is_room(link, record)? {
            return Ok(Step::Nothing);
        }
        self.copy(link, peer, record, length);
        self.valid(link)?;
        self.advance(link, peer, record, record);
        Ok(Step::Echoed)
    }

    /// T2, E2: how many bytes of records there are to be read.
    fn data(&mut self, link: &impl Link, peer: Peer) -> Result<u32, End> {
        let fin = self.theirs(link, block::FIN);
        link.barrier();
        let written = self.theirs(link, block::WRITTEN);
        self.valid(link)?;
        if !peer.ring.is_position(written) {
            return Err(End::Broken);
        }
        // E1: nothing follows, and it stays so.
        if self.last.is_some_and(|last| fin == 0 || last != written) {
            return Err(End::Broken);
        }
        self.last = (fin != 0).then_some(written);
        match peer.ring.distance(self.consumed, written) {
            0 if fin != 0 => Err(End::Finished),
            filled if filled <= peer.ring.size => Ok(filled),
            _ => Err(End::Broken),
        }
    }

    /// T1, W2: if there is none, asks to be rung when half of the ring is free,
    /// or as much as the record needs.
    fn there_is_room(&self, link: &mut impl Link, record: u32) -> Result<bool, End> {
        if self.free(link)? >= record {
            return Ok(true);
        }
        let wanted = record.max(self.ring.size / 16 * 8);
        self.put(
            link,
            block::ROOM_EVENT,
            self.ring.room_event(self.written, wanted),
        );
        link.barrier();
        // One who closes now is seen in the next step: it rings (W5).
        Ok(self.free(link)? >= record)
    }

    fn free(&self, link: &impl Link) -> Result<u32, End> {
        let consumed = self.theirs(link, block::CONSUMED);
        self.valid(link)?;
        if !self.ring.is_position(consumed) {
            return Err(End::Broken);
        }
        let used = self.ring.distance(consumed, self.written);
        self.ring.size.checked_sub(used).ok_or(End::Broken)
    }

    /// The whole record: the header as it was checked (P1), the rest, filling included, as it stands there.
    fn copy(&self, link: &mut impl Link, peer: Peer, record: u32, length: u32) {
        let header = self.ring.at(self.written);
        link.set_output_word(header, length);
        link.set_output_word(header + 4, 0);
        for offset in (8..record).step_by(4) {
            let from = peer.ring.at(peer.ring.add(self.consumed, offset));
            let to = self.ring.at(self.ring.add(self.written, offset));
            let word = link.output_word(self.peer_id, from);
            link.set_output_word(to, word);
        }
    }

    /// T1, T3, T4, W3: a message was taken, and `sent` bytes of records written.
    fn advance(&mut self, link: &mut impl Link, peer: Peer, taken: u32, sent: u32) {
        let (written, consumed, confirmed) = (self.written, self.consumed, self.confirmed);
        self.written = self.ring.add(written, sent);
        self.consumed = peer.ring.add(consumed, taken);
        self.confirmed = confirmed.wrapping_add(1);
        link.barrier();
        self.put(link, block::WRITTEN, self.written);
        self.put(link, block::CONSUMED, self.consumed);
        self.put(link, block::CONFIRMED, self.confirmed);
        link.barrier();
        let data = self.theirs(link, block::DATA_EVENT);
        let room = self.theirs(link, block::ROOM_EVENT);
        let count = self.theirs(link, block::CONFIRM_EVENT);
        if self.ring.moved_past(data, written, self.written)
            || peer.ring.moved_past(room, consumed, self.consumed)
            || number::moved_past(count, confirmed, self.confirmed)
        {
            self.ring_bell(link);
        }
    }

    /// E1, E4: this end goes, too.
    pub fn close(self, link: &mut impl Link, end: End) {
        link.barrier();
        match end {
            End::Finished => self.put(link, block::FIN, 1),
            End::Reset | End::Broken => self.put(link, block::EPOCH, 0),
        }
        self.ring_bell(link);
    }
}
