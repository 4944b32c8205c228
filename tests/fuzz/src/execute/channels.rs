// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on channels, and a look at what they have brought.

use super::{Executor, DATA, STRUCTURE};
use crate::message::{self, Mark, LONGEST, UNKNOWN};
use crate::op::{with_size, Buffer, ChannelCall, ChannelOp, Count, How, Slot, THIRD};
use crate::sys::{self, Raw, PAGE};
use crate::tally::Extra;
use ivshmem::uapi;

/// Size of the status in its first version.
const STATUS: usize = 40;

/// What a channel's status says.
struct Standing {
    link: u32,
    largest: u32,
    sent: u64,
    confirmed: u64,
    received: u64,
    acknowledged: u64,
}

impl Executor<'_> {
    /// Carries out operation `number` of this thread.
    pub(super) fn channel(&self, number: u64, op: &ChannelOp) -> Raw {
        match *op {
            ChannelOp::Connect { .. } => self.connect(op),
            ChannelOp::Renew { slot, flags } => self.renew(slot, flags),
            ChannelOp::Claim { device, what } => self.claim(device, what),
            ChannelOp::Send {
                slot,
                how,
                from,
                length,
            } => self.send(slot, number, how, from, length),
            ChannelOp::Take {
                slot,
                how,
                to,
                length,
            } => self.take(slot, how, to, length),
            ChannelOp::Call { .. } => self.call(op),
            ChannelOp::Acknowledge { .. } => self.acknowledge(op),
            ChannelOp::WaitConfirmed { .. } => self.wait_confirmed(op),
        }
    }

    fn connect(&self, op: &ChannelOp) -> Raw {
        let ChannelOp::Connect {
            slot,
            second,
            argument,
            size,
            tail,
            words,
        } = *op
        else {
            unreachable!("called for this one")
        };
        self.words(&words, size, tail);
        let request = with_size(uapi::IVSHMEM_IOC_CONNECT, size);
        let fd = sys::ioctl(slot.fd(), request, self.address(argument, STRUCTURE));
        if fd < 0 {
            return fd;
        }
        if argument != Buffer::Own {
            // Nobody knows which end it is.
            return sys::close(fd as i32);
        }
        if words[0] == slot.device() || words[0] > THIRD {
            sys::close(fd as i32);
            return self.wrong("a channel to a peer that is not there");
        }
        let to = Slot::of_channel(slot.device(), words[0], second);
        self.place(fd, to.fd())
    }

    fn renew(&self, slot: Slot, flags: u32) -> Raw {
        let fd = slot.fd();
        if let Ok(standing) = self.standing(fd) {
            let patient = flags & uapi::IVSHMEM_CONNECT_EXPLICIT_ACK == 0;
            match standing.link {
                uapi::IVSHMEM_CHANNEL_WAITING | uapi::IVSHMEM_CHANNEL_UP => return 0,
                // There may be more to read, up to the end.
                uapi::IVSHMEM_CHANNEL_CLOSING if patient => return 0,
                _ => {}
            }
        }
        for slot in [slot.twin(false), slot.twin(true)] {
            sys::close(slot.fd());
        }
        let device = self.open_device(slot.device());
        if device < 0 {
            return device;
        }
        self.words(&[slot.peer(), 0, flags, 0], 16, 0);
        let made = sys::ioctl(
            device as i32,
            uapi::IVSHMEM_IOC_CONNECT,
            self.own.address(STRUCTURE),
        );
        sys::close(device as i32);
        self.place(made, fd)
    }

    fn open_device(&self, device: u32) -> Raw {
        let path = self.paths.node(device);
        sys::openat(libc::AT_FDCWD, path, libc::O_RDWR | libc::O_CLOEXEC, 0)
    }

    /// Takes what channels want, and gives it back.
    fn claim(&self, device: u32, what: u8) -> Raw {
        let fd = self.open_device(device);
        if fd < 0 {
            return fd;
        }
        let file = fd as i32;
        let output = self.facts.output_of(device);
        let result = match what {
            0 | 1 => {
                self.words(&[device, 5, what.into(), 0], 16, 0);
                sys::ioctl(
                    file,
                    uapi::IVSHMEM_IOC_SET_STATE,
                    self.own.address(STRUCTURE),
                )
            }
            2 => {
                self.own.fill(DATA, 64, 0xff);
                let offset = output.offset as i64;
                sys::pwrite(file, self.own.address(DATA), 64, offset).min(0)
            }
            _ => {
                // Each thread has a page of its own, behind those in which operations meet.
                let at = crate::sys::ARENA - PAGE * (1 + self.thread as usize % 64);
                let rights = libc::PROT_READ | libc::PROT_WRITE;
                let mapped =
                    self.arena
                        .map(at, PAGE, rights, libc::MAP_SHARED, file, output.offset);
                if mapped >= 0 {
                    self.arena.store(at + 64 * 3, 0xffff_ffff);
                    self.arena.unmap(at, PAGE);
                }
                mapped.min(0)
            }
        };
        sys::close(file);
        result
    }

    fn send(&self, slot: Slot, number: u64, how: How, from: Buffer, length: u64) -> Raw {
        let mark = Mark {
            from: slot.device(),
            to: slot.peer(),
            thread: self.thread,
            number,
        };
        if from == Buffer::Own && length <= LONGEST as u64 {
            let mut bytes = [0; LONGEST];
            let bytes = &mut bytes[..length as usize];
            message::write(mark, bytes);
            self.own.put(DATA, bytes);
        }
        self.ledger.sending(mark);
        let result = self.transfer(slot.fd(), how, from, length, true);
        if result > 0 {
            self.tally.add(Extra::Sent);
            if result as u64 != length {
                return self.wrong("a part of a message was sent");
            }
        } else if !self.ledger.refused(mark) {
            return self.wrong("a message has arrived although it was not sent");
        }
        result
    }

    fn take(&self, slot: Slot, how: How, to: Buffer, length: u64) -> Raw {
        let result = self.transfer(slot.fd(), how, to, length, false);
        let is_empty = length == 0 || how == How::Parts(0);
        if result == 0 && !is_empty {
            self.tally.add(Extra::Ended);
        }
        if result <= 0 {
            return result;
        }
        self.tally.add(Extra::Received);
        let is_known = result as u64 % 4 != UNKNOWN && !self.facts.is_peer_hostile(slot);
        if to != Buffer::Own || !is_known {
            return result;
        }
        match self.look_at(slot, result as usize) {
            Ok(()) => result,
            Err(reason) => self.wrong(reason),
        }
    }

    /// Whether the message of `length` bytes that has come from `slot` is right.
    fn look_at(&self, slot: Slot, length: usize) -> Result<(), &'static str> {
        let bytes: [u8; LONGEST] = self.own.get(DATA);
        let message = bytes.get(..length).ok_or("a message that is too long")?;
        let mark = message::read(message)?;
        // The third peer sends back what it gets.
        let is_echo = slot.peer() == THIRD;
        let (from, to) = if is_echo {
            (slot.device(), THIRD)
        } else {
            (slot.peer(), slot.device())
        };
        if let Some(mark) = mark {
            if (mark.from, mark.to) != (from, to) {
                return Err("a message for somebody else");
            }
            self.ledger.arrived(mark)?;
            let mut last = self.last.borrow_mut();
            let last = last[slot.end()]
                .get_mut(mark.thread as usize)
                .ok_or("a message of no thread")?;
            if mark.number < *last {
                return Err("a message behind one that was sent later");
            }
            *last = mark.number;
        }
        self.tally.add(if is_echo {
            Extra::Returned
        } else {
            Extra::Checked
        });
        Ok(())
    }

    /// The channel's status.
    fn standing(&self, fd: i32) -> Result<Standing, Raw> {
        let call = uapi::IVSHMEM_CHANNEL_IOC_STATUS;
        let result = sys::ioctl(fd, call, self.own.address(STRUCTURE));
        if result < 0 {
            return Err(result);
        }
        Ok(self.stored())
    }

    /// The status that a call has stored.
    fn stored(&self) -> Standing {
        let bytes: [u8; STATUS] = self.own.get(STRUCTURE);
        let half = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from_ne_bytes(self.own.get(STRUCTURE + at));
        Standing {
            link: half(0),
            largest: half(4),
            sent: long(8),
            confirmed: long(16),
            received: long(24),
            acknowledged: long(32),
        }
    }

    fn call(&self, op: &ChannelOp) -> Raw {
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
        self.words(&words, size, tail);
        let number = match call {
            ChannelCall::NextSize => call.number(),
            _ => with_size(call.number(), size),
        };
        let result = sys::ioctl(slot.fd(), number, self.address(argument, STRUCTURE));
        if result != 0 || argument != Buffer::Own {
            return result;
        }
        let largest = self.facts.largest_message();
        let is_right = match call {
            ChannelCall::EventFd => true,
            ChannelCall::NextSize => {
                u64::from(u32::from_ne_bytes(self.own.get(STRUCTURE))) <= largest
            }
            ChannelCall::Status => {
                let is = self.stored();
                let links = uapi::IVSHMEM_CHANNEL_WAITING..=uapi::IVSHMEM_CHANNEL_GONE;
                links.contains(&is.link)
                    && u64::from(is.largest) == largest
                    && is.confirmed <= is.sent
                    && is.acknowledged <= is.received
            }
        };
        if is_right {
            return result;
        }
        self.wrong("numbers that cannot be")
    }

    /// The number that `count` stands for, of messages sent or received.
    fn number(&self, slot: Slot, count: Count, of: fn(&Standing) -> u64) -> u64 {
        let now = || self.standing(slot.fd()).map_or(0, |standing| of(&standing));
        match count {
            Count::Of(number) => number,
            Count::Behind(less) => now().saturating_sub(less.into()),
            Count::Beyond(more) => now() + u64::from(more),
        }
    }

    fn acknowledge(&self, op: &ChannelOp) -> Raw {
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
        let number = self.number(slot, number, |standing| standing.received);
        let mut known = [0; 16];
        known[..8].copy_from_slice(&number.to_ne_bytes());
        known[8..12].copy_from_slice(&words[0].to_ne_bytes());
        known[12..].copy_from_slice(&words[1].to_ne_bytes());
        self.structure(&known, size, tail);
        let call = with_size(uapi::IVSHMEM_CHANNEL_IOC_ACK, size);
        sys::ioctl(slot.fd(), call, self.address(argument, STRUCTURE))
    }

    fn wait_confirmed(&self, op: &ChannelOp) -> Raw {
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
        let number = self.number(slot, number, |standing| standing.sent);
        let mut known = [0; 32];
        known[..8].copy_from_slice(&number.to_ne_bytes());
        known[8..16].copy_from_slice(&super::calls::deadline(wait).to_ne_bytes());
        known[24..28].copy_from_slice(&words[0].to_ne_bytes());
        known[28..].copy_from_slice(&words[1].to_ne_bytes());
        self.structure(&known, size, tail);
        let call = with_size(uapi::IVSHMEM_CHANNEL_IOC_WAIT, size);
        let result = sys::ioctl(slot.fd(), call, self.address(argument, STRUCTURE));
        let confirmed = u64::from_ne_bytes(self.own.get(STRUCTURE + 16));
        if result == 0 && argument == Buffer::Own && confirmed < number {
            return self.wrong("less was confirmed than was waited for");
        }
        result
    }
}
