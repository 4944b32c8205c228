// SPDX-License-Identifier: GPL-2.0

//! Random numbers.

use kernel::bindings;

/// A random number. From any context.
pub(crate) fn u32() -> u32 {
    // SAFETY: Has no preconditions.
    unsafe { bindings::get_random_u32() }
}
