// SPDX-License-Identifier: MIT OR Apache-2.0
//! What ioctls may return, by the header.

use super::{Errors, Expect, Pointer};
use crate::facts::Facts;
use crate::op::{
    is_passing, size_of, with_size, Buffer, Call, Op, Slot, Wait, EVENTFDS, FIRST_EVENTFD,
};
use ivshmem::uapi;
use libc::{
    E2BIG, EACCES, EAGAIN, EBADF, EBUSY, EFAULT, EINTR, EINVAL, EISDIR, ENODEV, ENOTTY, ENXIO,
    EOPNOTSUPP, EPERM, ETIMEDOUT, EXDEV,
};

/// Size of *info* in its first version; those of the other structures are what they are today.
const INFO_SIZE: u16 = 136;

/// The results of a call with these faults, which may otherwise also end with `perhaps`.
pub(super) fn either(faults: Errors, perhaps: &[i32]) -> Expect {
    let mut always = Errors::default();
    always.add(&[EBADF, ENODEV]);
    if faults.is_empty() {
        always.add(perhaps);
    }
    Expect::of(faults, 0, always)
}

/// The rules of structures that grow. True if the kernel knows what stands in it.
pub(super) fn structure(
    wrong: &mut Errors,
    argument: Buffer,
    size: u16,
    known: u16,
    tail: u8,
    reads: bool,
) -> bool {
    wrong.add_when(size < known, EINVAL);
    wrong.add_when(argument.pointer() == Pointer::Bad, EFAULT);
    wrong.add_when(
        reads && size > known && tail != 0 && argument == Buffer::Own,
        E2BIG,
    );
    argument == Buffer::Own
}

pub(super) fn ioctl(op: &Op, facts: &Facts) -> Expect {
    let Op::Ioctl {
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
    wrong.add_when(call.changes() && !slot.is_writable(), EBADF);
    let known = if call == Call::Info {
        INFO_SIZE
    } else {
        call.size()
    };
    if !structure(&mut wrong, argument, size, known, tail, call.reads()) {
        // Whatever stands there.
        return either(wrong, &[EFAULT, EINVAL, ENXIO, E2BIG, EBUSY]);
    }
    match call {
        Call::Info => either(wrong, &[]),
        Call::GetState => {
            wrong.add_when(words[2] != 0 || words[3] != 0, EINVAL);
            wrong.add_when(words[0] >= facts.peers, ENXIO);
            either(wrong, &[])
        }
        Call::SetState => set_state(wrong, slot, words),
        Call::Doorbell => {
            wrong.add_when(words[2] != 0 || words[3] != 0, EINVAL);
            wrong.add_when(words[0] >= facts.peers || words[1] >= facts.vectors, ENXIO);
            either(wrong, &[])
        }
        Call::Subscribe => {
            wrong.add_when(
                words[2] & !uapi::IVSHMEM_SUBSCRIBE_OFF != 0 || words[3] != 0,
                EINVAL,
            );
            subject(&mut wrong, words, facts, facts.peers);
            either(wrong, &[])
        }
        Call::EventFd => eventfd(wrong, words, facts),
    }
}

fn set_state(mut wrong: Errors, slot: Slot, words: [u32; 4]) -> Expect {
    let flags = uapi::IVSHMEM_STATE_TAKE_OVER | uapi::IVSHMEM_STATE_KEEP;
    wrong.add_when(words[2] & !flags != 0 || words[3] != 0, EINVAL);
    wrong.add_when(words[0] != Facts::own_id(slot), ENXIO);
    let takes_over = words[2] & uapi::IVSHMEM_STATE_TAKE_OVER != 0;
    either(wrong, if takes_over { &[] } else { &[EBUSY] })
}

/// Kind and index of events: `peers` is how many single peers may be named.
fn subject(wrong: &mut Errors, words: [u32; 4], facts: &Facts, peers: u32) {
    let (kind, index) = (words[0], words[1]);
    let limit = match kind {
        uapi::IVSHMEM_EVENT_DOORBELL => facts.vectors_enabled,
        uapi::IVSHMEM_EVENT_STATE => peers,
        _ => return wrong.add_when(true, EINVAL),
    };
    wrong.add_when(index != uapi::IVSHMEM_INDEX_ALL && index >= limit, ENXIO);
}

fn eventfd(mut wrong: Errors, words: [u32; 4], facts: &Facts) -> Expect {
    wrong.add_when(words[3] != 0, EINVAL);
    subject(&mut wrong, words, facts, 0);
    let fd = words[2] as i32;
    let ours = FIRST_EVENTFD..FIRST_EVENTFD + i32::from(EVENTFDS);
    if fd == -1 || ours.contains(&fd) {
        // Another thread may be making it anew.
        return either(wrong, &[]);
    }
    if is_passing(fd) {
        return either(wrong, &[EINVAL]);
    }
    // Something else, or nothing.
    wrong.add(&[EBADF, EINVAL]);
    either(wrong, &[])
}

pub(super) fn events(op: &Op, facts: &Facts) -> Expect {
    let Op::Events {
        argument,
        size,
        tail,
        records,
        capacity,
        record_size,
        flags,
        wait,
        ..
    } = *op
    else {
        unreachable!("called for this one")
    };
    let mut wrong = Errors::default();
    let known = size_of(uapi::IVSHMEM_IOC_EVENTS);
    // What may come instead of events, whatever the rest is.
    let mut perhaps = Errors::default();
    // A signal may end it also if it need not wait: another thread took the events meanwhile.
    perhaps.add(&[EAGAIN, EBADF, ENODEV, EINTR]);
    if wait != Wait::Now {
        perhaps.add(&[ETIMEDOUT]);
        perhaps.add_when(facts.polling, EOPNOTSUPP);
    }
    if !structure(&mut wrong, argument, size, known, tail, true) {
        // Whatever stands there.
        perhaps.add(&[EFAULT, EINVAL, E2BIG, ETIMEDOUT, EOPNOTSUPP]);
        return Expect::of(wrong, 0, perhaps);
    }
    wrong.add_when(flags != 0, EINVAL);
    wrong.add_when(capacity == 0, EINVAL);
    wrong.add_when(
        !(48..=4096).contains(&record_size) || record_size % 8 != 0,
        EINVAL,
    );
    match records.pointer() {
        Pointer::Good => {}
        // Only if there is something to store.
        Pointer::Perhaps => perhaps.add(&[EFAULT]),
        Pointer::Bad => wrong.add(&[EFAULT]),
    }
    Expect::of(wrong, 0, perhaps)
}

pub(super) fn other(number: u32) -> Expect {
    let known = [
        uapi::IVSHMEM_IOC_INFO,
        uapi::IVSHMEM_IOC_GET_STATE,
        uapi::IVSHMEM_IOC_SET_STATE,
        uapi::IVSHMEM_IOC_DOORBELL,
        uapi::IVSHMEM_IOC_EVENTS,
        uapi::IVSHMEM_IOC_SUBSCRIBE,
        uapi::IVSHMEM_IOC_EVENTFD,
    ];
    let anything = Expect::up_to(i64::MAX).or(&[
        EBADF, ENODEV, ENOTTY, EINVAL, EFAULT, E2BIG, ENXIO, EBUSY, EAGAIN, EINTR, ETIMEDOUT,
        EOPNOTSUPP, EPERM, EACCES, EXDEV, EISDIR,
    ]);
    if known
        .iter()
        .any(|&call| with_size(call, 0) == with_size(number, 0))
    {
        return anything;
    }
    if (number >> 8) & 0xff == uapi::IVSHMEM_IOC_MAGIC {
        return Expect::errors(&[ENOTTY, EBADF]);
    }
    // Some are the kernel's own, for files of any kind: FICLONE wants another of the same file system.
    anything
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Channels;

    fn facts() -> Facts {
        Facts::sample(Channels::None)
    }

    fn call(slot: u8, call: Call, size: u16, tail: u8, words: [u32; 4]) -> Expect {
        let slot = Slot(slot);
        let op = Op::Ioctl {
            slot,
            call,
            argument: Buffer::Own,
            size,
            tail,
            words,
        };
        ioctl(&op, &facts())
    }

    #[test]
    fn a_good_doorbell_succeeds_and_bad_ones_have_their_error() {
        let good = call(0, Call::Doorbell, 16, 0, [2, 3, 0, 0]);
        assert!(
            good.allows(0) && !good.allows(-i64::from(EINVAL)) && !good.allows(-i64::from(ENXIO))
        );
        let larger = call(0, Call::Doorbell, 32, 0, [2, 3, 0, 0]);
        assert_eq!(larger, good);
        let tail = call(0, Call::Doorbell, 32, 1, [2, 3, 0, 0]);
        assert!(!tail.allows(0) && tail.allows(-i64::from(E2BIG)));
        let peer = call(0, Call::Doorbell, 16, 0, [3, 3, 0, 0]);
        assert!(
            !peer.allows(0) && peer.allows(-i64::from(ENXIO)) && !peer.allows(-i64::from(EINVAL))
        );
        let read_only = call(10, Call::Doorbell, 16, 0, [2, 3, 0, 0]);
        assert!(!read_only.allows(0));
        let short = call(0, Call::Doorbell, 15, 0, [2, 3, 0, 0]);
        assert!(!short.allows(0) && short.allows(-i64::from(EINVAL)));
    }

    #[test]
    fn a_state_is_that_of_the_own_peer_and_may_be_another_file_s() {
        assert!(call(0, Call::SetState, 16, 0, [0, 5, 0, 0]).allows(-i64::from(EBUSY)));
        assert!(!call(0, Call::SetState, 16, 0, [0, 5, 1, 0]).allows(-i64::from(EBUSY)));
        assert!(!call(0, Call::SetState, 16, 0, [1, 5, 0, 0]).allows(0));
        assert!(call(1, Call::SetState, 16, 0, [1, 5, 0, 0]).allows(0));
    }

    #[test]
    fn unknown_calls_are_unknown_and_nothing_else() {
        let unknown = other(uapi::IVSHMEM_IOC_INFO + 0x30);
        assert!(
            unknown.allows(-i64::from(ENOTTY))
                && !unknown.allows(0)
                && !unknown.allows(-i64::from(EINVAL))
        );
    }
}
