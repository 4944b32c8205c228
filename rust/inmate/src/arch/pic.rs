// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two 8259 interrupt controllers: silent, but for the line of a device
//! that has INTx only.

use super::port::{Port, PIC_COMMAND, PIC_DATA, PIC_TRIGGER};

/// Vectors of the 16 lines; away from the exceptions, for a spurious interrupt
/// may come even from masked controllers.
pub(super) const FIRST_VECTOR: u8 = 0x20;
/// Number of lines of both controllers.
pub(crate) const LINES: u8 = 16;

/// Line of the first controller that the second one hangs on.
const CASCADE: u8 = 2;
/// Timer, keyboard, cascade, clock, coprocessor.
const NOT_FOR_PCI: u16 = 0x2103 | (1 << CASCADE);
const ALL_MASKED: u8 = 0xff;
const INITIALISE: u8 = 0x11;
const MODE_8086: u8 = 0x01;
const END_OF_INTERRUPT: u8 = 0x20;
const READ_IN_SERVICE: u8 = 0x0b;

/// Masks all lines.
pub(crate) fn silence() {
    for (unit, wiring) in [1 << CASCADE, CASCADE].into_iter().enumerate() {
        PIC_COMMAND[unit].write8(INITIALISE);
        PIC_DATA[unit].write8(FIRST_VECTOR + 8 * unit as u8);
        PIC_DATA[unit].write8(wiring);
        PIC_DATA[unit].write8(MODE_8086);
        PIC_DATA[unit].write8(ALL_MASKED);
    }
}

/// The lines that a PCI device routed to IRQ `line` can interrupt on, a bit for
/// each. Where the device does not keep that number, as on Jailhouse, these are
/// all that the firmware has made level-triggered, as PCI wants it.
pub(crate) fn possible_lines(line: u8) -> u16 {
    if line < LINES && NOT_FOR_PCI & (1 << line) == 0 {
        return 1 << line;
    }
    u16::from_le_bytes(PIC_TRIGGER.map(Port::read8)) & !NOT_FOR_PCI
}

/// Lets these lines through, level-triggered.
pub(super) fn connect(lines: u16) {
    let mut open = lines;
    if lines > 0xff {
        open |= 1 << CASCADE;
    }
    for (unit, (lines, open)) in lines
        .to_le_bytes()
        .into_iter()
        .zip(open.to_le_bytes())
        .enumerate()
    {
        PIC_TRIGGER[unit].write8(PIC_TRIGGER[unit].read8() | lines);
        PIC_DATA[unit].write8(!open);
    }
}

/// Whether the interrupt on `line` is a real one, for the controllers report
/// one that went away as the last line of either; to be called by the handler.
pub(super) fn is_in_service(line: u8) -> bool {
    let (unit, bit) = place(line);
    PIC_COMMAND[unit].write8(READ_IN_SERVICE);
    let real = PIC_COMMAND[unit].read8() & bit != 0;
    if !real && unit == 1 {
        // The first controller has seen a real one, from the second.
        PIC_COMMAND[0].write8(END_OF_INTERRUPT);
    }
    real
}

/// Ends the interrupt on `line`; called by its handler.
pub(super) fn end_of_interrupt(line: u8) {
    if place(line).0 == 1 {
        PIC_COMMAND[1].write8(END_OF_INTERRUPT);
    }
    PIC_COMMAND[0].write8(END_OF_INTERRUPT);
}

/// The controller of a line and its bit there.
fn place(line: u8) -> (usize, u8) {
    (usize::from(line / 8), 1 << (line % 8))
}
