// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processor's tables: segments, task state, and the 256 interrupt gates.
//! Set up once, then only the processor uses them.

use core::arch::asm;
use core::mem::size_of;

/// Selectors; code and data are the same as in `boot.s`, which the running code
/// uses.
const CODE: u64 = 0x08;
const TASK: u16 = 0x18;

/// Exceptions get a stack of their own, because they can happen in a handler.
const INTERRUPT_IST: u64 = 1;
const EXCEPTION_IST: u64 = 2;
const EXCEPTIONS: usize = 32;
const STUB_SIZE: u64 = 16;
const STACK_SIZE: usize = 16 * 1024;

#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

#[repr(C, align(16))]
struct Gates([[u64; 2]; 256]);

#[repr(C, align(16))]
struct Stack([u8; STACK_SIZE]);

/// What `lgdt` and `lidt` want.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

static mut SEGMENTS: [u64; 5] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0];
static mut TASK_STATE: TaskState = TaskState {
    reserved0: 0,
    rsp: [0; 3],
    reserved1: 0,
    ist: [0; 7],
    reserved2: 0,
    reserved3: 0,
    io_map: size_of::<TaskState>() as u16,
};
static mut GATES: Gates = Gates([[0; 2]; 256]);
static mut INTERRUPT_STACK: Stack = Stack([0; STACK_SIZE]);
static mut EXCEPTION_STACK: Stack = Stack([0; STACK_SIZE]);

extern "C" {
    /// In `interrupt.s`: 256 entries, [`STUB_SIZE`] apart.
    static interrupt_stubs: u8;
}

/// Sets up and loads all tables. To be called once, with interrupts off.
pub(crate) fn init() {
    let top = |stack: *mut Stack| stack as u64 + STACK_SIZE as u64;
    // SAFETY: called once, on the only processor, before anything else uses
    // these tables; no reference to them is made.
    unsafe {
        let task = &raw mut TASK_STATE;
        let mut ist = [0; 7];
        ist[INTERRUPT_IST as usize - 1] = top(&raw mut INTERRUPT_STACK);
        ist[EXCEPTION_IST as usize - 1] = top(&raw mut EXCEPTION_STACK);
        (&raw mut (*task).ist).write_unaligned(ist);
        let [low, high] = task_descriptor(task as u64);
        SEGMENTS[3] = low;
        SEGMENTS[4] = high;
        for vector in 0..256 {
            let stub = &raw const interrupt_stubs as u64 + STUB_SIZE * vector as u64;
            let ist = if vector < EXCEPTIONS {
                EXCEPTION_IST
            } else {
                INTERRUPT_IST
            };
            GATES.0[vector] = gate(stub, ist);
        }
        let segments = TablePointer {
            limit: (size_of::<[u64; 5]>() - 1) as u16,
            base: &raw const SEGMENTS as u64,
        };
        let gates = TablePointer {
            limit: (size_of::<Gates>() - 1) as u16,
            base: &raw const GATES as u64,
        };
        asm!("lgdt [{}]", "lidt [{}]", "ltr {:x}",
             in(reg) &segments, in(reg) &gates, in(reg) TASK,
             options(nostack, preserves_flags));
    }
}

/// An available 64-bit task state segment at `base`.
fn task_descriptor(base: u64) -> [u64; 2] {
    let limit = size_of::<TaskState>() as u64 - 1;
    let low = limit | ((base & 0xff_ffff) << 16) | (0x89 << 40) | (((base >> 24) & 0xff) << 56);
    [low, base >> 32]
}

/// An interrupt gate: interrupts stay off in the handler.
fn gate(handler: u64, ist: u64) -> [u64; 2] {
    let low = handler & 0xffff
        | (CODE << 16)
        | (ist << 32)
        | (0x8e << 40)
        | (((handler >> 16) & 0xffff) << 48);
    [low, handler >> 32]
}
