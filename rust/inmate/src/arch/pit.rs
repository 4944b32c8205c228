// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channel 2 of the 8254 timer, as the clock that the local APIC's timer is
//! measured with.

use super::port::{PIT_CHANNEL_2, PIT_CONTROL, SYSTEM_CONTROL};

/// Frequency in Hz.
const FREQUENCY: u32 = 1_193_182;
/// What [`wait`] takes, in milliseconds.
pub(super) const WAIT_MS: u32 = 10;
const COUNT: u16 = (FREQUENCY * WAIT_MS / 1000) as u16;

const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Far more reads than fit into the wait; a read takes about a microsecond on
/// hardware and more in an emulator.
const PATIENCE: u32 = 10_000_000;

/// Calls `start`, returns [`WAIT_MS`] later with `true`, or with `false` if there
/// is no timer that counts.
pub(super) fn wait(start: impl FnOnce()) -> bool {
    let control = SYSTEM_CONTROL.read8();
    SYSTEM_CONTROL.write8(control & !SPEAKER | GATE);
    PIT_CONTROL.write8(0xb0); // channel 2, both bytes, output rises at the end of the count
    PIT_CHANNEL_2.write8(COUNT as u8);
    start();
    PIT_CHANNEL_2.write8((COUNT >> 8) as u8); // counts from here on
    let counted = SYSTEM_CONTROL.read8() & OUTPUT == 0
        && (0..PATIENCE).any(|_| SYSTEM_CONTROL.read8() & OUTPUT != 0);
    SYSTEM_CONTROL.write8(control & !SPEAKER);
    counted
}
