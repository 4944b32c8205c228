// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much time the processes that we have started took: by the clock, and of processors. The latter
//! does not depend on what else the machine does, and their difference is time spent waiting.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// Length of the unit in which /proc tells times of processors (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// A moment to measure from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    begin: Instant,
    processors: Duration,
}

impl Since {
    /// Now.
    pub(crate) fn now() -> Self {
        Self {
            begin: Instant::now(),
            processors: of_children(),
        }
    }

    /// What was spent up to now.
    pub(crate) fn spent(&self) -> Spent {
        Spent {
            clock: self.begin.elapsed(),
            processors: of_children().saturating_sub(self.processors),
        }
    }
}

/// An amount of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    clock: Duration,
    processors: Duration,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clock, processors) = (self.clock.as_secs_f32(), self.processors.as_secs_f32());
        write!(f, "{clock:.1} s, CPU {processors:.1} s")
    }
}

/// What all children took, those that have ended and those that run. None of it where /proc does not
/// tell: this is for people.
fn of_children() -> Duration {
    let ended = times("/proc/self/stat").map_or(0, |times| times[2] + times[3]);
    let own = std::process::id();
    let list = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let running = list
        .split_whitespace()
        .filter_map(|child| times(&format!("/proc/{child}/stat")))
        .map(|times| times[0] + times[1]);
    TICK * (ended + running.sum::<u32>())
}

/// Ticks of a process itself, as a user and in the kernel, and the same of its children that have ended.
fn times(stat: &str) -> Option<[u32; 4]> {
    let text = fs::read_to_string(stat).ok()?;
    // Behind the name, which may be anything: state, 10 numbers, and these.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|word| word.parse().ok());
    let mut next = || times.next().flatten();
    Some([next()?, next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_child_computes_is_seen() {
        let since = Since::now();
        // Its own count ends it.
        let program = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = Command::new("sh").args(["-c", program]).status().unwrap();
        assert!(status.success());
        let spent = since.spent();
        assert!(spent.processors >= TICK, "{spent:?}");
    }

    #[test]
    fn names_with_blanks_and_brackets_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        fs::write(&path, "5 (a) b 7) S 1 1 1 0 -1 0 1 2 3 4 10 20 30 40 20 0").unwrap();
        assert_eq!(times(path.to_str().unwrap()), Some([10, 20, 30, 40]));
        fs::write(&path, "5 (a) S 1").unwrap();
        assert_eq!(times(path.to_str().unwrap()), None);
    }
}
