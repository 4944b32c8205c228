// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables. `boot.s` maps the program's own memory; all else is
//! mapped here, on demand, at its physical address, with the rights and the
//! caching it needs, so that a stray access faults instead of hitting a device.
//!
//! Called by the main flow only, never by a handler; nothing is ever unmapped.

use core::sync::atomic::{AtomicUsize, Ordering};

use ivshmem_inmate::error::Error;
use ivshmem_inmate::range::Range;

use super::cpu::cpuid;
use crate::mmio::Mapping;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const PAGE: u64 = 0x1000;
const LARGE_PAGE: u64 = 0x20_0000;
const ENTRIES: usize = 512;

/// What `boot.s` maps: program, tables, stacks, and what the boot loader left
/// below 1 MiB; page 0 is left out.
const OWN_START: u64 = PAGE;
const OWN_SIZE: u64 = (16 << 20) - OWN_START;
/// Addresses beyond would not be their own virtual addresses.
const VIRTUAL_BITS: u32 = 47;

/// Tables for everything that `boot.s` does not map: four or five for each
/// distant piece of memory.
const TABLES_MOST: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

static mut TABLES: [Table; TABLES_MOST] = [Table([0; ENTRIES]); TABLES_MOST];
static TABLES_USED: AtomicUsize = AtomicUsize::new(0);

extern "C" {
    /// In `boot.s`: the table that CR3 points to.
    static mut boot_pml4: [u64; ENTRIES];
}

/// How memory is cached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Uncached: accesses reach the device one by one and in order.
    Registers,
    /// Write-back: memory shared with other processors.
    Shared,
}

/// Maps `range` (and the rest of the pages that it touches).
///
/// # Errors
/// [`Error::OverlapsMemory`] if it touches the program's own memory,
/// [`Error::Map`] if the processor cannot address it or part of it is mapped in
/// another way, [`Error::NoPageTables`].
pub(crate) fn map(range: Range, memory: Memory, writable: bool) -> Result<Mapping, Error> {
    let pages = range
        .expand(PAGE)
        .filter(addressable)
        .ok_or(Error::Map { range })?;
    if own_memory().overlaps(&pages) {
        return Err(Error::OverlapsMemory { range });
    }
    let mut flags = PRESENT | NO_EXECUTE;
    if writable {
        flags |= WRITABLE;
    }
    if memory == Memory::Registers {
        flags |= CACHE_DISABLE | WRITE_THROUGH;
    }
    let mut address = pages.start();
    while address < pages.end() {
        let large = address % LARGE_PAGE == 0 && pages.end() - address >= LARGE_PAGE;
        let size = if large { LARGE_PAGE } else { PAGE };
        map_page(address, flags, large).map_err(|error| match error {
            Refused::Occupied => Error::Map { range },
            Refused::NoTables => Error::NoPageTables { range },
        })?;
        address += size;
    }
    // SAFETY: just mapped, and outside of the memory that Rust objects live in.
    Ok(unsafe { Mapping::new(range, writable) })
}

/// Read-only access to what the boot loader left, in the program's own memory or
/// elsewhere.
pub(crate) fn boot_data(range: Range) -> Result<Mapping, Error> {
    if own_memory().contains(&range) {
        // SAFETY: mapped by `boot.s`.
        return Ok(unsafe { Mapping::new(range, false) });
    }
    map(range, Memory::Shared, false)
}

fn own_memory() -> Range {
    const OWN: Range = match Range::new(OWN_START, OWN_SIZE) {
        Some(range) => range,
        None => unreachable!(),
    };
    OWN
}

fn addressable(range: &Range) -> bool {
    let physical_bits = match cpuid(0x8000_0008).eax & 0xff {
        0 => 36,
        bits => bits,
    };
    range.end() <= 1 << physical_bits.min(VIRTUAL_BITS)
}

enum Refused {
    Occupied,
    NoTables,
}

fn map_page(address: u64, flags: u64, large: bool) -> Result<(), Refused> {
    let index = |level: u32| (address >> (12 + 9 * level)) as usize % ENTRIES;
    let mut table = (&raw mut boot_pml4).cast::<u64>();
    let last = if large { 1 } else { 0 };
    for level in (last + 1..=3).rev() {
        // SAFETY: `table` points to 512 entries, the index is below that.
        table = next_table(unsafe { table.add(index(level)) })?;
    }
    let wanted = address | flags | if large { LARGE } else { 0 };
    // SAFETY: as above.
    let entry = unsafe { table.add(index(last)) };
    // SAFETY: the entry lies in one of the page tables.
    let present = unsafe { entry.read_volatile() };
    if present & PRESENT != 0 {
        let same = present & !(ACCESSED | DIRTY) == wanted;
        return if same { Ok(()) } else { Err(Refused::Occupied) };
    }
    // SAFETY: maps an address that nothing uses yet; a missing entry is not in
    // the TLB, so there is nothing to flush.
    unsafe { entry.write_volatile(wanted) };
    Ok(())
}

/// The table that `entry` leads to; a new one if it leads nowhere.
fn next_table(entry: *mut u64) -> Result<*mut u64, Refused> {
    // SAFETY: the caller's entry lies in one of the page tables.
    let value = unsafe { entry.read_volatile() };
    if value & PRESENT != 0 {
        if value & LARGE != 0 {
            return Err(Refused::Occupied);
        }
        return Ok((value & ADDRESS) as *mut u64);
    }
    let number = TABLES_USED.load(Ordering::Relaxed);
    if number == TABLES_MOST {
        return Err(Refused::NoTables);
    }
    TABLES_USED.store(number + 1, Ordering::Relaxed);
    // SAFETY: each table is handed out once; it is zero, and it lies in the
    // program's own memory, whose addresses are physical ones.
    let table = unsafe { &raw mut TABLES[number] }.cast::<u64>();
    // SAFETY: as above; the new table is empty, so nothing changes yet.
    unsafe { entry.write_volatile(table as u64 | PRESENT | WRITABLE) };
    Ok(table)
}
