// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log that outlives this guest: a virtio-serial port behind which the harness has a file. QEMU has
//! written a line there before the call returns, so not even a reset of the guest takes it back.
//!
//! The lines, each a word and numbers, are read by `rust/harness/src/channels/oracle.rs`:
//!
//! | line | meaning |
//! | --- | --- |
//! | `session S` | our session S is up |
//! | `got S P FIRST LAST` | in it, these messages of the peer's session P have come, and are right |
//! | `confirmed S N` | the peer has confirmed N messages of it |
//! | `ended S WHY` | it has ended: `closed`, `reset`, `gone` or `broken`; not if we have finished it ourselves |
//! | `wrong WORDS` | what must not be |

use super::Failure;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Name of the port.
const NAME: &str = "ivshmem.log";
/// Where the kernel tells the names of ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// The open log.
pub(crate) struct Log(Mutex<File>);

impl Log {
    /// Opens the log of this guest. One process has it at a time.
    pub(crate) fn open() -> Result<Self, Failure> {
        let path = port(NAME)?;
        let file = File::options().write(true).open(&path);
        let file = file.map_err(|error| format!("cannot open {path}: {error}"))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Adds a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(format!("{text}\n").as_bytes())?)
    }
}

/// The device file of the virtio-serial port called `name`.
pub(crate) fn port(name: &str) -> Result<String, Failure> {
    for entry in fs::read_dir(PORTS)?.flatten() {
        let told = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if told.trim_end() == name {
            let file = Path::new("/dev").join(entry.file_name());
            return Ok(file.to_string_lossy().into_owned());
        }
    }
    Err(format!("there is no virtio-serial port `{name}`").into())
}
