// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Channels against a simple model: two ends that start, talk, crash between any two stores and start again, in
//! memory that may hold anything before. The numbers are those of the properties in
//! Documentation/channel-protocol.md.

use ivshmem_protocol::channel::layout::{block, Section};
use ivshmem_protocol::channel::session::{claim, Config, Ended, Link, Session};
use ivshmem_protocol::channel::transfer::{Next, Pieces, SendError};
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const SECTION: usize = 0x200;

/// Memory of two sections, in which an end can be made to crash (after some stores no more happen) or
/// be interrupted: something else happens between two of its accesses.
struct Shared {
    words: RefCell<Vec<u32>>,
    stores_left: Cell<Option<u32>>,
    accesses_left: Cell<Option<u32>>,
    interruption: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Shared {
    fn new(garbage: u32) -> Self {
        let mut seed = garbage;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if garbage == 0 {
                0
            } else {
                seed >> (seed % 29)
            }
        };
        Self {
            words: RefCell::new((0..2 * SECTION / 4).map(|_| next()).collect()),
            stores_left: Cell::new(None),
            accesses_left: Cell::new(None),
            interruption: RefCell::new(None),
        }
    }

    /// An access is about to happen.
    fn access(&self) {
        match self.accesses_left.get() {
            Some(0) => {
                self.accesses_left.set(None);
                let interruption = self.interruption.take();
                let stores_left = self.stores_left.take();
                if let Some(happen) = interruption {
                    happen();
                }
                self.stores_left.set(stores_left);
            }
            Some(left) => self.accesses_left.set(Some(left - 1)),
            None => {}
        }
    }

    fn write(&self, pieces: &Pieces, bytes: &[u8]) {
        for (at, byte) in pieces.0.iter().cloned().flatten().zip(bytes) {
            self.access();
            let mut words = self.words.borrow_mut();
            let shift = 8 * (at % 4);
            words[at / 4] = (words[at / 4] & !(0xff << shift)) | (u32::from(*byte) << shift);
        }
    }

    fn read(&self, pieces: &Pieces) -> Vec<u8> {
        let byte = |at: usize| {
            self.access();
            (self.words.borrow()[at / 4] >> (8 * (at % 4))) as u8
        };
        pieces.0.iter().cloned().flatten().map(byte).collect()
    }
}

impl Memory for Shared {
    fn size(&self) -> usize {
        2 * SECTION
    }

    fn load(&self, offset: usize, _: LoadOrder) -> Result<u32, OutOfBounds> {
        self.access();
        self.words
            .borrow()
            .get(offset / 4)
            .copied()
            .ok_or(OutOfBounds { offset })
    }

    fn store(&self, offset: usize, value: u32, _: StoreOrder) -> Result<(), OutOfBounds> {
        self.access();
        match self.stores_left.get() {
            Some(0) => return Err(OutOfBounds { offset }),
            Some(left) => self.stores_left.set(Some(left - 1)),
            None => {}
        }
        self.words.borrow_mut()[offset / 4] = value;
        Ok(())
    }
}

impl Barriers for Shared {
    fn full_barrier(&self) {}
    fn read_barrier(&self) {}
    fn write_barrier(&self) {}
}

/// A message says who sent it, in which of its lives, and which it is.
fn message(end: usize, life: u32, number: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut value = (end as u32 + 1) * 1000 + life * 17 + number as u32 * 3;
    while bytes.len() < length {
        value = value.wrapping_mul(69_069).wrapping_add(1);
        bytes.push((value >> 16) as u8);
    }
    bytes
}

/// What an end has seen from a start to the next, or to a crash.
#[derive(Clone, Debug, Default)]
struct Life {
    number: u32,
    epoch: u32,
    /// The peer's epoch that it came up with.
    with: Option<u32>,
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    confirmed: u64,
    /// It was up, and ended by a reset.
    was_reset: bool,
    /// It has received everything up to the peer's end.
    drained: bool,
}

#[derive(Default)]
struct End {
    session: Option<Session>,
    life: Life,
    past: Vec<Life>,
}

struct World {
    memory: Shared,
    ends: [RefCell<End>; 2],
    entropy: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    /// Both ends start anew and come up.
    Connect,
    Look,
    Send(usize),
    Receive,
    Confirm,
    Confirmations,
    Close,
    /// The state table says that the peer is gone, if it is (S7).
    Absent,
}

fn section(end: usize) -> Section {
    Section {
        offset: end * SECTION,
        size: SECTION as u32,
        max_peers: 2,
    }
}

impl World {
    fn new(garbage: u32, entropy: u32) -> Rc<Self> {
        Rc::new(Self {
            memory: Shared::new(garbage),
            ends: Default::default(),
            entropy,
        })
    }

    /// A word of the block of `number`.
    fn word(&self, number: usize, field: usize) -> u32 {
        let at = section(number)
            .block(1 - number as u16)
            .expect("it is there")
            + field;
        self.memory.words.borrow()[at / 4]
    }

    fn bury(&self, end: &mut End) {
        if let Some(session) = end.session.take() {
            let mut life = std::mem::take(&mut end.life);
            life.confirmed = session.sent().1;
            end.past.push(life);
        }
    }

    fn start(&self, number: usize, end: &mut End) -> Result<(), OutOfBounds> {
        let (own, peer) = (section(number), section(1 - number));
        let (own_id, peer_id) = (number as u16, 1 - number as u16);
        let lives = end.past.len() as u32 + 1;
        // A machine that boots claims its section; a program that connects again does not.
        if lives % 3 == 1 {
            claim(&self.memory, own)?;
        }
        let config = Config {
            own,
            peer,
            own_id,
            peer_id,
            ring: own.share(own_id, peer_id).expect("it is large enough"),
            vector: Some(0),
            // Where there is none, there is none.
            entropy: self.entropy.wrapping_mul(lives),
        };
        end.session = Some(Session::start(&self.memory, &config)?);
        end.life = Life {
            number: lives,
            epoch: self.word(number, block::EPOCH),
            ..Life::default()
        };
        Ok(())
    }

    /// Carries out a step of `number`. After `crash` stores it dies; before access `at` of it `interruption`
    /// happens.
    fn step(
        self: &Rc<Self>,
        number: usize,
        step: &Step,
        crash: Option<u32>,
        interruption: Option<(u32, Vec<Step>)>,
    ) {
        self.memory.stores_left.set(crash);
        if let Some((at, steps)) = interruption {
            let world = self.clone();
            self.memory.accesses_left.set(Some(at));
            *self.memory.interruption.borrow_mut() = Some(Box::new(move || {
                for step in &steps {
                    world.act(1 - number, step);
                }
            }));
        }
        self.act(number, step);
        self.memory.accesses_left.set(None);
        self.memory.interruption.take();
        self.memory.stores_left.set(None);
    }

    fn act(&self, number: usize, step: &Step) {
        if let Step::Connect = step {
            for step in [Step::Start, Step::Look, Step::Look] {
                self.act(number, &step);
                self.act(1 - number, &step);
            }
            return;
        }
        // One that is interrupted just now does nothing else.
        let Ok(mut end) = self.ends[number].try_borrow_mut() else {
            return;
        };
        let end = &mut *end;
        if let Step::Start = step {
            self.bury(end);
            // One that crashes in its start is never there.
            let _ = self.start(number, end);
            return;
        }
        let Some(session) = &mut end.session else {
            return;
        };
        let was_up = session.link() == Link::Up;
        let result = self.call(number, step, session, &mut end.life);
        if session.link() == Link::Up && end.life.with.is_none() {
            end.life.with = Some(self.word(number, block::ECHO));
        }
        match result {
            Err(Ended::Memory(_)) => self.bury(end),
            Err(Ended::Broken) => panic!("nobody broke the protocol"),
            Err(Ended::Reset) if was_up => end.life.was_reset = true,
            _ => {}
        }
    }

    fn call(
        &self,
        number: usize,
        step: &Step,
        session: &mut Session,
        life: &mut Life,
    ) -> Result<(), Ended> {
        let memory = &self.memory;
        match step {
            Step::Start | Step::Connect => Ok(()),
            Step::Look => session.look(memory).map(drop),
            Step::Send(length) => match session.reserve(memory, *length as u32) {
                Ok(slot) => {
                    let bytes = message(number, life.number, life.sent.len() as u64, *length);
                    memory.write(&slot.pieces, &bytes);
                    // It may crash behind the store that sends it.
                    life.sent.push(bytes);
                    session.commit(memory, slot).map(drop)
                }
                Err(SendError::Ended(why)) => Err(why),
                Err(_) => Ok(()),
            },
            Step::Receive => match session.next(memory)? {
                Next::Message(message) => {
                    let bytes = memory.read(&message.pieces);
                    let result = session.take(memory, message);
                    if !matches!(result, Err(Ended::Reset | Ended::Broken)) {
                        life.received.push(bytes);
                    }
                    result.map(drop)
                }
                Next::Nothing => Ok(()),
                Next::End => {
                    life.drained = true;
                    Ok(())
                }
            },
            Step::Confirm => {
                let number = life.received.len() as u64;
                session.confirm(memory, number).map(drop)
            }
            Step::Confirmations => session.confirmations(memory).map(drop),
            Step::Close => session.close(memory).map(drop).map_err(Ended::Memory),
            Step::Absent => {
                let other = self.ends[1 - number].try_borrow();
                let gone = other.is_ok_and(|other| other.session.is_none());
                if gone {
                    session.peer_is_absent(memory)?;
                    // It was not up, or the peer had closed.
                    assert!(!session.is_up() || session.peer_has_finished(memory)?);
                }
                Ok(())
            }
        }
    }

    /// All lives of an end.
    fn lives(&self, number: usize) -> Vec<Life> {
        let end = &mut *self.ends[number].borrow_mut();
        self.bury(end);
        end.past.clone()
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Start),
        3 => Just(Step::Connect),
        4 => Just(Step::Look),
        6 => (0usize..400).prop_map(Step::Send),
        6 => Just(Step::Receive),
        3 => Just(Step::Confirm),
        3 => Just(Step::Confirmations),
        1 => Just(Step::Close),
        1 => Just(Step::Absent),
    ]
}

type Move = (usize, Step, Option<u32>, Option<(u32, Vec<Step>)>);

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let interruption = (0u32..40, prop::collection::vec(step(), 1..6));
    let one = (
        0usize..2,
        step(),
        prop::option::weighted(0.05, 0u32..40),
        prop::option::weighted(0.3, interruption),
    );
    prop::collection::vec(one, 1..200)
}

fn cases() -> u32 {
    let wanted = std::env::var("IVSHMEM_CHANNEL_CASES").ok();
    wanted.map_or(500, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Properties 1 to 3: what is delivered is the beginning of what was sent, in the one life of the peer that
    /// this life came up with, all of it if that has closed; what counts as confirmed was delivered there.
    #[test]
    fn messages_arrive_once_in_order_in_their_session_or_the_session_ends(
        garbage in any::<u32>(),
        entropy in prop_oneof![Just(0), any::<u32>()],
        moves in moves(),
    ) {
        let world = World::new(garbage, entropy);
        for (end, step, crash, interruption) in moves {
            world.step(end, &step, crash, interruption);
        }
        let all = [world.lives(0), world.lives(1)];
        for (own, others) in [(&all[0], &all[1]), (&all[1], &all[0])] {
            for life in own {
                let peers: Vec<_> = others.iter().filter(|peer| Some(peer.epoch) == life.with).collect();
                if life.received.is_empty() && life.confirmed == 0 && !life.drained {
                    continue;
                }
                let is_source = |peer: &&Life| {
                    let confirmed = life.confirmed as usize;
                    peer.sent.starts_with(&life.received)
                        && (!life.drained || peer.sent == life.received)
                        && confirmed <= peer.received.len()
                        && life.sent.starts_with(&peer.received[..confirmed])
                };
                prop_assert!(
                    peers.iter().any(is_source),
                    "{life:?} is not what one of {peers:?} can have done"
                );
            }
        }
    }
}

/// Property 4: each restart of one end that was up is one ended session for the other.
#[test]
fn a_restart_is_one_ended_session() {
    const RESTARTS: usize = 20;
    let world = World::new(7, 0);
    let link = |end: usize| world.ends[end].borrow().session.as_ref().map(Session::link);
    for _ in 0..RESTARTS {
        for step in [Step::Start, Step::Look, Step::Look] {
            world.step(0, &step, None, None);
            world.step(1, &step, None, None);
        }
        assert_eq!((link(0), link(1)), (Some(Link::Up), Some(Link::Up)));
        world.step(1, &Step::Start, None, None);
        for _ in 0..3 {
            world.step(0, &Step::Look, None, None);
            world.step(1, &Step::Look, None, None);
        }
        assert_eq!(link(0), Some(Link::Ended(Ended::Reset)));
        assert_eq!(link(1), Some(Link::Waiting), "there is nobody to talk to");
    }
    let resets = world.lives(0).iter().filter(|life| life.was_reset).count();
    assert_eq!(resets, RESTARTS);
    assert!(world.lives(1).iter().all(|life| !life.was_reset));
}

/// Property 5, without restarts: everything that is sent arrives and is confirmed.
#[test]
fn a_quiet_link_comes_up_and_carries_messages_of_every_length() {
    for garbage in [0, 1, 0xdead_beef] {
        let world = World::new(garbage, 0);
        for step in [Step::Start, Step::Look, Step::Look] {
            world.step(0, &step, None, None);
            world.step(1, &step, None, None);
        }
        let largest = world.ends[0]
            .borrow()
            .session
            .as_ref()
            .expect("up")
            .largest_message();
        for length in (1..=largest as usize).chain([1, 7, 8, 9]) {
            for (from, to) in [(0, 1), (1, 0)] {
                world.step(from, &Step::Send(length), None, None);
                world.step(to, &Step::Receive, None, None);
                world.step(to, &Step::Confirm, None, None);
                world.step(from, &Step::Confirmations, None, None);
                let (from, to) = (world.ends[from].borrow(), world.ends[to].borrow());
                assert_eq!(to.life.received, from.life.sent);
                let sent = from.life.sent.len() as u64;
                assert_eq!(from.session.as_ref().expect("up").sent(), (sent, sent));
            }
        }
    }
}
