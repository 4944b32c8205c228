// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Shared loads and stores per call are what the table "Cost" of Documentation/channel-protocol.md says.

mod channel_ends;

use channel_ends::cost::{calls, cost, wholes, Cost};
use channel_ends::{config, connected, section, send, Counted};
use ivshmem_protocol::channel::layout::block;
use ivshmem_protocol::channel::session::{claim, end_all, Session};
use ivshmem_protocol::channel::transfer::{Message, Next};
use std::collections::BTreeSet;
use std::path::Path;

const SIZE: u32 = 0x1000;

/// Compares what calls did with the table.
struct Bill {
    memory: Counted,
    seen: BTreeSet<&'static str>,
}

impl Bill {
    fn new() -> Self {
        Self {
            memory: Counted::new(2 * SIZE as usize),
            seen: BTreeSet::new(),
        }
    }

    /// What was done since the last look was a usual `call`.
    fn usual(&mut self, call: &'static str) {
        let said = cost(call, 2);
        let expected = (said.usual_loads, said.stores, said.barriers);
        let stores_usually = match call {
            // A look at a link that is up only looks.
            "look" => (said.usual_loads, 0, 0),
            _ => expected,
        };
        assert_eq!(self.memory.cost(), stores_usually, "{call}");
        self.seen.insert(call);
    }

    /// What was done since the last look was the worst that `call` can do.
    fn worst(&self, call: &'static str) {
        let said = cost(call, 2);
        assert_eq!(
            self.memory.cost(),
            (said.loads, said.stores, said.barriers),
            "{call}"
        );
    }
}

fn message(next: Next) -> Message {
    match next {
        Next::Message(message) => message,
        _ => panic!("there is a message"),
    }
}

#[test]
fn the_usual_cost_is_as_documented_and_the_same_for_every_length() {
    for length in [1, 4, 64, 1000, config(0, 1, SIZE, 2).ring.largest_message()] {
        let mut bill = Bill::new();
        let [mut left, mut right] = connected(&bill.memory, SIZE);
        bill.memory.cost();
        let slot = left.reserve(&bill.memory, length).expect("room");
        bill.usual("reserve");
        left.commit(&bill.memory, slot).expect("up");
        bill.usual("commit");
        left.await_confirmation(&bill.memory, 1).expect("up");
        bill.usual("await_confirmation");
        left.await_room(&bill.memory, SIZE).expect("up");
        bill.usual("await_room");
        let received = right.next(&bill.memory).expect("up");
        assert_eq!(
            bill.memory.cost(),
            (4, 0, 0),
            "the first message of those seen"
        );
        let received = message(received);
        right.length_of(&bill.memory, &received).expect("up");
        bill.usual("length_of");
        right.take(&bill.memory, received).expect("up");
        bill.usual("take");
        right.confirm(&bill.memory, 1).expect("up");
        bill.usual("confirm");
        left.confirmations(&bill.memory).expect("up");
        bill.usual("confirmations");
        let next = right.next(&bill.memory).expect("up");
        assert!(matches!(next, Next::Nothing));
        assert_eq!(bill.memory.cost(), (4, 0, 0), "nothing more");
        right.await_data(&bill.memory).expect("up");
        bill.usual("await_data");
    }
}

#[test]
fn a_receiver_with_several_messages_looks_at_the_index_once() {
    let mut bill = Bill::new();
    let [mut left, mut right] = connected(&bill.memory, SIZE);
    for byte in 0..3 {
        send(&bill.memory, &mut left, &[byte; 64]);
    }
    for number in 0..3 {
        bill.memory.cost();
        let received = right.next(&bill.memory).expect("up");
        match number {
            0 => assert_eq!(bill.memory.cost(), (4, 0, 0)),
            _ => bill.usual("next"),
        }
        right
            .take_and_confirm(&bill.memory, message(received))
            .expect("up");
        bill.usual("take_and_confirm");
    }
}

#[test]
fn a_sender_looks_at_the_index_only_when_what_it_knows_is_used_up() {
    let bill = Bill::new();
    let [mut left, mut right] = connected(&bill.memory, SIZE);
    let largest = left.largest_message();
    for round in 0..3 {
        send(&bill.memory, &mut left, &vec![round; largest as usize]);
        let received = right.next(&bill.memory).expect("up");
        right
            .take_and_confirm(&bill.memory, message(received))
            .expect("up");
        bill.memory.cost();
        // With the ring's size used up, one load of `consumed` more.
        left.reserve(&bill.memory, largest).expect("room");
        bill.worst("reserve");
    }
}

#[test]
fn the_rest_costs_what_the_document_says() {
    let mut bill = Bill::new();
    claim(&bill.memory, section(0, SIZE, 2)).expect("there");
    bill.usual("claim");
    end_all(&bill.memory, section(0, SIZE, 2)).expect("there");
    bill.usual("end_all");
    let [mut left, mut right] = connected(&bill.memory, SIZE);
    bill.memory.cost();
    left.look(&bill.memory).expect("up");
    bill.usual("look");
    left.peer_has_finished(&bill.memory).expect("up");
    bill.usual("peer_has_finished");
    right.peer_is_absent(&bill.memory).expect_err("it is gone");
    bill.usual("peer_is_absent");
    right.close(&bill.memory).expect("there");
    bill.usual("close");
    left.close(&bill.memory).expect("there");
    bill.usual("close");
    let ends = [0, 1].map(|own| {
        bill.memory.cost();
        let end = Session::start(&bill.memory, &config(own, 1 - own, SIZE, 2)).expect("starts");
        bill.usual("start");
        end
    });
    // Both are there: the first to look echoes, the second echoes and comes up.
    let [mut left, mut right] = ends;
    claim_header(&bill.memory);
    left.look(&bill.memory).expect("waits");
    bill.memory.cost();
    right.look(&bill.memory).expect("waits");
    assert!(right.is_up());
    bill.worst("look");
    left.look(&bill.memory).expect("up");
    // A header that is no record's.
    send(&bill.memory, &mut left, b"x");
    let ring = section(0, SIZE, 2).offset + bill.memory.word(at(0, block::RING_OFFSET)) as usize;
    bill.memory.set(ring, 0);
    bill.memory.cost();
    right.next(&bill.memory).expect_err("it is wrong");
    bill.worst("next");
}

/// The headers, without ending what has been started.
fn claim_header(memory: &Counted) {
    let epochs = [0, 1].map(|end| memory.word(at(end, block::EPOCH)));
    for end in 0..2 {
        claim(memory, section(end, SIZE, 2)).expect("there");
        memory.set(at(end, block::EPOCH), epochs[usize::from(end)]);
    }
}

/// Where a field of the block of `end` is.
fn at(end: u16, field: usize) -> usize {
    section(end, SIZE, 2).block(1 - end).expect("a block") + field
}

/// What the module does in one call of a program, or in an interrupt, is the sum of calls of the core; the table says
/// which.
#[test]
fn whole_calls_are_the_sum_of_their_parts() {
    let wholes = wholes(2);
    assert!(wholes.len() >= 5, "{wholes:?}");
    for (whole, parts, said) in wholes {
        let mut sum = Cost::default();
        for part in &parts {
            let part = cost(part, 2);
            sum.usual_loads += part.usual_loads;
            sum.loads += part.loads;
            sum.stores += part.stores;
            sum.barriers += part.barriers;
        }
        assert_eq!(said, sum, "{whole} is {parts:?}");
    }
}

#[test]
fn the_table_has_exactly_the_calls_of_the_core() {
    let mut said: Vec<_> = calls();
    said.sort();
    let mut all = calls_of_the_core();
    all.sort();
    assert_eq!(said, all);
}

/// The public functions of the core that get a memory.
fn calls_of_the_core() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/channel");
    let mut calls = Vec::new();
    for entry in std::fs::read_dir(root).expect("it is there") {
        let path = entry.expect("a file").path();
        let source = std::fs::read_to_string(&path).expect("it can be read");
        for function in source.split("pub fn ").skip(1) {
            let head = function.split(" {\n").next().unwrap_or_default();
            if head.contains("memory: &M") {
                calls.push(head.split('<').next().unwrap_or_default().to_owned());
            }
        }
    }
    calls
}
