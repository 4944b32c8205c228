// SPDX-License-Identifier: GPL-2.0

//! The mapping of a shared memory region into the kernel.
//!
//! The region can be changed at any moment by other peers and, through mappings, by programs. No
//! reference to it is ever made: each access is a volatile or LKMM access through a raw pointer,
//! whose result is then nobody's but the caller's.

use super::stubs;
use crate::protocol::{
    channel::Barriers,
    v2::memory::{
        LoadOrder,
        Memory,
        OutOfBounds,
        StoreOrder, //
    },
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        atomic_load,
        atomic_store,
        Acquire,
        Relaxed,
        Release, //
    },
};

/// Largest region that we map, in bytes. A device that claims more would have this kernel fill its
/// memory with page tables.
pub(crate) const SIZE_MAX: u64 = 64 << 30;

/// Last physical address of this machine.
pub(crate) fn last_address() -> u64 {
    // SAFETY: Set at boot and constant since.
    unsafe { bindings::iomem_resource.end }
}

/// Whether a part of a range of physical memory is a resource with `flags`.
fn intersects(address: u64, length: usize, flags: u32) -> bool {
    // SAFETY: Only looks at the tree of resources.
    let found = unsafe {
        bindings::region_intersects(
            address,
            length,
            // CAST: Both have at least 32 bits.
            flags as c_ulong,
            bindings::IORES_DESC_NONE as c_ulong,
        )
    };
    found != bindings::REGION_DISJOINT as c_int
}

/// Whether a driver, or the kernel itself, uses a part of `size` bytes of physical memory at `address`: the registers
/// of a device that is bound, of an interrupt controller, RAM. Shared memory that only its address tells of is nobody's.
pub(crate) fn is_in_use(address: u64, size: u64) -> bool {
    let busy = bindings::IORESOURCE_MEM | bindings::IORESOURCE_BUSY;
    usize::try_from(size).is_ok_and(|length| intersects(address, length, busy))
}

/// A range of physical memory that is not RAM of this kernel, mapped write-back cached.
///
/// # Invariants
///
/// `base` is the start of a mapping of `size` bytes by `memremap` that lasts as long as the
/// value, and `base` is page-aligned.
pub(crate) struct SharedMemory {
    base: NonNull<u8>,
    size: usize,
    address: u64,
}

// SAFETY: The mapping belongs to no thread; all accesses are atomic or volatile.
unsafe impl Send for SharedMemory {}

// SAFETY: As above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `size` bytes at the physical address `address`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a range that is empty, unaligned, larger than [`SIZE_MAX`], or reaches beyond
    /// [`last_address`]; `EBUSY` if a part of it is RAM of this kernel (a device that claims so is
    /// broken or hostile); `ENOMEM`.
    ///
    /// What else the range may not be is [`is_in_use`].
    pub(crate) fn map(address: u64, size: u64) -> Result<Self> {
        let last = size
            .checked_sub(1)
            .and_then(|more| address.checked_add(more))
            .ok_or(EINVAL)?;
        if size > SIZE_MAX || address % 0x1000 != 0 || last > last_address() {
            return Err(EINVAL);
        }
        let length = usize::try_from(size)?;
        if intersects(address, length, bindings::IORESOURCE_SYSTEM_RAM) {
            return Err(EBUSY);
        }
        // SAFETY: The range is not RAM, so nothing of this kernel lives there.
        let base = unsafe { bindings::memremap(address, length, bindings::MEMREMAP_WB as c_ulong) };
        // INVARIANT: `memremap` maps all of the range or fails.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            size: length,
            address,
        })
    }

    /// Whether the region begins on a page of this kernel.
    pub(crate) fn is_page_aligned(&self) -> bool {
        self.address % PAGE_SIZE as u64 == 0
    }

    /// Page frame of the page at `offset`; [`None`] beyond the end, or where a page would show
    /// what is not part of the region.
    pub(crate) fn frame(&self, offset: u64) -> Option<Frame> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(PAGE_SIZE)?;
        let address = self.address.checked_add(offset as u64)?;
        if end > self.size || address % PAGE_SIZE as u64 != 0 {
            return None;
        }
        // CAST: A frame number is a physical address without its lowest bits.
        Some(Frame((address >> PAGE_SHIFT) as c_ulong))
    }

    /// Address of `length` bytes at `offset`.
    pub(super) fn at(&self, offset: usize, length: usize) -> Result<*mut u8> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(EFAULT);
        }
        // SAFETY: `offset` is within the mapping.
        Ok(unsafe { self.base.as_ptr().add(offset) })
    }

    /// Copies out of the region.
    ///
    /// Naturally aligned transfers of 4 and 8 bytes are single loads.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the range is not within the region.
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.at(offset, to.len())?;
        let mut done = 0;
        while done < to.len() {
            // SAFETY: `at` has checked the whole range, and `done` is within it.
            let at = unsafe { from.add(done) };
            let rest = &mut to[done..];
            done += match width(at.addr(), rest.len()) {
                8 => {
                    // SAFETY: 8 bytes are left, and `at` is aligned for them.
                    let value = unsafe { at.cast::<u64>().read_volatile() };
                    rest[..8].copy_from_slice(&value.to_ne_bytes());
                    8
                }
                4 => {
                    // SAFETY: 4 bytes are left, and `at` is aligned for them.
                    let value = unsafe { at.cast::<u32>().read_volatile() };
                    rest[..4].copy_from_slice(&value.to_ne_bytes());
                    4
                }
                _ => {
                    // SAFETY: 1 byte is left.
                    rest[0] = unsafe { at.read_volatile() };
                    1
                }
            };
        }
        Ok(())
    }

    /// Copies into the region.
    ///
    /// Naturally aligned transfers of 4 and 8 bytes are single stores. Only a caller that has
    /// asked the layout may do this: on Jailhouse a store to the wrong place stops the cell.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the range is not within the region.
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) -> Result {
        let to = self.at(offset, from.len())?;
        let mut done = 0;
        while done < from.len() {
            // SAFETY: `at` has checked the whole range, and `done` is within it.
            let at = unsafe { to.add(done) };
            let rest = &from[done..];
            done += match (width(at.addr(), rest.len()), rest) {
                (8, &[a, b, c, d, e, f, g, h, ..]) => {
                    let value = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                    // SAFETY: 8 bytes are left, and `at` is aligned for them.
                    unsafe { at.cast::<u64>().write_volatile(value) };
                    8
                }
                (4, &[a, b, c, d, ..]) => {
                    let value = u32::from_ne_bytes([a, b, c, d]);
                    // SAFETY: 4 bytes are left, and `at` is aligned for them.
                    unsafe { at.cast::<u32>().write_volatile(value) };
                    4
                }
                (_, &[a, ..]) => {
                    // SAFETY: 1 byte is left.
                    unsafe { at.write_volatile(a) };
                    1
                }
                (_, &[]) => break,
            };
        }
        Ok(())
    }

    /// The word at `offset`, for an atomic access.
    fn word(&self, offset: usize) -> Result<*mut u32, OutOfBounds> {
        if offset % 4 != 0 {
            return Err(OutOfBounds { offset });
        }
        let at = self.at(offset, 4).map_err(|_| OutOfBounds { offset })?;
        // CAST: `base` is page-aligned and `offset` divisible by 4.
        Ok(at.cast())
    }
}

/// A page frame of a [`SharedMemory`].
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(super) c_ulong);

/// Width of the next access of a copy: the widest that is aligned and fits.
fn width(address: usize, left: usize) -> usize {
    if address % 8 == 0 && left >= 8 {
        8
    } else if address % 4 == 0 && left >= 4 {
        4
    } else {
        1
    }
}

impl Memory for SharedMemory {
    fn size(&self) -> usize {
        self.size
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        let word = self.word(offset)?;
        Ok(match order {
            // SAFETY: `word` is valid and aligned; all stores of this kernel to it are atomic.
            LoadOrder::Relaxed => unsafe { atomic_load(word, Relaxed) },
            // SAFETY: As above.
            LoadOrder::Acquire => unsafe { atomic_load(word, Acquire) },
        })
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        let word = self.word(offset)?;
        match order {
            // SAFETY: `word` is valid and aligned; all accesses of this kernel to it are atomic.
            StoreOrder::Relaxed => unsafe { atomic_store(word, value, Relaxed) },
            // SAFETY: As above.
            StoreOrder::Release => unsafe { atomic_store(word, value, Release) },
        }
        Ok(())
    }
}

impl Barriers for SharedMemory {
    fn full_barrier(&self) {
        stubs::ivshmem_virt_mb();
    }

    fn read_barrier(&self) {
        stubs::ivshmem_virt_rmb();
    }

    fn write_barrier(&self) {
        stubs::ivshmem_virt_wmb();
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: By the invariant, `base` comes from `memremap`.
        unsafe { bindings::memunmap(self.base.as_ptr().cast()) };
    }
}
