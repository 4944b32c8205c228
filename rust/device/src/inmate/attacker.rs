// SPDX-License-Identifier: MIT OR Apache-2.0

//! A soft inmate that breaks the channel protocol: it brings sessions up in good order, talks for a
//! while, and then changes whatever it can write, and rings, as fast as it may, or at the rate asked for.
//!
//! What it does is a matter of the seed alone; what comes of it depends on the others.

use super::end;
use super::view;
use super::view::StoresLeft;
use super::view::View;
use super::Cell;
use super::Inmate;
use super::Settings;
use crate::statistics::Attack;
use crate::trouble::nasty;
use fastrand::Rng;
use ivshmem_protocol::channel::layout::block;
use ivshmem_protocol::channel::layout::header;
use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::layout::BLOCK_SIZE;
use ivshmem_protocol::channel::session;
use ivshmem_protocol::channel::session::Config;
use ivshmem_protocol::channel::session::Ended;
use ivshmem_protocol::channel::session::Link;
use ivshmem_protocol::channel::session::Session;
use ivshmem_protocol::channel::transfer::Next;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::StoreOrder;
use std::time::Duration;

/// From turn to turn, at least: between two of them others get at the link.
const PAUSE: Duration = Duration::from_micros(50);

/// Steps of a turn if there may be as many as possible.
const STEPS: u32 = 16;

/// How many steps in good order a session may have before it is attacked.
const GOOD_STEPS: u32 = 40;

/// How many steps an attack has before the next session.
const BAD_STEPS: u32 = 60;

/// The largest message sent in good order, in bytes.
const MESSAGE_MAX: u32 = 512;

/// A peer that attacks.
pub(super) struct Attacker {
    settings: Settings,
    rng: Rng,
    victims: Vec<Victim>,
    stores_left: StoresLeft,
    done: Attack,
}

/// What goes on with one peer.
struct Victim {
    peer: u16,
    session: Option<Session>,
    /// Steps that the session is still behaved.
    good: u32,
    /// Steps of the attack after that.
    bad: u32,
    buffer: Vec<u8>,
}

impl Attacker {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            rng: Rng::with_seed(settings.seed),
            victims: Vec::new(),
            stores_left: StoresLeft::default(),
            done: Attack::default(),
        }
    }

    /// Steps of a turn, and from turn to turn.
    fn turn(&self) -> (u32, Duration) {
        match self.settings.rate {
            0 => (STEPS, PAUSE),
            rate => {
                let steps = (PAUSE * rate).as_secs() as u32 + 1;
                (steps, Duration::from_secs(1) * steps / rate)
            }
        }
    }

    /// A step against one of its victims.
    fn step(&mut self, cell: &Cell) {
        let view = View::new(cell, &self.stores_left);
        // A number for each step, whatever came of those before: so steps are a matter of the seed.
        let mut rng = Rng::with_seed(self.rng.u64(..));
        let number = rng.usize(..self.victims.len());
        let victim = &mut self.victims[number];
        self.done.steps += 1;
        if victim.good > 0 {
            victim.good -= 1;
            victim.behave(cell, &view, &mut rng, &mut self.done);
        } else if victim.bad > 0 {
            victim.bad -= 1;
            victim.misbehave(cell, &view, &mut rng, &mut self.done);
        } else {
            victim.begin(cell, &view, &mut rng, &mut self.done);
        }
    }
}

impl Inmate for Attacker {
    fn start(&mut self, cell: &Cell) {
        let peers = cell.others();
        let wanted = peers.filter(|&peer| self.settings.to.is_none_or(|to| to == peer));
        let victim = |peer| Victim {
            peer,
            session: None,
            good: 0,
            bad: 0,
            buffer: Vec::new(),
        };
        self.victims = wanted.map(victim).collect();
        if let Some(section) = view::section(cell, cell.id()) {
            // It can only fail where the memory has no such section.
            let _ = session::claim(&View::new(cell, &self.stores_left), section);
        }
        cell.set_state(u32::from(cell.id()) + 1);
    }

    fn interrupt(&mut self, _cell: &Cell, _vector: u16) {
        // It looks all the time.
    }

    fn period(&self) -> Option<Duration> {
        Some(self.turn().1)
    }

    fn tick(&mut self, cell: &Cell) {
        for _ in 0..self.turn().0 {
            self.step(cell);
        }
        cell.report(|all| all.attack.clone_from(&self.done));
    }

    fn merges_interrupts(&self) -> bool {
        true
    }
}

impl Victim {
    /// A new session, as the protocol wants it.
    fn begin(&mut self, cell: &Cell, view: &View<'_>, rng: &mut Rng, done: &mut Attack) {
        self.good = rng.u32(..GOOD_STEPS);
        self.bad = rng.u32(1..BAD_STEPS);
        let Some(config) = end::config(cell, self.peer, false) else {
            return;
        };
        let config = Config {
            entropy: rng.u32(..),
            ..config
        };
        // Also a header that was attacked is right again.
        let _ = write_header(view, config.own);
        cell.set_state(u32::from(cell.id()) + 1);
        self.session = Session::start(view, &config).ok();
        done.sessions += 1;
    }

    /// Something that is allowed: looks, and sends or receives.
    fn behave(&mut self, cell: &Cell, view: &View<'_>, rng: &mut Rng, done: &mut Attack) {
        let (sends, length) = (rng.bool(), rng.u32(1..=MESSAGE_MAX));
        let Some(session) = &mut self.session else {
            return;
        };
        let was_up = session.link() == Link::Up;
        let mut act = || -> Result<bool, Ended> {
            let mut rings = session.look(view)?;
            if session.link() != Link::Up {
                return Ok(rings);
            }
            if sends {
                if let Ok(slot) = session.reserve(view, length.min(session.largest_message())) {
                    self.buffer.clear();
                    self.buffer
                        .resize(slot.pieces.0.iter().map(ExactSizeIterator::len).sum(), 0x5a);
                    view.write(&slot.pieces, &self.buffer)?;
                    rings |= session.commit(view, slot)?;
                    done.sent += 1;
                }
            } else if let Next::Message(message) = session.next(view)? {
                view.read(&message.pieces, &mut self.buffer)?;
                rings |= session.take_and_confirm(view, message)?;
                done.received += 1;
            } else {
                session.await_data(view)?;
            }
            Ok(rings)
        };
        if act().unwrap_or(true) {
            end::ring(cell, self.peer, session);
            done.doorbells += 1;
        }
        done.links += u64::from(!was_up && session.link() == Link::Up);
    }

    /// Something that is not.
    fn misbehave(&mut self, cell: &Cell, view: &View<'_>, rng: &mut Rng, done: &mut Attack) {
        let Some(section) = view::section(cell, cell.id()) else {
            return;
        };
        let Some(at) = section.block(self.peer) else {
            return;
        };
        match rng.u8(..16) {
            0 => {
                let field = 4 * rng.usize(..header::RESERVED / 4);
                change(view, section.offset + field, rng);
                done.header_stores += 1;
            }
            1..=3 => {
                let fields = [block::EPOCH, block::ECHO, block::FEATURES, block::ACCEPTED];
                change(view, at + fields[rng.usize(..4)], rng);
                done.session_stores += 1;
            }
            4 => {
                let fields = [block::VECTOR, block::RING_OFFSET, block::RING_SIZE];
                change(view, at + fields[rng.usize(..3)], rng);
                done.geometry_stores += 1;
            }
            5..=8 => {
                let fields = [
                    block::WRITTEN,
                    block::CONSUMED,
                    block::CONFIRMED,
                    block::FIN,
                ];
                change(view, at + fields[rng.usize(..4)], rng);
                done.index_stores += 1;
            }
            9 => {
                let fields = [block::DATA_EVENT, block::ROOM_EVENT, block::CONFIRM_EVENT];
                change(view, at + fields[rng.usize(..3)], rng);
                done.event_stores += 1;
            }
            10..=12 => {
                if let Some(offset) = ring_word(section, view, at, rng) {
                    change(view, offset, rng);
                    done.ring_stores += 1;
                }
            }
            13 if rng.u8(..16) == 0 => {
                cell.set_state(nasty(rng));
                done.states += 1;
            }
            _ => {
                for _ in 0..rng.u8(1..8) {
                    cell.ring(self.peer, rng.u16(..cell.vectors().max(1)));
                    done.doorbells += 1;
                }
            }
        }
    }
}

/// The header of the section as it has to be. `claim` would end the sessions with all peers.
fn write_header(view: &View<'_>, section: Section) -> Result<(), Ended> {
    use ivshmem_protocol::channel::layout::{MAGIC, PORTS, VERSION};
    for (field, value) in [
        (header::MAGIC, MAGIC),
        (header::VERSION, VERSION),
        (header::MAX_PEERS, section.max_peers.into()),
        (header::PORTS, PORTS),
    ] {
        view.store(section.offset + field, value, StoreOrder::Release)?;
    }
    Ok(())
}

/// A word of its ring: often the header of the record that the peer reads next.
fn ring_word(section: Section, view: &View<'_>, at: usize, rng: &mut Rng) -> Option<usize> {
    let word = |field| view.load(at + field, LoadOrder::Relaxed).ok();
    let (choice, position) = (rng.u8(..4), rng.u32(..));
    let (offset, size) = (word(block::RING_OFFSET)?, word(block::RING_SIZE)?);
    // The block may have been attacked: in that case anywhere behind the blocks.
    let blocks = BLOCK_SIZE * (1 + u32::from(section.max_peers));
    let (offset, size) = match section.ring(offset, size) {
        Some(_) => (offset, size),
        None => (blocks, section.size - blocks),
    };
    let position = match choice {
        0 => position,
        // Just behind what the peer was told: records to come. Before it: those that it reads now.
        1 => word(block::WRITTEN)?,
        _ => word(block::WRITTEN)?.wrapping_sub(position % (size / 2)),
    };
    Some(section.offset + (offset + position % size / 4 * 4) as usize)
}

/// Overwrites a word: with a random value, or one that is near to what is there.
fn change(view: &View<'_>, offset: usize, rng: &mut Rng) {
    let value = match (rng.u8(..3), rng.u32(..), nasty(rng)) {
        (0, _, nasty) => nasty,
        (1, near, _) => {
            let before = view.load(offset, LoadOrder::Relaxed).unwrap_or(0);
            before.wrapping_add((near % 33).wrapping_sub(16))
        }
        (_, near, _) => {
            let before = view.load(offset, LoadOrder::Relaxed).unwrap_or(0);
            before.wrapping_add((near % 4096).wrapping_sub(2048) & !7)
        }
    };
    // The section has this word.
    let _ = view.store(offset, value, StoreOrder::Release);
}
