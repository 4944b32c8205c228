// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open device file.

use crate::sys::{self, Memory};
use crate::uapi;
use crate::{
    Channel, ConnectOptions, Deadline, Error, EventBuffer, Events, Info, Mapping, MappingMut,
    Result, Section, Subject,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// How to open a device. Made by [`Device::options`].
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    read_only: bool,
    nonblocking: bool,
}

impl OpenOptions {
    /// Only look: no doorbells, no state, no writing, read-only mappings.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Never wait: [`Device::events`] gives [`Error::WouldBlock`] whatever the deadline is.
    #[must_use]
    pub fn nonblocking(mut self, yes: bool) -> Self {
        self.nonblocking = yes;
        self
    }

    /// Opens the device file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], and [`Error::NotADevice`] if it is another kind of file.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Device> {
        let path = path.as_ref();
        let mut flags = OFlags::CLOEXEC;
        flags |= if self.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        flags.set(OFlags::NONBLOCK, self.nonblocking);
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Open {
            path: path.into(),
            errno,
        })?;
        match sys::info(fd.as_fd()) {
            Ok(info) => Ok(Device {
                fd,
                info: info.into(),
            }),
            Err(Errno::NODEV) => Err(Error::Gone),
            Err(errno) => Err(Error::NotADevice {
                path: path.into(),
                errno,
            }),
        }
    }
}

/// Flags of [`Device::set_state`]. The default: the state must be free or ours, and returns to 0
/// when the file is closed, also by death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateFlags {
    bits: u32,
}

impl StateFlags {
    /// Own the state even if another open file does. That one gets [`Error::StateOwned`] then.
    #[must_use]
    pub fn take_over(mut self) -> Self {
        self.bits |= uapi::IVSHMEM_STATE_TAKE_OVER;
        self
    }

    /// Leave the value in place when the file is closed.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.bits |= uapi::IVSHMEM_STATE_KEEP;
        self
    }
}

/// An open device file, `/dev/ivshmemN`.
///
/// Each open file has its own record of the events it has seen; several never take any from each
/// other. All methods take `&self` and may be called from several threads.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
    info: Info,
}

impl Device {
    /// Opens the device file at `path` for reading and writing.
    ///
    /// # Errors
    ///
    /// See [`OpenOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Other ways to open a device.
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }

    /// What the device is. Constant, so asked for only once.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The state of `peer`, from the state table; 0 = absent.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPeer`], [`Error::Gone`].
    pub fn state(&self, peer: u32) -> Result<u32> {
        let mut state = uapi::ivshmem_state {
            peer,
            ..Default::default()
        };
        match sys::get_state(self.fd.as_fd(), &mut state) {
            Ok(()) => Ok(state.value),
            Err(Errno::NXIO) => Err(self.no_such_peer(peer)),
            Err(errno) => Err(Error::from_call("reading a state", errno)),
        }
    }

    /// Publishes `value` as this peer's state. If that changes it, every other peer is
    /// interrupted on its vector 0.
    ///
    /// # Errors
    ///
    /// [`Error::StateOwned`], [`Error::ReadOnly`], [`Error::Gone`].
    pub fn set_state(&self, value: u32, flags: StateFlags) -> Result<()> {
        let state = uapi::ivshmem_state {
            peer: self.info.id,
            value,
            flags: flags.bits,
            ..Default::default()
        };
        match sys::set_state(self.fd.as_fd(), state) {
            Err(Errno::BUSY) => Err(Error::StateOwned),
            other => other.map_err(|errno| Error::from_call("publishing a state", errno)),
        }
    }

    /// Rings the doorbell of `peer` on `vector`. What this program wrote to the region before is
    /// visible to the peer when the interrupt arrives. Nothing tells whether the peer is there.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPeer`], [`Error::NoSuchVector`], [`Error::ReadOnly`], [`Error::Gone`].
    pub fn ring(&self, peer: u32, vector: u32) -> Result<()> {
        let doorbell = uapi::ivshmem_doorbell {
            peer,
            vector,
            ..Default::default()
        };
        match sys::doorbell(self.fd.as_fd(), doorbell) {
            Err(Errno::NXIO) if peer >= self.info.max_peers => Err(self.no_such_peer(peer)),
            Err(Errno::NXIO) => Err(Error::NoSuchVector {
                vector,
                vectors: self.info.vectors,
            }),
            other => other.map_err(|errno| Error::from_call("ringing a peer", errno)),
        }
    }

    /// Fetches the events that this file has not seen, at least one; waits for one until
    /// `deadline` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::WouldBlock`], [`Error::TimedOut`], [`Error::Interrupted`], [`Error::Gone`].
    pub fn events<'b>(
        &self,
        buffer: &'b mut EventBuffer,
        deadline: Deadline,
    ) -> Result<Events<'b>> {
        let count = sys::events(self.fd.as_fd(), &mut buffer.records, deadline.as_nanos())
            .map_err(|errno| Error::from_call("fetching events", errno))?;
        Ok(Events {
            records: buffer.records[..count].iter(),
        })
    }

    /// Begins (`wanted`) or ends the reporting of events to this file. A newly opened file is told
    /// of everything. What happened while it was not subscribed is not reported later.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVector`], [`Error::NoSuchPeer`], [`Error::Gone`].
    pub fn subscribe(&self, subject: Subject, wanted: bool) -> Result<()> {
        let (kind, index) = subject.numbers();
        let request = uapi::ivshmem_subscribe {
            kind,
            index,
            flags: if wanted {
                0
            } else {
                uapi::IVSHMEM_SUBSCRIBE_OFF
            },
            ..Default::default()
        };
        sys::subscribe(self.fd.as_fd(), request)
            .map_err(|errno| self.subject_error("subscribing", subject, errno))
    }

    /// Has the kernel add 1 to `eventfd` at each interrupt or each change of a state; `None` takes
    /// the present one off. A file has at most one for each subject, whatever it is subscribed to,
    /// and they go with it. When the device goes, each is counted up a last time. One for vectors is
    /// counted up also when interrupts [may have been lost](crate::Event::may_have_lost).
    ///
    /// Changes of states can be had for [`Subject::AllPeers`] only.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVector`], [`Error::NoSuchPeer`] (also for any single peer), [`Error::Gone`];
    /// [`Error::Call`] if it is not an eventfd, or if the device has 1024 already, of all files together
    /// (`ENOSPC`).
    pub fn attach_eventfd(&self, subject: Subject, eventfd: Option<BorrowedFd<'_>>) -> Result<()> {
        let (kind, index) = subject.numbers();
        sys::eventfd(self.fd.as_fd(), kind, index, eventfd)
            .map_err(|errno| self.subject_error("attaching an eventfd", subject, errno))
    }

    /// Opens a channel to `peer`: messages that arrive once, whole and in order, with
    /// confirmation. Does not wait for the peer: the channel is [writable](crate::Ready::writable)
    /// once the peer has connected too.
    ///
    /// While a channel of the device is open the driver owns this peer's state and output section.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchChannel`], [`Error::NoRoomForChannels`], [`Error::Busy`],
    /// [`Error::ReadOnly`], [`Error::Gone`].
    pub fn connect(&self, peer: u32, options: ConnectOptions) -> Result<Channel> {
        let request = options.request(peer);
        match sys::connect(self.fd.as_fd(), request) {
            Ok(fd) => Ok(Channel::owning(fd)),
            Err(Errno::NXIO) => Err(Error::NoSuchChannel {
                peer,
                port: request.port,
                id: self.info.id,
                max_peers: self.info.max_peers,
            }),
            Err(Errno::BUSY) => Err(Error::Busy {
                peer,
                port: request.port,
            }),
            Err(Errno::OPNOTSUPP) => Err(Error::NoRoomForChannels),
            Err(errno) => Err(Error::from_call("connecting a channel", errno)),
        }
    }

    /// Copies from the region at `offset` into `bytes`. Returns how many bytes there were: less
    /// than asked for near the end of the region, 0 behind it. An aligned transfer of 4 or 8
    /// bytes is a single access to the memory.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        rustix::io::pread(&self.fd, bytes, offset)
            .map_err(|errno| Error::from_call("reading the region", errno))
    }

    /// Copies `bytes` into the region at `offset`. Returns how many bytes were written: less
    /// than given where the part that this peer may write ends. Rings nobody.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`] and [`Error::OutsideRegion`] if the first byte is there;
    /// [`Error::ChannelsOpen`], [`Error::ReadOnly`], [`Error::Gone`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        match rustix::io::pwrite(&self.fd, bytes, offset) {
            Err(Errno::ACCESS) => Err(Error::NotWritable { offset }),
            Err(Errno::NOSPC) => Err(self.outside(offset, bytes.len() as u64)),
            Err(Errno::BUSY) => Err(Error::ChannelsOpen {
                what: "writing the region",
            }),
            other => other.map_err(|errno| Error::from_call("writing the region", errno)),
        }
    }

    /// Reads the word at `offset`, a multiple of 4, by a single access.
    ///
    /// # Errors
    ///
    /// [`Error::OutsideRegion`], [`Error::Gone`].
    pub fn read_word(&self, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        match self.read_at(&mut bytes, offset)? {
            4 => Ok(u32::from_ne_bytes(bytes)),
            _ => Err(self.outside(offset, 4)),
        }
    }

    /// Writes the word at `offset`, a multiple of 4, by a single access.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    pub fn write_word(&self, offset: u64, value: u32) -> Result<()> {
        match self.write_at(&value.to_ne_bytes(), offset)? {
            4 => Ok(()),
            _ => Err(self.outside(offset, 4)),
        }
    }

    /// Maps a section (or neighbouring ones) for reading.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if it is empty or not [mappable](Section::is_mappable); [`Error::Gone`].
    pub fn map(&self, section: Section) -> Result<Mapping> {
        self.memory(section, false).map(Mapping)
    }

    /// Maps a section for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] if it is empty, not [mappable](Section::is_mappable), not
    /// [writable](Section::is_writable), or if the device was opened read-only;
    /// [`Error::ChannelsOpen`], [`Error::Gone`].
    pub fn map_mut(&self, section: Section) -> Result<MappingMut> {
        self.memory(section, true).map(Mapping).map(MappingMut)
    }

    fn memory(&self, section: Section, writable: bool) -> Result<Memory> {
        let map_error = |errno| match errno {
            Errno::NODEV => Error::Gone,
            Errno::BUSY => Error::ChannelsOpen {
                what: "a writable mapping",
            },
            _ => Error::Map {
                offset: section.offset,
                length: section.size,
                writable,
                errno,
            },
        };
        let length = usize::try_from(section.size).map_err(|_| map_error(Errno::NOMEM))?;
        Memory::map(self.fd.as_fd(), section.offset, length, writable).map_err(map_error)
    }

    fn no_such_peer(&self, peer: u32) -> Error {
        Error::NoSuchPeer {
            peer,
            max_peers: self.info.max_peers,
        }
    }

    fn subject_error(&self, what: &'static str, subject: Subject, errno: Errno) -> Error {
        match (errno, subject) {
            (Errno::NXIO, Subject::Vector(vector)) => Error::NoSuchVector {
                vector,
                vectors: self.info.vectors_enabled,
            },
            (Errno::NXIO, Subject::Peer(peer)) => self.no_such_peer(peer),
            _ => Error::from_call(what, errno),
        }
    }

    fn outside(&self, offset: u64, length: u64) -> Error {
        Error::OutsideRegion {
            offset,
            length,
            region_size: self.info.region_size,
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
