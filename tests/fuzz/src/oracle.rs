// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operation may return, by the header and the manual pages alone.
//!
//! Where several things are wrong with a call, each of their errors may come, and no success. Two errors
//! may always come: the slot may be empty (EBADF), and the device may be gone (ENODEV).

mod calls;
mod channels;

use crate::facts::Facts;
use crate::op::{Buffer, How, Mode, Op, Pages, Slot};
use crate::sys::{Raw, OWN, PAGE};
use libc::{
    EACCES, EAGAIN, EBADF, EBUSY, ECONNREFUSED, EEXIST, EFAULT, EFBIG, EINTR, EINVAL, EIO, ELOOP,
    ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTDIR, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, ESPIPE,
    ETOOMANYREFS, EXDEV,
};

/// A set of errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Errors([u64; 3]);

impl Errors {
    fn add(&mut self, numbers: &[i32]) {
        for &number in numbers {
            self.0[number as usize / 64] |= 1 << (number % 64);
        }
    }

    fn add_when(&mut self, is_so: bool, number: i32) {
        if is_so {
            self.add(&[number]);
        }
    }

    fn is_empty(self) -> bool {
        self.0 == [0; 3]
    }

    fn has(self, number: u64) -> bool {
        let word = self.0.get((number / 64) as usize);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// A set of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expect {
    errors: Errors,
    /// Largest value of a success, if there may be one.
    success: Option<i64>,
}

impl Expect {
    /// Those errors, and no success.
    fn errors(numbers: &[i32]) -> Self {
        Self {
            errors: Errors::default(),
            success: None,
        }
        .or(numbers)
    }

    /// A success of 0 up to `largest`.
    fn up_to(largest: i64) -> Self {
        Self {
            errors: Errors::default(),
            success: Some(largest),
        }
    }

    /// Those errors besides.
    fn or(mut self, numbers: &[i32]) -> Self {
        self.errors.add(numbers);
        self
    }

    /// What a call may return that has `faults`: one of them, or if there are none a success of up to
    /// `largest`; always one of `perhaps`.
    fn of(faults: Errors, largest: i64, perhaps: Errors) -> Self {
        let errors = Errors([0, 1, 2].map(|word: usize| faults.0[word] | perhaps.0[word]));
        Self {
            errors,
            success: faults.is_empty().then_some(largest),
        }
    }

    /// Whether `result` is one of them.
    pub(crate) fn allows(&self, result: Raw) -> bool {
        if result >= 0 {
            return self.success.is_some_and(|largest| result <= largest);
        }
        self.errors.has(result.unsigned_abs())
    }
}

/// Flag of preadv2: do not wait.
const RWF_NOWAIT: i32 = 8;

/// Whether a pointer to `length` bytes may, must or cannot be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pointer {
    Good,
    /// Others may take the memory away, or have.
    Perhaps,
    Bad,
}

impl Buffer {
    fn pointer(self) -> Pointer {
        match self {
            Self::Own => Pointer::Good,
            Self::Arena(_) => Pointer::Perhaps,
            Self::Nowhere(_) => Pointer::Bad,
        }
    }
}

/// What `op` may return.
pub(crate) fn expect(op: &Op, facts: &Facts) -> Expect {
    let on_channel = op.slot().filter(|slot| slot.is_channel());
    if let Some(expect) = on_channel.and_then(|slot| channels::file(slot, op, facts)) {
        return expect;
    }
    match *op {
        Op::Channel(ref op) => channels::own(op, facts),
        Op::Open { slot, flags } => open(slot, flags),
        // Only what the slots hold is closed.
        Op::Close { .. } => Expect::up_to(0).or(&[EBADF]),
        Op::Dup { from, to } => Expect::up_to(to.fd().into()).or(&[
            EBADF,
            EBUSY,
            if from == to { EINVAL } else { EBADF },
        ]),
        Op::Read {
            slot,
            how,
            to,
            length,
        } => transfer(slot, how, to, length, false, facts),
        Op::Write {
            slot,
            how,
            from,
            length,
        } => transfer(slot, how, from, length, true, facts),
        Op::Seek { whence, .. } => {
            let good = matches!(whence, libc::SEEK_SET | libc::SEEK_CUR | libc::SEEK_END);
            let success = if good {
                Expect::up_to(facts.region as i64)
            } else {
                Expect::errors(&[])
            };
            success.or(&[EINVAL, EBADF, ENODEV])
        }
        Op::Map {
            slot,
            at,
            offset,
            rights,
            flags,
        } => map(slot, at, offset, rights, flags, facts),
        Op::MapHuge { .. } => Expect::errors(&[
            EBADF, ENODEV, ENXIO, EACCES, EPERM, EINVAL, ENOMEM, EOVERFLOW,
        ]),
        Op::MapPlain { .. } | Op::Unmap { .. } => Expect::up_to(i64::MAX),
        // Of pages that others may have mapped and unmapped: EACCES is a mapping that must not become
        // writable or executable.
        Op::Protect { .. } => Expect::up_to(0).or(&[EACCES, EINVAL, ENOMEM]),
        Op::Remap { .. } => Expect::up_to(i64::MAX).or(&[EFAULT, EINVAL, ENOMEM]),
        Op::Advise { .. } => Expect::up_to(i64::MAX).or(&[
            EINVAL, ENOMEM, EFAULT, EBADF, EACCES, EPERM, EAGAIN, EBUSY, EIO, EOPNOTSUPP, ENODEV,
        ]),
        Op::SyncMap { .. } => Expect::up_to(0).or(&[EINVAL, ENOMEM, EBUSY]),
        Op::Load { .. } | Op::Store { .. } => Expect::up_to(0),
        Op::Poll { .. } => Expect::up_to(2).or(&[EINTR]),
        Op::Select { .. } => Expect::up_to(6).or(&[EBADF, EINTR]),
        Op::EpollCtl { .. } => {
            Expect::up_to(0).or(&[EBADF, EEXIST, ENOENT, EINVAL, ELOOP, EPERM, ENOSPC])
        }
        Op::EpollWait { room, .. } if room <= 0 => Expect::errors(&[EINVAL, EBADF]),
        Op::EpollWait { room, .. } => Expect::up_to(room.into()).or(&[EBADF, EINTR]),
        Op::Ioctl { .. } => calls::ioctl(op, facts),
        Op::Events { .. } => calls::events(op, facts),
        Op::OtherIoctl { number, .. } => calls::other(number),
        Op::EventFd { .. } => Expect::up_to(8).or(&[EAGAIN, EBADF, EBUSY]),
        Op::Fcntl { command, .. } => fcntl(command),
        Op::Sync { what, .. } if what < 2 => Expect::errors(&[EINVAL, EBADF]),
        Op::Sync { .. } => Expect::up_to(0).or(&[EBADF]),
        // There is no splicing, read and write are the way; of nothing it is as good as any.
        Op::Splice { .. } | Op::SendFile { .. } => Expect::up_to(0).or(&[
            EINVAL, EBADF, ESPIPE, EAGAIN, EOVERFLOW, ENODEV, EACCES, ENOSPC,
        ]),
        Op::Stat { .. } => Expect::up_to(0).or(&[EBADF]),
        Op::NoFile { what, length, .. } => no_file(what, length),
        Op::Pass { .. } => Expect::up_to(1).or(&[EBADF, ECONNREFUSED, EAGAIN, ETOOMANYREFS]),
        Op::Receive => Expect::up_to(i64::from(i32::MAX)).or(&[EAGAIN, EBADF, EBUSY]),
        Op::Fork { .. } => Expect::up_to(0),
        Op::FdInfo { .. } => Expect::up_to(i64::MAX).or(&[ENOENT]),
        Op::SysRead { .. } => Expect::up_to(i64::MAX).or(&[ENOENT, ENODEV, ENXIO, EIO]),
        Op::SysWrite { .. } => {
            Expect::up_to(8).or(&[ENOENT, ENODEV, ENXIO, EIO, EACCES, EPERM, EINVAL])
        }
    }
}

fn open(slot: Slot, flags: i32) -> Expect {
    let mut expect = Expect::up_to(0).or(&[ENOENT, ENODEV, ENXIO, EBUSY]);
    if flags & libc::O_DIRECTORY != 0 {
        expect = Expect::errors(&[ENOTDIR, ENOENT]);
    }
    if flags & libc::O_DIRECT != 0 {
        expect = Expect::errors(&[EINVAL, ENOTDIR, ENOENT, ENODEV, ENXIO]);
    }
    if slot.mode() == Mode::Neither {
        expect = expect.or(&[EINVAL]);
    }
    expect
}

fn transfer(
    slot: Slot,
    how: How,
    buffer: Buffer,
    length: u64,
    is_write: bool,
    facts: &Facts,
) -> Expect {
    let (mut faults, mut perhaps) = (Errors::default(), Errors::default());
    perhaps.add(&[EBADF, ENODEV]);
    faults.add_when(
        !(if is_write {
            slot.is_writable()
        } else {
            slot.is_readable()
        }),
        EBADF,
    );
    let (offset, flags) = match how {
        How::Plain | How::Parts(_) => (None, 0),
        How::At(offset) => (Some(offset), 0),
        // -1 stands for the file's position.
        How::Flags(-1, flags) => (None, flags),
        How::Flags(offset, flags) => (Some(offset), flags),
    };
    faults.add_when(offset.is_some_and(|offset| offset < 0), EINVAL);
    if length > i64::MAX as u64 && how != How::Parts(0) {
        faults.add(&[EINVAL, EFAULT]);
    }
    // The kernel itself knows no offset behind the largest.
    let end = offset.unwrap_or(0).checked_add_unsigned(length);
    if flags != 0 || end.is_none() {
        perhaps.add(&[EOPNOTSUPP, EINVAL]);
    }
    perhaps.add_when(flags & RWF_NOWAIT != 0, EAGAIN);

    let is_empty = length == 0 || how == How::Parts(0);
    let left = offset.map_or(facts.region, |offset| {
        facts.region.saturating_sub(offset.max(0) as u64)
    });
    if is_write && !is_empty {
        // Where channels own the output section: only the first byte counts.
        let may_be_owned = match offset {
            Some(offset) => {
                let end = (offset as u64).saturating_add(1);
                facts.is_in_output(slot, offset as u64, end)
            }
            None => true,
        };
        perhaps.add_when(facts.has_channels() && may_be_owned, EBUSY);
        match offset {
            Some(offset) if offset >= 0 && left == 0 => faults.add(&[ENOSPC]),
            Some(offset) if offset >= 0 => {
                faults.add_when(!facts.is_writable(slot, offset as u64), EACCES)
            }
            Some(_) => {}
            None => perhaps.add(&[ENOSPC, EACCES]),
        }
    }
    let transfers = !is_empty && (is_write || left > 0);
    match buffer.pointer() {
        Pointer::Bad if transfers && offset.is_some() => faults.add(&[EFAULT]),
        // A huge length makes a range that is no program's.
        Pointer::Good => perhaps.add_when(length > OWN as u64, EFAULT),
        Pointer::Perhaps | Pointer::Bad => perhaps.add(&[EFAULT]),
    }
    Expect::of(faults, length.min(left) as i64, perhaps)
}

fn map(slot: Slot, at: Pages, offset: u64, rights: i32, flags: i32, facts: &Facts) -> Expect {
    let (mut faults, mut perhaps) = (Errors::default(), Errors::default());
    perhaps.add(&[EBADF, ENODEV]);
    let length = u64::from(at.count) * PAGE as u64;
    let end = offset.saturating_add(length);
    let writes = rights & libc::PROT_WRITE != 0;
    // MAP_SHARED_VALIDATE has the bit of MAP_SHARED.
    faults.add_when(flags & libc::MAP_SHARED == 0, EINVAL);
    faults.add_when(offset % facts.page != 0, EINVAL);
    faults.add_when(end == u64::MAX, EOVERFLOW);
    faults.add_when(rights & libc::PROT_EXEC != 0, EPERM);
    faults.add_when(!facts.is_mappable(offset, end), ENXIO);
    faults.add_when(!slot.is_readable(), EACCES);
    faults.add_when(writes && !facts.is_map_writable(slot, offset, end), EACCES);
    perhaps.add_when(
        facts.has_channels() && writes && facts.is_in_output(slot, offset, end),
        EBUSY,
    );
    Expect::of(faults, i64::MAX, perhaps)
}

fn fcntl(command: i32) -> Expect {
    match command {
        libc::F_GETFL => Expect::up_to(i32::MAX.into()).or(&[EBADF]),
        libc::F_SETFL => Expect::up_to(0).or(&[EBADF, EINVAL, EPERM]),
        libc::F_SETFD => Expect::up_to(0).or(&[EBADF]),
        _ => Expect::errors(&[EBADF, EINVAL, EACCES, EAGAIN, EPERM]),
    }
}

fn no_file(what: u8, length: i64) -> Expect {
    match what {
        0 => Expect::errors(&[EBADF, EINVAL, EFBIG]),
        1 => Expect::errors(&[EBADF, EINVAL, ENODEV, EOPNOTSUPP, EFBIG, EPERM]),
        2 => Expect::up_to(0).or(&[EBADF, EINVAL]),
        3 => Expect::errors(&[EBADF, EINVAL]),
        4 => Expect::up_to(0).or(&[EBADF, EAGAIN, EINTR, EINVAL]),
        5 => Expect::errors(&[EBADF, ENOTDIR]),
        _ => {
            let success = if length == 0 {
                Expect::up_to(0)
            } else {
                Expect::errors(&[])
            };
            success.or(&[EBADF, EINVAL, EXDEV, EOPNOTSUPP, EOVERFLOW, EFBIG])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let expect = Expect::up_to(7).or(&[EBADF, libc::EOWNERDEAD]);
        for (result, allowed) in [
            (0, true),
            (7, true),
            (8, false),
            (-9, true),
            (-130, true),
            (-1, false),
            (-200, false),
        ] {
            assert_eq!(expect.allows(result), allowed, "{result}");
        }
    }
}
