// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC, as x2APIC where the processor has that, else through its
//! page: it takes the device's MSI-X messages, and its timer is the clock.

use core::sync::atomic::{AtomicU64, Ordering};

use ivshmem_inmate::error::Error;
use ivshmem_inmate::range::Range;

use super::cpu::{cpuid, read_msr, write_msr};
use super::interrupt::{SPURIOUS_VECTOR, TIMER_VECTOR};
use super::paging::{map, Memory};
use super::pit;

const BASE_MSR: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const X2APIC_MSRS: u32 = 0x800;

/// Registers: offsets in the page, 16 times the number of the x2APIC register.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const NMI: u32 = 4 << 8;
const EXTERNAL: u32 = 7 << 8;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_16: u32 = 3;

/// Number of measurements; each can only err to the long side.
const MEASUREMENTS: u32 = 5;

/// Address of the mapped page; [`X2APIC`] means model specific registers.
static PAGE: AtomicU64 = AtomicU64::new(X2APIC);
const X2APIC: u64 = 0;

/// Enables the local APIC with everything masked but NMI.
pub(crate) fn init() -> Result<(), Error> {
    let has_x2apic = cpuid(1).ecx & (1 << 21) != 0;
    // SAFETY: every 64-bit processor has this register.
    let base = unsafe { read_msr(BASE_MSR) };
    if has_x2apic {
        // SAFETY: enabling the x2APIC changes only how the APIC is reached. From
        // the disabled state the way leads over the enabled one.
        unsafe {
            write_msr(BASE_MSR, base | BASE_ENABLE);
            write_msr(BASE_MSR, base | BASE_ENABLE | BASE_X2APIC);
        }
    } else {
        // SAFETY: sets nothing but the enable bit.
        unsafe { write_msr(BASE_MSR, base | BASE_ENABLE) };
        let page = Range::new(base & 0x000f_ffff_ffff_f000, 0x1000).ok_or(Error::NoTimer)?;
        map(page, Memory::Registers, true)?;
        PAGE.store(page.start(), Ordering::Relaxed);
    }
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    write(LVT_TIMER, MASKED);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, NMI);
    write(TASK_PRIORITY, 0);
    Ok(())
}

/// Lets the interrupts of the 8259 controllers through to the processor.
pub(super) fn accept_external() {
    write(LVT_LINT0, EXTERNAL);
}

/// The ID that interrupt messages are addressed to.
pub(super) fn id() -> u32 {
    match PAGE.load(Ordering::Relaxed) {
        X2APIC => read(ID),
        _ => read(ID) >> 24,
    }
}

/// Ends an interrupt; called by its handler.
pub(super) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Measures the timer: counts in one millisecond.
pub(crate) fn counts_per_ms() -> Result<u32, Error> {
    write(DIVIDE, DIVIDE_BY_16);
    let mut least = u32::MAX;
    for _ in 0..MEASUREMENTS {
        if !pit::wait(|| write(INITIAL_COUNT, u32::MAX)) {
            return Err(Error::NoTimer);
        }
        // An emulator can be held up at any instruction, which makes the count
        // larger, never smaller: the smallest is the best.
        least = least.min(u32::MAX - read(CURRENT_COUNT));
        write(INITIAL_COUNT, 0);
    }
    Ok(least / pit::WAIT_MS)
}

/// Lets the timer tick each `initial_count` counts.
pub(crate) fn start_timer(initial_count: u32) {
    write(LVT_TIMER, PERIODIC | u32::from(TIMER_VECTOR));
    write(DIVIDE, DIVIDE_BY_16);
    write(INITIAL_COUNT, initial_count);
}

/// Stops the timer.
pub(crate) fn stop_timer() {
    write(LVT_TIMER, MASKED);
    write(INITIAL_COUNT, 0);
}

fn read(register: u32) -> u32 {
    match PAGE.load(Ordering::Relaxed) {
        // SAFETY: `init` found the x2APIC, which has all these registers.
        X2APIC => unsafe { read_msr(X2APIC_MSRS + (register >> 4)) as u32 },
        // SAFETY: `init` mapped the page for good, uncached.
        page => unsafe { ((page + u64::from(register)) as *const u32).read_volatile() },
    }
}

fn write(register: u32, value: u32) {
    match PAGE.load(Ordering::Relaxed) {
        // SAFETY: `init` found the x2APIC, which has all these registers; what
        // this file writes makes interrupts with gates only.
        X2APIC => unsafe { write_msr(X2APIC_MSRS + (register >> 4), value.into()) },
        // SAFETY: `init` mapped the page for good, uncached and writable.
        page => unsafe { ((page + u64::from(register)) as *mut u32).write_volatile(value) },
    }
}
