// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two 8259 interrupt controllers: not used, so silenced.

use super::port::{PIC_COMMAND, PIC_DATA};

/// Moves their vectors away from the exceptions, for a spurious one may still
/// come, and masks all lines.
pub(crate) fn silence() {
    for (unit, (first_vector, wiring)) in [(0x20, 1 << 2), (0x28, 2)].into_iter().enumerate() {
        PIC_COMMAND[unit].write8(0x11); // start of the initialisation, ICW4 follows
        PIC_DATA[unit].write8(first_vector);
        PIC_DATA[unit].write8(wiring);
        PIC_DATA[unit].write8(0x01); // 8086 mode
        PIC_DATA[unit].write8(0xff);
    }
}
