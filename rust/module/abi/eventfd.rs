// SPDX-License-Identifier: GPL-2.0

//! A program's eventfd, to be counted up from any context.

use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

/// A reference to an eventfd.
///
/// # Invariants
///
/// `context` is valid, and we hold a reference to it.
pub(crate) struct EventFd {
    context: NonNull<bindings::eventfd_ctx>,
}

// SAFETY: An eventfd carries its own lock, and belongs to no thread.
unsafe impl Send for EventFd {}

// SAFETY: As above.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd behind descriptor `fd` of this process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `EINVAL` if it is something else.
    pub(crate) fn get(fd: i32) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: `eventfd_ctx_fdget` has taken a reference for us.
        Ok(Self {
            context: NonNull::new(context).ok_or(EBADF)?,
        })
    }

    /// Adds 1, and wakes who waits for it. From any context.
    pub(crate) fn signal(&self) {
        // SAFETY: By the invariant the context is valid. 0: no further poll bits.
        unsafe { bindings::eventfd_signal_mask(self.context.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is ours.
        unsafe { bindings::eventfd_ctx_put(self.context.as_ptr()) };
    }
}
