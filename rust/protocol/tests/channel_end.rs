// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How sessions of channels end: closed, reset, broken, and by the state table (rules S2 to S7, E1 to E4 of
//! Documentation/channel-protocol.md); and what those who wait learn of it.

mod channel_ends;

use channel_ends::{bring_up, config, connected, receive, section, send, Counted};
use ivshmem_protocol::channel::layout::block;
use ivshmem_protocol::channel::position::count_moved_past;
use ivshmem_protocol::channel::session::{end_all, Ended, Link, Session};
use ivshmem_protocol::channel::transfer::{Next, SendError};

const SIZE: u32 = 0x200;

fn memory() -> Counted {
    Counted::new(2 * SIZE as usize)
}

/// Where a field of the block of `end` is.
fn at(end: u16, field: usize) -> usize {
    section(end, SIZE, 2).block(1 - end).expect("a block") + field
}

#[test]
fn s7_a_peer_that_the_state_table_says_is_gone_without_a_word_is_a_reset() {
    let memory = memory();
    let [mut left, _] = connected(&memory, SIZE);
    assert_eq!(left.peer_is_absent(&memory), Err(Ended::Reset));
    assert_eq!(left.link(), Link::Ended(Ended::Reset));
    assert_eq!(left.look(&memory), Err(Ended::Reset));
}

#[test]
fn s7_a_peer_that_closed_before_it_went_is_drained() {
    let memory = memory();
    let [mut left, mut gone] = connected(&memory, SIZE);
    send(&memory, &mut gone, b"last words");
    assert_eq!(gone.close(&memory), Ok(true));
    assert_eq!(left.peer_is_absent(&memory), Ok(()));
    let received = receive(&memory, &mut left).expect("a message");
    assert_eq!(received.0, b"last words");
    assert_eq!(left.peer_is_absent(&memory), Ok(()));
    assert!(matches!(left.next(&memory), Ok(Next::End)));
}

#[test]
fn s7_a_session_that_is_not_up_waits_on() {
    let memory = memory();
    let mut waiting = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
    assert_eq!(waiting.peer_is_absent(&memory), Ok(()));
    assert_eq!(waiting.link(), Link::Waiting);
    // Nothing that is asked of it before the link is up ends it either.
    assert_eq!(waiting.confirmations(&memory), Ok(0));
    assert_eq!(waiting.await_confirmation(&memory, 1), Ok(false));
    assert_eq!(waiting.await_room(&memory, 8), Ok(false));
    assert_eq!(waiting.await_data(&memory), Ok(false));
    assert_eq!(waiting.peer_has_finished(&memory), Ok(false));
    assert_eq!(waiting.link(), Link::Waiting);
}

#[test]
fn e4_closing_a_broken_session_tells_the_peer_that_nobody_is_there() {
    let memory = memory();
    let [mut honest, mut liar] = connected(&memory, SIZE);
    memory.set(at(1, block::WRITTEN), 3);
    assert!(matches!(honest.next(&memory), Err(Ended::Broken)));
    assert_eq!(liar.look(&memory), Ok(false), "it does not know yet");
    assert_eq!(honest.close(&memory), Ok(true), "the peer is to be rung");
    assert_eq!(memory.word(at(0, block::EPOCH)), 0);
    assert_eq!(liar.look(&memory), Err(Ended::Reset));
    assert_eq!(
        honest.look(&memory),
        Err(Ended::Broken),
        "it stays what it was"
    );
    assert_eq!(honest.close(&memory), Ok(false), "once is enough");
}

#[test]
fn e4_closing_a_reset_session_leaves_no_epoch() {
    let memory = memory();
    let [mut left, _] = connected(&memory, SIZE);
    let mut again = Session::start(&memory, &config(1, 0, SIZE, 2)).expect("starts");
    assert_eq!(left.look(&memory), Err(Ended::Reset));
    assert_eq!(left.close(&memory), Ok(true));
    assert_eq!(memory.word(at(0, block::EPOCH)), 0);
    assert_eq!(again.look(&memory), Ok(false), "nobody is there");
    assert_eq!(again.link(), Link::Waiting);
    // Its next session is another one, although the word was 0, and both come up.
    let next = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
    assert_ne!(next.epoch(), left.epoch());
    bring_up(&memory, &mut [next, again]);
}

#[test]
fn s2_an_epoch_is_not_used_again_although_the_word_is_0_in_between() {
    let memory = memory();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let session = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
        assert!(!seen.contains(&session.epoch()), "{seen:?}");
        assert_eq!(memory.word(at(0, block::EPOCH)), session.epoch());
        seen.push(session.epoch());
        end_all(&memory, section(0, SIZE, 2)).expect("it is there");
        assert_eq!(memory.word(at(0, block::EPOCH)), 0);
    }
}

#[test]
fn s3_what_lies_in_a_block_before_its_owner_starts_breaks_nothing() {
    let memory = memory();
    let [_, mut old] = connected(&memory, SIZE);
    old.close(&memory).expect("it is there");
    // Somebody wrote into the section since then.
    memory.set(at(1, block::EPOCH), 77);
    memory.set(at(1, block::RING_SIZE), 12);
    let mut early = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
    assert_eq!(early.look(&memory), Ok(false));
    let late = Session::start(&memory, &config(1, 0, SIZE, 2)).expect("starts");
    bring_up(&memory, &mut [early, late]);
}

#[test]
fn s3_one_who_has_seen_us_and_names_no_ring_has_broken_the_protocol() {
    let right = config(1, 0, SIZE, 2).ring.largest_message() + 8;
    let wrong = [
        ("no multiple of 8", SIZE - right, right - 4),
        ("too small", SIZE - right, 56),
        ("beyond the section's end", SIZE - right, right + 8),
        ("far beyond", SIZE - right, u32::MAX - 7),
        ("its offset is no multiple of 64", SIZE - right + 8, 64),
        ("in the blocks", 128, 64),
        ("outside", SIZE, 64),
    ];
    for (what, offset, size) in wrong {
        let memory = memory();
        let [_, _] = connected(&memory, SIZE);
        let mut session = Session::start(&memory, &config(0, 1, SIZE, 2)).expect("starts");
        memory.set(at(1, block::RING_OFFSET), offset);
        memory.set(at(1, block::RING_SIZE), size);
        memory.set(at(1, block::ECHO), session.epoch());
        assert_eq!(session.look(&memory), Err(Ended::Broken), "{what}");
    }
}

#[test]
fn e2_those_who_wait_learn_that_the_peer_has_closed() {
    let memory = memory();
    let [mut left, mut gone] = connected(&memory, SIZE);
    let all = left.largest_message();
    send(&memory, &mut left, &vec![1; all as usize]);
    assert_eq!(left.await_room(&memory, 8), Ok(false));
    assert_eq!(left.await_confirmation(&memory, 1), Ok(false));
    assert_eq!(left.await_data(&memory), Ok(false));
    assert_eq!(left.peer_has_finished(&memory), Ok(false));
    gone.close(&memory).expect("it is there");
    assert_eq!(left.await_room(&memory, 8), Ok(true));
    assert_eq!(left.await_confirmation(&memory, 1), Ok(true));
    assert_eq!(left.await_data(&memory), Ok(true));
    assert_eq!(left.peer_has_finished(&memory), Ok(true));
    assert_eq!(left.sent(), (1, 0));
    assert!(matches!(left.reserve(&memory, 1), Err(SendError::Finished)));
}

#[test]
fn e2_what_was_confirmed_before_the_end_is_counted() {
    let memory = memory();
    let [mut left, mut gone] = connected(&memory, SIZE);
    send(&memory, &mut left, b"one");
    let Ok(Next::Message(message)) = gone.next(&memory) else {
        panic!("no message");
    };
    assert_eq!(gone.take_and_confirm(&memory, message), Ok(false));
    gone.close(&memory).expect("it is there");
    assert_eq!(left.await_confirmation(&memory, 2), Ok(true));
    assert_eq!(left.sent(), (1, 1));
}

/// What the peer does after it has closed, and whether we have been told of the end by a read, or by a write only.
#[test]
fn e1_an_end_that_is_taken_back_breaks_the_session() {
    for by_reading in [true, false] {
        for more in [true, false] {
            for fin in [0, 1] {
                if fin == 1 && !(more && by_reading) {
                    // It is as it was, or may have been so before.
                    continue;
                }
                let memory = memory();
                let [mut left, mut gone] = connected(&memory, SIZE);
                let mut liar = gone.clone();
                gone.close(&memory).expect("it is there");
                if by_reading {
                    assert!(matches!(left.next(&memory), Ok(Next::End)));
                } else {
                    assert!(matches!(left.reserve(&memory, 1), Err(SendError::Finished)));
                }
                memory.set(at(1, block::FIN), fin);
                if more {
                    send(&memory, &mut liar, b"more");
                }
                let what = format!("by reading: {by_reading}, more: {more}, fin: {fin}");
                let mut again = left.clone();
                let next = left.next(&memory).map(drop);
                assert_eq!(next, Err(Ended::Broken), "{what}");
                if fin == 0 {
                    let finished = again.peer_has_finished(&memory);
                    assert_eq!(finished, Err(Ended::Broken), "{what}");
                }
            }
        }
    }
}

#[test]
fn e1_what_was_written_before_the_end_is_all_that_there_is() {
    let memory = memory();
    let [mut left, mut gone] = connected(&memory, SIZE);
    send(&memory, &mut gone, b"last words");
    let mut liar = gone.clone();
    gone.close(&memory).expect("it is there");
    let received = receive(&memory, &mut left).expect("a message");
    assert_eq!(received.0, b"last words");
    send(&memory, &mut liar, b"more");
    assert!(matches!(left.next(&memory), Err(Ended::Broken)));
}

#[test]
fn e1_an_end_of_one_who_restarts_is_a_reset() {
    let memory = memory();
    let [mut left, mut gone] = connected(&memory, SIZE);
    gone.close(&memory).expect("it is there");
    assert!(matches!(left.next(&memory), Ok(Next::End)));
    // `fin` is 0 again, of another session: that counts for nothing.
    Session::start(&memory, &config(1, 0, SIZE, 2)).expect("starts");
    assert!(matches!(left.next(&memory), Err(Ended::Reset)));
}

#[test]
fn s6_the_length_of_a_message_that_is_not_taken_is_looked_at_again() {
    let memory = memory();
    let [mut left, mut right] = connected(&memory, SIZE);
    send(&memory, &mut right, b"one");
    let Ok(Next::Message(message)) = left.next(&memory) else {
        panic!("no message");
    };
    assert_eq!(left.length_of(&memory, &message), Ok(3));
    // It stays, and is that of another session after a restart.
    Session::start(&memory, &config(1, 0, SIZE, 2)).expect("starts");
    let Ok(Next::Message(stale)) = left.next(&memory) else {
        panic!("what it has seen it takes for a message until it looks again");
    };
    assert_eq!(left.length_of(&memory, &stale), Err(Ended::Reset));
}

#[test]
fn t5_a_sender_stops_when_too_much_is_unconfirmed_and_goes_on() {
    let memory = memory();
    let [mut left, mut right] = connected(&memory, SIZE);
    left.limit_unconfirmed(3);
    let refused = |left: &mut Session| left.reserve(&memory, 1).map(drop);
    for number in 1..=20 {
        if number > 3 {
            assert_eq!(refused(&mut left), Err(SendError::Unconfirmed));
            let needed = left.needed_confirmation();
            assert_eq!(needed, Some(number - 3), "the nearest that is enough");
            // All has been read, so there is room, but no use in it.
            assert_eq!(left.await_room(&memory, SIZE), Ok(false));
            assert_eq!(left.await_confirmation(&memory, number - 3), Ok(false));
            // One confirmation is enough, and rings.
            assert_eq!(right.confirm(&memory, number - 3), Ok(true));
            assert_eq!(left.await_room(&memory, SIZE), Ok(true));
        }
        assert_eq!(left.needed_confirmation(), None);
        send(&memory, &mut left, b"x");
        receive(&memory, &mut right).expect("a message");
    }
    assert_eq!(left.sent(), (20, 17));
    // The end is another reason not to wait.
    right.close(&memory).expect("it is there");
    assert_eq!(left.await_room(&memory, SIZE), Ok(true));
    assert_eq!(refused(&mut left), Err(SendError::Finished));
}

#[test]
fn t5_the_limit_is_one_at_least_and_never_more_than_the_rule_says() {
    let memory = memory();
    let [mut left, _] = connected(&memory, SIZE);
    let mut unlimited = left.clone();
    unlimited.limit_unconfirmed(u64::MAX);
    assert_eq!(unlimited, left);
    left.limit_unconfirmed(0);
    send(&memory, &mut left, b"x");
    assert_eq!(left.needed_confirmation(), Some(1));
}

#[test]
fn t5_what_is_confirmed_is_known_with_each_look_of_a_sender() {
    let memory = memory();
    let [mut left, mut right] = connected(&memory, SIZE);
    let confirm_another = |left: &mut Session, right: &mut Session| {
        send(&memory, left, b"x");
        receive(&memory, right).expect("a message");
        right.confirm(&memory, right.received().0).expect("up");
        left.sent().1
    };
    assert_eq!(confirm_another(&mut left, &mut right), 0);
    left.reserve(&memory, 1).expect("room");
    assert_eq!(left.sent(), (1, 1));
    assert_eq!(confirm_another(&mut left, &mut right), 1);
    left.peer_has_finished(&memory).expect("up");
    assert_eq!(left.sent(), (2, 2));
    assert_eq!(confirm_another(&mut left, &mut right), 2);
    left.await_room(&memory, 8).expect("up");
    assert_eq!(left.sent(), (3, 3));
}

#[test]
fn w1_a_confirmation_is_announced_whatever_its_number() {
    for number in [1u64, 2, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1] {
        let event = (number - 1) as u32;
        let moves = |before: u64, now: u64| count_moved_past(event, before as u32, now as u32);
        assert!(moves(number - 1, number), "{number}");
        assert!(moves(number - 1, number + 5), "{number}");
        assert!(!moves(number, number + 5), "{number}");
    }
    assert!(!count_moved_past(u32::MAX, 0, 1000), "as a session begins");
}

#[test]
fn p2_an_index_or_a_record_that_cannot_be_breaks_the_session() {
    let ring = config(1, 0, SIZE, 2).ring.largest_message() + 8;
    let header = 2 * SIZE as usize - ring as usize;
    let (written, consumed) = (at(1, block::WRITTEN), at(1, block::CONSUMED));
    // The record of "one" is there, 16 bytes from position 0 on; then a word becomes another.
    let wrong: [(&str, usize, u32); 11] = [
        ("a position that is none", written, 12),
        ("a position beyond the last", written, 2 * ring),
        ("more than the ring", written, ring + 8),
        ("less than the record", written, 8),
        ("a record longer than what is there", header, 9),
        ("a message of no bytes", header, 0),
        ("a message larger than the ring", header, ring - 7),
        ("a header with more in it", header + 4, 1),
        ("consumed what was never sent", consumed, 24),
        ("consumed at no position", consumed, 4),
        ("confirmed what was never sent", at(1, block::CONFIRMED), 2),
    ];
    for (what, word, value) in wrong {
        let memory = memory();
        let [mut left, mut right] = connected(&memory, SIZE);
        send(&memory, &mut left, b"one");
        send(&memory, &mut right, b"one");
        memory.set(word, value);
        let all = left.largest_message();
        let next = left.next(&memory).map(drop);
        let room = left.reserve(&memory, all).map(drop);
        let confirmed = left.confirmations(&memory).map(drop);
        assert_eq!(
            left.link(),
            Link::Ended(Ended::Broken),
            "{what}: {next:?} {room:?} {confirmed:?}"
        );
    }
}
