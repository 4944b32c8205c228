// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on channels: those that only channels have, and slots for their descriptors.

use super::{Buffer, How, Op, Slot, Wait, CHANNELS, SLOTS};
use crate::kinds::Kind;
use ivshmem::uapi;

/// The peer that is not in this guest.
pub(crate) const THIRD: u32 = 2;

/// A known ioctl of a channel but *wait*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelCall {
    Status,
    EventFd,
    /// FIONREAD, whose number tells no size.
    NextSize,
}

impl ChannelCall {
    /// Its number in the header.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Status => uapi::IVSHMEM_CHANNEL_IOC_STATUS,
            Self::EventFd => uapi::IVSHMEM_CHANNEL_IOC_EVENTFD,
            Self::NextSize => libc::FIONREAD as u32,
        }
    }
}

/// A number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// This one.
    Of(u64),
    /// So many less than have been sent or received, as the channel's status tells.
    Behind(u8),
    /// So many more.
    Beyond(u8),
}

/// An operation that only channels have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelOp {
    /// IVSHMEM_IOC_CONNECT on a file of a device. The new descriptor goes to a slot of the end that `words` name.
    Connect {
        slot: Slot,
        second: bool,
        argument: Buffer,
        size: u16,
        tail: u8,
        words: [u32; 4],
    },
    /// What a good program does: connects anew if there is no session, or it has ended.
    Renew { slot: Slot, flags: u32 },
    /// Takes, for a moment, what channels exclude: the state, or a writable mapping of the output section.
    Claim { device: u32, what: u8 },
    /// A message: read, write and so on.
    Send {
        slot: Slot,
        how: How,
        from: Buffer,
        length: u64,
    },
    Take {
        slot: Slot,
        how: How,
        to: Buffer,
        length: u64,
    },
    Call {
        slot: Slot,
        call: ChannelCall,
        argument: Buffer,
        size: u16,
        tail: u8,
        words: [u32; 2],
    },
    Acknowledge {
        slot: Slot,
        argument: Buffer,
        size: u16,
        tail: u8,
        number: Count,
        words: [u32; 2],
    },
    WaitConfirmed {
        slot: Slot,
        argument: Buffer,
        size: u16,
        tail: u8,
        number: Count,
        wait: Wait,
        words: [u32; 2],
    },
}

impl Slot {
    /// The slot of the channel between the peers of `device` and `peer`; there are two.
    pub(crate) fn of_channel(device: u32, peer: u32, second: bool) -> Self {
        let third = u8::from(peer == THIRD) * 2;
        Self(SLOTS + device as u8 + third + u8::from(second) * (CHANNELS / 2))
    }

    /// Whether it is for a channel.
    pub(crate) fn is_channel(self) -> bool {
        self.0 >= SLOTS
    }

    /// Which of the ends it is for, from 0 on.
    pub(crate) fn end(self) -> usize {
        usize::from((self.0 - SLOTS) % (CHANNELS / 2))
    }

    /// The peer at the other end.
    pub(crate) fn peer(self) -> u32 {
        if self.end() & 2 != 0 {
            THIRD
        } else {
            1 - self.device()
        }
    }

    /// Its other slot, or itself.
    pub(crate) fn twin(self, second: bool) -> Self {
        Self::of_channel(self.device(), self.peer(), second)
    }
}

impl ChannelOp {
    /// What it is counted as.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } => Kind::Connect,
            Self::Renew { .. } => Kind::Renew,
            Self::Claim { .. } => Kind::Claim,
            Self::Send { .. } => Kind::Send,
            Self::Take { .. } => Kind::Take,
            Self::Call { call, .. } => match call {
                ChannelCall::Status => Kind::Status,
                ChannelCall::EventFd => Kind::ChannelAttach,
                ChannelCall::NextSize => Kind::NextSize,
            },
            Self::Acknowledge { .. } => Kind::Acknowledge,
            Self::WaitConfirmed { .. } => Kind::WaitConfirmed,
        }
    }
}

impl Op {
    /// The slot of an operation that files of all kinds have, if it names one. Of two, the first.
    pub(crate) fn slot(&self) -> Option<Slot> {
        match *self {
            Self::Close { slot }
            | Self::Dup { from: slot, .. }
            | Self::Seek { slot, .. }
            | Self::Map { slot, .. }
            | Self::MapHuge { slot, .. }
            | Self::Poll { slot, .. }
            | Self::Select { slot, .. }
            | Self::OtherIoctl { slot, .. }
            | Self::Fcntl { slot, .. }
            | Self::Sync { slot, .. }
            | Self::Splice { slot, .. }
            | Self::SendFile { slot, .. }
            | Self::Stat { slot }
            | Self::NoFile { slot, .. }
            | Self::Pass { slot, .. }
            | Self::FdInfo { slot } => Some(slot),
            _ => None,
        }
    }

    /// What it is counted as when it is for a channel.
    pub(super) fn kind_on_channel(&self) -> Kind {
        match self {
            Self::Close { .. } => Kind::ChannelClose,
            Self::Dup { .. } => Kind::ChannelDup,
            Self::Poll { .. } | Self::Select { .. } => Kind::ChannelPoll,
            Self::OtherIoctl { .. } => Kind::ChannelIoctl,
            Self::Fcntl { .. } => Kind::ChannelFcntl,
            Self::Sync { .. } => Kind::ChannelSync,
            Self::Pass { .. } => Kind::ChannelPass,
            _ => Kind::ChannelOther,
        }
    }
}
