// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts: which vector means what, the handlers, and the sleep between
//! them. A handler counts and acknowledges; all else is done by who sleeps in
//! [`sleep_until`]; only INTx needs a look at the device. An exception ends the program with one line.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ivshmem_inmate::error::Error;

use super::{cpu, lapic, pic};
use crate::mmio::Mapping;

global_asm!(include_str!("interrupt.s"), options(att_syntax));

/// Exceptions come below this vector.
const FIRST_INTERRUPT: u64 = 0x20;
const PAGE_FAULT: u64 = 14;
/// Vector of the local APIC's timer.
pub(super) const TIMER_VECTOR: u8 = 0x30;
/// Vector of the device's vector 0; the others follow.
const DEVICE_VECTOR: u8 = 0x40;
/// Vector of interrupts that went away; it must not be acknowledged.
pub(super) const SPURIOUS_VECTOR: u8 = 0xff;

/// Number of device vectors that can be counted.
pub(crate) const MAX_VECTORS: u32 = 64;

static TICKS: AtomicU64 = AtomicU64::new(0);
static COUNTS: [AtomicU32; MAX_VECTORS as usize] =
    [const { AtomicU32::new(0) }; MAX_VECTORS as usize];

/// A word of the device that ends INTx when it is read; 0 if there is none.
static INTX_WORD: AtomicU64 = AtomicU64::new(0);

/// Timer interrupts since the start.
pub(crate) fn ticks() -> u64 {
    TICKS.load(Ordering::Acquire)
}

/// Interrupts on `vector` of the device since the start, modulo 2^32.
pub(crate) fn count(vector: u32) -> u32 {
    COUNTS[vector as usize].load(Ordering::Acquire)
}

/// The message, (address, data), that makes the device's `vector`, below
/// [`MAX_VECTORS`], interrupt this processor.
pub(crate) fn device_message(vector: u32) -> Result<(u64, u32), Error> {
    let id = lapic::id();
    if id > 0xff {
        return Err(Error::ApicId { id });
    }
    Ok((
        0xfee0_0000 | (u64::from(id) << 12),
        u32::from(DEVICE_VECTOR) + vector,
    ))
}

/// Makes interrupts on these lines count as the device's vector 0. The word of
/// `memory` at `offset` acknowledges them when it is read, and may be read at
/// any time.
pub(crate) fn connect_intx(lines: u16, memory: Mapping, offset: u64) {
    INTX_WORD.store(memory.range().start() + offset, Ordering::Relaxed);
    lapic::accept_external();
    pic::connect(lines);
}

/// Takes [`connect_intx`] back; the device may not be read afterwards.
pub(crate) fn disconnect_intx() {
    pic::silence();
    INTX_WORD.store(0, Ordering::Relaxed);
}

/// Sleeps until `take` has something. It is called with interrupts off, so
/// nothing can come between its "no" and the sleep.
pub(crate) fn sleep_until<T>(mut take: impl FnMut() -> Option<T>) -> T {
    loop {
        cpu::disable_interrupts();
        if let Some(found) = take() {
            cpu::enable_interrupts();
            return found;
        }
        cpu::enable_interrupts_and_halt();
    }
}

/// What `interrupt.s` and the processor have put on the stack.
#[repr(C)]
struct Frame {
    saved: [u64; 9],
    vector: u64,
    error: u64,
    rip: u64,
}

/// Called by `interrupt.s` for every vector, with interrupts off, on a stack of
/// its own.
#[no_mangle]
extern "C" fn interrupt_entry(frame: &Frame) {
    if frame.vector < FIRST_INTERRUPT {
        exception(frame);
    }
    let vector = frame.vector as u8;
    let line = vector.wrapping_sub(pic::FIRST_VECTOR);
    if line < pic::LINES {
        return external_interrupt(line);
    }
    let device = usize::from(vector.wrapping_sub(DEVICE_VECTOR));
    if vector == TIMER_VECTOR {
        TICKS.fetch_add(1, Ordering::Release);
    } else if let Some(count) = COUNTS.get(device) {
        count.fetch_add(1, Ordering::Release);
    }
    if vector != SPURIOUS_VECTOR {
        lapic::end_of_interrupt();
    }
}

/// An interrupt from the 8259 controllers. The line is a level: QEMU keeps it up
/// until the guest accesses the device, so read a word before acknowledging.
/// There is no status that tells whose interrupt it is on a shared line.
fn external_interrupt(line: u8) {
    if !pic::is_in_service(line) {
        return;
    }
    let word = INTX_WORD.load(Ordering::Relaxed) as *const u32;
    if !word.is_null() {
        // SAFETY: `connect_intx` took it from a mapping, which is for good.
        unsafe { word.read_volatile() };
        COUNTS[0].fetch_add(1, Ordering::Release);
    }
    pic::end_of_interrupt(line);
}

fn exception(frame: &Frame) -> ! {
    let Frame {
        vector, error, rip, ..
    } = *frame;
    if vector == PAGE_FAULT {
        let address = cpu::fault_address();
        crate::fail(format_args!(
            "exception {vector} at rip {rip:#x}, error code {error:#x}, address {address:#x}"
        ))
    }
    crate::fail(format_args!(
        "exception {vector} at rip {rip:#x}, error code {error:#x}"
    ))
}
