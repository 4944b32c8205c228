// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entry of the program: `boot.s`, then [`inmate_main`].

use core::arch::global_asm;

global_asm!(include_str!("boot.s"), options(att_syntax));

/// Where `boot.s` leads to, in 64-bit mode with interrupts off.
#[no_mangle]
extern "C" fn inmate_main(start_info: u32) -> ! {
    crate::start(start_info)
}
