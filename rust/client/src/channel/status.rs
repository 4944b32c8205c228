// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a channel stands.

use crate::uapi;

/// State of a channel's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelLink {
    /// The peer is not there yet.
    Waiting,
    /// Both ends are there.
    Up,
    /// The peer has closed: receive what is left, then comes the end.
    Closing,
    /// The peer restarted or disappeared; see [`Error::Reset`](crate::Error::Reset).
    Reset,
    /// The peer broke the protocol; see [`Error::Broken`](crate::Error::Broken).
    Broken,
    /// The device is gone.
    Gone,
    /// A state that is newer than this library, with the kernel's number for it.
    Other(u32),
}

/// How a channel stands. Messages are numbered from 1 in each direction, so `sent` is also the
/// number of the last message sent, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelStatus {
    /// State of the session.
    pub link: ChannelLink,
    /// The largest message in bytes that we can send.
    pub max_message: u32,
    /// Messages sent in this session.
    pub sent: u64,
    /// Of these, how many the peer has confirmed.
    pub confirmed: u64,
    /// Messages received in this session.
    pub received: u64,
    /// Of these, how many were acknowledged to the peer.
    pub acknowledged: u64,
}

impl From<u32> for ChannelLink {
    fn from(link: u32) -> Self {
        match link {
            uapi::IVSHMEM_CHANNEL_WAITING => Self::Waiting,
            uapi::IVSHMEM_CHANNEL_UP => Self::Up,
            uapi::IVSHMEM_CHANNEL_CLOSING => Self::Closing,
            uapi::IVSHMEM_CHANNEL_RESET => Self::Reset,
            uapi::IVSHMEM_CHANNEL_BROKEN => Self::Broken,
            uapi::IVSHMEM_CHANNEL_GONE => Self::Gone,
            other => Self::Other(other),
        }
    }
}

impl From<uapi::ivshmem_channel_status> for ChannelStatus {
    fn from(raw: uapi::ivshmem_channel_status) -> Self {
        Self {
            link: raw.link.into(),
            max_message: raw.max_message,
            sent: raw.sent,
            confirmed: raw.confirmed,
            received: raw.received,
            acknowledged: raw.acknowledged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_places() {
        let status = ChannelStatus::from(uapi::ivshmem_channel_status {
            link: uapi::IVSHMEM_CHANNEL_CLOSING,
            max_message: 1,
            sent: 2,
            confirmed: 3,
            received: 4,
            acknowledged: 5,
        });
        let expected = ChannelStatus {
            link: ChannelLink::Closing,
            max_message: 1,
            sent: 2,
            confirmed: 3,
            received: 4,
            acknowledged: 5,
        };
        assert_eq!(status, expected);
        assert_eq!(ChannelLink::from(99), ChannelLink::Other(99));
    }
}
