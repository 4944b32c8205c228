// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls on channels with buffers that no library would give, and what belongs to them.

use super::{outcome, BadPointer, Map, Outcome, Plain};
use ivshmem::uapi;
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::ptr::null_mut;

/// read into an address that leads nowhere.
pub(crate) fn read_bad(fd: impl AsFd, pointer: BadPointer, length: usize) -> Outcome {
    let (fd, address) = (fd.as_fd().as_raw_fd(), pointer.address() as *mut c_void);
    // SAFETY: the address is no memory of ours.
    outcome(unsafe { libc::read(fd, address, length) })
}

/// write from an address that leads nowhere.
pub(crate) fn write_bad(fd: impl AsFd, pointer: BadPointer, length: usize) -> Outcome {
    let (fd, address) = (fd.as_fd().as_raw_fd(), pointer.address() as *const c_void);
    // SAFETY: the address is no memory of ours.
    outcome(unsafe { libc::write(fd, address, length) })
}

/// read from a descriptor that another thread may close meanwhile.
pub(crate) fn read_number(fd: i32, bytes: &mut [u8]) -> Outcome {
    // SAFETY: the kernel writes at most the slice; a number that is no descriptor any more is EBADF.
    outcome(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })
}

/// close of a descriptor that another thread uses.
pub(crate) fn close(fd: OwnedFd) -> Outcome {
    // SAFETY: the descriptor was ours, and nobody closes it again.
    outcome(unsafe { libc::close(fd.into_raw_fd()) } as isize)
}

/// Has SIGPIPE end this process, as in a program that does nothing about it.
pub(crate) fn die_of_sigpipe() {
    // SAFETY: `sigaction` may be zero, which is the default action.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGPIPE, &action, null_mut()), 0);
    }
}

impl Map {
    /// read into `length` bytes of it from `at` on, which may reach behind its end where
    /// `cut_in_half` has taken memory away.
    pub(crate) fn read_at(&self, fd: impl AsFd, at: usize, length: usize) -> Outcome {
        assert!(at <= self.length);
        let base = self.base.wrapping_add(at);
        // SAFETY: the kernel writes into the mapping, to which there are no references, and behind it
        // is nothing: this program maps nothing else meanwhile.
        outcome(unsafe { libc::read(fd.as_fd().as_raw_fd(), base.cast(), length) })
    }

    /// write from `length` bytes of it from `at` on, as [`read_at`](Self::read_at).
    pub(crate) fn write_at(&self, fd: impl AsFd, at: usize, length: usize) -> Outcome {
        assert!(at <= self.length);
        let base = self.base.wrapping_add(at);
        // SAFETY: the kernel only reads.
        outcome(unsafe { libc::write(fd.as_fd().as_raw_fd(), base.cast(), length) })
    }
}

// SAFETY: the header is written so that none of them has padding.
unsafe impl Plain for uapi::ivshmem_connect {}
// SAFETY: as above.
unsafe impl Plain for uapi::ivshmem_channel_status {}
// SAFETY: as above.
unsafe impl Plain for uapi::ivshmem_channel_ack {}
// SAFETY: as above.
unsafe impl Plain for uapi::ivshmem_channel_wait {}
// SAFETY: as above.
unsafe impl Plain for uapi::ivshmem_channel_eventfd {}
