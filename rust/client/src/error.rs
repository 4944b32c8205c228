// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, in words, with the kernel's error number kept.

use rustix::io::Errno;
use std::path::PathBuf;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
///
/// [`errno`](Self::errno) gives the kernel's number where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device file cannot be opened.
    #[error("cannot open {}: {errno}{}", path.display(), hint(*errno))]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The file does not answer as an ivshmem device does.
    #[error("{} is not an ivshmem device (its information call says: {errno})", path.display())]
    NotADevice {
        /// The file.
        path: PathBuf,
        /// What it answered.
        errno: Errno,
    },
    /// The device has been removed or unbound. This file stays dead; open it again when the
    /// device is back.
    #[error("the device is gone; open it again when it is back")]
    Gone,
    /// Nothing has happened yet and the call was not to wait.
    #[error("nothing has happened yet")]
    WouldBlock,
    /// The deadline has passed and nothing has happened.
    #[error("nothing has happened until the deadline")]
    TimedOut,
    /// A signal arrived first.
    #[error("interrupted by a signal")]
    Interrupted,
    /// Changing something needs a file that is open for writing.
    #[error("the device was opened read-only: {what} needs it to be open for writing")]
    ReadOnly {
        /// What was tried.
        what: &'static str,
    },
    /// The link has no such peer.
    #[error("peer {peer} does not exist: the link has peers 0 to {}", max_peers.saturating_sub(1))]
    NoSuchPeer {
        /// The peer asked for.
        peer: u32,
        /// How many there can be.
        max_peers: u32,
    },
    /// The link has no such vector.
    #[error("vector {vector} does not exist: the link has vectors 0 to {}", vectors.saturating_sub(1))]
    NoSuchVector {
        /// The vector asked for.
        vector: u32,
        /// How many there are.
        vectors: u32,
    },
    /// Another open file owns this peer's state, or a channel of the device is open.
    #[error("another open file owns the state of this peer, or a channel is open; close that one")]
    StateOwned,
    /// Channels are open on the device: until the last is closed, the driver owns the output section.
    #[error("channels are open on this device: {what} has to wait until the last is closed")]
    ChannelsOpen {
        /// What was tried.
        what: &'static str,
    },
    /// The channel is open already, or a file of the device owns the state or maps a section for
    /// writing.
    #[error(
        "the channel to peer {peer}, port {port} is open already, or a file of the device owns \
         the state or has a writable mapping"
    )]
    Busy {
        /// The other end.
        peer: u32,
        /// The port.
        port: u32,
    },
    /// There is no channel to that peer and port: the peer is ourselves or none of the link, or the
    /// driver has no such port.
    #[error(
        "there is no channel to peer {peer}, port {port}: the link has peers 0 to {}, this one is \
         {id}, and this driver has port 0 only",
        max_peers.saturating_sub(1)
    )]
    NoSuchChannel {
        /// The peer asked for.
        peer: u32,
        /// The port asked for.
        port: u32,
        /// This peer's ID.
        id: u32,
        /// How many peers there can be.
        max_peers: u32,
    },
    /// The link has no room for channels.
    #[error("the output sections of this link are too small for channels")]
    NoRoomForChannels,
    /// The descriptor is not a channel.
    #[error("the descriptor is not an ivshmem channel (its status call says: {0})")]
    NotAChannel(Errno),
    /// The session has ended because the peer restarted or disappeared. Connect again for the next
    /// one. What was sent and is not confirmed may have arrived, or not.
    #[error(
        "the session has ended, the peer restarted or disappeared: {confirmed} of {sent} messages \
         were confirmed; connect again"
    )]
    Reset {
        /// Messages sent in the session.
        sent: u64,
        /// Of these, how many the peer had confirmed.
        confirmed: u64,
    },
    /// The session has ended because the peer broke the channel protocol.
    #[error(
        "the session has ended, the peer broke the channel protocol: {confirmed} of {sent} \
         messages were confirmed"
    )]
    Broken {
        /// Messages sent in the session.
        sent: u64,
        /// Of these, how many the peer had confirmed.
        confirmed: u64,
    },
    /// The peer has closed its end: it reads and confirms nothing any more.
    #[error("the peer has closed the channel")]
    Closed,
    /// A message is larger than the channel can carry.
    #[error("a message of {length} bytes is too large for this channel: it carries {max} at most")]
    TooLarge {
        /// The message's length in bytes.
        length: usize,
        /// The largest message in bytes.
        max: u32,
    },
    /// Messages have at least 1 byte.
    #[error("a message has at least 1 byte")]
    Empty,
    /// The next message does not fit into the buffer. It stays in the channel.
    #[error("the next message has {size} bytes, more than the buffer")]
    BufferTooSmall {
        /// The next message's length in bytes.
        size: usize,
    },
    /// So many messages were not sent, so nobody can confirm them.
    #[error("message {number} cannot be waited for: it has not been sent")]
    NotSent {
        /// The number given.
        number: u64,
    },
    /// Messages cannot be acknowledged so.
    #[error(
        "messages up to {number} cannot be acknowledged: not so many were received, or the channel \
         was not connected for explicit acknowledgement"
    )]
    NotReceived {
        /// The number given.
        number: u64,
    },
    /// Only the hypervisor or another peer may write there.
    #[error("offset {offset:#x} is not writable for this peer")]
    NotWritable {
        /// Where in the region.
        offset: u64,
    },
    /// The range begins beyond the end of the region, or reaches beyond it.
    #[error(
        "{length} bytes at offset {offset:#x} reach beyond the region's {region_size:#x} bytes"
    )]
    OutsideRegion {
        /// Where in the region.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// How large the region is.
        region_size: u64,
    },
    /// The range is not inside the mapping, or a word is not aligned to 4 bytes.
    #[error("{length} bytes at offset {offset:#x} do not fit the mapping of {mapped:#x} bytes")]
    OutsideMapping {
        /// Where in the mapping.
        offset: usize,
        /// How many bytes.
        length: usize,
        /// How large the mapping is.
        mapped: usize,
    },
    /// The section cannot be mapped.
    #[error("{length:#x} bytes at offset {offset:#x} cannot be mapped {}: {errno}",
        if *writable { "for writing" } else { "for reading" })]
    Map {
        /// Where in the region.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// Whether it was to be writable.
        writable: bool,
        /// The kernel's reason.
        errno: Errno,
    },
    /// Any other refusal of the kernel.
    #[error("{what} failed: {errno}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
}

impl Error {
    /// The kernel's error number; `None` for what this crate found out itself.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match *self {
            Self::Open { errno, .. }
            | Self::NotADevice { errno, .. }
            | Self::Map { errno, .. }
            | Self::Call { errno, .. } => Some(errno),
            Self::Gone => Some(Errno::NODEV),
            Self::WouldBlock => Some(Errno::AGAIN),
            Self::TimedOut => Some(Errno::TIMEDOUT),
            Self::Interrupted => Some(Errno::INTR),
            Self::ReadOnly { .. } => Some(Errno::BADF),
            Self::NoSuchPeer { .. } | Self::NoSuchVector { .. } => Some(Errno::NXIO),
            Self::StateOwned | Self::ChannelsOpen { .. } | Self::Busy { .. } => Some(Errno::BUSY),
            Self::NoSuchChannel { .. } => Some(Errno::NXIO),
            Self::NoRoomForChannels => Some(Errno::OPNOTSUPP),
            Self::NotAChannel(errno) => Some(errno),
            Self::Reset { .. } => Some(Errno::CONNRESET),
            Self::Broken { .. } => Some(Errno::PROTO),
            Self::Closed => Some(Errno::PIPE),
            Self::TooLarge { .. } | Self::BufferTooSmall { .. } => Some(Errno::MSGSIZE),
            Self::Empty | Self::NotSent { .. } | Self::NotReceived { .. } => Some(Errno::INVAL),
            Self::NotWritable { .. } => Some(Errno::ACCESS),
            Self::OutsideRegion { .. } => Some(Errno::NOSPC),
            Self::OutsideMapping { .. } => None,
        }
    }

    /// Gives the errors that mean the same for every call their own name, and `what` to the rest.
    pub(crate) fn from_call(what: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NODEV => Self::Gone,
            Errno::AGAIN => Self::WouldBlock,
            Errno::TIMEDOUT => Self::TimedOut,
            Errno::INTR => Self::Interrupted,
            Errno::BADF => Self::ReadOnly { what },
            _ => Self::Call { what, errno },
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = error
            .errno()
            .map_or(std::io::ErrorKind::InvalidInput, |errno| {
                std::io::Error::from(errno).kind()
            });
        Self::new(kind, error)
    }
}

/// What a user can do about it.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => " (is the module loaded and bound to a device?)",
        Errno::ACCESS | Errno::PERM => " (the file belongs to root unless udev says otherwise)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_value_and_keep_the_number() {
        let error = Error::NoSuchVector {
            vector: 9,
            vectors: 4,
        };
        assert_eq!(
            error.to_string(),
            "vector 9 does not exist: the link has vectors 0 to 3"
        );
        assert_eq!(error.errno(), Some(Errno::NXIO));
        let error = Error::Reset {
            sent: 9,
            confirmed: 7,
        };
        assert!(error.to_string().contains("7 of 9 messages"), "{error}");
        assert_eq!(error.errno(), Some(Errno::CONNRESET));
        let error = Error::Open {
            path: "/dev/ivshmem7".into(),
            errno: Errno::NOENT,
        };
        let words = error.to_string();
        assert!(
            words.contains("/dev/ivshmem7") && words.contains("module"),
            "{words}"
        );
        assert_eq!(
            std::io::Error::from(error).kind(),
            std::io::ErrorKind::NotFound
        );
    }

    #[test]
    fn what_means_the_same_for_all_calls_has_a_name() {
        let named = |errno| Error::from_call("ringing a peer", errno);
        assert_eq!(named(Errno::NODEV), Error::Gone);
        assert_eq!(named(Errno::AGAIN), Error::WouldBlock);
        assert_eq!(named(Errno::BADF).errno(), Some(Errno::BADF));
        assert_eq!(named(Errno::NOMEM).errno(), Some(Errno::NOMEM));
        assert!(named(Errno::NOMEM)
            .to_string()
            .starts_with("ringing a peer failed: "));
    }
}
