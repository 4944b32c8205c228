// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring: requests to the kernel through a ring, for the suite `nowait`.

use super::{Map, Outcome};
use io_uring::{opcode, squeue, types, IoUring};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// A ring. What it can be asked for uses memory that stays for ever, so it may be dropped with requests
/// under way.
pub(crate) struct Ring(IoUring);

/// A request that has ended: its number, and what it ended with.
pub(crate) type Ended = (u64, Outcome);

impl Ring {
    pub(crate) fn new() -> Self {
        Self(IoUring::new(64).expect("io_uring_setup"))
    }

    /// Submits a read of all of `buffer` from `offset` on, as request `number`. Does not wait.
    pub(crate) fn read(&mut self, fd: impl AsFd, buffer: &'static Map, offset: u64, number: u64) {
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let request = opcode::Read::new(fd, buffer.base, buffer.length as u32);
        self.submit(request.offset(offset).build().user_data(number));
    }

    /// Submits a write of all of `buffer` from `offset` on, as request `number`. Does not wait.
    pub(crate) fn write(&mut self, fd: impl AsFd, buffer: &'static Map, offset: u64, number: u64) {
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let request = opcode::Write::new(fd, buffer.base, buffer.length as u32);
        self.submit(request.offset(offset).build().user_data(number));
    }

    /// Submits a poll for `events` (EPOLL*), as request `number`. With `many` it stays after an event.
    pub(crate) fn poll(&mut self, fd: impl AsFd, events: i32, many: bool, number: u64) {
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let request = opcode::PollAdd::new(fd, events as u32).multi(many);
        self.submit(request.build().user_data(number));
    }

    fn submit(&mut self, request: squeue::Entry) {
        // SAFETY: every request made here uses memory that is never given back.
        unsafe { self.0.submission().push(&request) }.expect("room in the ring");
        assert_eq!(self.0.submit().expect("io_uring_enter"), 1);
    }

    /// Requests that have ended by now.
    pub(crate) fn ended(&mut self) -> Vec<Ended> {
        let ended = self.0.completion().map(|end| {
            let result = end.result();
            let outcome = match usize::try_from(result) {
                Ok(done) => Ok(done),
                Err(_) => Err(Errno::from_raw_os_error(-result)),
            };
            (end.user_data(), outcome)
        });
        ended.collect()
    }

    /// Waits until at least one request has ended.
    pub(crate) fn wait(&mut self) -> Vec<Ended> {
        loop {
            let ended = self.ended();
            if !ended.is_empty() {
                return ended;
            }
            self.0.submit_and_wait(1).expect("io_uring_enter");
        }
    }
}
