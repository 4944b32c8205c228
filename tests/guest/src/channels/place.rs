// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a program runs that is measured: on the processor that takes the interrupts which wake it, as somebody would
//! place it who counts microseconds. Elsewhere each message costs an interrupt from processor to processor besides.

use super::Failure;
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use std::fs;

/// Interrupts of the devices that carry messages, taken by each processor.
pub(super) fn taken() -> Result<Vec<u64>, Failure> {
    Ok(parse(&fs::read_to_string("/proc/interrupts")?))
}

/// Reads the sums of /proc/interrupts.
fn parse(text: &str) -> Vec<u64> {
    let mut lines = text.lines();
    let processors = lines
        .next()
        .map_or(0, |names| names.split_whitespace().count());
    let mut sums = vec![0; processors];
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.last().unwrap_or(&"");
        if !name.starts_with("ivshmem") && !name.starts_with("virtio") {
            continue;
        }
        for (sum, word) in sums.iter_mut().zip(&words[1..]) {
            *sum += word.parse::<u64>().unwrap_or(0);
        }
    }
    sums
}

/// A thread that stays on one processor, until this is dropped.
pub(super) struct Placed(CpuSet);

impl Placed {
    /// Places this thread on the processor that has taken most interrupts since they were `before`.
    pub(super) fn by_interrupts(before: &[u64]) -> Result<Self, Failure> {
        let all = sched_getaffinity(None)?;
        let more = taken()?
            .into_iter()
            .zip(before)
            .map(|(now, before)| now - before);
        // The last of those that are alike; there is one at least.
        let most = more.enumerate().max_by_key(|&(_, more)| more);
        let (processor, _) = most.ok_or("a machine without processors")?;
        let mut one = CpuSet::new();
        one.set(processor);
        sched_setaffinity(None, &one)?;
        Ok(Self(all))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // Should it fail, the next measurement begins on this processor.
        let _ = sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn interrupts_of_devices_that_carry_messages_are_summed() {
        let text = "           CPU0       CPU1
  1:          9          0   IO-APIC    1-edge      i8042
 24:          5          7   PCI-MSIX-0000:00:05.0    0-edge      ivshmem0-0
 31:          0         30   PCI-MSIX-0000:00:08.0    1-edge      virtio1-input.0
NMI:          4          4   Non-maskable interrupts
";
        assert_eq!(parse(text), [5, 37]);
    }
}
