// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels: messages to and from one peer, with confirmation.
//!
//! Made by [`Device::connect`](crate::Device::connect), or from a descriptor that another process
//! passed on.

mod status;

pub use status::{ChannelLink, ChannelStatus};

use crate::sys;
use crate::uapi;
use crate::{Deadline, Error, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

/// How to connect a channel. The default: port 0, a message counts as received when it has been
/// read, and calls wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectOptions {
    port: u32,
    flags: u32,
}

impl ConnectOptions {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Which of the channels between the two peers, the same at both ends. Drivers of version 1
    /// have port 0 only.
    #[must_use]
    pub fn port(mut self, port: u32) -> Self {
        self.port = port;
        self
    }

    /// A message that we receive counts as received when [`Channel::acknowledge`] says so, not
    /// when it has been read. Concerns what *we* receive only: the peer chooses for itself.
    #[must_use]
    pub fn explicit_ack(mut self, yes: bool) -> Self {
        self.set(uapi::IVSHMEM_CONNECT_EXPLICIT_ACK, yes);
        self
    }

    /// Sending and receiving never wait: [`Error::WouldBlock`] instead.
    #[must_use]
    pub fn nonblocking(mut self, yes: bool) -> Self {
        self.set(uapi::IVSHMEM_CONNECT_NONBLOCK, yes);
        self
    }

    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes {
            self.flags | flag
        } else {
            self.flags & !flag
        };
    }

    /// As the kernel takes it.
    pub(crate) fn request(self, peer: u32) -> uapi::ivshmem_connect {
        uapi::ivshmem_connect {
            peer,
            port: self.port,
            flags: self.flags,
            ..Default::default()
        }
    }
}

/// What a channel is ready for, as `poll` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// There is a message to receive, or the end of the session to be told of.
    pub readable: bool,
    /// The session is up, and there is room: for half of the ring, and for the message that was
    /// refused last.
    pub writable: bool,
    /// The peer has closed its end. What it sent before can still be received.
    pub peer_closed: bool,
    /// The session has ended: reset, broken, or the device is gone.
    pub ended: bool,
}

impl From<PollFlags> for Ready {
    fn from(flags: PollFlags) -> Self {
        Self {
            readable: flags.contains(PollFlags::IN),
            writable: flags.contains(PollFlags::OUT),
            peer_closed: flags.contains(PollFlags::RDHUP),
            ended: flags.intersects(PollFlags::HUP | PollFlags::ERR),
        }
    }
}

/// One end of a channel: a session with one peer.
///
/// Messages are numbered from 1 in each direction. A session ends for good when the peer restarts
/// ([`Error::Reset`]), breaks the protocol ([`Error::Broken`]), or the device goes
/// ([`Error::Gone`]); every call but [`status`](Self::status) then says so. Connect again for the
/// next session. Dropping the channel closes it: the peer receives what was sent, and then the end.
///
/// All methods take `&self` and may be called from several threads; a message goes to one of them.
/// The descriptor (`AsFd`) fits into any event loop and may be passed to another process, also an
/// unprivileged one.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// A channel from a descriptor that the kernel just made.
    pub(crate) fn owning(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Sends one message of 1 byte to [`max_message`](ChannelStatus::max_message) bytes. Waits for
    /// the peer to connect, and for room, unless the channel is nonblocking.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::Empty`]; [`Error::WouldBlock`], [`Error::Interrupted`];
    /// [`Error::Closed`], [`Error::Reset`], [`Error::Broken`], [`Error::Gone`]. After none of them
    /// any part of the message is sent.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        if message.is_empty() {
            return Err(Error::Empty);
        }
        self.sent(message.len(), rustix::io::write(&self.fd, message))
    }

    /// As [`send`](Self::send), for a message that lies in several parts.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_vectored(&self, parts: &[IoSlice<'_>]) -> Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Err(Error::Empty);
        }
        self.sent(length, rustix::io::writev(&self.fd, parts))
    }

    /// As [`send`](Self::send), but tries again after signals.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send) without [`Error::Interrupted`].
    pub fn send_fully(&self, message: &[u8]) -> Result<()> {
        loop {
            match self.send(message) {
                Err(Error::Interrupted) => {}
                other => return other,
            }
        }
    }

    fn sent(&self, length: usize, result: rustix::io::Result<usize>) -> Result<()> {
        match result {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Error::TooLarge {
                length,
                max: self.status().map_or(0, |status| status.max_message),
            }),
            Err(errno) => Err(self.error("sending a message", errno)),
        }
    }

    /// Receives one message into `buffer`, and gives its length; `None` when the peer has closed
    /// and everything that it sent was received. Waits for a message unless the channel is
    /// nonblocking.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooSmall`], and the message stays; [`Error::WouldBlock`],
    /// [`Error::Interrupted`]; [`Error::Reset`], [`Error::Broken`], [`Error::Gone`].
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        if buffer.is_empty() {
            // The kernel's answer could not be told from the end.
            return self.too_small();
        }
        self.received(rustix::io::read(&self.fd, buffer))
    }

    /// As [`receive`](Self::receive), into several buffers one after the other.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn receive_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<Option<usize>> {
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return self.too_small();
        }
        self.received(rustix::io::readv(&self.fd, buffers))
    }

    /// Receives one message into a vector of its size; `None` as [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive) without [`Error::BufferTooSmall`].
    pub fn receive_message(&self) -> Result<Option<Vec<u8>>> {
        // There may be none yet, or another thread takes it and the one after it is larger.
        let mut size = self.next_size()?.unwrap_or(0).max(SMALL);
        loop {
            let mut buffer = vec![0; size];
            match self.receive(&mut buffer) {
                Ok(Some(length)) => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Ok(None) => return Ok(None),
                Err(Error::BufferTooSmall { size: next }) => size = next.max(SMALL),
                Err(error) => return Err(error),
            }
        }
    }

    fn received(&self, result: rustix::io::Result<usize>) -> Result<Option<usize>> {
        match result {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(length)),
            Err(Errno::MSGSIZE) => self.too_small(),
            Err(errno) => Err(self.error("receiving a message", errno)),
        }
    }

    fn too_small(&self) -> Result<Option<usize>> {
        let size = self.next_size()?.unwrap_or(0);
        Err(Error::BufferTooSmall { size })
    }

    /// The length of the next message in bytes; `None` if there is none now.
    ///
    /// # Errors
    ///
    /// [`Error::Reset`], [`Error::Broken`], [`Error::Gone`].
    pub fn next_size(&self) -> Result<Option<usize>> {
        match rustix::io::ioctl_fionread(&self.fd) {
            Ok(0) => Ok(None),
            Ok(size) => Ok(usize::try_from(size).ok()),
            Err(errno) => Err(self.error("asking for the next message's size", errno)),
        }
    }

    /// Waits until the peer has confirmed all messages sent so far (fsync).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the peer has closed without confirming them; [`Error::Interrupted`],
    /// [`Error::Reset`], [`Error::Broken`], [`Error::Gone`].
    pub fn flush(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd)
            .map_err(|errno| self.error("waiting until all is confirmed", errno))
    }

    /// Waits until the peer has confirmed all messages up to `number`; how many it has confirmed
    /// then. [`Deadline::NOW`] only looks.
    ///
    /// # Errors
    ///
    /// [`Error::NotSent`]; [`Error::WouldBlock`], [`Error::TimedOut`], [`Error::Interrupted`];
    /// [`Error::Closed`] if the peer has closed without confirming them; [`Error::Reset`],
    /// [`Error::Broken`] and [`Error::Gone`] once the session has ended, whatever the number.
    pub fn wait_confirmed(&self, number: u64, deadline: Deadline) -> Result<u64> {
        let mut wait = uapi::ivshmem_channel_wait {
            number,
            deadline: deadline.as_nanos(),
            ..Default::default()
        };
        match sys::channel_wait(self.fd.as_fd(), &mut wait) {
            Ok(()) => Ok(wait.confirmed),
            Err(Errno::INVAL) => Err(Error::NotSent { number }),
            Err(errno) => Err(self.error("waiting for a confirmation", errno)),
        }
    }

    /// Tells the peer that all received messages up to `number` have been dealt with. Needs
    /// [`ConnectOptions::explicit_ack`]. A number that was acknowledged before changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotReceived`]; [`Error::Closed`], [`Error::Reset`], [`Error::Broken`],
    /// [`Error::Gone`].
    pub fn acknowledge(&self, number: u64) -> Result<()> {
        let ack = uapi::ivshmem_channel_ack {
            number,
            ..Default::default()
        };
        match sys::channel_ack(self.fd.as_fd(), ack) {
            Err(Errno::INVAL) => Err(Error::NotReceived { number }),
            other => other.map_err(|errno| self.error("acknowledging messages", errno)),
        }
    }

    /// How the channel stands. Works after the session's end too.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] for a descriptor that is none.
    pub fn status(&self) -> Result<ChannelStatus> {
        match sys::channel_status(self.fd.as_fd()) {
            Ok(status) => Ok(status.into()),
            Err(errno) => Err(Error::NotAChannel(errno)),
        }
    }

    /// Has the kernel add to `eventfd` whenever messages are confirmed, and when no more will be: the
    /// peer has closed its end, or the session has ended. `None` takes the present one off.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] if it is not an eventfd; [`Error::Gone`].
    pub fn set_eventfd(&self, eventfd: Option<BorrowedFd<'_>>) -> Result<()> {
        sys::channel_eventfd(self.fd.as_fd(), eventfd)
            .map_err(|errno| self.error("attaching an eventfd", errno))
    }

    /// Whether sending and receiving never wait. Belongs to the open file: processes that share it
    /// share this.
    ///
    /// # Errors
    ///
    /// [`Error::Call`], which the kernel has no reason for.
    pub fn set_nonblocking(&self, yes: bool) -> Result<()> {
        let failed = |errno| Error::from_call("changing O_NONBLOCK", errno);
        let mut flags = rustix::fs::fcntl_getfl(&self.fd).map_err(failed)?;
        flags.set(OFlags::NONBLOCK, yes);
        rustix::fs::fcntl_setfl(&self.fd, flags).map_err(failed)
    }

    /// What the channel is ready for now.
    ///
    /// # Errors
    ///
    /// As [`wait_ready`](Self::wait_ready).
    pub fn ready(&self) -> Result<Ready> {
        self.poll(PollFlags::IN | PollFlags::OUT, Deadline::NOW)
            .map(Ready::from)
    }

    /// Waits until there is something to receive.
    ///
    /// # Errors
    ///
    /// As [`wait_ready`](Self::wait_ready).
    pub fn wait_readable(&self, deadline: Deadline) -> Result<Ready> {
        self.wait_ready(PollFlags::IN, deadline)
    }

    /// Waits until the session is up and there is room to send.
    ///
    /// # Errors
    ///
    /// As [`wait_ready`](Self::wait_ready).
    pub fn wait_writable(&self, deadline: Deadline) -> Result<Ready> {
        self.wait_ready(PollFlags::OUT, deadline)
    }

    /// Waits for `interest` or for an end: of the session, or of what the peer sends.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] ([`Error::WouldBlock`] with [`Deadline::NOW`]), [`Error::Interrupted`].
    fn wait_ready(&self, interest: PollFlags, deadline: Deadline) -> Result<Ready> {
        let flags = self.poll(interest, deadline)?;
        if !flags.is_empty() {
            return Ok(flags.into());
        }
        Err(if deadline == Deadline::NOW {
            Error::WouldBlock
        } else {
            Error::TimedOut
        })
    }

    fn poll(&self, interest: PollFlags, deadline: Deadline) -> Result<PollFlags> {
        let mut fds = [PollFd::new(&self.fd, interest | PollFlags::RDHUP)];
        let timeout = deadline.time_left().map(timespec);
        poll(&mut fds, timeout.as_ref()).map_err(|errno| Error::from_call("poll", errno))?;
        Ok(fds[0].revents())
    }

    /// Gives what the kernel says about a session its name, with what was confirmed.
    fn error(&self, what: &'static str, errno: Errno) -> Error {
        let numbers = || {
            let status = self.status();
            status.map_or((0, 0), |status| (status.sent, status.confirmed))
        };
        match errno {
            Errno::CONNRESET => {
                let (sent, confirmed) = numbers();
                Error::Reset { sent, confirmed }
            }
            Errno::PROTO => {
                let (sent, confirmed) = numbers();
                Error::Broken { sent, confirmed }
            }
            Errno::PIPE => Error::Closed,
            // Not for the reasons that a device has.
            Errno::BADF => Error::Call { what, errno },
            _ => Error::from_call(what, errno),
        }
    }
}

/// A buffer for messages of unknown size begins with this many bytes.
const SMALL: usize = 4096;

fn timespec(duration: Duration) -> Timespec {
    // What does not fit is later than any deadline.
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    })
}

impl TryFrom<OwnedFd> for Channel {
    type Error = Error;

    /// A channel from a descriptor, such as one that another process has passed on.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`]. The descriptor is closed then.
    fn try_from(fd: OwnedFd) -> Result<Self> {
        let channel = Self { fd };
        channel.status()?;
        Ok(channel)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.fd
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_back() {
        let request = ConnectOptions::new().request(3);
        assert_eq!((request.peer, request.port, request.flags), (3, 0, 0));
        let options = ConnectOptions::new().port(7).explicit_ack(true);
        let request = options.nonblocking(true).request(1);
        let both = uapi::IVSHMEM_CONNECT_EXPLICIT_ACK | uapi::IVSHMEM_CONNECT_NONBLOCK;
        assert_eq!((request.port, request.flags), (7, both));
        let request = options.explicit_ack(false).request(1);
        assert_eq!((request.flags, request.reserved), (0, 0));
    }

    #[test]
    fn poll_bits_have_names() {
        assert_eq!(Ready::from(PollFlags::empty()), Ready::default());
        let ready = Ready::from(PollFlags::IN | PollFlags::RDHUP);
        assert!(ready.readable && ready.peer_closed && !ready.writable && !ready.ended);
        assert!(Ready::from(PollFlags::ERR).ended && Ready::from(PollFlags::HUP).ended);
    }

    #[test]
    fn another_descriptor_is_not_a_channel() {
        let fd = rustix::fs::memfd_create("no channel", rustix::fs::MemfdFlags::CLOEXEC);
        let error = Channel::try_from(fd.expect("memfd")).expect_err("a plain file");
        assert!(matches!(error, Error::NotAChannel(_)), "{error:?}");
        assert!(error.to_string().contains("not an ivshmem channel"));
    }

    #[test]
    fn errors_of_a_session_have_names() {
        let fd = rustix::fs::memfd_create("no channel", rustix::fs::MemfdFlags::CLOEXEC);
        let channel = Channel::owning(fd.expect("memfd"));
        let named = |errno| channel.error("sending a message", errno);
        let (sent, confirmed) = (0, 0);
        assert_eq!(named(Errno::CONNRESET), Error::Reset { sent, confirmed });
        assert_eq!(named(Errno::PROTO), Error::Broken { sent, confirmed });
        assert_eq!(named(Errno::PIPE), Error::Closed);
        assert_eq!(named(Errno::NODEV), Error::Gone);
        assert_eq!(named(Errno::AGAIN), Error::WouldBlock);
        assert_eq!(named(Errno::FAULT).errno(), Some(Errno::FAULT));
        assert_eq!(channel.send(b""), Err(Error::Empty));
        assert_eq!(
            channel.send_vectored(&[IoSlice::new(b"")]),
            Err(Error::Empty)
        );
    }
}
