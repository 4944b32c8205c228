// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two Linux guests on one link that ring each other, and what that costs in register accesses.

use crate::boot::{guest_spec, initramfs, judge, part, Findings, Links, NO_KMEMLEAK};
use crate::progress::Step;
use crate::qemu::Guest;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use ivshmem_device::statistics::{Peer, Registers, Statistics};
use ivshmem_guest::plan::{DevicePlan, Plan, Protection};
use std::time::Duration;

/// How long a thousand doorbells may take, in both directions and both ways, before patience.
const THOUSAND: Duration = Duration::from_secs(20);

/// How many doorbells the short run sends, to be compared with the long one.
const FEW: u64 = 100;

/// Rings `count` times in each direction, in lock-step and freely; then `FEW` times; and compares the
/// register accesses of both runs.
pub(crate) fn run(settings: &Settings, count: u64) -> Result<Vec<TestResult>> {
    let (mut results, many) = ring(settings, "two guests", count, "")?;
    let (more, few) = ring(settings, "two guests, few doorbells", FEW, NO_KMEMLEAK)?;
    results.extend(more);
    // Each run rings twice, in lock-step and freely.
    results.extend(costs(&few, &many, 2 * FEW, 2 * count));
    Ok(results)
}

/// `words` go to the kernel's command line.
fn ring(
    settings: &Settings,
    name: &str,
    count: u64,
    words: &str,
) -> Result<(Vec<TestResult>, Statistics)> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder(&name.replace([' ', ','], "-"))?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let device = |peer| DevicePlan {
        peer,
        protection: Protection::Mapped,
        // Whole pages of every kernel: the guests map them.
        state_size: 0x4000,
        rw_size: 0xc000,
        output_size: 0x4000,
        ..DevicePlan::default()
    };
    let mut links = Links::start(settings, &folder, &[device(0), device(1)])?;
    let step = Step::begin(
        format!("{name}: {count} doorbells each way, twice"),
        settings.verbose,
    );
    let guests = (0..2)
        .map(|peer| {
            let plan = Plan {
                run: "traffic".into(),
                arguments: vec![count.to_string()],
                devices: vec![device(peer)],
                patience: settings.patience,
            };
            let file = format!("guest{peer}");
            let mut spec = guest_spec(&file, &kernel, &archive, &plan, &links);
            spec.words = format!("{words} {}", spec.words);
            spec.prefix = settings.verbose.then(|| format!("{file} | "));
            Guest::start(settings, &folder, &spec)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut results = Vec::new();
    let limit = settings.limit_of(THOUSAND, count / 1000);
    for (peer, mut guest) in guests.into_iter().enumerate() {
        guest.wait(limit)?;
        results.extend(judge(&format!("{name}: guest {peer}"), &guest.finish()?));
    }
    let mut statistics = Statistics::default();
    let findings = links.take(0).finish().map(|found| {
        statistics = found;
        let mut findings = Findings::default();
        findings.add("link", &statistics);
        findings.results(name).into()
    });
    results.extend(part(name, findings)?);
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    Ok((results, statistics))
}

/// How often a driver rings itself when it binds a device.
const SELF_TEST: u64 = 1;

/// Compares two runs that differ only in the number of doorbells.
fn costs(few: &Statistics, many: &Statistics, rung_few: u64, rung_many: u64) -> Vec<TestResult> {
    let (mut sending, mut receiving) = (Vec::new(), Vec::new());
    if few.peers.len() != 2 || many.peers.len() != 2 {
        sending.push("the statistics do not have two peers".into());
    }
    for (few, many) in few.peers.iter().zip(&many.peers) {
        for (peer, rung) in [(few, rung_few), (many, rung_many)] {
            let writes = peer.register_writes.doorbell;
            if writes != rung + SELF_TEST {
                sending.push(format!(
                    "peer {}: {rung} doorbells and the self-test's {SELF_TEST} were {writes} writes \
                     of the register",
                    peer.id
                ));
            }
        }
        let (before, after) = (others(few), others(many));
        if before != after {
            receiving.push(format!(
                "peer {}: {rung_few} doorbells each way made {before:?}, {rung_many} made {after:?}",
                few.id
            ));
        }
        if many.interrupts.delivered < few.interrupts.delivered {
            receiving.push(format!(
                "peer {}: more doorbells, fewer interrupts",
                many.id
            ));
        }
    }
    vec![
        TestResult::from_reasons(
            "register accesses with MSI-X: a doorbell costs exactly 1",
            sending,
        ),
        TestResult::from_reasons("register accesses with MSI-X: receiving costs 0", receiving),
    ]
}

/// All register accesses of a peer but the doorbells that it rang: reads, writes, and trapped
/// accesses to the memory.
fn others(peer: &Peer) -> (Registers, Registers, u64, u64) {
    let writes = Registers {
        doorbell: 0,
        ..peer.register_writes.clone()
    };
    let reads = peer.register_reads.clone();
    (reads, writes, peer.memory_reads, peer.memory_writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(doorbells: u64, int_ctrl: u64) -> Statistics {
        let peer = |id| {
            let mut peer = Peer {
                id,
                ..Peer::default()
            };
            peer.register_writes.doorbell = doorbells + SELF_TEST;
            peer.register_writes.int_ctrl = int_ctrl;
            peer
        };
        Statistics {
            peers: vec![peer(0), peer(1)],
            ..Statistics::default()
        }
    }

    fn failures(few: &Statistics, many: &Statistics) -> Vec<bool> {
        let results = costs(few, many, 10, 1000);
        results.iter().map(TestResult::has_failed).collect()
    }

    #[test]
    fn exact_costs_pass_and_others_do_not() {
        let few = statistics(10, 2);
        assert_eq!(failures(&few, &statistics(1000, 2)), [false, false]);
        assert_eq!(failures(&few, &statistics(1001, 2)), [true, false]);
        assert_eq!(failures(&few, &statistics(1000, 1002)), [false, true]);
        assert_eq!(failures(&few, &Statistics::default()), [true, false]);
    }
}
