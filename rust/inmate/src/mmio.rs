// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses to mapped physical memory: registers, MSI-X table, shared memory,
//! what the boot loader left. Raw volatile accesses only: others change this
//! memory at any time, so there is never a Rust reference to it.
//!
//! `arch::paging` makes the mappings, everybody else uses them. Each access is
//! checked; a wrong offset is a bug of the program and panics, since offsets from
//! outside are checked long before.
#![allow(unsafe_code)]

use ivshmem_inmate::range::Range;

/// A piece of physical memory, mapped for as long as the program runs.
#[derive(Clone, Copy)]
pub(crate) struct Mapping {
    range: Range,
    writable: bool,
}

impl Mapping {
    /// # Safety
    /// `range` must be mapped at its own addresses for good, writable if
    /// `writable`; if so, no Rust object may lie in it.
    pub(crate) unsafe fn new(range: Range, writable: bool) -> Self {
        Self { range, writable }
    }

    /// Physical (and virtual) addresses.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

    /// Loads the byte at `offset`.
    pub(crate) fn read8(&self, offset: u64) -> u8 {
        let address = self.address(offset, 1);
        // SAFETY: `address` is inside of memory that is mapped for good.
        unsafe { (address as *const u8).read_volatile() }
    }

    /// Loads the word at `offset` in one access.
    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let address = self.address(offset, 4);
        // SAFETY: `address` is aligned and inside of memory that is mapped for good.
        unsafe { (address as *const u32).read_volatile() }
    }

    /// Stores the word at `offset` in one access.
    pub(crate) fn write32(&self, offset: u64, value: u32) {
        assert!(self.writable, "store to a read-only mapping at {offset:#x}");
        let address = self.address(offset, 4);
        // SAFETY: `address` is aligned and inside of memory that is mapped for
        // good and writable, where no Rust object lies.
        unsafe { (address as *mut u32).write_volatile(value) }
    }

    fn address(&self, offset: u64, size: u64) -> u64 {
        let place = self.range.slice(offset, size);
        match place {
            Some(place) if place.start() % size == 0 => place.start(),
            _ => panic!("access to {offset:#x} of {:#x} bytes", self.range.size()),
        }
    }
}
