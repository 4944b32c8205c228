// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries operations out: each a system call or a few, and no allocation.

mod calls;
mod channels;
mod files;

pub(crate) use files::socket_name;

use crate::facts::Facts;
use crate::message::Ledger;
use crate::op::{Buffer, How, Mode, Op, Pages, Slot, Wait, FIRST_EPOLL};
use crate::sys::{self, Address, Arena, Own, Raw, PAGE};
use crate::tally::{Extra, Tally, THREADS};
use crate::worker::Paths;
use std::cell::{Cell, RefCell};
use std::io;

/// In a thread's own memory: structures of ioctls, small arguments of other calls, and data.
const STRUCTURE: usize = 0;
const SMALL: usize = 0x4000;
const DATA: usize = 0x8000;

/// A call ended well and did something that it must not: the result stands for it.
pub(crate) const WRONG_RESULT: Raw = Raw::MIN + 1;

/// What a thread works with.
pub(crate) struct Executor<'a> {
    own: Own,
    arena: Arena,
    facts: &'a Facts,
    paths: &'a Paths,
    ledger: &'a Ledger,
    tally: &'a Tally,
    /// Its number among the threads of all processes.
    thread: u32,
    /// The last message that came from each end of a channel, of each thread.
    last: RefCell<[[u64; THREADS]; 4]>,
    /// Why a result was wrong.
    reason: Cell<&'static str>,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(
        arena: Arena,
        facts: &'a Facts,
        paths: &'a Paths,
        ledger: &'a Ledger,
        tally: &'a Tally,
        thread: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            own: Own::new()?,
            arena,
            facts,
            paths,
            ledger,
            tally,
            thread: thread as u32,
            last: RefCell::new([[0; THREADS]; 4]),
            reason: Cell::new("a wrong result"),
        })
    }

    /// The result of a call that ended well and did something that it must not.
    fn wrong(&self, reason: &'static str) -> Raw {
        self.reason.set(reason);
        WRONG_RESULT
    }

    /// Why the last wrong result was one.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason.get()
    }

    fn address(&self, buffer: Buffer, own: usize) -> Address {
        match buffer {
            Buffer::Own => self.own.address(own),
            Buffer::Arena(at) => self.arena.address(at as usize),
            Buffer::Nowhere(which) => Address::NOWHERE[usize::from(which) % Address::NOWHERE.len()],
        }
    }

    /// A `timespec` at `at`, or none for a wait without limit.
    fn time(&self, at: usize, wait: Wait) -> Address {
        let nanoseconds = match wait {
            Wait::Now => 0,
            Wait::Micros(micros) => u64::from(micros) * 1000,
            Wait::Never | Wait::At(_) => return Address::NOWHERE[0],
        };
        self.own.put(at, &0u64.to_ne_bytes());
        self.own.put(at + 8, &nanoseconds.to_ne_bytes());
        self.own.address(at)
    }

    /// Carries out `op`, which is operation `number` of this thread: its result, or the negative of an error's number.
    pub(crate) fn run(&self, number: u64, op: &Op) -> Raw {
        let result = self.carry_out(number, op);
        match -result as i32 {
            libc::ECONNRESET => self.tally.add(Extra::Reset),
            libc::EPROTO => self.tally.add(Extra::Broken),
            _ => {}
        }
        result
    }

    fn carry_out(&self, number: u64, op: &Op) -> Raw {
        match *op {
            Op::Channel(ref op) => self.channel(number, op),
            Op::Open { slot, flags } => {
                let mode = match slot.mode() {
                    Mode::Both => libc::O_RDWR,
                    Mode::Read => libc::O_RDONLY,
                    Mode::Write => libc::O_WRONLY,
                    Mode::Neither => libc::O_ACCMODE,
                };
                let path = self.paths.node(slot.device());
                let fd = sys::openat(libc::AT_FDCWD, path, flags | mode | libc::O_CLOEXEC, 0);
                self.place(fd, slot.fd())
            }
            Op::Close { slot } => sys::close(slot.fd()),
            Op::Dup { from, to } => sys::dup3(from.fd(), to.fd(), libc::O_CLOEXEC),
            Op::Read {
                slot,
                how,
                to,
                length,
            } => self.transfer(slot.fd(), how, to, length, false),
            Op::Write {
                slot,
                how,
                from,
                length,
            } => self.transfer(slot.fd(), how, from, length, true),
            Op::Seek {
                slot,
                offset,
                whence,
            } => sys::lseek(slot.fd(), offset, whence),
            Op::Map {
                slot,
                at,
                offset,
                rights,
                flags,
            } => {
                let (at, length) = bytes(at);
                self.arena.map(at, length, rights, flags, slot.fd(), offset)
            }
            Op::MapHuge {
                slot,
                length,
                offset,
            } => sys::map_anywhere(
                0,
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                slot.fd(),
                offset,
            ),
            Op::MapPlain { at } => {
                let (at, length) = bytes(at);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                self.arena
                    .map(at, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
            }
            Op::Unmap { at } => {
                let (at, length) = bytes(at);
                self.arena.unmap(at, length)
            }
            Op::Protect { at, rights } => {
                let (at, length) = bytes(at);
                self.arena.protect(at, length, rights)
            }
            Op::Remap { from, to } => {
                let ((from, old), (to, new)) = (bytes(from), bytes(to));
                self.arena.remap(from, old, to, new)
            }
            Op::Advise { at, advice } => {
                let (at, length) = bytes(at);
                self.arena.advise(at, length, advice)
            }
            Op::SyncMap { at, flags } => {
                let (at, length) = bytes(at);
                self.arena.sync(at, length, flags)
            }
            Op::Load { at } => {
                self.arena.load(at as usize);
                0
            }
            Op::Store { at, value } => {
                self.arena.store(at as usize, value);
                0
            }
            Op::Poll {
                slot,
                other,
                events,
                wait,
            } => self.poll(slot, other, events, wait),
            Op::Select { slot, other, wait } => self.select(slot.fd(), other.fd(), wait),
            Op::EpollCtl {
                epoll,
                change,
                fd,
                events,
            } => {
                self.own.put(SMALL, &events.to_ne_bytes());
                self.own.put(SMALL + 4, &[0; 12]);
                sys::epoll_ctl(
                    FIRST_EPOLL + i32::from(epoll),
                    change,
                    fd,
                    self.own.address(SMALL),
                )
            }
            Op::EpollWait { epoll, wait, room } => {
                let milliseconds = match wait {
                    Wait::Now => 0,
                    Wait::Micros(micros) => micros as i32 / 1000,
                    Wait::Never | Wait::At(_) => -1,
                };
                let epoll = FIRST_EPOLL + i32::from(epoll);
                sys::epoll_pwait(epoll, self.own.address(DATA), room, milliseconds, 0, 8)
            }
            Op::Ioctl { .. } => self.ioctl(op),
            Op::Events { .. } => self.events(op),
            Op::OtherIoctl {
                slot,
                number,
                argument,
            } => {
                // The kernel's own calls of a file may want larger structures than they say.
                self.own.fill(STRUCTURE, 256, 0);
                sys::ioctl(slot.fd(), number, self.address(argument, STRUCTURE))
            }
            _ => self.file(op),
        }
    }

    /// Puts a new file to its number, in place of what is there.
    fn place(&self, fd: Raw, number: i32) -> Raw {
        if fd < 0 {
            return fd;
        }
        let fd = fd as i32;
        let placed = sys::dup3(fd, number, libc::O_CLOEXEC);
        sys::close(fd);
        placed.min(0)
    }

    fn transfer(&self, fd: i32, how: How, buffer: Buffer, length: u64, is_write: bool) -> Raw {
        let address = self.address(buffer, DATA);
        let vector = self.own.address(SMALL);
        match (how, is_write) {
            (How::Plain, false) => sys::read(fd, address, length),
            (How::Plain, true) => sys::write(fd, address, length),
            (How::At(offset), false) => sys::pread(fd, address, length, offset),
            (How::At(offset), true) => sys::pwrite(fd, address, length, offset),
            (How::Parts(count), is_write) => {
                self.parts(address, length, count);
                if is_write {
                    sys::writev(fd, vector, count.into())
                } else {
                    sys::readv(fd, vector, count.into())
                }
            }
            (How::Flags(offset, flags), is_write) => {
                self.parts(address, length, 1);
                if is_write {
                    sys::pwritev2(fd, vector, 1, offset, 0, flags)
                } else {
                    sys::preadv2(fd, vector, 1, offset, 0, flags)
                }
            }
        }
    }

    /// A vector of `count` parts, the last with all the rest.
    fn parts(&self, address: Address, length: u64, count: u8) {
        let each = if count == 0 {
            0
        } else {
            length / u64::from(count)
        };
        for part in 0..u64::from(count) {
            let is_last = part + 1 == u64::from(count);
            let size = if is_last { length - part * each } else { each };
            let at = SMALL + part as usize * 16;
            self.own
                .put(at, &address.bits().wrapping_add(part * each).to_ne_bytes());
            self.own.put(at + 8, &size.to_ne_bytes());
        }
    }

    fn poll(&self, slot: Slot, other: Slot, events: i16, wait: Wait) -> Raw {
        let slots = [slot, other];
        for (index, slot) in slots.into_iter().enumerate() {
            let at = SMALL + index * 8;
            self.own.put(at, &slot.fd().to_ne_bytes());
            self.own.put(at + 4, &events.to_ne_bytes());
            self.own.put(at + 6, &[0; 2]);
        }
        let time = self.time(SMALL + 64, wait);
        let result = sys::ppoll(self.own.address(SMALL), 2, time, 0, 8);
        let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
        let came = [0, 1].map(|index| i16::from_ne_bytes(self.own.get(SMALL + index * 8 + 6)));
        let count = came.iter().filter(|came| **came != 0).count();
        if result >= 0
            && (count != result as usize || came.iter().any(|came| came & !(events | always) != 0))
        {
            return self.wrong("bits that were not asked for");
        }
        let ends = |came: i16| came & libc::POLLHUP != 0;
        let fails = |came: i16| came & libc::POLLERR != 0;
        let is_odd = |came: i16| came & libc::POLLPRI != 0 || ends(came) != fails(came);
        if slots
            .iter()
            .zip(came)
            .any(|(slot, came)| slot.is_channel() && is_odd(came))
        {
            return self.wrong("bits that a channel does not have");
        }
        result
    }

    fn select(&self, fd: i32, other: i32, wait: Wait) -> Raw {
        let mut set = [0u64; 16];
        for fd in [fd, other] {
            set[fd as usize / 64] |= 1 << (fd % 64);
        }
        for index in 0..3 {
            for (word, bits) in set.iter().enumerate().take(4) {
                self.own
                    .put(SMALL + index * 128 + word * 8, &bits.to_ne_bytes());
            }
        }
        let [read, write, except] = [0, 1, 2].map(|index| self.own.address(SMALL + index * 128));
        sys::pselect6(200, read, write, except, self.time(SMALL + 512, wait), 0)
    }
}

fn bytes(pages: Pages) -> (usize, usize) {
    (
        usize::from(pages.first) * PAGE,
        usize::from(pages.count) * PAGE,
    )
}
