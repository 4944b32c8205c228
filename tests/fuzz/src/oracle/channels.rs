// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operations on channels may return, by the header and the manual pages.
//!
//! Besides an empty slot and a device that is gone, a session may have ended at any time. That the peer has broken the
//! protocol is never said of one that does not.

use super::calls::{either, structure};
use super::{fcntl, no_file, Errors, Expect, Pointer};
use crate::facts::Facts;
use crate::op::{
    is_passing, size_of, with_size, Buffer, ChannelCall, ChannelOp, Count, How, Op, Slot, Wait,
    EVENTFDS, FIRST_EVENTFD, THIRD,
};
use crate::sys::OWN;
use ivshmem::uapi;
use libc::{
    E2BIG, EACCES, EAGAIN, EBADF, EBUSY, ECONNRESET, EFAULT, EINTR, EINVAL, EISDIR, EMFILE,
    EMSGSIZE, ENODEV, ENOENT, ENOTTY, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, EPIPE, EPROTO, ESPIPE,
    ETIMEDOUT, EXDEV,
};

/// A number of messages that no session reaches.
const FAR: u64 = 1 << 40;

/// What may always come from a channel.
fn always(slot: Slot, facts: &Facts) -> Errors {
    let mut errors = Errors::default();
    errors.add(&[EBADF, ENODEV, ECONNRESET]);
    errors.add_when(facts.is_peer_hostile(slot), EPROTO);
    errors
}

/// Operations that only channels have.
pub(super) fn own(op: &ChannelOp, facts: &Facts) -> Expect {
    match *op {
        ChannelOp::Connect { .. } => connect(op, facts),
        ChannelOp::Renew { .. } => Expect::up_to(0).or(&[EBUSY, ENODEV, ENOENT, ENXIO, EBADF]),
        ChannelOp::Claim { .. } => Expect::up_to(0).or(&[EBUSY, ENODEV, ENOENT, ENXIO]),
        ChannelOp::Send {
            slot,
            how,
            from,
            length,
        } => send(slot, how, from, length, facts),
        ChannelOp::Take {
            slot,
            how,
            to,
            length,
        } => take(slot, how, to, length, facts),
        ChannelOp::Call { .. } => call(op, facts),
        ChannelOp::Acknowledge { .. } => acknowledge(op, facts),
        ChannelOp::WaitConfirmed { .. } => wait_confirmed(op, facts),
    }
}

/// Operations that all files have, on a channel.
pub(super) fn file(slot: Slot, op: &Op, facts: &Facts) -> Option<Expect> {
    let expect = match *op {
        Op::Seek { .. } => Expect::errors(&[ESPIPE, EINVAL, EBADF]),
        Op::Map { .. } => Expect::errors(&[ENODEV, EINVAL, EPERM, EACCES, EOVERFLOW, EBADF]),
        Op::OtherIoctl { number, .. } => other(number),
        Op::Fcntl { command, .. } => fcntl(command),
        Op::Sync { what, .. } if what < 2 => {
            let mut perhaps = always(slot, facts);
            perhaps.add(&[EINTR, EPIPE]);
            Expect::of(Errors::default(), 0, perhaps)
        }
        Op::NoFile { what, length, .. } => no_file(what, length).or(&[ESPIPE]),
        _ => return None,
    };
    Some(expect)
}

fn connect(op: &ChannelOp, facts: &Facts) -> Expect {
    let ChannelOp::Connect {
        slot,
        argument,
        size,
        tail,
        words,
        ..
    } = *op
    else {
        unreachable!("called for this one")
    };
    let mut wrong = Errors::default();
    wrong.add_when(!(slot.is_readable() && slot.is_writable()), EBADF);
    let known = size_of(uapi::IVSHMEM_IOC_CONNECT);
    if !structure(&mut wrong, argument, size, known, tail, true) {
        return either(wrong, &[EFAULT, EINVAL, ENXIO, E2BIG, EBUSY]);
    }
    let flags = uapi::IVSHMEM_CONNECT_EXPLICIT_ACK | uapi::IVSHMEM_CONNECT_NONBLOCK;
    wrong.add_when(words[2] & !flags != 0 || words[3] != 0, EINVAL);
    let is_there = words[0] <= THIRD && words[0] < facts.peers && words[0] != Facts::own_id(slot);
    wrong.add_when(!is_there || words[1] != 0, ENXIO);
    either(wrong, &[EBUSY, EMFILE])
}

/// How a message is moved: the faults of that. Whether there is nothing to move, in a call that the kernel answers
/// itself.
fn way(how: How, length: u64, faults: &mut Errors, perhaps: &mut Errors) -> bool {
    let (offset, flags) = match how {
        How::Plain | How::Parts(_) => (None, 0),
        How::At(offset) => (Some(offset), 0),
        How::Flags(-1, flags) => (None, flags),
        How::Flags(offset, flags) => (Some(offset), flags),
    };
    if let Some(offset) = offset {
        faults.add(&[ESPIPE]);
        faults.add_when(offset < 0, EINVAL);
    }
    if length > i64::MAX as u64 && how != How::Parts(0) {
        faults.add(&[EINVAL, EFAULT]);
    }
    if flags != 0 {
        perhaps.add(&[EOPNOTSUPP, EINVAL]);
    }
    let is_plain = matches!(how, How::Plain | How::At(_));
    faults.add_when(is_plain && length == 0, EINVAL);
    !is_plain && (length == 0 || how == How::Parts(0))
}

fn send(slot: Slot, how: How, from: Buffer, length: u64, facts: &Facts) -> Expect {
    let (mut faults, mut perhaps) = (Errors::default(), always(slot, facts));
    if way(how, length, &mut faults, &mut perhaps) {
        // The kernel looks at the address of nothing, too.
        perhaps.add_when(from.pointer() == Pointer::Bad, EFAULT);
        return Expect::of(faults, 0, perhaps);
    }
    perhaps.add(&[EAGAIN, EINTR, EPIPE]);
    faults.add_when(length > facts.largest_message(), EMSGSIZE);
    match from.pointer() {
        Pointer::Good => perhaps.add_when(length > OWN as u64, EFAULT),
        Pointer::Perhaps => perhaps.add(&[EFAULT]),
        // Of nothing, some calls look at the address nevertheless.
        Pointer::Bad if length == 0 => perhaps.add(&[EFAULT]),
        Pointer::Bad => faults.add(&[EFAULT]),
    }
    Expect::of(faults, length as i64, perhaps)
}

fn take(slot: Slot, how: How, to: Buffer, length: u64, facts: &Facts) -> Expect {
    let (mut faults, mut perhaps) = (Errors::default(), always(slot, facts));
    if way(how, length, &mut faults, &mut perhaps) {
        perhaps.add_when(to.pointer() == Pointer::Bad, EFAULT);
        return Expect::of(faults, 0, perhaps);
    }
    perhaps.add(&[EAGAIN, EINTR]);
    let largest = facts.largest_message();
    perhaps.add_when(length < largest, EMSGSIZE);
    perhaps.add_when(to != Buffer::Own || length > OWN as u64, EFAULT);
    // The end needs no memory.
    let most = if to.pointer() == Pointer::Bad {
        0
    } else {
        length.min(largest)
    };
    Expect::of(faults, most as i64, perhaps)
}

fn call(op: &ChannelOp, facts: &Facts) -> Expect {
    let ChannelOp::Call {
        slot,
        call,
        argument,
        size,
        tail,
        words,
    } = *op
    else {
        unreachable!("called for this one")
    };
    let mut wrong = Errors::default();
    let known = size_of(call.number());
    match call {
        // It goes on to tell how far the session had come, whatever has ended it.
        ChannelCall::Status => {
            structure(&mut wrong, argument, size, known, tail, false);
            let mut perhaps = Errors::default();
            perhaps.add(&[EBADF]);
            perhaps.add_when(argument != Buffer::Own, EFAULT);
            Expect::of(wrong, 0, perhaps)
        }
        ChannelCall::NextSize => {
            let mut perhaps = always(slot, facts);
            perhaps.add_when(argument != Buffer::Own, EFAULT);
            wrong.add_when(argument.pointer() == Pointer::Bad, EFAULT);
            Expect::of(wrong, 0, perhaps)
        }
        ChannelCall::EventFd => {
            let mut perhaps = always(slot, facts);
            if !structure(&mut wrong, argument, size, known, tail, true) {
                perhaps.add(&[EFAULT, EINVAL, E2BIG]);
                return Expect::of(wrong, 0, perhaps);
            }
            wrong.add_when(words[1] != 0, EINVAL);
            let fd = words[0] as i32;
            let ours = FIRST_EVENTFD..FIRST_EVENTFD + i32::from(EVENTFDS);
            if is_passing(fd) {
                perhaps.add(&[EBADF, EINVAL]);
            } else if fd != -1 && !ours.contains(&fd) {
                wrong.add(&[EBADF, EINVAL]);
            }
            Expect::of(wrong, 0, perhaps)
        }
    }
}

fn acknowledge(op: &ChannelOp, facts: &Facts) -> Expect {
    let ChannelOp::Acknowledge {
        slot,
        argument,
        size,
        tail,
        number,
        words,
    } = *op
    else {
        unreachable!("called for this one")
    };
    let (mut wrong, mut perhaps) = (Errors::default(), always(slot, facts));
    // The channel may be one that needs none, and others may have connected anew.
    perhaps.add(&[EINVAL]);
    let known = size_of(uapi::IVSHMEM_CHANNEL_IOC_ACK);
    if structure(&mut wrong, argument, size, known, tail, true) {
        wrong.add_when(words != [0; 2] || is_far(number), EINVAL);
    } else {
        perhaps.add(&[EFAULT, E2BIG]);
    }
    Expect::of(wrong, 0, perhaps)
}

fn wait_confirmed(op: &ChannelOp, facts: &Facts) -> Expect {
    let ChannelOp::WaitConfirmed {
        slot,
        argument,
        size,
        tail,
        number,
        wait,
        words,
    } = *op
    else {
        unreachable!("called for this one")
    };
    let (mut wrong, mut perhaps) = (Errors::default(), always(slot, facts));
    perhaps.add(&[EINVAL, EAGAIN, EPIPE]);
    if wait != Wait::Now || argument != Buffer::Own {
        perhaps.add(&[EINTR, ETIMEDOUT]);
    }
    let known = size_of(uapi::IVSHMEM_CHANNEL_IOC_WAIT);
    if structure(&mut wrong, argument, size, known, tail, true) {
        wrong.add_when(words != [0; 2] || is_far(number), EINVAL);
    } else {
        perhaps.add(&[EFAULT, E2BIG]);
    }
    Expect::of(wrong, 0, perhaps)
}

fn is_far(number: Count) -> bool {
    matches!(number, Count::Of(number) if number > FAR)
}

fn other(number: u32) -> Expect {
    let known = [
        uapi::IVSHMEM_CHANNEL_IOC_STATUS,
        uapi::IVSHMEM_CHANNEL_IOC_ACK,
        uapi::IVSHMEM_CHANNEL_IOC_WAIT,
        uapi::IVSHMEM_CHANNEL_IOC_EVENTFD,
    ];
    let is_known = known
        .iter()
        .any(|&call| with_size(call, 0) == with_size(number, 0));
    if (number >> 8) & 0xff == uapi::IVSHMEM_IOC_MAGIC && !is_known {
        // The device's own calls are none of a channel's.
        return Expect::errors(&[ENOTTY, EBADF]);
    }
    Expect::up_to(i64::MAX).or(&[
        EBADF, ENODEV, ENOTTY, EINVAL, EFAULT, E2BIG, EAGAIN, EINTR, ETIMEDOUT, EOPNOTSUPP, EPERM,
        EACCES, EPIPE, ECONNRESET, EPROTO, EXDEV, EISDIR,
    ])
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::*;
    use crate::facts::Channels;

    fn facts() -> Facts {
        Facts::sample(Channels::Hostile)
    }

    fn error(number: i32) -> i64 {
        -i64::from(number)
    }

    #[test]
    fn a_connection_is_to_another_peer_of_the_link() {
        let connect = |slot: u8, words| {
            let op = ChannelOp::Connect {
                slot: Slot(slot),
                second: false,
                argument: Buffer::Own,
                size: 16,
                tail: 0,
                words,
            };
            own(&op, &facts())
        };
        assert!(connect(0, [1, 0, 3, 0]).allows(0));
        assert!(connect(0, [2, 0, 0, 0]).allows(error(EBUSY)));
        for words in [[0, 0, 0, 0], [3, 0, 0, 0], [1, 1, 0, 0]] {
            let it = connect(0, words);
            assert!(!it.allows(0) && it.allows(error(ENXIO)) && !it.allows(error(EBUSY)));
        }
        assert!(!connect(0, [1, 0, 4, 0]).allows(0));
        // Open for reading only.
        assert!(!connect(10, [1, 0, 0, 0]).allows(0));
    }

    #[test]
    fn only_a_hostile_peer_breaks_the_protocol() {
        let send = |peer, length| {
            let slot = Slot::of_channel(0, peer, false);
            let op = ChannelOp::Send {
                slot,
                how: How::Plain,
                from: Buffer::Own,
                length,
            };
            own(&op, &facts())
        };
        assert!(send(THIRD, 5).allows(error(EPROTO)) && send(THIRD, 5).allows(5));
        assert!(!send(1, 5).allows(error(EPROTO)) && !send(1, 5).allows(6));
        let largest = facts().largest_message();
        assert_eq!(largest, 3960);
        assert!(!send(1, largest + 1).allows(largest as i64 + 1));
        assert!(send(1, largest + 1).allows(error(EMSGSIZE)));
        assert!(!send(1, largest).allows(error(EMSGSIZE)) && !send(1, 0).allows(0));
    }

    #[test]
    fn a_channel_has_no_offsets() {
        let slot = Slot::of_channel(1, 0, true);
        let seek = Op::Seek {
            slot,
            offset: 0,
            whence: 0,
        };
        let it = expect(&seek, &facts());
        assert!(it.allows(error(ESPIPE)) && !it.allows(0));
        let take = ChannelOp::Take {
            slot,
            how: How::At(0),
            to: Buffer::Own,
            length: 100,
        };
        let it = own(&take, &facts());
        assert!(it.allows(error(ESPIPE)) && !it.allows(0) && !it.allows(error(EINVAL)));
    }

    #[test]
    fn a_status_can_always_be_had() {
        let status = ChannelOp::Call {
            slot: Slot::of_channel(0, 1, false),
            call: ChannelCall::Status,
            argument: Buffer::Own,
            size: 40,
            tail: 0,
            words: [0; 2],
        };
        let it = own(&status, &facts());
        assert!(it.allows(0) && !it.allows(error(ENODEV)) && !it.allows(error(ECONNRESET)));
    }
}
