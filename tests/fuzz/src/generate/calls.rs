// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ioctls: valid ones, valid ones with something mutated, garbage.

use super::{buffer, slot, wait};
use crate::facts::Facts;
use crate::op::{size_of, with_size, Buffer, Call, Op, CLOSED, EVENTFDS, FIRST_EVENTFD, PIPE};
use crate::random::Random;
use ivshmem::uapi;

/// A number that the kernel may know from other kinds of files.
const FOREIGN: &[u32] = &[
    0x5401,
    0x5413,
    0x541b,
    0x5421,
    0x5450,
    0x5451,
    0x5452,
    0x5460,
    0x2,
    0x1,
    0x8008_6601,
    0x4008_6602,
    0x801c_581f,
    0xc020_660b,
    0x4004_9409,
    0x1272,
    0x125e,
    0x8004_4501,
];

/// A size of the structure that is known as `size`.
pub(super) fn size(r: &mut Random, known: u16) -> u16 {
    match r.below(24) {
        0 => r.below(0x4000) as u16,
        1 => known - 1 - r.below(known.into()) as u16,
        2 | 3 => known + r.below(200) as u16,
        _ => known,
    }
}

/// A byte at the end of a structure that is larger than known.
pub(super) fn tail(r: &mut Random) -> u8 {
    if r.one_in(3) {
        1 + r.below(255) as u8
    } else {
        0
    }
}

/// Changes one of the fields, in one of 8 cases.
fn mutate(r: &mut Random, mut words: [u32; 4]) -> [u32; 4] {
    if r.one_in(8) {
        let value = r.magnitude() as u32;
        words[r.below(4) as usize] = value;
    }
    if r.one_in(64) {
        words = words.map(|_| r.any() as u32);
    }
    words
}

fn call(r: &mut Random, call: Call, words: [u32; 4]) -> Op {
    Op::Ioctl {
        slot: slot(r),
        call,
        argument: buffer(r),
        size: size(r, call.size()),
        tail: tail(r),
        words: mutate(r, words),
    }
}

pub(super) fn info(r: &mut Random, _: &Facts) -> Op {
    call(r, Call::Info, [0; 4])
}

pub(super) fn get_state(r: &mut Random, facts: &Facts) -> Op {
    let peer = r.below(facts.peers.into()) as u32;
    call(r, Call::GetState, [peer, 0, 0, 0])
}

pub(super) fn set_state(r: &mut Random, _: &Facts) -> Op {
    let words = [r.below(2) as u32, r.below(8) as u32, r.below(4) as u32, 0];
    call(r, Call::SetState, words)
}

pub(super) fn doorbell(r: &mut Random, facts: &Facts) -> Op {
    let words = [
        r.below(facts.peers.into()) as u32,
        r.below(facts.vectors.into()) as u32,
        0,
        0,
    ];
    call(r, Call::Doorbell, words)
}

/// Kind and index of an event.
fn subject(r: &mut Random, facts: &Facts) -> (u32, u32) {
    let kind = 1 + r.below(2) as u32;
    let limit = if kind == 1 {
        facts.vectors_enabled
    } else {
        facts.peers
    };
    let all = r.one_in(3);
    (
        kind,
        if all {
            uapi::IVSHMEM_INDEX_ALL
        } else {
            r.below(limit.max(1).into()) as u32
        },
    )
}

pub(super) fn subscribe(r: &mut Random, facts: &Facts) -> Op {
    let (kind, index) = subject(r, facts);
    // On more often than off, so that there is something to fetch.
    let off = u32::from(r.one_in(3));
    call(r, Call::Subscribe, [kind, index, off, 0])
}

pub(super) fn eventfd(r: &mut Random, facts: &Facts) -> Op {
    let (kind, index) = subject(r, facts);
    let fd = match r.below(8) {
        0 => -1,
        1 => {
            let device = slot(r).fd();
            r.pick(&[-2, CLOSED, PIPE, i32::MIN, i32::MAX, device])
        }
        _ => FIRST_EVENTFD + r.below(EVENTFDS.into()) as i32,
    };
    call(r, Call::EventFd, [kind, index, fd as u32, 0])
}

pub(super) fn events(r: &mut Random, _: &Facts) -> Op {
    let known = size_of(uapi::IVSHMEM_IOC_EVENTS);
    let sizes = [48, 48, 48, 48, 48, 56, 64, 4096, 40, 0, 49, 4104];
    Op::Events {
        slot: slot(r),
        argument: buffer(r),
        size: size(r, known),
        tail: tail(r),
        records: buffer(r),
        capacity: if r.one_in(16) {
            r.magnitude() as u32
        } else {
            1 + r.below(8) as u32
        },
        record_size: if r.one_in(32) {
            r.magnitude() as u32
        } else {
            r.pick(&sizes)
        },
        flags: if r.one_in(32) {
            r.magnitude() as u32
        } else {
            0
        },
        wait: wait(r),
    }
}

pub(super) fn other(r: &mut Random, _: &Facts) -> Op {
    let ours = uapi::IVSHMEM_IOC_INFO;
    let number = match r.below(4) {
        // Ours, not known: another number, another direction.
        0 => (ours & !0xff) | r.below(256) as u32,
        1 => with_size(
            r.any() as u32 & 0xe000_00ff | (ours & 0xff00),
            r.below(256) as u16,
        ),
        2 => r.pick(FOREIGN),
        _ => with_size(r.any() as u32, r.below(256) as u16),
    };
    // FIFREEZE and FITHAW: freeze what the log is written to, in a bad case.
    // And a channel that is connected would be a descriptor that no slot holds.
    let connects = with_size(number, 0) == with_size(uapi::IVSHMEM_IOC_CONNECT, 0);
    let number = if connects || matches!(number & 0xffff, 0x5877 | 0x5878) {
        ours | 0x77
    } else {
        number
    };
    let argument = if r.one_in(4) {
        Buffer::Nowhere(r.below(5) as u8)
    } else {
        Buffer::Own
    };
    Op::OtherIoctl {
        slot: slot(r),
        number,
        argument,
    }
}
