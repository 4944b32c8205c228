// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single instructions.

use core::arch::asm;
use core::arch::x86_64::{CpuidResult, __cpuid};

/// No interrupts from here on.
pub(crate) fn disable_interrupts() {
    // SAFETY: only delays interrupts; orders memory accesses as seen by handlers
    // because it is not marked `nomem`.
    unsafe { asm!("cli", options(nostack)) }
}

/// Lets interrupts in.
pub(super) fn enable_interrupts() {
    // SAFETY: all gates are set up before the first call, handlers only count.
    unsafe { asm!("sti", options(nostack)) }
}

/// Lets interrupts in and sleeps until one comes. An interrupt that is already
/// waiting ends the sleep: `sti` lets it in only after the `hlt` has begun.
pub(super) fn enable_interrupts_and_halt() {
    // SAFETY: as for enable_interrupts.
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// Stops the processor.
pub(crate) fn halt_for_good() -> ! {
    loop {
        // SAFETY: the program ends here.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Address of the last page fault.
pub(super) fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    address
}

/// The CPUID leaf; all zero if the processor does not have it.
pub(super) fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every 64-bit processor has CPUID.
    let most = unsafe { __cpuid(leaf & 0x8000_0000) }.eax;
    if leaf > most {
        return CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
    }
    // SAFETY: as above.
    unsafe { __cpuid(leaf) }
}

/// Reads a model specific register.
///
/// # Safety
/// The register must exist.
pub(super) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches for the register; reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    (u64::from(high) << 32) | u64::from(low)
}

/// Writes a model specific register.
///
/// # Safety
/// The register must exist, and the value must do no harm to the program.
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller vouches for register and value. Not `nomem`: the write
    // may make an interrupt handler run.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}
