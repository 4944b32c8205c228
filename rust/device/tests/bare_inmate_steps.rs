// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bare-metal inmate's channels against `rust/protocol`'s in one memory, step by step: two
//! implementations of Documentation/channel-protocol.md that share no code, interrupted by each other
//! between any two accesses, crashing at any store, in memory that may hold anything before.

mod two_ends;

use ivshmem_inmate::capability::VendorCapability;
use ivshmem_inmate::channel::{claim, End, Session as Bare, Step as BareStep};
use ivshmem_inmate::layout::Layout;
use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::session;
use ivshmem_protocol::channel::session::{Config, Ended, Session};
use ivshmem_protocol::channel::transfer::{Next, SendError};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use two_ends::{Hardware, Shared, View, PAGE, PEERS, RING};

/// A message says in which life it was sent, and which it is.
fn message(life: u32, number: usize, length: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed((u64::from(life) << 32) | number as u64);
    (0..length).map(|_| rng.u8(..)).collect()
}

/// Peer 0, from a start to the next.
#[derive(Default)]
struct Talker {
    session: Option<Session>,
    life: u32,
    /// The header of the section is written.
    has_claimed: bool,
    sent: Vec<Vec<u8>>,
    received: usize,
}

struct World {
    shared: Shared,
    talker: RefCell<Talker>,
    inmate: RefCell<Option<Bare>>,
    layout: Layout,
    /// Sessions of the inmate that were up and are over.
    over: Cell<u32>,
    /// An interruption has happened.
    interrupted: Cell<bool>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Peer 0 starts a session; the cell anew, or not.
    Start(bool),
    Look,
    Send(usize),
    Receive,
    Close,
    /// The inmate boots.
    Boot,
    /// It does one thing.
    Work,
}

impl Step {
    fn is_the_inmate_s(&self) -> bool {
        matches!(self, Self::Boot | Self::Work)
    }
}

impl World {
    fn new(garbage: u32) -> Rc<Self> {
        let vendor = VendorCapability {
            offset: 0x40,
            state_table_size: PAGE as u32,
            rw_section_size: 0,
            output_section_size: PAGE as u64,
            base_address: None,
        };
        Rc::new(Self {
            shared: Shared::new(garbage),
            talker: RefCell::default(),
            inmate: RefCell::default(),
            layout: Layout::new(&vendor, 1, PEERS.into()).expect("a layout"),
            over: Cell::default(),
            interrupted: Cell::default(),
        })
    }

    /// One step, with a crash at a store, or the other's steps before an access.
    fn step(
        self: &Rc<Self>,
        step: &Step,
        crash: Option<u32>,
        interruption: Option<(u32, Vec<Step>)>,
    ) {
        self.shared.stores_left.set(crash);
        if let Some((at, steps)) = interruption {
            let (world, inmate) = (self.clone(), step.is_the_inmate_s());
            self.shared.accesses_left.set(Some(at));
            *self.shared.interruption.borrow_mut() = Some(Box::new(move || {
                world.interrupted.set(true);
                for step in steps.iter().filter(|it| it.is_the_inmate_s() != inmate) {
                    world.act(step);
                }
            }));
        }
        self.act(step);
        let crashed = self.shared.has_crashed();
        self.shared.accesses_left.set(None);
        self.shared.interruption.take();
        self.shared.stores_left.set(None);
        // Who has crashed knows nothing any more.
        if crashed && step.is_the_inmate_s() {
            *self.inmate.borrow_mut() = None;
        } else if crashed {
            let talker = &mut *self.talker.borrow_mut();
            (talker.session, talker.has_claimed) = (None, false);
        }
    }

    fn act(&self, step: &Step) {
        match step {
            Step::Boot => self.boot(),
            Step::Work => drop(self.work()),
            step => {
                let talker = &mut *self.talker.borrow_mut();
                match self.talk(talker, step) {
                    Err(Ended::Broken) => panic!("the inmate broke a rule"),
                    Err(_) => talker.session = None,
                    Ok(rings) => self.ring_inmate(rings),
                }
            }
        }
    }

    fn ring_inmate(&self, rings: bool) {
        self.shared.rung[1].set(rings || self.shared.rung[1].get());
    }

    fn hardware(&self) -> Hardware<'_> {
        Hardware(&self.shared, self.layout)
    }

    fn boot(&self) {
        let link = &mut self.hardware();
        claim(link);
        *self.inmate.borrow_mut() = Some(Bare::start(link, 0, 1));
        self.shared.rung[1].set(true);
    }

    /// True if there may be more to do.
    fn work(&self) -> bool {
        let link = &mut self.hardware();
        let mut inmate = self.inmate.borrow_mut();
        let Some(session) = inmate.as_mut() else {
            return false;
        };
        let was_up = session.is_up();
        let looked = if was_up { Ok(()) } else { session.look(link) };
        match looked.and_then(|()| session.step(link)) {
            Ok(BareStep::Nothing) => false,
            Ok(_) => true,
            Err(End::Broken) => panic!("peer 0 broke a rule"),
            Err(end) => {
                session.close(link, end);
                let mut next = Bare::start(link, 0, 1);
                let looked = next.look(link);
                assert_eq!(looked, Ok(()), "peer 0 broke a rule");
                *inmate = Some(next);
                self.over.set(self.over.get() + u32::from(was_up));
                true
            }
        }
    }

    fn talk(&self, talker: &mut Talker, step: &Step) -> Result<bool, Ended> {
        let view = &View(&self.shared);
        if let Step::Start(anew) = step {
            return self.start(talker, *anew);
        }
        let Some(session) = &mut talker.session else {
            return Ok(false);
        };
        match step {
            Step::Look => session.look(view),
            Step::Send(length) => match session.reserve(view, *length as u32) {
                Ok(slot) => {
                    let bytes = message(talker.life, talker.sent.len(), *length);
                    view.write(&slot.pieces, &bytes)?;
                    talker.sent.push(bytes);
                    session.commit(view, slot)
                }
                Err(SendError::Ended(why)) => Err(why),
                Err(SendError::Full) => {
                    session.await_room(view, RING / 2)?;
                    Ok(false)
                }
                Err(_) => Ok(false),
            },
            Step::Receive => {
                session.confirmations(view)?;
                match session.next(view)? {
                    Next::Message(message) => {
                        let bytes = view.read(&message.pieces);
                        let rings = session.take_and_confirm(view, message)?;
                        assert_eq!(talker.sent.get(talker.received), Some(&bytes), "echoed");
                        talker.received += 1;
                        Ok(rings)
                    }
                    Next::Nothing => session.await_data(view).map(|_| false),
                    Next::End => Err(Ended::Closed),
                }
            }
            Step::Close => {
                let rings = session.close(view)?;
                talker.session = None;
                Ok(rings)
            }
            Step::Start(_) | Step::Boot | Step::Work => Ok(false),
        }
    }

    fn start(&self, talker: &mut Talker, anew: bool) -> Result<bool, Ended> {
        let view = &View(&self.shared);
        let section = |peer: usize| Section {
            offset: (1 + peer) * PAGE,
            size: PAGE as u32,
            max_peers: PEERS,
        };
        *talker = Talker {
            life: talker.life + 1,
            has_claimed: talker.has_claimed,
            ..Talker::default()
        };
        if anew || !talker.has_claimed {
            session::claim(view, section(0))?;
            talker.has_claimed = true;
        }
        let config = Config {
            own: section(0),
            peer: section(1),
            own_id: 0,
            peer_id: 1,
            ring: section(0).ring(PAGE as u32 - RING, RING).expect("a ring"),
            vector: Some(2),
            entropy: 0,
        };
        let session = talker.session.insert(Session::start(view, &config)?);
        session.look(view)
    }

    /// Both stay, and do something only when rung: everything arrives.
    fn settle(&self) {
        self.act(&Step::Start(false));
        if self.inmate.borrow().is_none() {
            self.act(&Step::Boot);
        }
        let lengths = [1, 184, 7, 80, 81, 72, 8, 64, 170, 3];
        self.shared.rung.iter().for_each(|it| it.set(true));
        self.run_while_rung(&lengths);
        let talker = self.talker.borrow();
        let session = talker.session.as_ref().expect("a session");
        assert!(session.is_up(), "it does not come up");
        assert_eq!(talker.sent.len(), lengths.len(), "not all were sent");
        assert_eq!(talker.received, lengths.len(), "not all came back");
        let all = lengths.len() as u64;
        assert_eq!(session.sent(), (all, all), "not all are confirmed");
    }

    /// Each does something only when it has been rung.
    fn run_while_rung(&self, lengths: &[usize]) {
        for _ in 0..1000 {
            if self.shared.rung[1].replace(false) {
                while self.work() {}
            }
            if self.shared.rung[0].replace(false) {
                self.talk_until_idle(lengths);
            }
            if self.shared.rung.iter().all(|it| !it.get()) {
                return;
            }
        }
        panic!("they never rest");
    }

    fn talk_until_idle(&self, lengths: &[usize]) {
        loop {
            self.act(&Step::Look);
            let before = {
                let talker = self.talker.borrow();
                (talker.sent.len(), talker.received)
            };
            self.act(&Step::Receive);
            if let Some(&length) = lengths.get(before.0) {
                self.act(&Step::Send(length));
            }
            let talker = &mut *self.talker.borrow_mut();
            if before != (talker.sent.len(), talker.received) {
                continue;
            }
            let view = &View(&self.shared);
            let session = talker.session.as_mut().expect("a session");
            let (sent, confirmed) = session.sent();
            let more = session.await_data(view).expect("it stays")
                || (sent > confirmed && session.await_confirmation(view, sent).expect("it stays"));
            if !more {
                return;
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Start),
        4 => Just(Step::Look),
        8 => (1_usize..185).prop_map(Step::Send),
        8 => Just(Step::Receive),
        1 => Just(Step::Close),
        1 => Just(Step::Boot),
        12 => Just(Step::Work),
    ]
}

type Move = (Step, Option<u32>, Option<(u32, Vec<Step>)>);

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let interruption = (0_u32..60, prop::collection::vec(step(), 1..8));
    let one = (
        step(),
        prop::option::weighted(0.03, 0_u32..60),
        prop::option::weighted(0.4, interruption),
    );
    prop::collection::vec(one, 1..300)
}

fn cases() -> u32 {
    let wanted = std::env::var("IVSHMEM_CHANNEL_CASES").ok();
    wanted.map_or(500, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Properties 1, 2, 5 and 7 of the document, and that neither takes the other for one who breaks
    /// the rules.
    #[test]
    fn two_implementations_understand_each_other(garbage in any::<u32>(), moves in moves()) {
        let world = World::new(garbage);
        for (step, crash, interruption) in moves {
            world.step(&step, crash, interruption);
        }
        world.settle();
    }
}

/// Lets the inmate work while peer 0 does `steps` before its access number `at`. False if it has not as many
/// accesses.
fn work_while(world: &Rc<World>, at: u32, steps: &[Step]) -> bool {
    world.step(&Step::Work, None, Some((at, steps.to_vec())));
    !world.interrupted.take()
}

#[test]
fn a_message_that_is_sent_at_any_moment_is_not_missed() {
    for at in 0..200 {
        let world = World::new(at);
        world.settle();
        let before = world.talker.borrow().received;
        world.act(&Step::Send(9));
        assert!(world.work(), "it sends one back");
        world.shared.rung[1].set(false);
        // Now it finds nothing, or perhaps something after all.
        let last = work_while(&world, at, &[Step::Send(20)]);
        world.run_while_rung(&[]);
        let came = world.talker.borrow().received - before;
        assert_eq!(came, 1 + usize::from(!last), "sent before access {at}");
        if last {
            assert!(at > 5, "it does more than that");
            return;
        }
    }
    panic!("it never comes to an end");
}

/// Peer 0 sends and does not read, until the inmate has no room for what it sends back. Gives the number of messages
/// that had room.
fn fill(world: &Rc<World>, most: usize) -> usize {
    world.settle();
    for sent in 0..most {
        world.act(&Step::Send(20));
        if !world.work() {
            return sent;
        }
    }
    world.act(&Step::Send(20));
    most
}

#[test]
fn room_that_is_given_at_any_moment_is_not_missed() {
    let most = fill(&World::new(0), 100);
    for at in 0..400 {
        let world = World::new(at);
        fill(&world, most);
        world.shared.rung.iter().for_each(|it| it.set(false));
        // Now it finds no room, or perhaps some after all.
        let all = vec![Step::Receive; most + 1];
        if !work_while(&world, at, &all) {
            while world.shared.rung[1].replace(false) && world.work() {}
            while world.shared.rung[0].replace(false) {
                world.act(&Step::Receive);
            }
            let talker = world.talker.borrow();
            assert_eq!(
                talker.received,
                talker.sent.len(),
                "read before access {at}"
            );
        } else {
            assert!(at > 5, "it does more than that");
            return;
        }
    }
    panic!("it never comes to an end");
}

/// Peer 0's words for its channel with the inmate: where its block is, and its ring.
const TALKER_BLOCK: usize = PAGE + 64 * 2;
const TALKER_RING: usize = 2 * PAGE - RING as usize;

#[test]
fn p1_a_length_that_changes_behind_its_check_is_not_passed_on() {
    let mut echoed = 0;
    for at in 0..200 {
        let world = World::new(at);
        world.settle();
        world.act(&Step::Send(9));
        let written = world.shared.words.borrow()[(TALKER_BLOCK + 32) / 4];
        let header = TALKER_RING + ((written + 2 * RING - 24) % RING) as usize;
        assert_eq!(world.shared.words.borrow()[header / 4], 9);
        let later = world.clone();
        world.shared.accesses_left.set(Some(at));
        *world.shared.interruption.borrow_mut() = Some(Box::new(move || {
            let words = &mut *later.shared.words.borrow_mut();
            (words[header / 4], words[header / 4 + 1]) = (170, 1);
        }));
        let step = {
            let mut inmate = world.inmate.borrow_mut();
            let session = inmate.as_mut().expect("it is there");
            session.step(&mut world.hardware())
        };
        let all = world.shared.accesses_left.take().is_some();
        world.shared.interruption.take();
        match step {
            Ok(BareStep::Echoed) => {
                echoed += 1;
                let talker = &mut *world.talker.borrow_mut();
                let session = talker.session.as_mut().expect("a session");
                let Ok(Next::Message(message)) = session.next(&View(&world.shared)) else {
                    panic!("changed before access {at}, it sends no message");
                };
                assert_eq!(message.length, 9, "changed before access {at}");
            }
            Err(End::Broken) => {}
            other => panic!("changed before access {at}: {other:?}"),
        }
        if all {
            assert!(echoed > 10, "it is changed behind the check, too");
            return;
        }
    }
    panic!("it never comes to an end");
}

/// What peer 0 does once the inmate has seen its end.
#[test]
fn e1_an_end_that_is_taken_back_breaks_the_session() {
    let world = World::new(0);
    world.settle();
    world.act(&Step::Send(9));
    world.act(&Step::Close);
    let step = || {
        let mut inmate = world.inmate.borrow_mut();
        let session = inmate.as_mut().expect("it is there");
        session.step(&mut world.hardware())
    };
    assert_eq!(step(), Ok(BareStep::Dropped), "nobody reads any more");
    world.shared.words.borrow_mut()[(TALKER_BLOCK + 28) / 4] = 0;
    assert_eq!(step(), Err(End::Broken));
}

#[test]
fn in_fresh_memory_too() {
    let world = World::new(0);
    world.settle();
    // And after any number of ends in good order.
    for _ in 0..100 {
        world.act(&Step::Close);
        while world.work() {}
        world.settle();
    }
    assert_eq!(world.over.get(), 100);
}
