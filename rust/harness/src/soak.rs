// SPDX-License-Identifier: MIT OR Apache-2.0
//! `soak`: a guest in which the device goes and comes back, many times, under a process that has
//! everything open.

use crate::boot::{guest_spec, initramfs, judge, Links, CALM_TIMER};
use crate::process::check_interrupted;
use crate::progress::Step;
use crate::qemu::Guest;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::{bail, Result};
use ivshmem_guest::plan::{DevicePlan, Plan, Protection};
use std::time::Duration;

/// How long a cycle may take, before patience.
const CYCLE: Duration = Duration::from_secs(10);

/// Runs `cycles` cycles of each way to go and come back.
pub(crate) fn run(settings: &Settings, cycles: u64) -> Result<Vec<TestResult>> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder("soak")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let device = |peer: u32| DevicePlan {
        slot: 5 + peer as u8,
        peer,
        peers: 3,
        protection: Protection::Mapped,
        ..DevicePlan::default()
    };
    let plan = Plan {
        run: "soak".into(),
        arguments: vec![cycles.to_string()],
        devices: vec![device(0), device(1)],
        patience: settings.patience,
    };
    let name = format!("soak, {}", kernel.title());
    let step = Step::begin(
        format!("{name}: {cycles} cycles each way"),
        settings.verbose,
    );
    let links = Links::start(settings, &folder, &plan.devices)?;
    let mut spec = guest_spec("guest", &kernel, &archive, &plan, &links);
    spec.words = format!("{} {CALM_TIMER}", spec.words);
    spec.prefix = settings.verbose.then(|| "guest | ".into());
    let mut guest = Guest::start(settings, &folder, &spec)?;
    let ended = guest.wait(settings.limit_of(CYCLE, 2 * cycles));
    if check_interrupted().is_err() {
        let report = guest.report_so_far();
        let so_far = report.iter().rev().find(|line| line.starts_with("# soak "));
        let so_far = so_far.map_or("before the first cycle", |line| &line[2..]);
        step.end(&format!("interrupted, at {so_far}"));
        bail!("interrupted");
    }
    ended?;
    let end = guest.finish()?;
    let mut results = judge("soak", &end);
    results.extend(links.judge("soak")?);
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    for line in end.report.lines().filter(|line| is_figure(line)) {
        println!("  {}", line.trim_start_matches("# soak "));
    }
    Ok(results)
}

/// Whether a line of the report is for people: how long a cycle took, how often a role was told.
fn is_figure(line: &str) -> bool {
    line.starts_with("# soak told") || (line.starts_with("# soak ") && line.contains(" ms each"))
}
