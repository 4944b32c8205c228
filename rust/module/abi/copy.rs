// SPDX-License-Identifier: GPL-2.0

//! Copies between the shared memory and programs, without a buffer in between.
//!
//! Memory of a program may take for ever to come (userfaultfd), and the device must not be kept from going
//! meanwhile. So a copy stops at a page that is not there; its caller leaves the device, has the page
//! fetched, and goes on.

use super::{
    memory::SharedMemory,
    stubs, //
};
use core::ops::Range;
use kernel::{
    bindings,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};

/// As long as it exists, copies stop at a page that is not there.
struct Faultless;

impl Faultless {
    fn new() -> Self {
        stubs::ivshmem_pagefault_disable();
        Self
    }
}

impl Drop for Faultless {
    fn drop(&mut self) {
        stubs::ivshmem_pagefault_enable();
    }
}

impl SharedMemory {
    /// Copies from a program to `range`, as far as its pages are there. Returns the number of bytes.
    ///
    /// The bytes are copied in any order and with accesses of any width. Only a caller that has asked the layout
    /// may do this: on Jailhouse a store to the wrong place stops the cell.
    ///
    /// # Errors
    ///
    /// `EFAULT` if `range` is not within the region.
    pub(crate) fn fill(&self, range: Range<usize>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let to = self.at(range.start, range.len())?;
        let _faultless = Faultless::new();
        // SAFETY: `at` has checked the range, which is no memory that Rust knows of.
        Ok(unsafe { bindings::_copy_from_iter(to.cast(), range.len(), from.as_raw()) })
    }

    /// Copies from `range` to a program, likewise.
    ///
    /// # Errors
    ///
    /// `EFAULT` if `range` is not within the region.
    pub(crate) fn pour(&self, range: Range<usize>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let from = self.at(range.start, range.len())?;
        let _faultless = Faultless::new();
        // SAFETY: As above.
        Ok(unsafe { bindings::_copy_to_iter(from.cast(), range.len(), to.as_raw()) })
    }
}

/// Memory of a program that pages can be fetched of.
pub(crate) trait Fetch {
    /// Has the next `length` bytes fetched. May take for ever.
    ///
    /// # Errors
    ///
    /// `EFAULT` if not even the first of them can be.
    fn fetch(&mut self, length: usize) -> Result;
}

impl Fetch for IovIterSource<'_> {
    fn fetch(&mut self, length: usize) -> Result {
        // SAFETY: The iterator is valid; the call may sleep, as its caller says.
        let missing = unsafe { bindings::fault_in_iov_iter_readable(self.as_raw(), length) };
        if missing < length {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }
}

impl Fetch for IovIterDest<'_> {
    fn fetch(&mut self, length: usize) -> Result {
        // SAFETY: As above.
        let missing = unsafe { bindings::fault_in_iov_iter_writeable(self.as_raw(), length) };
        if missing < length {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }
}
