// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be done with any file: status, splicing, passing to others, /proc, sysfs.

use super::{Executor, DATA, SMALL, WRONG_RESULT};
use crate::op::{Op, Slot, FIRST_EVENTFD, PIPE, PLAIN, SOCKET};
use crate::sys::{self, Address, Raw};
use std::ffi::CStr;

/// Descriptor in a control message: its header has 16 bytes.
const CONTROL: usize = 24;

impl Executor<'_> {
    /// Operations that are not of this device only.
    pub(super) fn file(&self, op: &Op) -> Raw {
        match *op {
            Op::EventFd { index, what } => self.event_fd(FIRST_EVENTFD + i32::from(index), what),
            Op::Fcntl {
                slot,
                command,
                argument,
            } => sys::fcntl(slot.fd(), command, argument),
            Op::Sync { slot, what } => match what {
                0 => sys::fsync(slot.fd()),
                1 => sys::fdatasync(slot.fd()),
                _ => sys::syncfs(slot.fd()),
            },
            Op::Splice {
                slot,
                out,
                offset,
                length,
                flags,
            } => {
                let offset = self.offset(offset);
                let none = Address::NOWHERE[0];
                if out {
                    sys::splice(slot.fd(), offset, PIPE + 1, none, length.into(), flags)
                } else {
                    sys::splice(PIPE, none, slot.fd(), offset, length.into(), flags)
                }
            }
            Op::SendFile {
                slot,
                out,
                offset,
                length,
            } => {
                let offset = self.offset(offset);
                if out {
                    sys::sendfile(PLAIN, slot.fd(), offset, length.into())
                } else {
                    sys::sendfile(slot.fd(), PLAIN, offset, length.into())
                }
            }
            Op::Stat { slot } => sys::fstat(slot.fd(), self.own.address(DATA)),
            Op::NoFile {
                slot,
                what,
                offset,
                length,
            } => self.no_file(slot.fd(), what, offset, length),
            Op::Pass { slot, process } => self.pass(slot, process),
            Op::Receive => self.receive(),
            Op::Fork { slot, at } => sys::fork(|| {
                for at in at {
                    self.arena.load(at as usize);
                    self.arena.store(at as usize, at);
                }
                sys::pread(slot.fd(), self.own.address(DATA), 64, i64::from(at[0]));
                sys::lseek(slot.fd(), 0, libc::SEEK_SET);
            }),
            Op::FdInfo { slot } => self.look(self.paths.fdinfo(slot)),
            Op::SysRead { path } => self.look(self.paths.system(path)),
            Op::SysWrite { path, garbage } => {
                let fd = sys::openat(
                    libc::AT_FDCWD,
                    self.paths.system(path),
                    libc::O_WRONLY | libc::O_CLOEXEC,
                    0,
                );
                if fd < 0 {
                    return fd;
                }
                self.own.put(SMALL, &garbage.to_ne_bytes());
                let result = sys::write(fd as i32, self.own.address(SMALL), 8);
                sys::close(fd as i32);
                result
            }
            _ => WRONG_RESULT,
        }
    }

    fn offset(&self, offset: Option<i64>) -> Address {
        match offset {
            Some(offset) => {
                self.own.put(SMALL, &offset.to_ne_bytes());
                self.own.address(SMALL)
            }
            None => Address::NOWHERE[0],
        }
    }

    fn event_fd(&self, fd: i32, what: u8) -> Raw {
        match what {
            // A new one: what was attached counts on, unheard.
            0 => {
                let flags = libc::EFD_NONBLOCK | libc::EFD_CLOEXEC;
                self.place(sys::eventfd2(0, flags), fd)
            }
            1 => {
                self.own.put(SMALL, &(u64::MAX - 2).to_ne_bytes());
                sys::write(fd, self.own.address(SMALL), 8)
            }
            _ => sys::read(fd, self.own.address(SMALL), 8),
        }
    }

    fn no_file(&self, fd: i32, what: u8, offset: i64, length: i64) -> Raw {
        match what {
            0 => sys::ftruncate(fd, length),
            1 => sys::fallocate(fd, offset as i32 & 0x7f, offset, length),
            2 => sys::fadvise(fd, offset, length, offset as i32 & 7),
            3 => sys::readahead(fd, offset, length as u64),
            4 => sys::flock(
                fd,
                libc::LOCK_NB
                    | if length % 2 == 0 {
                        libc::LOCK_EX
                    } else {
                        libc::LOCK_UN
                    },
            ),
            5 => sys::getdents64(fd, self.own.address(DATA), 1024),
            _ => sys::copy_file_range(fd, 0, PLAIN, 0, length as u64, 0),
        }
    }

    /// A message header whose data is one byte, with room for one descriptor.
    fn message(&self, name_length: u32) -> Address {
        let [iovec, byte, control, header] = [64, 96, 128, 192].map(|at| SMALL + at);
        let address = |at: usize| self.own.address(at).bits();
        self.own.put(iovec, &address(byte).to_ne_bytes());
        self.own.put(iovec + 8, &1u64.to_ne_bytes());
        self.own.fill(header, 56, 0);
        if name_length > 0 {
            self.own.put(header, &address(SMALL).to_ne_bytes());
            self.own.put(header + 8, &name_length.to_ne_bytes());
        }
        self.own.put(header + 16, &address(iovec).to_ne_bytes());
        self.own.put(header + 24, &1u64.to_ne_bytes());
        self.own.put(header + 32, &address(control).to_ne_bytes());
        self.own.put(header + 40, &(CONTROL as u64).to_ne_bytes());
        self.own.address(header)
    }

    /// Sends the file in `slot` to a process of this run.
    fn pass(&self, slot: Slot, process: u8) -> Raw {
        let name = socket_name(process.into());
        self.own.put(SMALL, &name);
        self.own.put(SMALL + 96, &[slot.0]);
        let control = SMALL + 128;
        self.own.put(control, &20u64.to_ne_bytes());
        self.own.put(control + 8, &libc::SOL_SOCKET.to_ne_bytes());
        self.own.put(control + 12, &libc::SCM_RIGHTS.to_ne_bytes());
        self.own.put(control + 16, &slot.fd().to_ne_bytes());
        let message = self.message(name.len() as u32);
        sys::sendmsg(SOCKET, message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }

    /// Takes a file that was sent to us to its slot.
    fn receive(&self) -> Raw {
        self.own.put(SMALL + 128, &[0; CONTROL]);
        let message = self.message(0);
        let result = sys::recvmsg(SOCKET, message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        if result < 0 {
            return result;
        }
        let [slot] = self.own.get(SMALL + 96);
        let fd = i32::from_ne_bytes(self.own.get(SMALL + 128 + 16));
        // No descriptor was free, or the message came without.
        if u64::from_ne_bytes(self.own.get(SMALL + 128)) < 20 {
            return 0;
        }
        self.place(fd.into(), Slot(slot).fd())
    }

    /// Reads a small file.
    fn look(&self, path: &CStr) -> Raw {
        let fd = sys::openat(
            libc::AT_FDCWD,
            path,
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK,
            0,
        );
        if fd < 0 {
            return fd;
        }
        let result = sys::read(fd as i32, self.own.address(DATA), 4096);
        sys::close(fd as i32);
        result
    }
}

/// The address of the socket of a process: one that no file system has.
pub(crate) fn socket_name(process: usize) -> [u8; 16] {
    let mut name = *b"\0\0\0ivshmem-fuzz0";
    name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
    name[15] += process as u8;
    name
}
