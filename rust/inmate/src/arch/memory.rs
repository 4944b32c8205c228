// SPDX-License-Identifier: MIT OR Apache-2.0
//! The four functions that compiled code expects from a C library.

use core::arch::asm;

/// # Safety
/// As in C.
#[no_mangle]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both pieces; the direction flag is clear.
    unsafe {
        asm!("rep movsb", inout("rcx") size => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[no_mangle]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= size {
        // SAFETY: the caller vouches for both pieces; copying upwards overwrites
        // nothing that is still to be read.
        return unsafe { memcpy(to, from, size) };
    }
    // SAFETY: the caller vouches for both pieces, and size is not 0 here; the
    // direction flag is set for this copy only.
    unsafe {
        asm!("std", "rep movsb", "cld",
             inout("rcx") size => _, inout("rdi") to.add(size - 1) => _,
             inout("rsi") from.add(size - 1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As in C.
#[no_mangle]
unsafe extern "C" fn memset(to: *mut u8, value: i32, size: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the piece; the direction flag is clear.
    unsafe {
        asm!("rep stosb", inout("rcx") size => _, inout("rdi") to => _, in("al") value as u8,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[no_mangle]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    for index in 0..size {
        // SAFETY: the caller vouches for both pieces. Volatile, or the compiler
        // would make a call of memcmp of this loop.
        let (a, b) = unsafe {
            (
                left.add(index).read_volatile(),
                right.add(index).read_volatile(),
            )
        };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As in C.
#[no_mangle]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    // SAFETY: the same conditions.
    unsafe { memcmp(left, right, size) }
}
