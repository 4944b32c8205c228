// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stock QEMU with `-accel qtest`: the real client, without a guest. The test is the CPU.

use super::wait_for;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// A QEMU that runs no code.
pub(crate) struct Qemu {
    process: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
}

/// A PCI function on bus 0 of a [`Qemu`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    slot: u8,
}

impl Qemu {
    /// Starts QEMU with a device for each socket, in slots 5, 6...; its control socket
    /// in `directory`.
    pub(crate) fn start(directory: &Path, sockets: &[PathBuf]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let control = directory.join(format!("qtest{number}.sock"));
        let listener = UnixListener::bind(&control).expect("a socket for qtest");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-M", "pc", "-accel", "qtest", "-m", "64"])
            .arg("-qtest")
            .arg(format!("unix:{}", control.display()))
            .args(["-qtest-log", "/dev/null"]);
        for (slot, socket) in (5..).zip(sockets) {
            command.arg("-device").arg(format!(
                r#"{{"driver":"vfio-user-pci","addr":"{slot}","x-msg-timeout":600000,"socket":{{"type":"unix","path":"{}"}}}}"#,
                socket.display()
            ));
        }
        let mut process = command
            .stdin(Stdio::null())
            .spawn()
            .expect("these tests need qemu-system-x86_64, version 10.1 or later, on PATH");
        listener.set_nonblocking(true).expect("a socket");
        let to = wait_for("QEMU to connect", || {
            if let Some(status) = process.try_wait().expect("a child") {
                panic!("QEMU ended at once: {status}");
            }
            listener.accept().ok()
        })
        .0;
        to.set_nonblocking(false).expect("a socket");
        to.set_read_timeout(Some(super::limit())).expect("a socket");
        let from = BufReader::new(to.try_clone().expect("a socket"));
        Self { process, to, from }
    }

    /// Sends a command and gives the words of the answer after `OK`.
    fn command(&mut self, command: &str) -> String {
        writeln!(self.to, "{command}").expect("QEMU lives");
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.from.read_line(&mut line).expect("QEMU answers");
            assert_ne!(read, 0, "QEMU died at {command:?}");
            // Interrupts of the machine itself are announced in between.
            if !line.starts_with("IRQ") {
                break;
            }
        }
        let answer = line.trim_end().strip_prefix("OK");
        answer.expect("a command that QEMU knows").trim().to_owned()
    }

    fn number(&mut self, command: &str) -> u64 {
        let answer = self.command(command);
        let digits = answer.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).expect("a hexadecimal number")
    }

    /// Loads from guest-physical memory: `width` is b, w, l or q.
    pub(crate) fn read(&mut self, width: char, address: u64) -> u64 {
        self.number(&format!("read{width} {address:#x}"))
    }

    pub(crate) fn write(&mut self, width: char, address: u64, value: u64) {
        self.command(&format!("write{width} {address:#x} {value:#x}"));
    }

    pub(crate) fn readl(&mut self, address: u64) -> u32 {
        self.read('l', address) as u32
    }

    pub(crate) fn writel(&mut self, address: u64, value: u32) {
        self.write('l', address, value.into());
    }

    /// The function with the device of the n-th socket.
    pub(crate) fn function(n: u8) -> Function {
        Function { slot: 5 + n }
    }

    fn select(&mut self, function: Function, offset: u8) {
        let slot = u32::from(function.slot) << 11;
        let address = (1 << 31) | slot | u32::from(offset & 0xfc);
        self.command(&format!("outl {CONFIG_ADDRESS:#x} {address:#x}"));
    }

    pub(crate) fn config_read(&mut self, function: Function, offset: u8) -> u32 {
        self.select(function, offset);
        self.number(&format!("inl {CONFIG_DATA:#x}")) as u32
    }

    pub(crate) fn config_write(&mut self, function: Function, offset: u8, value: u32) {
        self.select(function, offset);
        self.command(&format!("outl {CONFIG_DATA:#x} {value:#x}"));
    }

    pub(crate) fn config_write_u16(&mut self, function: Function, offset: u8, value: u16) {
        self.select(function, offset);
        let port = CONFIG_DATA + u16::from(offset & 2);
        self.command(&format!("outw {port:#x} {value:#x}"));
    }

    pub(crate) fn config_write_u8(&mut self, function: Function, offset: u8, value: u8) {
        self.select(function, offset);
        let port = CONFIG_DATA + u16::from(offset & 3);
        self.command(&format!("outb {port:#x} {value:#x}"));
    }

    pub(crate) fn outb(&mut self, port: u16, value: u8) {
        self.command(&format!("outb {port:#x} {value:#x}"));
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.number(&format!("inb {port:#x}")) as u8
    }

    /// Does what firmware does so that INTx lines reach the interrupt controller: all four lines
    /// of the PIIX to IRQ 10, and that a level.
    pub(crate) fn route_intx_to_irq_10(&mut self) {
        let bridge = Function { slot: 1 };
        for line in 0..4 {
            self.config_write_u8(bridge, 0x60 + line, 10);
        }
        self.outb(0x4d1, 1 << (10 - 8));
    }

    /// Whether IRQ 10 is up, as the interrupt controller's request register says.
    pub(crate) fn irq_10(&mut self) -> bool {
        self.outb(0xa0, 0x0a);
        self.inb(0xa0) & (1 << (10 - 8)) != 0
    }

    /// Kills QEMU, as a user would.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("a child");
        self.process.wait().expect("a child");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
