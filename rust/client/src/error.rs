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
    #[error("no event yet")]
    WouldBlock,
    /// The deadline has passed and nothing has happened.
    #[error("no event until the deadline")]
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
    /// Another open file owns this peer's state.
    #[error("another open file owns the state of this peer; take it over or close that one")]
    StateOwned,
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
            Self::StateOwned => Some(Errno::BUSY),
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
