// SPDX-License-Identifier: MIT OR Apache-2.0
//! What register accesses messages cost: exactly 1 on an idle link, next to none on one that is full.

use super::two::{Pair, Roles};
use super::THOUSAND;
use crate::progress::Step;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::{Context, Result};
use ivshmem_device::statistics::Statistics;

/// Messages on an idle link.
const IDLE: u64 = 500;
/// Size of the sections of the saturated link, in bytes.
const SECTION: u64 = 0x10_0000;
/// Most accesses for a message on a saturated link.
const SATURATED_MAX: f64 = 0.05;

/// Sends messages on an idle link, and `saturated` at once, and counts.
pub(super) fn run(settings: &Settings, saturated: u64) -> Result<Vec<TestResult>> {
    let step = Step::begin(
        format!("register accesses: {IDLE} messages on an idle link, {saturated} at once"),
        settings.verbose,
    );
    let roles = Roles {
        sections: vec![SECTION],
        steps: (THOUSAND, saturated / 1000),
        ..Roles::same("cost", vec![IDLE.to_string(), saturated.to_string()])
    };
    let ended = Pair::start(settings, &roles)?.finish("register accesses")?;
    let mut results = ended.results;
    let counted = (|| {
        let [begin, idle, full] = ["begin", "idle", "saturated"].map(|phase| {
            accesses(&ended.reports[0], phase).with_context(|| format!("no statistics `{phase}`"))
        });
        let (begin, idle, full) = (begin?, idle?, full?);
        Ok((idle - begin, full - idle))
    })();
    results.extend(match counted {
        Ok((idle, full)) => judge(idle, full, saturated),
        Err(error) => not_counted(&error),
    });
    super::end(step, &results);
    Ok(results)
}

fn not_counted(error: &anyhow::Error) -> Vec<TestResult> {
    let name = "register accesses of messages are counted";
    vec![TestResult::from_reasons(name, vec![error.to_string()])]
}

/// All accesses of all peers to registers, and those to the memory that trapped, up to a phase of the
/// report.
fn accesses(report: &str, phase: &str) -> Option<u64> {
    let mut lines = report.lines().filter_map(counts);
    lines.find_map(|(found, count)| (found == phase).then_some(count))
}

/// A phase and its accesses, if a line of a report tells of them.
pub(super) fn counts(line: &str) -> Option<(&str, u64)> {
    let (phase, text) = line.strip_prefix("# statistics ")?.split_once(' ')?;
    let statistics: Statistics = serde_json::from_str(text).ok()?;
    let of_peer = |peer: &ivshmem_device::statistics::Peer| {
        peer.register_reads.total()
            + peer.register_writes.total()
            + peer.memory_reads
            + peer.memory_writes
    };
    Some((phase, statistics.peers.iter().map(of_peer).sum()))
}

fn judge(idle: u64, full: u64, saturated: u64) -> Vec<TestResult> {
    let mut reasons = Vec::new();
    if idle != IDLE {
        reasons.push(format!("{IDLE} messages made {idle} accesses"));
    }
    let each = full as f64 / saturated as f64;
    let size = SECTION / 1024;
    let mut full_reasons = Vec::new();
    if each > SATURATED_MAX {
        full_reasons.push(format!("{saturated} messages made {full} accesses"));
    }
    let figure =
        format!("{full} register accesses for {saturated} messages of 64 bytes, {each:.4} each");
    println!("  {figure}, sections of {size} KiB; idle: {idle} for {IDLE}");
    vec![
        TestResult::from_reasons("idle link: exactly 1 register access per message", reasons),
        TestResult::from_reasons(
            format!("saturated link, sections of {size} KiB: at most {SATURATED_MAX} register accesses per message"),
            full_reasons,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_decide() {
        let failed = |idle, full| -> Vec<bool> {
            let results = judge(idle, full, 1000);
            results.iter().map(TestResult::has_failed).collect()
        };
        assert_eq!(failed(IDLE, 50), [false, false]);
        assert_eq!(failed(IDLE + 1, 0), [true, false]);
        assert_eq!(failed(IDLE - 1, 0), [true, false]);
        assert_eq!(failed(IDLE, 51), [false, true]);
    }

    #[test]
    fn statistics_are_found_in_a_report() {
        let mut statistics = Statistics::default();
        let mut peer = ivshmem_device::statistics::Peer::default();
        peer.register_writes.doorbell = 3;
        peer.register_reads.state = 2;
        statistics.peers = vec![peer.clone(), peer];
        let text = serde_json::to_string(&statistics).unwrap();
        let report = format!("ok 1 - x\n# statistics idle {text}\n");
        assert_eq!(accesses(&report, "idle"), Some(10));
        assert_eq!(accesses(&report, "begin"), None);
    }
}
