// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wire as the protocol's text has it, and peers that break its rules: each breaks its own channel only.

use super::by_hand::{self, ByHand, NONE, RING};
use super::{bits, connect_near, content, largest, soon, up, Env, Test};
use crate::suites::peers::{self, Soft};
use crate::suites::{drain, StopOnDrop};
use crate::system;
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Error};
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers(
        "the wire: header, block and records are as the protocol's text has them",
        wire,
    ),
    Test::two_peers(
        "the wire: a message made by hand is received, confirmed and taken",
        from_the_wire,
    ),
    Test::two_peers(
        "one doorbell for a message to a peer that waits, none to one that does not",
        doorbells,
    )
    .only_if(|plan| {
        plan.devices.len() >= 2
            && plan.devices[1].vectors >= 3
            && super::super::message_signalled(plan)
    }),
    Test::two_peers(
        "anything in the peer's section before it starts is nobody there",
        stale,
    ),
    // bad input: a peer that publishes positions that cannot be => `EPROTO` on its channel
    Test::two_peers(
        "positions that cannot be break the channel: EPROTO for good",
        positions,
    ),
    // bad input: a peer that writes records that cannot be => `EPROTO` on its channel
    Test::two_peers("records that cannot be break the channel", records),
    // bad input: a peer whose ring lies where none can be => `EPROTO` on its channel
    Test::two_peers("rings that cannot be break the channel", rings),
    // bad input: a peer that confirms what was not sent, or takes confirmations back => `EPROTO` on its channel
    Test::two_peers(
        "confirmations that cannot be break the channel",
        confirmations,
    ),
    // bad input: a peer that writes on behind its end, or takes it back => `EPROTO` on its channel
    Test::two_peers("an end that is none breaks the channel", ends),
    Test::two_peers(
        "a broken channel breaks no other, and the next session works",
        contained,
    ),
    Test::two_peers(
        "a peer's new epoch is a reset, however wrong the rest looks",
        new_epoch,
    ),
    Test::two_peers(
        "a peer that has gone by the time that its answer is seen is a reset at once",
        gone_already,
    ),
    Test::two_peers(
        "nobody tells the size of what a restarted peer has where its message was",
        stale_size,
    ),
    Test::two_peers(
        "a peer that vanishes (its state becomes 0) is a reset",
        vanished,
    ),
];

/// The driver's end and a peer made by hand, up with each other.
fn by_hand_up(env: &Env) -> (Channel, ByHand) {
    let hand = ByHand::new(env);
    let near = connect_near(env, ConnectOptions::new());
    hand.up(0x1111_2222, &near);
    (near, hand)
}

/// A record as it stands in a ring.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_le_bytes();
    [&length[..], &[0; 4], message].concat()
}

fn wire(env: &Env) {
    let (near, hand) = by_hand_up(env);
    assert_eq!(hand.read(0), 0x4843_5649);
    assert_eq!((hand.read(4), hand.read(12)), (1, 1));
    assert_eq!(u64::from(hand.read(8)), u64::from(env.expected().peers));
    assert!((16..64).step_by(4).all(|offset| hand.read(offset) == 0));
    assert_eq!(hand.get(by_hand::FEATURES), 0);
    assert_eq!(hand.get(by_hand::ACCEPTED), 0);
    let ring = hand.get(by_hand::RING_SIZE);
    assert_eq!(ring as usize, largest(&near) + 8);
    assert_eq!(hand.get(by_hand::RING_OFFSET) % 64, 0);
    assert!(hand.get(by_hand::RING_OFFSET) >= hand.ring_offset());
    let end = u64::from(hand.get(by_hand::RING_OFFSET) + ring);
    assert!(end <= env.expected().output_size);
    let mut position = 0;
    for message in [&b"a"[..], b"12345678", b"123456789"] {
        near.send(message).expect("send");
        let bytes = record(message);
        assert_eq!(hand.peek(position, bytes.len()), bytes);
        position += bytes.len().next_multiple_of(8) as u32;
        assert_eq!(hand.get(by_hand::WRITTEN), position);
    }
    assert_eq!(near.status().expect("status").confirmed, 0);
    hand.publish(by_hand::CONSUMED, position);
    assert_eq!(
        near.wait_confirmed(1, Deadline::NOW),
        Err(Error::WouldBlock)
    );
    hand.publish(by_hand::CONFIRMED, 2);
    assert_eq!(near.wait_confirmed(2, Deadline::after(soon())), Ok(2));
    assert_eq!(hand.get(by_hand::FIN), 0);
    drop(near);
    assert_eq!(hand.get(by_hand::FIN), 1, "an orderly close");
}

fn from_the_wire(env: &Env) {
    let (near, hand) = by_hand_up(env);
    let mut position = 0;
    let message = [7; 21];
    // Several times around the ring of 256 bytes, in records of 32.
    for number in 1..=40 {
        hand.record(position, [21, 0], &message);
        position = (position + 32) % (2 * RING);
        hand.publish(by_hand::WRITTEN, position);
        assert_eq!(near.receive_message(), Ok(Some(message.to_vec())));
        let taken = || hand.get(by_hand::CONSUMED) == position;
        assert!(system::wait_until(soon(), taken), "it was read");
        let confirmed = || hand.get(by_hand::CONFIRMED) == number;
        assert!(system::wait_until(soon(), confirmed), "it was read");
    }
    hand.put(by_hand::FIN, 1);
    hand.ring();
    assert_eq!(near.receive_message(), Ok(None));
}

/// Interrupts that the peer's device has taken since one last asked.
fn taken(env: &Env, hand: &ByHand) -> u64 {
    // What is on its way comes.
    let last = hand.device().info().vectors_enabled - 1;
    system::settle(env.other_node(), last).expect("settle");
    let vector = |event: &ivshmem::Event| super::super::doorbells(event, 1);
    drain(hand.device()).iter().map(vector).sum()
}

fn doorbells(env: &Env) {
    let hand = ByHand::new(env);
    let near = connect_near(env, ConnectOptions::new());
    hand.start(0x77);
    // On vector 1 nothing else comes.
    hand.put(by_hand::EPOCH, 0);
    hand.put(by_hand::VECTOR, 1);
    hand.put(by_hand::EPOCH, 0x78);
    hand.ring();
    hand.answer(0x78);
    up(&near);
    taken(env, &hand);
    let mut position = 0;
    for _ in 0..5 {
        hand.put(by_hand::DATA_EVENT, position);
        near.send(b"12345678").expect("send");
        position += 16;
        assert_eq!(taken(env, &hand), 1, "we wait for one");
        near.send(b"12345678").expect("send");
        position += 16;
        assert_eq!(taken(env, &hand), 0, "we have been told");
        hand.put(by_hand::DATA_EVENT, NONE);
        near.send(b"12345678").expect("send");
        position += 16;
        assert_eq!(taken(env, &hand), 0, "we do not wait");
    }
}

fn stale(env: &Env) {
    let hand = ByHand::new(env);
    let near = connect_near(env, ConnectOptions::new());
    let waiting = || {
        hand.ring();
        assert_eq!(bits(&near), PollFlags::empty());
        let status = near.status().expect("status");
        assert_eq!(status.link, ChannelLink::Waiting);
    };
    for value in [NONE, 0x5a5a_5a5a, 1, 0] {
        (0..1024).step_by(4).for_each(|at| hand.put_word(at, value));
        waiting();
    }
    // A header that is nearly right, and blocks that say 1 everywhere.
    for (index, right) in (0..).zip([0x4843_5649, 1, env.expected().peers, 1]) {
        hand.header();
        (64..512).step_by(4).for_each(|at| hand.put_word(at, 0));
        hand.put_word(4 * index, if index == 3 { 0 } else { right + 1 });
        hand.put(by_hand::EPOCH, 1);
        waiting();
        hand.put(by_hand::EPOCH, 0);
    }
    hand.up(0x99, &near);
}

/// Has the peer do something wrong to a session that is up, and looks at what comes of it.
fn breaks(env: &Env, what: &str, wrong: impl FnOnce(&Channel, &ByHand)) {
    let (near, hand) = by_hand_up(env);
    wrong(&near, &hand);
    hand.ring();
    let is_broken = || {
        // Each of these looks at something else of the peer's.
        if near.status().expect("status").link == ChannelLink::Broken {
            return true;
        }
        near.set_nonblocking(true).expect("fcntl");
        let _ = (near.next_size(), near.send(b"look at the room"));
        false
    };
    assert!(
        system::wait_until(soon(), is_broken),
        "{what}: {:?}",
        near.status()
    );
    let errno = |error: Error| error.errno();
    let broken = Err(Some(Errno::PROTO));
    for _ in 0..2 {
        assert_eq!(near.send(b"no").map_err(errno), broken, "{what}");
        let got = near.receive(&mut [0; 100]).map(drop);
        assert_eq!(got.map_err(errno), broken, "{what}");
        assert_eq!(near.flush().map_err(errno), broken, "{what}");
        let got = near.wait_confirmed(0, Deadline::NEVER).map(drop);
        assert_eq!(got.map_err(errno), broken, "{what}");
    }
    let end = PollFlags::HUP | PollFlags::ERR;
    assert!(bits(&near).contains(end), "{what}: {:?}", bits(&near));
    // There is a way back: a new session, whether this one has been closed or not.
    let next = connect_near(env, ConnectOptions::new());
    hand.up(0x3333_4444, &next);
    let epoch = hand.get(by_hand::EPOCH);
    drop(near);
    assert_eq!(hand.get(by_hand::EPOCH), epoch, "{what}: the next goes on");
    up(&next);
}

fn positions(env: &Env) {
    for (what, field, value) in [
        ("written inside a record", by_hand::WRITTEN, 4),
        ("written beyond all positions", by_hand::WRITTEN, 2 * RING),
        ("written far beyond", by_hand::WRITTEN, NONE),
        (
            "more written than the ring holds",
            by_hand::WRITTEN,
            RING + 8,
        ),
    ] {
        breaks(env, what, |_, hand| hand.put(field, value));
    }
    // Who has room does not look how much has been consumed.
    for (what, value) in [
        ("consumed inside a record", 4),
        ("consumed beyond all positions", 0xffff_fff8),
    ] {
        breaks(env, what, |near, hand| {
            super::fill(near, 16);
            hand.put(by_hand::CONSUMED, value);
        });
    }
    breaks(env, "consumed what was not written", |near, hand| {
        super::fill(near, 16);
        let positions = 2 * hand.get(by_hand::RING_SIZE);
        let beyond = (hand.get(by_hand::WRITTEN) + 8) % positions;
        hand.put(by_hand::CONSUMED, beyond);
    });
}

fn records(env: &Env) {
    let wrong = |what: &str, words: [u32; 2], written: u32| {
        breaks(env, what, |_, hand| {
            hand.record(0, words, b"x");
            hand.put(by_hand::WRITTEN, written);
        });
    };
    wrong("a message of no bytes", [0, 0], 8);
    wrong("a message longer than what was written", [9, 0], 16);
    wrong("a message longer than the ring", [RING, 0], RING);
    wrong("a message of 4 GiB", [NONE, 0], RING);
    wrong("a message of 4 GiB less 7", [NONE - 7, 0], 8);
    wrong("a second word that is not 0", [8, 1], 16);
    breaks(env, "a second record that is wrong", |near, hand| {
        hand.record(0, [8, 0], b"12345678");
        hand.record(16, [0, 0], b"");
        hand.put(by_hand::WRITTEN, 32);
        hand.ring();
        assert_eq!(near.receive_message(), Ok(Some(b"12345678".to_vec())));
    });
}

fn rings(env: &Env) {
    let hand = ByHand::new(env);
    let first = hand.ring_offset();
    let size = env.expected().output_size as u32;
    for (offset, length) in [
        (0, 256),
        (first - 64, 256),
        (first + 8, 256),
        (first, 0),
        (first, 56),
        (first, 260),
        (first, size),
        (size - 64, 128),
        (size, 64),
        (0xffff_ffc0, 128),
        (first, 0xffff_fff8),
        (first, 1 << 30),
    ] {
        let near = connect_near(env, ConnectOptions::new());
        hand.start_with(0x55, offset, length);
        let is_broken = || {
            hand.put(by_hand::ECHO, hand.get(by_hand::EPOCH));
            hand.ring();
            near.status().expect("status").link == ChannelLink::Broken
        };
        let became = system::wait_until(soon(), is_broken);
        assert!(became, "{offset:#x}, {length:#x}: {:?}", near.status());
        let got = near.send(b"no").map_err(|error| error.errno());
        assert_eq!(got, Err(Some(Errno::PROTO)));
    }
    let near = connect_near(env, ConnectOptions::new());
    hand.up(0x56, &near);
}

fn confirmations(env: &Env) {
    breaks(env, "more confirmed than sent", |near, hand| {
        near.send(b"one").expect("send");
        hand.put(by_hand::CONFIRMED, 2);
    });
    breaks(env, "confirmed without anything sent", |_, hand| {
        hand.put(by_hand::CONFIRMED, NONE);
    });
    breaks(env, "a confirmation taken back", |near, hand| {
        near.send(b"one").expect("send");
        near.send(b"two").expect("send");
        hand.publish(by_hand::CONFIRMED, 2);
        assert_eq!(near.wait_confirmed(2, Deadline::after(soon())), Ok(2));
        hand.put(by_hand::CONFIRMED, 1);
    });
}

fn ends(env: &Env) {
    let drained = |near: &Channel, hand: &ByHand| {
        hand.publish(by_hand::FIN, 1);
        assert_eq!(near.receive_message(), Ok(None));
    };
    breaks(env, "an end that a reader has seen", |near, hand| {
        drained(near, hand);
        hand.put(by_hand::FIN, 0);
    });
    breaks(env, "an end that a writer has seen", |near, hand| {
        hand.put(by_hand::FIN, 1);
        let sent = near.send(b"no").map_err(|error| error.errno());
        assert_eq!(sent, Err(Some(Errno::PIPE)));
        hand.put(by_hand::FIN, 0);
    });
    breaks(env, "a message behind the end", |near, hand| {
        drained(near, hand);
        hand.record(0, [1, 0], b"x");
        hand.put(by_hand::WRITTEN, 16);
    });
}

fn contained(env: &Env) {
    /// The peer of a second channel of the same device, which sends back what it gets.
    const ECHO: u32 = 2;
    let echo = Soft::come(env, ECHO, "channel-echo,to=0");
    let other = peers::connect(env, ECHO, ConnectOptions::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) || number == 0 {
                number += 1;
                other.send(&content(number)).expect("send");
                assert_eq!(other.receive_message(), Ok(Some(content(number))));
            }
            number
        });
        let stopper = StopOnDrop(&stop);
        for _ in 0..5 {
            breaks(env, "written inside a record", |_, hand| {
                hand.put(by_hand::WRITTEN, 4);
            });
        }
        drop(stopper);
        let number = talk.join().expect("the other channel goes on");
        other.flush().expect("all is confirmed");
        let status = other.status().expect("status");
        assert_eq!(status.link, ChannelLink::Up);
        assert_eq!((status.sent, status.confirmed), (number, number));
        let channel = echo.channel();
        for bad in ["resets", "broken"] {
            assert_eq!(channel[bad], 0, "{channel}");
        }
    });
}

/// Whether the session comes to be reset when somebody looks.
fn resets(near: &Channel, hand: &ByHand) -> bool {
    system::wait_until(soon(), || {
        hand.ring();
        near.status().expect("status").link == ChannelLink::Reset
    })
}

fn new_epoch(env: &Env) {
    let (near, hand) = by_hand_up(env);
    near.send(b"one").expect("send");
    hand.put(by_hand::EPOCH, 0);
    // All of it is wrong, but of nobody's session.
    for field in [by_hand::WRITTEN, by_hand::CONSUMED, by_hand::CONFIRMED] {
        hand.put(field, 0x1357_9bdf);
    }
    assert!(resets(&near, &hand), "{:?}", near.status());
    let (sent, confirmed) = (1, 0);
    assert_eq!(near.flush(), Err(Error::Reset { sent, confirmed }));
    drop(near);
    let near = connect_near(env, ConnectOptions::new());
    hand.up(0x2468, &near);
    // The peer no longer means our session.
    hand.put(by_hand::ECHO, 0x1234_5678);
    assert!(resets(&near, &hand), "{:?}", near.status());
}

fn gone_already(env: &Env) {
    let hand = ByHand::new(env);
    let near = connect_near(env, ConnectOptions::new());
    hand.start(0x1111_2222);
    let seen = || hand.get(by_hand::ECHO) == 0x1111_2222;
    assert!(system::wait_until(soon(), seen), "its session is not seen");
    // It goes; its answer is in the memory later than the news of its state, and nobody rings for it.
    hand.vanish();
    let own = env.open();
    let peer = env.other_expected().peer;
    let gone = || super::state_of(&own, peer) == 0;
    assert!(system::wait_until(soon(), gone), "it has not gone");
    hand.put(by_hand::ECHO, hand.get(by_hand::EPOCH));
    let status = near.status().expect("status");
    assert_eq!(status.link, ChannelLink::Reset, "up with nobody");
}

fn stale_size(env: &Env) {
    let asks: [fn(&Channel) -> ivshmem::Result<()>; 2] = [
        |near| near.next_size().map(drop),
        |near| near.receive(&mut [0; 1]).map(drop),
    ];
    for (epoch, ask) in (0x77..).zip(asks) {
        let hand = ByHand::new(env);
        let near = connect_near(env, ConnectOptions::new());
        hand.up(epoch, &near);
        hand.record(0, [8, 0], b"12345678");
        hand.record(16, [8, 0], b"12345678");
        hand.publish(by_hand::WRITTEN, 32);
        // The driver has seen that there are two.
        assert_eq!(near.receive_message(), Ok(Some(b"12345678".to_vec())));
        hand.put(by_hand::EPOCH, 0);
        hand.record(16, [5, 0], b"other");
        let answer = ask(&near).map_err(|error| error.errno());
        assert_eq!(answer, Err(Some(Errno::CONNRESET)));
    }
}

fn vanished(env: &Env) {
    let (near, hand) = by_hand_up(env);
    near.send(b"one").expect("send");
    hand.vanish();
    super::becomes(&near, ChannelLink::Reset);
    let (sent, confirmed) = (1, 0);
    assert_eq!(near.flush(), Err(Error::Reset { sent, confirmed }));
}
