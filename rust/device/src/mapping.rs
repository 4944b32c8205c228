// SPDX-License-Identifier: MIT OR Apache-2.0

//! The one place with `unsafe`: the mapping of the link's memory into this process.
//!
//! Owns the mapping and gives it out as `&[AtomicU32]` and as nothing else, since guests change the
//! memory at any time. [`Region`](crate::region::Region) is its only caller.

#![expect(
    unsafe_code,
    reason = "mapping memory needs it; nothing else in the crate does"
)]

use rustix::fd::AsFd;
use rustix::io;
use rustix::mm;
use std::ptr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// A shared, readable and writable mapping of the first bytes of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<AtomicU32>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above; `AtomicU32` is made for sharing.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `size` bytes of `file`, which has to be sealed against shrinking: a page
    /// that vanishes would end the process.
    pub(crate) fn new(file: impl AsFd, size: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so nothing that exists is replaced.
        let base = unsafe {
            mm::mmap(
                ptr::null_mut(),
                size,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::SHARED,
                file,
                0,
            )
        }?;
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(io::Errno::NOMEM)?,
            words: size / size_of::<AtomicU32>(),
        })
    }

    /// The memory as words.
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: `new` mapped that many words at `base`, page-aligned, readable and writable; they
        // stay mapped as long as `self` lives. Other processes may change them at any time, which
        // `AtomicU32` allows; no other kind of reference to this memory exists here.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped, and the borrows that `words` gave out
        // have ended.
        let result = unsafe {
            mm::munmap(
                self.base.as_ptr().cast(),
                self.words * size_of::<AtomicU32>(),
            )
        };
        debug_assert!(result.is_ok(), "munmap of the own mapping: {result:?}");
    }
}
