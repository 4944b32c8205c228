// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Each publication and wake-up of channels between two threads in loom's model of weak memory: every order of the
//! accesses, and every value that a load may give in the memory model of C11. Both threads call the core. That a
//! barrier is needed is shown by leaving it out: then the same model fails. One kind of them is left out at a time,
//! everywhere; Documentation/channel-protocol.md, "Properties", has a list of which of the rules' that shows.
//!
//! Loads never give a value that is stored later, in loom: what needs that is in tests/litmus.

mod channel_ends;

use channel_ends::{config, connected, section, send, Counted};
use ivshmem_protocol::channel::session::{end_all, Config, Ended, Session};
use ivshmem_protocol::channel::transfer::{Next, Pieces};
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::{LoadOrder, Memory, OutOfBounds, StoreOrder};
use loom::sync::atomic::{fence, AtomicU32, Ordering};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// A header, two blocks and a ring of 64 bytes.
const SIZE: u32 = 256;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    FullBarrier,
    ReadBarrier,
    WriteBarrier,
    Acquire,
    Release,
}

struct Weak {
    words: Vec<AtomicU32>,
    without: Without,
}

impl Weak {
    fn unless(&self, without: Without, order: Ordering) -> Ordering {
        if self.without == without {
            Ordering::Relaxed
        } else {
            order
        }
    }

    fn barrier(&self, without: Without, order: Ordering) {
        if self.without != without {
            fence(order);
        }
    }

    fn write(&self, pieces: &Pieces, words: [u32; 2]) {
        let at = pieces.0[0].start;
        for (number, word) in words.into_iter().enumerate() {
            self.words[at / 4 + number].store(word, Ordering::Relaxed);
        }
    }

    fn read(&self, pieces: &Pieces) -> [u32; 2] {
        let at = pieces.0[0].start / 4;
        [at, at + 1].map(|word| self.words[word].load(Ordering::Relaxed))
    }
}

impl Memory for Weak {
    fn size(&self) -> usize {
        self.words.len() * 4
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        let word = self.words.get(offset / 4).ok_or(OutOfBounds { offset })?;
        Ok(word.load(match order {
            LoadOrder::Relaxed => Ordering::Relaxed,
            LoadOrder::Acquire => self.unless(Without::Acquire, Ordering::Acquire),
        }))
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        let word = self.words.get(offset / 4).ok_or(OutOfBounds { offset })?;
        let order = match order {
            StoreOrder::Relaxed => Ordering::Relaxed,
            StoreOrder::Release => self.unless(Without::Release, Ordering::Release),
        };
        word.store(value, order);
        Ok(())
    }
}

impl Barriers for Weak {
    fn full_barrier(&self) {
        self.barrier(Without::FullBarrier, Ordering::SeqCst);
    }

    fn read_barrier(&self) {
        self.barrier(Without::ReadBarrier, Ordering::Acquire);
    }

    fn write_barrier(&self) {
        self.barrier(Without::WriteBarrier, Ordering::Release);
    }
}

/// Two ends of a channel as they are before the threads begin.
#[derive(Clone)]
struct Before {
    words: Vec<u32>,
    ends: [Session; 2],
}

/// Two ends that are up, after `prepare`.
fn up(prepare: impl FnOnce(&Counted, &mut [Session; 2])) -> Before {
    let memory = Counted::new(2 * SIZE as usize);
    let mut ends = connected(&memory, SIZE);
    prepare(&memory, &mut ends);
    let words = memory.words.borrow().clone();
    Before { words, ends }
}

/// How often a thread may be interrupted. A model is run with each bound: loom leaves out different orders without one
/// ("start" never sees the new session then) than with one, so those that are small enough are run both ways.
/// IVSHMEM_CHANNEL_LOOM says another bound.
fn bounds(name: &str) -> Vec<Option<usize>> {
    let (unbound, usual) = match name {
        "handshake" => (false, 2),
        "restart, receiver" | "start" => (false, 4),
        _ => (true, 4),
    };
    let wanted = std::env::var("IVSHMEM_CHANNEL_LOOM").ok();
    let bound = wanted.map_or(usual, |wanted| wanted.parse().expect("a number"));
    let without = unbound.then_some(None);
    without.into_iter().chain([Some(bound)]).collect()
}

/// Runs two threads, each with its end of the channel, in all orders; then `judge` on what they say.
fn model<A: 'static, B: 'static>(
    name: &str,
    (before, without): (Before, Without),
    left: fn(&Weak, Session) -> A,
    right: fn(&Weak, Session) -> B,
    judge: fn(&Weak, A, B),
) {
    let runs = Arc::new(AtomicUsize::new(0));
    for bound in bounds(name) {
        let (counted, before) = (runs.clone(), before.clone());
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 10_000;
        builder.preemption_bound = bound;
        builder.check(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let words = before.words.iter().map(|word| AtomicU32::new(*word));
            let memory = Arc::new(Weak {
                words: words.collect(),
                without,
            });
            let [left_end, right_end] = before.ends.clone();
            let shared = memory.clone();
            let thread = loom::thread::spawn(move || right(&shared, right_end));
            let first = left(&memory, left_end);
            let second = thread.join().expect("it ends");
            judge(&memory, first, second);
        });
    }
    let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
    println!("{name}: {runs} executions");
    assert!(runs > 1, "{name}");
}

const SAID: [u32; 2] = [0x1234_5678, 0x9abc_def0];
const LATER: [u32; 2] = [0x1111_1111, 0x2222_2222];

/// Sends a message of two words; whether it rings.
fn say(memory: &Weak, end: &mut Session, words: [u32; 2]) -> bool {
    let slot = end.reserve(memory, 8).expect("room");
    memory.write(&slot.pieces, words);
    end.commit(memory, slot).expect("up")
}

/// What is received, if anything.
fn hear(memory: &Weak, end: &mut Session) -> Result<Option<[u32; 2]>, Ended> {
    match end.next(memory)? {
        Next::Message(message) => {
            let words = memory.read(&message.pieces);
            end.take(memory, message)?;
            Ok(Some(words))
        }
        Next::Nothing | Next::End => Ok(None),
    }
}

/// A message is published and its receiver woken: T1, T2, W2, W3 with `written` and `data_event`.
fn data(without: Without) {
    model(
        "data",
        (up(|_, _| ()), without),
        |memory, mut left| say(memory, &mut left, SAID),
        |memory, mut right| {
            let there = right.await_data(memory)?;
            Ok((
                there,
                if there {
                    hear(memory, &mut right)?
                } else {
                    None
                },
            ))
        },
        |_, rings, heard: Result<_, Ended>| {
            let (there, words) = heard.expect("what is read is what was written");
            assert!(rings || there, "the receiver sleeps for ever");
            assert!(
                !there || words == Some(SAID),
                "what is read is what was written"
            );
        },
    );
}

#[test]
fn a_message_is_seen_whole_and_its_receiver_woken() {
    data(Without::Nothing);
}

#[test]
#[should_panic(expected = "the receiver sleeps for ever")]
fn a_message_needs_the_full_barrier() {
    data(Without::FullBarrier);
}

#[test]
#[should_panic(expected = "what is read is what was written")]
fn a_message_needs_release() {
    data(Without::Release);
}

#[test]
#[should_panic(expected = "what is read is what was written")]
fn a_message_needs_acquire() {
    data(Without::Acquire);
}

/// A ring that is full becomes free: T3, W2, W3 with `consumed` and `room_event`.
fn room(without: Without) {
    let full = up(|memory, [left, _]| {
        for _ in 0..4 {
            send(memory, left, &[7; 8]);
        }
    });
    model(
        "room",
        (full, without),
        |memory, mut left| {
            let room = left.await_room(memory, 16).expect("up");
            if room {
                say(memory, &mut left, LATER);
            }
            room
        },
        |memory, mut right| {
            let Ok(Next::Message(message)) = right.next(memory) else {
                panic!("there is a message");
            };
            let words = memory.read(&message.pieces);
            (words, right.take(memory, message).expect("up"))
        },
        |_, room, (words, rings)| {
            assert!(room || rings, "the sender sleeps for ever");
            assert_eq!(words, [0x0707_0707; 2]);
        },
    );
}

#[test]
fn room_is_not_used_too_early_and_its_sender_woken() {
    room(Without::Nothing);
}

#[test]
#[should_panic(expected = "the sender sleeps for ever")]
fn room_needs_the_full_barrier() {
    room(Without::FullBarrier);
}

/// A confirmation is counted: T4, T5, W2, W3 with `confirmed` and `confirm_event`.
fn confirmation(without: Without) {
    let received = up(|memory, [left, right]| {
        send(memory, left, &[7; 8]);
        channel_ends::receive(memory, right).expect("a message");
    });
    model(
        "confirmation",
        (received, without),
        |memory, mut left| left.await_confirmation(memory, 1).expect("up"),
        |memory, mut right| right.confirm(memory, 1).expect("up"),
        |_, confirmed, rings| assert!(confirmed || rings, "the sender sleeps for ever"),
    );
}

#[test]
fn a_confirmation_wakes_its_sender() {
    confirmation(Without::Nothing);
}

#[test]
#[should_panic(expected = "the sender sleeps for ever")]
fn a_confirmation_needs_the_full_barrier() {
    confirmation(Without::FullBarrier);
}

/// A message and a confirmation, then the end: E1, E2.
fn fin(without: Without) {
    let sent = up(|memory, [left, _]| {
        send(memory, left, &[7; 8]);
    });
    model(
        "fin",
        (sent, without),
        |memory, mut left| {
            let last = left.await_confirmation(memory, 2)?;
            let confirmed = left.sent().1;
            let ended = matches!(left.next(memory)?, Next::End);
            Ok((last, confirmed, ended))
        },
        |memory, mut right| {
            hear(memory, &mut right).expect("up");
            right.confirm(memory, 1).expect("up");
            say(memory, &mut right, SAID);
            right.close(memory).expect("there");
        },
        |_, left: Result<_, Ended>, ()| {
            let (last, confirmed, ended) = left.expect("nothing is lost at the end");
            assert!(
                !last || confirmed == 1,
                "what is lost at the end: a confirmation"
            );
            assert!(!ended, "what is lost at the end: a message");
        },
    );
}

#[test]
fn the_end_is_seen_behind_all_that_was_done_before() {
    fin(Without::Nothing);
}

#[test]
#[should_panic(expected = "is lost at the end")]
fn the_end_needs_acquire() {
    fin(Without::Acquire);
}

#[test]
#[should_panic(expected = "is lost at the end")]
fn the_end_needs_release() {
    fin(Without::Release);
}

/// The right end is killed and starts again; its ring is its own again, and gets a header that is none.
fn start_again(memory: &Weak, _: Session) {
    let config = config(1, 0, SIZE, 2);
    Session::start(memory, &config).expect("starts");
    let at = config.own.offset + SIZE as usize - 64;
    for (word, value) in [3, 1, 5].into_iter().enumerate() {
        memory.words[at / 4 + word].store(value, Ordering::Relaxed);
    }
}

/// One end starts again while the other receives: S1, S6.
fn restart(without: Without) {
    let sent = up(|memory, [_, right]| {
        send(memory, right, &[7; 8]);
    });
    model(
        "restart, receiver",
        (sent, without),
        |memory, mut left| hear(memory, &mut left),
        start_again,
        |_, heard, ()| {
            let right = matches!(
                heard,
                Ok(Some([0x0707_0707, 0x0707_0707])) | Err(Ended::Reset)
            );
            assert!(right, "of another session: {heard:?}");
        },
    );
}

/// The right end stops using its section for channels, and writes something else there: a header that is none into the
/// ring.
fn use_otherwise(memory: &Weak, _: Session) {
    let section = section(1, SIZE, 2);
    end_all(memory, section).expect("there");
    let at = section.offset + SIZE as usize - 64;
    for (word, value) in [3, 1, 5].into_iter().enumerate() {
        memory.words[at / 4 + word].store(value, Ordering::Relaxed);
    }
}

/// One end stops using its section for channels while the other receives: E3, S6.
fn stop(without: Without) {
    let sent = up(|memory, [_, right]| {
        send(memory, right, &[7; 8]);
    });
    model(
        "stop",
        (sent, without),
        |memory, mut left| hear(memory, &mut left),
        use_otherwise,
        |_, heard, ()| {
            let right = matches!(
                heard,
                Ok(Some([0x0707_0707, 0x0707_0707])) | Err(Ended::Reset)
            );
            assert!(right, "of no session: {heard:?}");
        },
    );
}

#[test]
fn what_is_read_while_the_peer_stops_is_of_the_old_session_or_dropped() {
    stop(Without::Nothing);
}

#[test]
#[should_panic(expected = "of no session")]
fn stopping_needs_the_write_barrier() {
    stop(Without::WriteBarrier);
}

#[test]
#[should_panic(expected = "of no session")]
fn stopping_needs_the_read_barrier() {
    stop(Without::ReadBarrier);
}

/// One end starts, with another vector than before, while the other looks: S1, S3.
fn start(without: Without) {
    let waiting = up(|memory, [left, _]| {
        *left = Session::start(memory, &config(0, 1, SIZE, 2)).expect("starts");
    });
    model(
        "start",
        (waiting, without),
        |memory, mut left| {
            left.look(memory).expect("nobody breaks anything");
            left
        },
        |memory, _| {
            let config = Config {
                vector: Some(2),
                ..config(1, 0, SIZE, 2)
            };
            Session::start(memory, &config).expect("starts")
        },
        |_, left, right| {
            let seen = left.peer_epoch() == right.epoch();
            assert!(
                !seen || left.peer_vector() == Some(2),
                "a session with what was there before it"
            );
        },
    );
}

#[test]
fn one_who_sees_a_session_sees_all_that_its_start_wrote() {
    start(Without::Nothing);
}

#[test]
#[should_panic(expected = "what was there before")]
fn a_start_needs_release() {
    start(Without::Release);
}

#[test]
#[should_panic(expected = "what was there before")]
fn a_start_needs_acquire() {
    start(Without::Acquire);
}

/// All loads of a look are with acquire, which does what the barrier is for.
#[test]
fn a_look_does_without_the_read_barrier() {
    start(Without::ReadBarrier);
}

/// One end starts again while the other counts confirmations and looks for room: S1, S6.
fn restart_confirmed(without: Without) {
    let confirmed = up(|memory, [left, right]| {
        send(memory, left, &[7; 8]);
        channel_ends::receive(memory, right).expect("a message");
        right.confirm(memory, 1).expect("up");
    });
    model(
        "restart, sender",
        (confirmed, without),
        |memory, mut left| (left.confirmations(memory), left.await_room(memory, 64)),
        start_again,
        |_, (confirmed, room), ()| {
            let right = matches!(confirmed, Ok(1) | Err(Ended::Reset))
                && matches!(room, Ok(true) | Err(Ended::Reset));
            assert!(right, "of another session: {confirmed:?}, {room:?}");
        },
    );
}

#[test]
fn what_is_counted_while_the_peer_restarts_is_of_the_old_session_or_dropped() {
    restart_confirmed(Without::Nothing);
}

#[test]
#[should_panic(expected = "of another session")]
fn counting_over_a_restart_needs_the_write_barrier() {
    restart_confirmed(Without::WriteBarrier);
}

#[test]
fn what_is_read_while_the_peer_restarts_is_of_the_old_session_or_dropped() {
    restart(Without::Nothing);
}

#[test]
#[should_panic(expected = "of another session")]
fn a_restart_needs_the_write_barrier() {
    restart(Without::WriteBarrier);
}

#[test]
#[should_panic(expected = "of another session")]
fn a_restart_needs_the_read_barrier() {
    restart(Without::ReadBarrier);
}

/// Both ends start and look at each other: S1, S3, S4, W5. Afterwards whoever is rung looks again.
fn handshake(without: Without) {
    model(
        "handshake",
        (up(|_, _| ()), without),
        |memory, _| meet(memory, 0),
        |memory, _| meet(memory, 1),
        |memory, left, right| {
            let mut ends = [left.0, right.0];
            let mut rings = [left.1, right.1];
            while let Some(from) = rings.iter().position(|rings| *rings) {
                rings[from] = false;
                let rung = 1 - from;
                rings[rung] |= ends[rung].look(memory).expect("nobody breaks anything");
            }
            assert!(
                ends.iter().all(Session::is_up),
                "nobody says that both are there"
            );
        },
    );
}

/// An end after its start, and whether it rings.
fn meet(memory: &Weak, number: u16) -> (Session, bool) {
    let mut end = Session::start(memory, &config(number, 1 - number, SIZE, 2)).expect("starts");
    let rings = end.look(memory).expect("nobody breaks anything");
    (end, rings)
}

/// An end closes, then its state is 0: S7.
fn absent(without: Without) {
    model(
        "absent",
        (up(|_, _| ()), without),
        |memory, mut left| {
            let gone = memory.words[NOBODY].load(Ordering::Relaxed) == 1;
            gone && left.peer_is_absent(memory).is_err()
        },
        |memory, mut right| {
            right.close(memory).expect("there");
            memory.words[NOBODY].store(1, Ordering::Release);
        },
        |_, reset, ()| assert!(!reset, "one who closed counts as gone without a word"),
    );
}

/// A word that nobody uses, of the header, for the state table.
const NOBODY: usize = 8;

#[test]
fn one_who_closes_before_he_goes_has_closed() {
    absent(Without::Nothing);
}

#[test]
#[should_panic(expected = "counts as gone")]
fn the_state_table_needs_the_full_barrier() {
    absent(Without::FullBarrier);
}

#[test]
fn two_ends_that_start_at_once_find_each_other() {
    handshake(Without::Nothing);
}

#[test]
#[should_panic(expected = "nobody says that both are there")]
fn a_handshake_needs_the_full_barrier() {
    handshake(Without::FullBarrier);
}
