// SPDX-License-Identifier: MIT OR Apache-2.0

//! One end of a channel at a soft inmate: one session after the other, with what its role does in
//! them.

use super::view;
use super::view::View;
use super::Cell;
use super::Role;
use super::Settings;
use crate::statistics;
use crate::statistics::SessionEnd;
use crate::statistics::Traffic;
use ivshmem_messages::Checker;
use ivshmem_messages::Stream;
use ivshmem_messages::Wrong;
use ivshmem_messages::HEADER;
use ivshmem_protocol::channel::layout::block;
use ivshmem_protocol::channel::layout::vector_for;
use ivshmem_protocol::channel::session::Config;
use ivshmem_protocol::channel::session::Ended;
use ivshmem_protocol::channel::session::Link;
use ivshmem_protocol::channel::session::Session;
use ivshmem_protocol::channel::transfer::Message;
use ivshmem_protocol::channel::transfer::Next;
use ivshmem_protocol::channel::transfer::SendError;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::OutOfBounds;
use ivshmem_protocol::state_table;
use std::time::Duration;
use std::time::Instant;

/// How many steps are done before other channels, and orders, have their turn.
const BATCH: u32 = 64;

/// The cell has crashed in the middle of it.
pub(super) struct Crashed;

impl From<OutOfBounds> for Crashed {
    fn from(_: OutOfBounds) -> Self {
        Self
    }
}

/// Why a session is over.
enum Over {
    /// The peer, or our memory, has ended it.
    Ended(Ended),
    /// The peer has closed it, and everything has been received.
    Finished,
    /// Everything has been sent and confirmed.
    Done,
}

impl<E: Into<Ended>> From<E> for Over {
    fn from(why: E) -> Self {
        Self::Ended(why.into())
    }
}

/// What a source sends next.
struct Outgoing {
    stream: Stream,
    number: u32,
    /// It is in the buffer already.
    is_ready: bool,
    /// When it may be sent.
    due: Option<Instant>,
    /// Only for that it waits.
    is_early: bool,
}

/// One end.
pub(super) struct End {
    peer: u16,
    role: Role,
    settings: Settings,
    session: Option<Session>,
    /// A source that is done begins no other session by itself.
    is_done: bool,
    /// It has closed a session with this epoch of the peer's, who may still be reading.
    lingers: Option<u32>,
    outgoing: Outgoing,
    /// The record that an echo, or a source, has no room for.
    blocked: Option<u32>,
    checker: Checker,
    buffer: Vec<u8>,
    /// What earlier sessions carried.
    before: Traffic,
    now: statistics::Session,
}

/// The vector on which `cell` is rung for its channel with `peer`.
pub(super) fn vector(cell: &Cell, peer: u16) -> u16 {
    // Without messages there is the line.
    vector_for(cell.id(), peer, cell.vectors().max(1)).unwrap_or(0)
}

/// How a session between `cell` and `peer` is to be.
pub(super) fn config(cell: &Cell, peer: u16, polls: bool) -> Option<Config> {
    let own = view::section(cell, cell.id())?;
    Some(Config {
        own,
        peer: view::section(cell, peer)?,
        own_id: cell.id(),
        peer_id: peer,
        ring: own.share(cell.id(), peer)?,
        vector: (!polls).then(|| vector(cell, peer)),
        entropy: fastrand::u32(..),
    })
}

/// Rings the other end of `session` on the vector that it has asked for.
pub(super) fn ring(cell: &Cell, peer: u16, session: &Session) {
    if let Some(vector) = session.peer_vector().filter(|&it| cell.has_vector(it)) {
        cell.ring(peer, vector);
    }
}

/// The statistics of the channel with `peer`.
fn entry(statistics: &mut statistics::Peer, peer: u16) -> &mut statistics::Channel {
    let channels = &mut statistics.channels;
    let at = match channels.iter().position(|channel| channel.peer == peer) {
        Some(at) => at,
        None => {
            channels.push(statistics::Channel {
                peer,
                ..statistics::Channel::default()
            });
            channels.len() - 1
        }
    };
    &mut channels[at]
}

impl End {
    pub(super) fn new(cell: &Cell, peer: u16, role: Role, settings: Settings) -> Self {
        let mut before = Traffic::default();
        cell.report(|all| before = entry(all, peer).total);
        Self {
            peer,
            role,
            settings,
            session: None,
            is_done: false,
            lingers: None,
            outgoing: Outgoing {
                stream: Stream {
                    seed: settings.seed,
                    session: 0,
                    max: HEADER as u32,
                },
                number: 0,
                is_ready: false,
                due: None,
                is_early: false,
            },
            blocked: None,
            checker: Checker::default(),
            buffer: Vec::new(),
            before,
            now: statistics::Session::default(),
        }
    }

    /// Begins a session. It is left out if the peer breaks the rules already, until the next event.
    pub(super) fn begin(&mut self, cell: &Cell, view: &View<'_>) -> Result<(), Crashed> {
        // Checked when the inmate was asked for.
        let Some(config) = config(cell, self.peer, !self.settings.poll.is_zero()) else {
            return Ok(());
        };
        let mut number = 0;
        cell.report(|all| {
            let entry = entry(all, self.peer);
            entry.sessions += 1;
            number = entry.sessions;
        });
        self.now = statistics::Session {
            number,
            ..statistics::Session::default()
        };
        let session = self.session.insert(Session::start(view, &config)?);
        self.is_done = false;
        self.lingers = None;
        self.blocked = None;
        self.checker.begin();
        let largest = session.largest_message();
        let max = match self.settings.max {
            0 => largest,
            max => max.min(largest),
        };
        self.outgoing = Outgoing {
            stream: Stream {
                seed: self.settings.seed,
                session: number,
                max,
            },
            number: 0,
            is_ready: false,
            due: None,
            is_early: false,
        };
        match self.look(cell, view) {
            Ok(()) => {
                self.report(cell, None);
                Ok(())
            }
            Err(Ended::Memory(_)) => Err(Crashed),
            Err(why) => {
                self.end(cell, end_of(why));
                Ok(())
            }
        }
    }

    fn look(&mut self, cell: &Cell, view: &View<'_>) -> Result<(), Ended> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        if session.look(view)? {
            ring(cell, self.peer, session);
        }
        self.now.up |= session.link() == Link::Up;
        Ok(())
    }

    /// Does all that there is to do, or much of it. True if there may be more.
    pub(super) fn work(&mut self, cell: &Cell, view: &View<'_>) -> Result<bool, Crashed> {
        if self.session.is_none() && !self.is_done {
            if self.is_awaited(cell, view)? {
                return Ok(false);
            }
            self.begin(cell, view)?;
        }
        for _ in 0..BATCH {
            match self.step(cell, view) {
                Ok(true) => {}
                Ok(false) => {
                    self.report(cell, None);
                    return Ok(false);
                }
                Err(over) => return self.over(cell, view, &over).map(|()| false),
            }
        }
        self.report(cell, None);
        Ok(true)
    }

    /// The session is over: tells why, and begins the next.
    fn over(&mut self, cell: &Cell, view: &View<'_>, over: &Over) -> Result<(), Crashed> {
        let end = match over {
            Over::Ended(Ended::Memory(_)) => return Err(Crashed),
            Over::Ended(why) => end_of(*why),
            Over::Finished => SessionEnd::Finished,
            Over::Done => SessionEnd::Closed,
        };
        self.close(cell, view, end)?;
        self.is_done = matches!(over, Over::Done);
        if self.is_done {
            return Ok(());
        }
        self.begin(cell, view)
    }

    /// Closes the session, if there is one.
    pub(super) fn close(
        &mut self,
        cell: &Cell,
        view: &View<'_>,
        end: SessionEnd,
    ) -> Result<(), Crashed> {
        if let Some(session) = &mut self.session {
            if session.close(view)? {
                ring(cell, self.peer, session);
            }
            self.end(cell, end);
        }
        Ok(())
    }

    /// Closes the session in good order, and begins the next when the peer has got everything: a session
    /// that begins sooner would take the end of this one from it. The peer rings when it is so far.
    pub(super) fn reconnect(&mut self, cell: &Cell, view: &View<'_>) -> Result<(), Crashed> {
        self.is_done = false;
        if let Some(session) = &self.session {
            let lingers = session.is_up().then(|| session.peer_epoch());
            self.close(cell, view, SessionEnd::Closed)?;
            self.lingers = lingers;
        }
        Ok(())
    }

    /// Whether the peer still reads what was sent in a session that is closed here.
    fn is_awaited(&self, cell: &Cell, view: &View<'_>) -> Result<bool, Crashed> {
        let (Some(epoch), Some(section)) = (self.lingers, view::section(cell, self.peer)) else {
            return Ok(false);
        };
        let Some(at) = section.block(cell.id()) else {
            return Ok(false);
        };
        let load = |field| view.load(at + field, LoadOrder::Acquire);
        let goes_on = load(block::FIN)? == 0 && load(block::EPOCH)? == epoch;
        Ok(goes_on && cell.state(self.peer) != state_table::ABSENT)
    }

    /// There is no session any more.
    pub(super) fn end(&mut self, cell: &Cell, end: SessionEnd) {
        if self.session.is_some() {
            self.now.end = Some(end);
            self.report(cell, Some(end));
            self.before += self.now.traffic;
            self.session = None;
        }
    }

    fn report(&mut self, cell: &Cell, end: Option<SessionEnd>) {
        let Some(session) = &self.session else {
            return;
        };
        let traffic = &mut self.now.traffic;
        (traffic.sent, traffic.confirmed) = session.sent();
        (traffic.received, traffic.acknowledged) = session.received();
        self.now.peer_number = self.checker.stream().map(|stream| stream.session);
        cell.report(|all| {
            let entry = entry(all, self.peer);
            entry.update(&self.before, &self.now);
            if let Some(end) = end {
                entry.ended(end);
                entry.links += u64::from(self.now.up);
            }
        });
    }

    /// How long it may sleep, if there is something to do without being rung.
    pub(super) fn sleep(&self) -> Option<Duration> {
        let due = self.outgoing.due.filter(|_| self.outgoing.is_early)?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// One step. True if another may follow at once; if not, the peer rings when one may.
    fn step(&mut self, cell: &Cell, view: &View<'_>) -> Result<bool, Over> {
        self.look(cell, view)?;
        let Some(session) = &mut self.session else {
            return Ok(false);
        };
        if session.link() != Link::Up {
            return Ok(false);
        }
        if cell.state(self.peer) == state_table::ABSENT {
            session.peer_is_absent(view)?;
        }
        self.blocked = None;
        let received = self.receive(cell, view)?;
        let sent = self.send(cell, view)?;
        Ok(received || sent || self.arm(view)?)
    }

    fn receive(&mut self, cell: &Cell, view: &View<'_>) -> Result<bool, Over> {
        let Some(session) = &mut self.session else {
            return Ok(false);
        };
        match session.next(view)? {
            Next::Nothing => self.confirm(cell, view, 1).map(|()| false),
            Next::End => Err(Over::Finished),
            Next::Message(message) => {
                let length = message.length;
                if !self.take(cell, view, message)? {
                    return Ok(false);
                }
                self.now.traffic.received_bytes += u64::from(length);
                self.confirm(cell, view, self.settings.acknowledge.into())?;
                Ok(true)
            }
        }
    }

    /// Confirms all that was received if that are `least` messages.
    fn confirm(&mut self, cell: &Cell, view: &View<'_>, least: u64) -> Result<(), Over> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let (received, acknowledged) = session.received();
        if received - acknowledged >= least && session.confirm(view, received)? {
            ring(cell, self.peer, session);
        }
        Ok(())
    }

    /// Takes a message, and does with it what the role says. False if there is no room for that yet.
    fn take(&mut self, cell: &Cell, view: &View<'_>, message: Message) -> Result<bool, Over> {
        let Some(session) = &mut self.session else {
            return Ok(false);
        };
        let slot = match self.role {
            Role::Echo => match session.reserve(view, message.length) {
                Ok(slot) => Some(slot),
                Err(SendError::Full | SendError::Unconfirmed | SendError::Waiting) => {
                    self.blocked = Some(message.length);
                    return Ok(false);
                }
                Err(SendError::Length | SendError::Finished) => None,
                Err(SendError::Ended(why)) => return Err(why.into()),
            },
            _ => None,
        };
        view.read(&message.pieces, &mut self.buffer)?;
        let mut rings = session.take(view, message)?;
        match (self.role, slot) {
            (Role::Echo, Some(slot)) => {
                view.write(&slot.pieces, &self.buffer)?;
                rings |= session.commit(view, slot)?;
                self.now.traffic.sent_bytes += self.buffer.len() as u64;
            }
            (Role::Echo, None) => self.now.traffic.dropped += 1,
            _ => {
                self.outgoing.is_ready = false;
                let traffic = &mut self.now.traffic;
                match self.checker.check(&self.buffer) {
                    Ok(()) => {}
                    Err(Wrong::Corrupted) => traffic.corrupted += 1,
                    Err(Wrong::Lost) => traffic.lost += 1,
                    Err(Wrong::Repeated) => traffic.repeated += 1,
                    Err(Wrong::Stale) => traffic.stale += 1,
                }
            }
        }
        if rings {
            ring(cell, self.peer, session);
        }
        Ok(true)
    }

    /// What a source does.
    fn send(&mut self, cell: &Cell, view: &View<'_>) -> Result<bool, Over> {
        let (Role::Source, Some(session)) = (self.role, &mut self.session) else {
            return Ok(false);
        };
        let outgoing = &mut self.outgoing;
        let count = self.settings.count;
        outgoing.is_early = false;
        if count != 0 && outgoing.number == count {
            let is_confirmed = session.confirmations(view)? == u64::from(count);
            let is_back = !self.settings.echoed || self.checker.count() >= count;
            return if is_confirmed && is_back {
                Err(Over::Done)
            } else {
                Ok(false)
            };
        }
        outgoing.is_early = outgoing.due.is_some_and(|due| due > Instant::now());
        if outgoing.is_early {
            return Ok(false);
        }
        if !outgoing.is_ready {
            outgoing.stream.message(outgoing.number, &mut self.buffer);
            outgoing.is_ready = true;
        }
        match session.reserve(view, self.buffer.len() as u32) {
            Ok(slot) => {
                view.write(&slot.pieces, &self.buffer)?;
                if session.commit(view, slot)? {
                    ring(cell, self.peer, session);
                }
            }
            Err(SendError::Ended(why)) => return Err(why.into()),
            // Nobody reads any more; the rest is to receive.
            Err(SendError::Finished) => return Ok(false),
            Err(_) => {
                self.blocked = Some(self.buffer.len() as u32);
                return Ok(false);
            }
        }
        self.now.traffic.sent_bytes += self.buffer.len() as u64;
        outgoing.number += 1;
        outgoing.is_ready = false;
        outgoing.due = match self.settings.rate {
            0 => None,
            rate => Some(Instant::now() + Duration::from_secs(1) / rate),
        };
        Ok(true)
    }

    /// There is nothing to do: asks to be rung when there is. True if there is already.
    fn arm(&mut self, view: &View<'_>) -> Result<bool, Over> {
        let Some(session) = &mut self.session else {
            return Ok(false);
        };
        let mut more = false;
        if let Some(length) = self.blocked {
            let half = session.largest_message() / 2;
            more |= session.await_room(view, half.max(length + 8))?;
        }
        // An echo that has no room knows that there is something to receive.
        if self.role != Role::Echo || self.blocked.is_none() {
            more |= session.await_data(view)?;
        }
        let (sent, confirmed) = session.sent();
        let last = (self.role == Role::Source && sent > confirmed).then_some(sent);
        if let Some(number) = session.needed_confirmation().or(last) {
            more |= session.await_confirmation(view, number)?;
        }
        Ok(more)
    }
}

fn end_of(why: Ended) -> SessionEnd {
    match why {
        Ended::Broken => SessionEnd::Broken,
        Ended::Closed => SessionEnd::Closed,
        _ => SessionEnd::Reset,
    }
}
