// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console: the first serial port, 115200 baud, 8N1, polled, output only.

use core::fmt;

use crate::arch::port;

const LSR_TRANSMIT_READY: u8 = 1 << 5;
const LSR_ALL_SENT: u8 = 1 << 6;

/// The first serial port as a text console; newlines become CR LF.
pub(crate) struct Console;

impl Console {
    /// Sets the port up; its interrupts are off.
    pub(crate) fn init() {
        port::SERIAL_INTERRUPTS.write8(0);
        port::SERIAL_LINE_CONTROL.write8(0x80); // the divisor latch
        port::SERIAL_DATA.write8(1);
        port::SERIAL_INTERRUPTS.write8(0);
        port::SERIAL_LINE_CONTROL.write8(0x03); // 8 bits, no parity, 1 stop bit
        port::SERIAL_FIFO.write8(0x07); // on and empty
        port::SERIAL_MODEM_CONTROL.write8(0x03); // DTR and RTS
    }

    /// Waits until the last byte has left.
    pub(crate) fn drain() {
        wait_for(LSR_ALL_SENT);
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    wait_for(LSR_TRANSMIT_READY);
    port::SERIAL_DATA.write8(byte);
}

/// Where there is no port, its status reads all ones, so this ends.
fn wait_for(status: u8) {
    while port::SERIAL_LINE_STATUS.read8() & status == 0 {
        core::hint::spin_loop();
    }
}
