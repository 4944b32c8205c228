// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How protocol code reaches shared memory.
//!
//! The memory belongs to every peer at once and may change between any two accesses, so it is
//! never a Rust reference: whoever has the memory implements [`Memory`], and each word is
//! copied by one access. In the kernel that is LKMM atomics on a mapping, on a host
//! `&AtomicU32`, in tests whatever a test wants to happen between two accesses.

use core::fmt;

/// How a load is ordered against the accesses that follow it in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOrder {
    /// Not at all.
    Relaxed,
    /// No later access happens before this load.
    Acquire,
}

/// How a store is ordered against the accesses that precede it in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// Not at all.
    Relaxed,
    /// No earlier access happens after this store.
    Release,
}

/// Where in a [`Memory`] an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutOfBounds {
    /// Offset of the access in bytes.
    pub offset: usize,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offset {:#x} has no whole word of shared memory",
            self.offset
        )
    }
}

impl core::error::Error for OutOfBounds {}

/// Shared memory as single 32-bit words, each access exactly one load or store of the CPU.
///
/// Offsets are in bytes from the start of the memory and must be divisible by 4. Values are
/// native-endian numbers, as the state table has them. An access outside of the memory or at an
/// odd offset is refused with [`OutOfBounds`].
pub trait Memory {
    /// Size in bytes.
    fn size(&self) -> usize;

    /// Loads the word at `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if no whole word begins there.
    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds>;

    /// Stores `value` as the word at `offset`.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if no whole word begins there.
    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds>;
}

impl<M: Memory + ?Sized> Memory for &M {
    fn size(&self) -> usize {
        (**self).size()
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        (**self).load(offset, order)
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        (**self).store(offset, value, order)
    }
}
