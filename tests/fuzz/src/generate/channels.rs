// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on channels. Each process has those of one device, mostly, and keeps their sessions alive, so that
//! messages flow; what ends them comes in between.

use super::{arena, buffer, calls, numbers, pages, rights, slot, wait, weighted, Make};
use crate::facts::Facts;
use crate::message::UNKNOWN;
use crate::op::{
    size_of, Buffer, ChannelCall, ChannelOp, Count, How, Op, Slot, CLOSED, EVENTFDS, FIRST_EVENTFD,
    PIPE, THIRD,
};
use crate::random::Random;
use ivshmem::uapi;

const WEIGHTS: &[(u64, Make)] = &[
    (50, connect),
    (250, renew),
    (20, |r, _| {
        Op::Channel(ChannelOp::Claim {
            device: r.below(2) as u32,
            what: r.below(4) as u8,
        })
    }),
    (14, close),
    (20, |r, facts| {
        let from = channel(r, facts);
        Op::Dup {
            from,
            to: from.twin(r.one_in(2)),
        }
    }),
    (1100, send),
    (1100, take),
    (200, poll),
    (50, |r, facts| Op::Select {
        slot: channel(r, facts),
        other: either(r, facts),
        wait: wait(r),
    }),
    (150, |r, facts| {
        call(
            r,
            facts,
            ChannelCall::Status,
            size_of(ChannelCall::Status.number()),
            [0; 2],
        )
    }),
    (150, |r, facts| {
        call(r, facts, ChannelCall::NextSize, 0, [0; 2])
    }),
    (120, eventfd),
    (250, acknowledge),
    (250, wait_confirmed),
    (50, |r, facts| Op::Sync {
        slot: channel(r, facts),
        what: r.below(3) as u8,
    }),
    (80, fcntl),
    (60, other_ioctl),
    (20, |r, facts| Op::Seek {
        slot: channel(r, facts),
        offset: numbers::offset(r, facts),
        whence: r.below(6) as i32,
    }),
    (10, |r, facts| Op::Map {
        slot: channel(r, facts),
        at: pages(r),
        offset: r.below(4) << 12,
        rights: rights(r),
        flags: r.pick(&[libc::MAP_SHARED, libc::MAP_PRIVATE, 3]),
    }),
    (30, other_file),
    (10, |r, facts| Op::Pass {
        slot: channel(r, facts),
        process: r.below(2) as u8,
    }),
    (15, |_, _| Op::Receive),
    (6, |r, facts| Op::FdInfo {
        slot: channel(r, facts),
    }),
];

/// An operation that is not raw.
pub(super) fn generate(r: &mut Random, facts: &Facts) -> Op {
    weighted(WEIGHTS, r, facts)
}

/// `op`, but for what would keep channels from being opened for a long time: that becomes one that does so for a
/// moment.
pub(super) fn tame(op: Op, facts: &Facts) -> Op {
    match op {
        Op::Ioctl {
            slot,
            call: crate::op::Call::SetState,
            words,
            ..
        } => Op::Channel(ChannelOp::Claim {
            device: slot.device(),
            what: (words[1] % 2) as u8,
        }),
        Op::Map {
            slot,
            at,
            offset,
            rights,
            flags,
        } => {
            let end = offset.saturating_add(u64::from(at.count) * facts.page);
            let harms = facts.is_in_output(slot, offset, end);
            let rights = if harms {
                rights & !libc::PROT_WRITE
            } else {
                rights
            };
            Op::Map {
                slot,
                at,
                offset,
                rights,
                flags,
            }
        }
        other => other,
    }
}

/// A slot for a channel: mostly one of this process's device.
pub(super) fn channel(r: &mut Random, facts: &Facts) -> Slot {
    let device = if r.one_in(12) {
        1 - facts.home
    } else {
        facts.home
    };
    let peer = if r.one_in(3) { THIRD } else { 1 - device };
    Slot::of_channel(device, peer, r.one_in(8))
}

/// A slot for anything.
fn either(r: &mut Random, facts: &Facts) -> Slot {
    if r.one_in(2) {
        slot(r)
    } else {
        channel(r, facts)
    }
}

/// Flags of a new channel. Calls that wait keep a thread from doing anything else, so most do not.
fn flags(r: &mut Random) -> u32 {
    let explicit = if r.one_in(3) {
        uapi::IVSHMEM_CONNECT_EXPLICIT_ACK
    } else {
        0
    };
    let nonblock = if r.one_in(6) {
        0
    } else {
        uapi::IVSHMEM_CONNECT_NONBLOCK
    };
    explicit | nonblock
}

fn connect(r: &mut Random, facts: &Facts) -> Op {
    let mut file = slot(r);
    if file.device() != facts.home && !r.one_in(16) {
        // The same of the other device.
        file = Slot(file.0 ^ 1);
    }
    let peer = if r.one_in(3) {
        THIRD
    } else {
        1 - file.device()
    };
    let mut words = [peer, 0, flags(r), 0];
    if r.one_in(4) {
        let value = if r.one_in(2) {
            r.below(4)
        } else {
            r.magnitude()
        };
        words[r.below(4) as usize] = value as u32;
    }
    let size = calls::size(r, size_of(uapi::IVSHMEM_IOC_CONNECT));
    Op::Channel(ChannelOp::Connect {
        slot: file,
        second: r.one_in(4),
        argument: buffer(r),
        size,
        tail: calls::tail(r),
        words,
    })
}

fn close(r: &mut Random, facts: &Facts) -> Op {
    let mut slot = channel(r, facts);
    if r.one_in(2) {
        // What has come from the other process: as long as it is open here, that cannot connect anew.
        slot = Slot::of_channel(1 - facts.home, facts.home, r.one_in(2));
    }
    Op::Close { slot }
}

fn renew(r: &mut Random, facts: &Facts) -> Op {
    // Of the own device, always: the other process keeps its sessions alive.
    let peer = if r.one_in(3) { THIRD } else { 1 - facts.home };
    let slot = Slot::of_channel(facts.home, peer, false);
    Op::Channel(ChannelOp::Renew {
        slot,
        flags: flags(r),
    })
}

/// Memory and length of a message; what the memory is tells the length.
fn message(r: &mut Random, facts: &Facts) -> (Buffer, u64) {
    let largest = facts.largest_message();
    let length = match r.below(64) {
        0 => r.magnitude(),
        1 => 0,
        2 | 3 => (largest + r.below(9)).saturating_sub(4),
        4..=11 => 1 + r.below(largest.max(1)),
        12..=20 => largest / 2 + r.below(16),
        _ => 1 + r.below(160),
    };
    let memory = buffer(r);
    let length = match memory {
        Buffer::Arena(_) => length / 4 * 4 + UNKNOWN,
        _ if length % 4 == UNKNOWN => length - 1,
        _ => length,
    };
    (memory, length)
}

/// How messages are moved: never at an offset, but for a few.
fn how(r: &mut Random, facts: &Facts) -> How {
    match r.below(32) {
        0 => How::At(numbers::offset(r, facts)),
        1 => How::Flags(numbers::offset(r, facts), 0),
        2..=6 => How::Parts(r.below(9) as u8),
        7..=11 => How::Flags(
            -1,
            r.pick(&[8, 8, 8, 8, 0, 1, 2, 4, 0x10, 0x20, 0x40, 0x80]),
        ),
        _ => How::Plain,
    }
}

fn send(r: &mut Random, facts: &Facts) -> Op {
    let (from, length) = message(r, facts);
    Op::Channel(ChannelOp::Send {
        slot: channel(r, facts),
        how: how(r, facts),
        from,
        length,
    })
}

fn take(r: &mut Random, facts: &Facts) -> Op {
    let length = match r.below(16) {
        0 => message(r, facts).1,
        1 => r.below(64),
        _ => facts.largest_message() + r.below(64),
    };
    let to = if r.one_in(4) { buffer(r) } else { Buffer::Own };
    Op::Channel(ChannelOp::Take {
        slot: channel(r, facts),
        how: how(r, facts),
        to,
        length,
    })
}

fn poll(r: &mut Random, facts: &Facts) -> Op {
    let events = if r.one_in(4) {
        r.any() as i16
    } else {
        r.pick(&[1, 4, 5, 0x2005, 0x2000, 0])
    };
    Op::Poll {
        slot: channel(r, facts),
        other: either(r, facts),
        events,
        wait: wait(r),
    }
}

fn call(r: &mut Random, facts: &Facts, call: ChannelCall, known: u16, words: [u32; 2]) -> Op {
    let size = if known == 0 { 0 } else { calls::size(r, known) };
    Op::Channel(ChannelOp::Call {
        slot: channel(r, facts),
        call,
        argument: buffer(r),
        size,
        tail: calls::tail(r),
        words,
    })
}

fn eventfd(r: &mut Random, facts: &Facts) -> Op {
    let fd = match r.below(8) {
        0 => -1,
        1 => {
            let channel = channel(r, facts).fd();
            r.pick(&[-2, CLOSED, PIPE, i32::MIN, i32::MAX, channel])
        }
        _ => FIRST_EVENTFD + r.below(EVENTFDS.into()) as i32,
    };
    let flags = if r.one_in(16) {
        r.magnitude() as u32
    } else {
        0
    };
    let known = size_of(uapi::IVSHMEM_CHANNEL_IOC_EVENTFD);
    call(r, facts, ChannelCall::EventFd, known, [fd as u32, flags])
}

fn count(r: &mut Random) -> Count {
    match r.below(16) {
        0 => Count::Of(r.magnitude()),
        1 => Count::Of(r.below(20)),
        2 => Count::Beyond(1 + r.below(3) as u8),
        3..=6 => Count::Behind(r.below(8) as u8),
        _ => Count::Behind(0),
    }
}

/// Flags and reserved field of a structure.
fn zeroes(r: &mut Random) -> [u32; 2] {
    let mut words = [0; 2];
    if r.one_in(24) {
        words[r.below(2) as usize] = r.magnitude() as u32;
    }
    words
}

fn acknowledge(r: &mut Random, facts: &Facts) -> Op {
    Op::Channel(ChannelOp::Acknowledge {
        slot: channel(r, facts),
        argument: buffer(r),
        size: calls::size(r, size_of(uapi::IVSHMEM_CHANNEL_IOC_ACK)),
        tail: calls::tail(r),
        number: count(r),
        words: zeroes(r),
    })
}

fn wait_confirmed(r: &mut Random, facts: &Facts) -> Op {
    Op::Channel(ChannelOp::WaitConfirmed {
        slot: channel(r, facts),
        argument: buffer(r),
        size: calls::size(r, size_of(uapi::IVSHMEM_CHANNEL_IOC_WAIT)),
        tail: calls::tail(r),
        number: count(r),
        wait: wait(r),
        words: zeroes(r),
    })
}

fn fcntl(r: &mut Random, facts: &Facts) -> Op {
    let (command, argument) = match r.below(12) {
        // Mostly: do not wait.
        0..=7 => (libc::F_SETFL, libc::O_NONBLOCK),
        8 => (libc::F_SETFL, 0),
        9 => (libc::F_SETFL, libc::O_ASYNC | libc::O_DIRECT),
        10 => (libc::F_GETFL, 0),
        _ => (
            r.pick(&[
                libc::F_SETFD,
                libc::F_SETLEASE,
                libc::F_ADD_SEALS,
                libc::F_SETPIPE_SZ,
            ]),
            1,
        ),
    };
    Op::Fcntl {
        slot: channel(r, facts),
        command,
        argument,
    }
}

fn other_ioctl(r: &mut Random, facts: &Facts) -> Op {
    let Op::OtherIoctl {
        number, argument, ..
    } = calls::other(r, facts)
    else {
        unreachable!("it makes nothing else")
    };
    // Some that the device has.
    let number = if r.one_in(4) {
        r.pick(&[
            uapi::IVSHMEM_IOC_INFO,
            uapi::IVSHMEM_IOC_SET_STATE,
            uapi::IVSHMEM_IOC_CONNECT,
            uapi::IVSHMEM_IOC_EVENTS,
        ])
    } else {
        number
    };
    Op::OtherIoctl {
        slot: channel(r, facts),
        number,
        argument,
    }
}

fn other_file(r: &mut Random, facts: &Facts) -> Op {
    let slot = channel(r, facts);
    let offset = r.one_in(2).then(|| arena(r).into());
    let out = r.one_in(2);
    let length = r.below(8192) as u32;
    match r.below(4) {
        0 => Op::Splice {
            slot,
            out,
            offset,
            length,
            flags: r.below(32) as u32,
        },
        1 => Op::SendFile {
            slot,
            out,
            offset,
            length,
        },
        2 => Op::Stat { slot },
        _ => Op::NoFile {
            slot,
            what: r.below(7) as u8,
            offset: numbers::offset(r, facts),
            length: length.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;
    use crate::facts::Channels;
    use crate::op::Call;

    #[test]
    fn nothing_keeps_channels_from_being_opened_for_long() {
        let facts = Facts::sample(Channels::Honest);
        for number in 0..300_000 {
            match generate(3, 1, number, &facts) {
                Op::Ioctl {
                    call: Call::SetState,
                    ..
                } => panic!("a state is owned until a file is closed"),
                Op::Map {
                    slot,
                    at,
                    offset,
                    rights,
                    ..
                } if !slot.is_channel() && rights & libc::PROT_WRITE != 0 => {
                    let end = offset.saturating_add(u64::from(at.count) * 4096);
                    assert!(!facts.is_in_output(slot, offset, end));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_length_of_a_message_tells_whether_its_content_is_known() {
        let facts = Facts::sample(Channels::Honest);
        for number in 0..300_000 {
            if let Op::Channel(ChannelOp::Send { from, length, .. }) =
                generate(3, 1, number, &facts)
            {
                assert_eq!(
                    matches!(from, Buffer::Arena(_)),
                    length % 4 == UNKNOWN,
                    "{from:?}"
                );
            }
        }
    }

    #[test]
    fn no_channel_comes_where_there_are_none() {
        let facts = Facts::sample(Channels::None);
        for number in 0..300_000 {
            let op = generate(3, 1, number, &facts);
            assert!(!matches!(op, Op::Channel(_)), "{op:?}");
            assert!(!op.slot().is_some_and(Slot::is_channel), "{op:?}");
        }
    }
}
