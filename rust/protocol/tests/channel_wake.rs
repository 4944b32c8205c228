// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who is rung, and how often: properties 5 (liveness) and 6 (quiet) of Documentation/channel-protocol.md.

mod channel_ends;

use channel_ends::{connected, receive, send, Counted};
use ivshmem_protocol::channel::session::Session;
use ivshmem_protocol::channel::transfer::{Next, SendError};

const SIZE: u32 = 0x400;

/// The ring between two ends of sections of [`SIZE`].
const RING: u32 = SIZE - 192;

#[test]
fn an_idle_link_costs_one_doorbell_a_message() {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut left, mut right] = connected(&memory, SIZE);
    for number in 0..5000u32 {
        assert_eq!(right.await_data(&memory), Ok(false));
        let bytes = vec![7; 1 + number as usize % left.largest_message() as usize];
        assert!(send(&memory, &mut left, &bytes), "the receiver waits");
        let (received, rings) = receive(&memory, &mut right).expect("a message");
        assert_eq!(received, bytes);
        assert!(!rings, "nobody waits for room");
        let rings = right.confirm(&memory, u64::from(number) + 1);
        assert_eq!(rings, Ok(false), "nobody waits for a confirmation");
    }
}

#[test]
fn a_receiver_that_never_waits_is_never_rung() {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut left, mut right] = connected(&memory, SIZE);
    for _ in 0..5000 {
        assert!(!send(&memory, &mut left, &[7; 56]));
        receive(&memory, &mut right).expect("a message");
    }
}

#[test]
fn an_old_event_costs_a_doorbell_every_second_round() {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut left, mut right] = connected(&memory, SIZE);
    assert_eq!(right.await_data(&memory), Ok(false));
    let mut doorbells = 0;
    for _ in 0..5000 {
        doorbells += u32::from(send(&memory, &mut left, &[7; 56]));
        receive(&memory, &mut right).expect("a message");
    }
    assert_eq!(doorbells, (5000 * 64_u32).div_ceil(2 * RING));
}

#[test]
fn a_full_link_costs_a_doorbell_for_each_half_ring() {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut left, mut right] = connected(&memory, SIZE);
    let (mut sent, mut doorbells) = (0u32, 0u32);
    while sent < 5000 {
        match left.reserve(&memory, 56) {
            Ok(slot) => {
                sent += 1;
                doorbells += u32::from(left.commit(&memory, slot).expect("up"));
            }
            Err(SendError::Full) => {
                assert_eq!(left.await_room(&memory, RING / 2), Ok(false));
                let mut woken = false;
                while !woken {
                    woken = receive(&memory, &mut right).expect("a message").1;
                }
                doorbells += 1;
                assert_eq!(left.await_room(&memory, RING / 2), Ok(true));
            }
            Err(why) => panic!("{why:?}"),
        }
    }
    let halves = 5000 * 64 / (RING / 2);
    assert!(doorbells <= halves + 1, "{doorbells} for {halves} halves");
}

#[test]
fn a_message_that_is_taken_and_confirmed_rings_once_for_both() {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut left, mut right] = connected(&memory, SIZE);
    let largest = left.largest_message();
    send(&memory, &mut left, &vec![7; largest as usize]);
    assert_eq!(left.await_room(&memory, RING), Ok(false));
    assert_eq!(left.await_confirmation(&memory, 1), Ok(false));
    let Ok(Next::Message(message)) = right.next(&memory) else {
        panic!("there is a message");
    };
    assert_eq!(right.take_and_confirm(&memory, message), Ok(true));
    assert_eq!(left.await_room(&memory, RING), Ok(true));
    assert_eq!(left.await_confirmation(&memory, 1), Ok(true));
}

/// Numbers that look random, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % end
    }
}

/// One end of a link on which both send at once, each as fast as it can; it works only when it is rung.
struct Worker {
    session: Session,
    /// The length of the message that it sends next.
    length: u32,
    awake: bool,
    rung: u32,
}

const MESSAGES: u64 = 20_000;

impl Worker {
    /// Does one thing, or falls asleep; true if the other end is to be rung.
    fn work(&mut self, memory: &Counted, random: &mut Random) -> bool {
        match self.session.next(memory).expect("up") {
            Next::Message(message) if random.below(2) == 0 => {
                return self.session.take_and_confirm(memory, message).expect("up");
            }
            _ => {}
        }
        let (sent, confirmed) = self.session.sent();
        if sent < MESSAGES {
            match self.session.reserve(memory, self.length) {
                Ok(slot) => {
                    self.length = 1 + random.below(self.session.largest_message());
                    return self.session.commit(memory, slot).expect("up");
                }
                Err(SendError::Full) => {
                    let record = self.session.record(self.length).expect("it fits");
                    if self.session.await_room(memory, record).expect("up") {
                        return false;
                    }
                }
                Err(SendError::Unconfirmed) => {
                    let needed = self.session.needed_confirmation().expect("one");
                    if self.session.await_confirmation(memory, needed).expect("up") {
                        return false;
                    }
                }
                Err(why) => panic!("{why:?}"),
            }
        } else if confirmed < MESSAGES {
            self.session
                .await_confirmation(memory, MESSAGES)
                .expect("up");
        }
        self.awake = self.session.await_data(memory).expect("up");
        false
    }
}

#[test]
fn two_ends_that_work_only_when_they_are_rung_get_all_messages_over() {
    for seed in 0..5 {
        let memory = Counted::new(2 * SIZE as usize);
        let mut random = Random(seed);
        let mut workers = connected(&memory, SIZE).map(|mut session| {
            // Sometimes so few that it stops often.
            session.limit_unconfirmed([u64::MAX, 1, 2, 5, 20][seed as usize]);
            Worker {
                session,
                length: 1,
                awake: true,
                rung: 0,
            }
        });
        while let Some(some) = workers.iter().position(|worker| worker.awake) {
            let other = 1 - some;
            let turn = if workers[other].awake {
                random.below(2) as usize
            } else {
                some
            };
            if workers[turn].work(&memory, &mut random) {
                workers[1 - turn].awake = true;
                workers[1 - turn].rung += 1;
            }
        }
        for worker in &workers {
            assert_eq!(
                worker.session.sent(),
                (MESSAGES, MESSAGES),
                "it sleeps with work to do"
            );
            assert_eq!(
                worker.session.received(),
                (MESSAGES, MESSAGES),
                "it sleeps with work to do"
            );
            // Each message and each wait for room or for a confirmation costs one at most.
            assert!(
                u64::from(worker.rung) <= 3 * MESSAGES,
                "{} doorbells",
                worker.rung
            );
        }
    }
}
