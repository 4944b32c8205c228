// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel that watches itself has found by the end of a guest: lost memory, and whether it has
//! watched its locks all the time. Kernels without these checkers give no results here.

use crate::report::{Outcome, Report};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const LOCKDEP: &str = "/proc/lockdep_stats";

/// kmemleak says nothing of what is younger than 5 s (MSECS_MIN_AGE), as it may not have been stored yet.
const MIN_AGE: Duration = Duration::from_millis(5500);

/// Lines of what was found that go into the report.
const LINES: usize = 60;

/// Looks, and reports.
pub(crate) fn look(report: &mut Report) -> io::Result<()> {
    if Path::new(KMEMLEAK).exists() && !is_off()? {
        let outcome = failed_if(lost_memory());
        report.result("kmemleak finds no unreferenced object", &outcome)?;
    }
    if Path::new(LOCKDEP).exists() {
        let outcome = failed_if(blind_lockdep());
        report.result("lockdep has watched until the end", &outcome)?;
    }
    Ok(())
}

/// Whether the kernel was told not to look for lost memory.
fn is_off() -> io::Result<bool> {
    let words = fs::read_to_string("/proc/cmdline")?;
    Ok(words.split_whitespace().any(|word| word == "kmemleak=off"))
}

fn failed_if(reasons: io::Result<Vec<String>>) -> Outcome {
    match reasons {
        Ok(reasons) if reasons.is_empty() => Outcome::Passed,
        Ok(reasons) => Outcome::Failed(reasons),
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    }
}

/// What kmemleak reports. An object is reported when two scans have found no pointer to it, and it did
/// not change between them.
fn lost_memory() -> io::Result<Vec<String>> {
    fs::write(KMEMLEAK, "scan")?;
    std::thread::sleep(MIN_AGE);
    fs::write(KMEMLEAK, "scan")?;
    let found = fs::read_to_string(KMEMLEAK)?;
    Ok(found.lines().take(LINES).map(Into::into).collect())
}

/// Why lockdep cannot have watched: it switches itself off at its first report, and when its tables are
/// full.
fn blind_lockdep() -> io::Result<Vec<String>> {
    let text = fs::read_to_string(LOCKDEP)?;
    let mut words = text.lines().filter_map(|line| line.split_once(':'));
    let flag = words.find(|(name, _)| name.trim() == "debug_locks");
    match flag.map(|(_, value)| value.trim()) {
        Some("1") => Ok(Vec::new()),
        other => Ok(vec![format!("debug_locks is {other:?}")]),
    }
}
