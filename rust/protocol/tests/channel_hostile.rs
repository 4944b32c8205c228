// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Property 7 of Documentation/channel-protocol.md, containment: a peer that changes any word of its section between
//! any two of our loads. No call panics, does more to the memory than the table "Cost" says, or stores anywhere but
//! in our block and ring; whatever a call returns is within what the peer may have, and it ends as reset or broken.

mod channel_ends;

use channel_ends::cost::{cost, Cost};
use channel_ends::{config, connected, section, Counted};
use ivshmem_protocol::channel::layout::{block, header, MAGIC, VERSION};
use ivshmem_protocol::channel::session::{claim, Ended, Link, Session};
use ivshmem_protocol::channel::transfer::{Next, Pieces, SendError};
use proptest::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

const SIZE: u32 = 0x200;

/// Numbers that look random, from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }
}

/// What the hostile end does: how often it changes something, and whether it keeps its epoch and echo, without which
/// every session is soon a reset.
#[derive(Clone, Copy, Debug)]
struct Nature {
    one_in: u32,
    keeps_session: bool,
    seed: u64,
}

/// Offers a message that is nearly right, behind what we have received, often enough quite right.
fn offer(random: &mut Random, words: &mut [u32]) {
    let own_block = section(0, SIZE, 2).block(1).expect("a block");
    let their_block = section(1, SIZE, 2).block(0).expect("a block");
    let consumed = words[(own_block + block::CONSUMED) / 4];
    let ring = config(1, 0, SIZE, 2).ring;
    let size = ring.largest_message() + 8;
    // The only ring of the section is at its end.
    let header = (2 * SIZE - size + consumed % size) as usize / 4;
    let length = 1 + random.below(ring.largest_message() + 3);
    let record = (length + 8).next_multiple_of(8);
    words[header] = length;
    words[header + 1] = u32::from(random.below(20) == 0);
    let excess = [0, 0, 0, 8, 4, size][random.below(6) as usize];
    words[(their_block + block::WRITTEN) / 4] = (consumed + record + excess) % (2 * size);
}

/// The peer's words are changed as `nature` wants.
fn tamper(random: &mut Random, nature: Nature, words: &mut [u32]) {
    if random.below(nature.one_in) != 0 {
        return;
    }
    let start = SIZE as usize / 4;
    let own_block = section(0, SIZE, 2).block(1).expect("a block") / 4;
    let their_block = section(1, SIZE, 2).block(0).expect("a block") / 4;
    if random.below(3) == 0 {
        offer(random, words);
        return;
    }
    let at = match random.below(4) {
        // A word of the block, of the header, of the ring, anywhere.
        0 | 1 => their_block + random.below(16) as usize,
        2 => start + SIZE as usize / 4 - 1 - random.below(20) as usize,
        _ => start + random.below(SIZE / 4) as usize,
    };
    if nature.keeps_session && (at == their_block || at == their_block + 1) {
        return;
    }
    words[at] = match random.below(9) {
        0 => 0,
        1 => 1,
        2 => u32::MAX,
        3 => random.next(),
        4 => 8 * random.below(2 * SIZE / 8),
        5 => random.below(SIZE),
        // Something that we wrote ourselves: our epoch, our index, ...
        6 => words[own_block + random.below(16) as usize],
        7 => words[at].wrapping_add(8),
        _ => *[MAGIC, VERSION, 2, 64, SIZE]
            .get(random.below(5) as usize)
            .unwrap_or(&0),
    };
}

/// One of our calls is over: what it did to the memory.
struct Judge {
    memory: Counted,
    costs: HashMap<&'static str, Cost>,
    own: [Range<usize>; 2],
}

impl Judge {
    fn call<T>(&mut self, name: &'static str, call: impl FnOnce(&Counted) -> T) -> T {
        self.memory.cost();
        let result = call(&self.memory);
        let cost = *self.costs.entry(name).or_insert_with(|| cost(name, 2));
        for at in self.memory.stored_at.borrow().iter() {
            assert!(
                self.own.iter().any(|own| own.contains(at)),
                "{name} stores at {at:#x}"
            );
        }
        let (loads, stores, barriers) = self.memory.cost();
        let within = loads <= cost.loads && stores <= cost.stores && barriers <= cost.barriers;
        assert!(
            within,
            "{name}: {loads} loads, {stores} stores, {barriers} barriers"
        );
        result
    }
}

/// Whether all bytes are in one of the places.
fn within(pieces: &Pieces, place: &Range<usize>) -> bool {
    let piece = |piece: &Range<usize>| {
        piece.is_empty() || (place.start <= piece.start && piece.end <= place.end)
    };
    pieces.0.iter().all(piece)
}

/// Our words but those of our block and ring, in which nobody may write.
fn canaries(judge: &Judge) -> Vec<u32> {
    let words = judge.memory.words.borrow();
    let others = (0..SIZE as usize / 4)
        .filter(|word| !judge.own.iter().any(|own| own.contains(&(word * 4))));
    others.map(|word| words[word]).collect()
}

fn one_case(nature: Nature, connect: bool, calls: &[(u8, u32)]) -> [u32; 3] {
    let memory = Counted::new(2 * SIZE as usize);
    let [mut session, _] = connected(&memory, SIZE);
    if !connect {
        memory.set(section(1, SIZE, 2).offset + header::MAGIC, 0);
        session = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
    }
    let block_at = section(0, SIZE, 2).block(1).expect("a block");
    let ring_at = memory.word(block_at + block::RING_OFFSET) as usize;
    let ring_size = memory.word(block_at + block::RING_SIZE) as usize;
    let own_ring = ring_at..ring_at + ring_size;
    let theirs = SIZE as usize..2 * SIZE as usize;
    for word in
        (0..SIZE as usize / 4).filter(|word| !(block_at..block_at + 64).contains(&(word * 4)))
    {
        memory.set(word * 4, 0xca5a_0000 | word as u32);
    }
    let mut judge = Judge {
        memory,
        costs: HashMap::new(),
        own: [block_at..block_at + 64, own_ring.clone()],
    };
    let before = canaries(&judge);
    let mut random = Random(nature.seed);
    *judge.memory.meanwhile.borrow_mut() =
        Some(Box::new(move |words| tamper(&mut random, nature, words)));
    let mut done = [0; 3];
    let (mut finished, mut drained) = (false, false);
    for (kind, number) in calls {
        let was_up = session.is_up();
        let result = match kind % 10 {
            0 => judge.call("look", |memory| session.look(memory)).map(drop),
            1 | 2 => match judge.call("reserve", |memory| {
                session.reserve(memory, number % (SIZE + 9))
            }) {
                Ok(slot) => {
                    assert!(!finished && !drained, "room behind the end");
                    assert!(within(&slot.pieces, &own_ring), "{slot:?}");
                    done[0] += 1;
                    judge
                        .call("commit", |memory| session.commit(memory, slot))
                        .map(drop)
                }
                Err(SendError::Ended(why)) => Err(why),
                Err(SendError::Finished) => {
                    finished = true;
                    Ok(())
                }
                Err(_) => Ok(()),
            },
            3..=5 => match judge.call("next", |memory| session.next(memory)) {
                Ok(Next::Message(message)) => {
                    assert!(was_up && within(&message.pieces, &theirs), "{message:?}");
                    assert!(!drained, "a message behind the end");
                    let bytes: usize = message.pieces.0.iter().map(|piece| piece.len()).sum();
                    assert_eq!(bytes, message.length as usize);
                    done[1] += 1;
                    match kind % 2 {
                        0 => judge
                            .call("take", |memory| session.take(memory, message))
                            .map(drop),
                        _ => judge
                            .call("take_and_confirm", |memory| {
                                session.take_and_confirm(memory, message)
                            })
                            .map(drop),
                    }
                }
                Ok(Next::End) => {
                    drained = true;
                    Ok(())
                }
                other => other.map(drop),
            },
            6 => judge
                .call("confirm", |memory| {
                    session.confirm(memory, (*number).into())
                })
                .map(drop),
            7 => judge
                .call("await_confirmation", |memory| {
                    session.await_confirmation(memory, (*number).into())
                })
                .map(drop),
            8 => judge
                .call("await_room", |memory| session.await_room(memory, *number))
                .map(drop),
            _ => judge
                .call("await_data", |memory| session.await_data(memory))
                .map(drop),
        };
        let (sent, confirmed) = session.sent();
        assert!(confirmed <= sent);
        if let Err(why) = result {
            assert!(matches!(why, Ended::Reset | Ended::Broken), "{why:?}");
            assert_eq!(session.link(), Link::Ended(why), "for good");
            assert_eq!(judge.call("look", |memory| session.look(memory)), Err(why));
            done[2] += 1;
            break;
        }
    }
    judge
        .call("peer_has_finished", |memory| {
            session.peer_has_finished(memory)
        })
        .ok();
    judge
        .call("peer_is_absent", |memory| session.peer_is_absent(memory))
        .ok();
    judge
        .call("close", |memory| session.close(memory))
        .expect("it is there");
    assert_eq!(
        canaries(&judge),
        before,
        "only our block and ring are written"
    );
    done
}

fn nature() -> impl Strategy<Value = Nature> {
    (1u32..40, prop::bool::weighted(0.7), any::<u64>()).prop_map(|(one_in, keeps_session, seed)| {
        Nature {
            one_in,
            keeps_session,
            seed,
        }
    })
}

/// As many cases as IVSHMEM_CHANNEL_CASES says, for a longer run.
fn cases() -> u32 {
    let wanted = std::env::var("IVSHMEM_CHANNEL_CASES").ok();
    wanted.map_or(2000, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_peer_ends_its_own_session_at_worst(
        nature in nature(),
        connect in prop::bool::weighted(0.8),
        calls in prop::collection::vec((any::<u8>(), prop_oneof![0u32..80, any::<u32>()]), 1..120),
    ) {
        one_case(nature, connect, &calls);
    }
}

/// The hostile peer is one: sessions get far enough that messages are seen, and end in both ways.
#[test]
fn the_hostile_peer_gets_somewhere() {
    let mut random = Random(1);
    let mut sum = [0; 3];
    for seed in 0..200 {
        let calls: Vec<_> = (0..100)
            .map(|_| (random.next() as u8, random.below(80)))
            .collect();
        let nature = Nature {
            one_in: 1 + random.below(40),
            keeps_session: seed % 3 != 0,
            seed,
        };
        let done = one_case(nature, true, &calls);
        sum = [sum[0] + done[0], sum[1] + done[1], sum[2] + done[2]];
    }
    assert!(
        sum[0] > 500 && sum[1] > 100 && sum[2] > 100,
        "sent, seen, ended: {sum:?}"
    );
}

/// One owner with two channels: what the hostile peer of one does is nothing to the other.
#[test]
fn other_channels_keep_their_order_and_their_messages() {
    const MESSAGES: u32 = 3000;
    let memory = Counted::new(3 * SIZE as usize);
    for peer in 0..3 {
        claim(&memory, section(peer, SIZE, 3)).expect("it is there");
    }
    let start = |own, peer| Session::start(&memory, &config(own, peer, SIZE, 3)).expect("starts");
    let mut honest = [start(0, 1), start(1, 0)];
    channel_ends::bring_up(&memory, &mut honest);
    let [mut owner, mut friend] = honest;
    let mut random = Random(5);
    let (mut ended, mut came_up) = (0, 0);
    let mut attacked = [start(0, 2), start(2, 0)];
    for number in 0..MESSAGES {
        // Peer 2 speaks the protocol until it is up, then writes what it likes; its owner connects again.
        if matches!(attacked[0].link(), Link::Ended(_)) {
            ended += 1;
            attacked[0].close(&memory).expect("it is there");
            claim(&memory, section(2, SIZE, 3)).expect("it is there");
            attacked = [start(0, 2), start(2, 0)];
        }
        if attacked[0].link() == Link::Waiting {
            for end in [0, 1, 0, 1] {
                let _ = attacked[end].look(&memory);
            }
            came_up += u32::from(attacked[0].is_up());
        }
        for _ in 0..random.below(3) {
            let word = 2 * SIZE / 4 + random.below(SIZE / 4);
            let value = [random.next(), random.below(300), 8 * random.below(40), 0];
            memory.set(word as usize * 4, value[random.below(4) as usize]);
        }
        let _ = attacked[0].look(&memory);
        if let Ok(slot) = attacked[0].reserve(&memory, 1 + random.below(100)) {
            let _ = attacked[0].commit(&memory, slot);
        }
        if let Ok(Next::Message(message)) = attacked[0].next(&memory) {
            let _ = attacked[0].take_and_confirm(&memory, message);
        }
        // Meanwhile the other one goes on, in both directions.
        let text = number.to_le_bytes();
        channel_ends::send(&memory, &mut owner, &text);
        channel_ends::send(&memory, &mut friend, &text);
        for end in [&mut owner, &mut friend] {
            let received = channel_ends::receive(&memory, end).expect("a message");
            assert_eq!(received.0, text);
        }
    }
    assert!(
        ended > 50 && came_up > 50,
        "{ended} ended, {came_up} came up"
    );
}
