// SPDX-License-Identifier: MIT OR Apache-2.0
//! A plugin for QEMU that finds out what a guest spends its time on. `make bench PROFILE=1` loads it.
//!
//! It counts the instructions that each translated block of the guest executes; a block that a fault leaves
//! early counts whole. Ticks, spinning and sleeping depend on how busy the machine is, the rest does not.
//! Besides it looks every millisecond which block each processor is in, which tells the time, too: an access
//! to a device is one instruction, and takes as long as thousands.
//!
//! `-plugin ivshmem-profiler.so,socket=PATH`: whoever connects to PATH gets all that has been counted so far,
//! a line `ADDRESS INSTRUCTIONS SAMPLES` for each block, the address in hexadecimal; then the connection is
//! closed. All programs count as one block, at [`PROGRAMS`].

mod counts;
// Only QEMU has what it calls.
#[cfg(not(test))]
mod plugin;

use counts::Counts;
use std::ffi::{CStr, OsStr};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(not(test))]
use std::time::Duration;

/// The address that stands for all programs: no kernel has code there.
pub const PROGRAMS: u64 = 0;

/// How often each processor is looked at.
#[cfg(not(test))]
const PERIOD: Duration = Duration::from_millis(1);

/// Where counts of instructions are kept, in QEMU.
trait Place: Copy + Send + 'static {
    /// Instructions executed there, by all processors.
    fn sum(self) -> u64;
}

type Shared<P> = Arc<Mutex<Counts<P>>>;

fn lock<P>(counts: &Shared<P>) -> MutexGuard<'_, Counts<P>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plugin's argument: `socket=PATH`.
fn socket(arguments: &[&CStr]) -> Option<PathBuf> {
    let [argument] = arguments else { return None };
    let path = argument.to_bytes().strip_prefix(b"socket=")?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// Answers whoever connects to `listener`, for ever.
fn serve<P: Place>(counts: &Shared<P>, listener: &UnixListener) {
    for stream in listener.incoming() {
        // Who has gone away again does not want it.
        let _ = stream.and_then(|stream| show(counts, stream));
    }
}

fn show<P: Place>(counts: &Shared<P>, stream: UnixStream) -> std::io::Result<()> {
    // The guest must not wait for whoever reads this.
    let text = lock(counts).to_string();
    let mut stream = BufWriter::new(stream);
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    impl Place for u64 {
        fn sum(self) -> u64 {
            self
        }
    }

    #[test]
    fn who_connects_gets_the_counts() {
        let folder = std::env::temp_dir().join(format!("ivshmem-profiler-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let counts = Arc::new(Mutex::new(Counts::default()));
        lock(&counts).number(0x1000, || 7);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn({
            let counts = Arc::clone(&counts);
            move || serve(&counts, &listener)
        });
        for expected in ["1000 7 0\n", "1000 7 1\n"] {
            let mut text = String::new();
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
            lock(&counts).found(&[1]);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_one_argument_is_a_socket() {
        assert_eq!(socket(&[c"socket=/x"]), Some("/x".into()));
        assert_eq!(socket(&[c"/x"]), None);
        assert_eq!(socket(&[]), None);
    }
}
