// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operation is: all that it depends on, and nothing of what happens to be there when it runs.

mod channel;

pub(crate) use channel::{ChannelCall, ChannelOp, Count, THIRD};

use crate::kinds::Kind;
use ivshmem::uapi;

/// Number of slots for files of the devices.
pub(crate) const SLOTS: u8 = 16;
/// Number of slots for channels, which come behind those: two for each end.
pub(crate) const CHANNELS: u8 = 8;
/// Number of slots for eventfds.
pub(crate) const EVENTFDS: u8 = 4;
/// Number of slots for epoll files.
pub(crate) const EPOLLS: u8 = 2;
/// Descriptor of the first slot. The numbers below are for what is open for a moment only.
const FIRST_FD: i32 = 100;
/// Descriptor of the first eventfd.
pub(crate) const FIRST_EVENTFD: i32 = 120;
/// Descriptor of the first epoll file.
pub(crate) const FIRST_EPOLL: i32 = 130;
/// The reading end of a pipe; the writing end follows.
pub(crate) const PIPE: i32 = 140;
/// The socket that takes files of other processes.
pub(crate) const SOCKET: i32 = 142;
/// An ordinary file.
pub(crate) const PLAIN: i32 = 143;
/// Descriptor of the first channel.
const FIRST_CHANNEL: i32 = 150;
/// A number that is never open.
pub(crate) const CLOSED: i32 = 199;

/// Whether `fd` is a number that a descriptor has for a moment until it is where it belongs: whose it is then,
/// another thread decides.
pub(crate) fn is_passing(fd: i32) -> bool {
    (0..FIRST_FD).contains(&fd)
}

/// How files of a slot are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For reading and writing.
    Both,
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
    /// The fourth access mode, which allows ioctls only.
    Neither,
}

/// A place for open files of one device and one mode, or for descriptors of one end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u8);

impl Slot {
    /// The N of `/dev/ivshmemN`.
    pub(crate) fn device(self) -> u32 {
        u32::from(self.0 & 1)
    }

    pub(crate) fn mode(self) -> Mode {
        match self.0 >> 1 {
            _ if self.is_channel() => Mode::Both,
            0..=4 => Mode::Both,
            5 => Mode::Read,
            6 => Mode::Write,
            _ => Mode::Neither,
        }
    }

    pub(crate) fn is_readable(self) -> bool {
        matches!(self.mode(), Mode::Both | Mode::Read)
    }

    pub(crate) fn is_writable(self) -> bool {
        matches!(self.mode(), Mode::Both | Mode::Write)
    }

    /// Its descriptor, if it is open.
    pub(crate) fn fd(self) -> i32 {
        if self.is_channel() {
            FIRST_CHANNEL + i32::from(self.0 - SLOTS)
        } else {
            FIRST_FD + i32::from(self.0)
        }
    }
}

/// Memory that an operation hands to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// The thread's own memory, always there.
    Own,
    /// The process's memory in which the other operations map and unmap, from this byte on.
    Arena(u32),
    /// No memory at all.
    Nowhere(u8),
}

/// Pages of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) first: u16,
    pub(crate) count: u16,
}

/// How a transfer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// read, write: at the file's position.
    Plain,
    /// pread, pwrite.
    At(i64),
    /// readv, writev with the buffer in so many parts.
    Parts(u8),
    /// preadv2, pwritev2 with that offset and these flags.
    Flags(i64, i32),
}

/// Until when a wait goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    Now,
    /// For so many microseconds.
    Micros(u32),
    /// Without limit.
    Never,
    /// A time of its own: long past, or so far ahead that it never comes.
    At(u64),
}

/// A known ioctl but *events*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Info,
    GetState,
    SetState,
    Doorbell,
    Subscribe,
    EventFd,
}

impl Call {
    /// Its number in the header.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Info => uapi::IVSHMEM_IOC_INFO,
            Self::GetState => uapi::IVSHMEM_IOC_GET_STATE,
            Self::SetState => uapi::IVSHMEM_IOC_SET_STATE,
            Self::Doorbell => uapi::IVSHMEM_IOC_DOORBELL,
            Self::Subscribe => uapi::IVSHMEM_IOC_SUBSCRIBE,
            Self::EventFd => uapi::IVSHMEM_IOC_EVENTFD,
        }
    }

    /// The number for a structure of `size` bytes.
    pub(crate) fn with_size(self, size: u16) -> u32 {
        with_size(self.number(), size)
    }

    /// Size of its structure.
    pub(crate) fn size(self) -> u16 {
        size_of(self.number())
    }

    /// Whether it wants a file open for writing.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Self::SetState | Self::Doorbell)
    }

    /// Whether the kernel looks at what is behind the known part of a larger structure.
    pub(crate) fn reads(self) -> bool {
        self != Self::Info
    }
}

/// Size of the structure that an ioctl's number tells.
pub(crate) fn size_of(number: u32) -> u16 {
    ((number >> 16) & 0x3fff) as u16
}

/// An ioctl's number for another size of its structure.
pub(crate) fn with_size(number: u32, size: u16) -> u32 {
    (number & !(0x3fff << 16)) | (u32::from(size) << 16)
}

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Open {
        slot: Slot,
        flags: i32,
    },
    Close {
        slot: Slot,
    },
    /// To another slot of the same device and mode.
    Dup {
        from: Slot,
        to: Slot,
    },
    Read {
        slot: Slot,
        how: How,
        to: Buffer,
        length: u64,
    },
    Write {
        slot: Slot,
        how: How,
        from: Buffer,
        length: u64,
    },
    Seek {
        slot: Slot,
        offset: i64,
        whence: i32,
    },
    Map {
        slot: Slot,
        at: Pages,
        offset: u64,
        rights: i32,
        flags: i32,
    },
    /// A mapping that the kernel would have to place: too large for any section.
    MapHuge {
        slot: Slot,
        length: u64,
        offset: u64,
    },
    /// Ordinary memory.
    MapPlain {
        at: Pages,
    },
    Unmap {
        at: Pages,
    },
    Protect {
        at: Pages,
        rights: i32,
    },
    Remap {
        from: Pages,
        to: Pages,
    },
    Advise {
        at: Pages,
        advice: i32,
    },
    SyncMap {
        at: Pages,
        flags: i32,
    },
    Load {
        at: u32,
    },
    Store {
        at: u32,
        value: u32,
    },
    Poll {
        slot: Slot,
        other: Slot,
        events: i16,
        wait: Wait,
    },
    Select {
        slot: Slot,
        other: Slot,
        wait: Wait,
    },
    EpollCtl {
        epoll: u8,
        change: i32,
        fd: i32,
        events: u32,
    },
    EpollWait {
        epoll: u8,
        wait: Wait,
        room: i32,
    },
    Ioctl {
        slot: Slot,
        call: Call,
        argument: Buffer,
        size: u16,
        tail: u8,
        words: [u32; 4],
    },
    Events {
        slot: Slot,
        argument: Buffer,
        size: u16,
        tail: u8,
        records: Buffer,
        capacity: u32,
        record_size: u32,
        flags: u32,
        wait: Wait,
    },
    OtherIoctl {
        slot: Slot,
        number: u32,
        argument: Buffer,
    },
    /// Adds to an eventfd, reads it, or makes it anew.
    EventFd {
        index: u8,
        what: u8,
    },
    Channel(ChannelOp),
    Fcntl {
        slot: Slot,
        command: i32,
        argument: i32,
    },
    Sync {
        slot: Slot,
        what: u8,
    },
    Splice {
        slot: Slot,
        out: bool,
        offset: Option<i64>,
        length: u32,
        flags: u32,
    },
    SendFile {
        slot: Slot,
        out: bool,
        offset: Option<i64>,
        length: u32,
    },
    Stat {
        slot: Slot,
    },
    /// What only other kinds of files can do.
    NoFile {
        slot: Slot,
        what: u8,
        offset: i64,
        length: i64,
    },
    Pass {
        slot: Slot,
        process: u8,
    },
    Receive,
    Fork {
        slot: Slot,
        at: [u32; 4],
    },
    FdInfo {
        slot: Slot,
    },
    SysRead {
        path: u16,
    },
    SysWrite {
        path: u16,
        garbage: u64,
    },
}

impl Op {
    /// What it is counted as.
    pub(crate) fn kind(&self) -> Kind {
        if self.slot().is_some_and(Slot::is_channel) {
            return self.kind_on_channel();
        }
        match self {
            Self::Open { .. } => Kind::Open,
            Self::Close { .. } => Kind::Close,
            Self::Dup { .. } => Kind::Dup,
            Self::Read { .. } => Kind::Read,
            Self::Write { .. } => Kind::Write,
            Self::Seek { .. } => Kind::Seek,
            Self::Map { .. } | Self::MapHuge { .. } | Self::MapPlain { .. } => Kind::Map,
            Self::Unmap { .. } => Kind::Unmap,
            Self::Protect { .. } => Kind::Protect,
            Self::Remap { .. } => Kind::Remap,
            Self::Advise { .. } => Kind::Advise,
            Self::SyncMap { .. } => Kind::SyncMap,
            Self::Load { .. } => Kind::Load,
            Self::Store { .. } => Kind::Store,
            Self::Poll { .. } => Kind::Poll,
            Self::Select { .. } => Kind::Select,
            Self::EpollCtl { .. } => Kind::EpollCtl,
            Self::EpollWait { .. } => Kind::EpollWait,
            Self::Ioctl { call, .. } => match call {
                Call::Info => Kind::Info,
                Call::GetState => Kind::GetState,
                Call::SetState => Kind::SetState,
                Call::Doorbell => Kind::Doorbell,
                Call::Subscribe => Kind::Subscribe,
                Call::EventFd => Kind::Attach,
            },
            Self::Events { .. } => Kind::Events,
            Self::Channel(op) => op.kind(),
            Self::OtherIoctl { .. } => Kind::OtherIoctl,
            Self::EventFd { .. } => Kind::EventFd,
            Self::Fcntl { .. } => Kind::Fcntl,
            Self::Sync { .. } => Kind::Sync,
            Self::Splice { .. } => Kind::Splice,
            Self::SendFile { .. } => Kind::SendFile,
            Self::Stat { .. } => Kind::Stat,
            Self::NoFile { .. } => Kind::NoFile,
            Self::Pass { .. } => Kind::Pass,
            Self::Receive => Kind::Receive,
            Self::Fork { .. } => Kind::Fork,
            Self::FdInfo { .. } => Kind::FdInfo,
            Self::SysRead { .. } => Kind::SysRead,
            Self::SysWrite { .. } => Kind::SysWrite,
        }
    }
}
