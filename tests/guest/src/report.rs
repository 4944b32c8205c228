// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report that the harness reads: TAP 13 on the second serial port.
//!
//! The last line is `# end`; a report without it is that of a guest that died.

use rustix::termios::{tcdrain, tcgetattr, tcsetattr, OptionalActions};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Where the report goes: the second serial port of the machine for this architecture
/// (`rust/harness/src/machine.rs`).
const PORT: &str = if cfg!(target_arch = "aarch64") {
    "/dev/ttyAMA1"
} else {
    "/dev/ttyS1"
};

/// The serial port of the report. The first process has made it raw.
pub(crate) fn port() -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(PORT)
}

/// An open report.
pub(crate) struct Report {
    port: File,
    count: usize,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// With lines that say why.
    Failed(Vec<String>),
}

impl Report {
    /// Opens the port raw, so that line ends stay as they are.
    pub(crate) fn open() -> io::Result<Self> {
        let port = port()?;
        let mut modes = tcgetattr(&port)?;
        modes.make_raw();
        tcsetattr(&port, OptionalActions::Now, &modes)?;
        let mut report = Self { port, count: 0 };
        report.line("TAP version 13")?;
        Ok(report)
    }

    /// One result, with diagnostics.
    pub(crate) fn result(&mut self, name: &str, outcome: &Outcome) -> io::Result<()> {
        self.count += 1;
        let number = self.count;
        match outcome {
            Outcome::Passed => self.line(&format!("ok {number} - {name}")),
            Outcome::Failed(reasons) => {
                self.line(&format!("not ok {number} - {name}"))?;
                reasons.iter().try_for_each(|reason| self.comment(reason))
            }
        }
    }

    /// A line that is not a result.
    pub(crate) fn comment(&mut self, text: &str) -> io::Result<()> {
        self.line(&format!("# {text}"))
    }

    /// The plan and the end mark; waits until all of it has left.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let count = self.count;
        self.line(&format!("1..{count}"))?;
        self.line("# end")?;
        tcdrain(&self.port)?;
        Ok(())
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.port.write_all(format!("{text}\n").as_bytes())
    }
}
