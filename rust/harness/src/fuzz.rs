// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fuzz`: guests of limited length, one after the other, that do random operations on their devices.

mod done;

use crate::boot::{guest_spec, initramfs, judge, Links, CALM_TIMER, NO_KMEMLEAK};
use crate::kernel::Kernel;
use crate::process::check_interrupted;
use crate::progress::Step;
use crate::qemu::Guest;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use clap::Args;
use done::Done;
use ivshmem_guest::plan::{DevicePlan, Plan, Protection, Shape, SoftInmate};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

/// Operations of a guest, at most. The number depends on nothing, so that a guest can be repeated.
const GUEST: u64 = 1_000_000;
/// Seconds of a guest, at most, before patience.
const GUEST_TIME: u64 = 1200;
/// Operations if neither they nor a time is given.
const SHORT: u64 = 60_000;

/// Of so many guests one of each kind watches for memory that is lost: that takes more time than all operations do.
const LEAK_ROUND: u64 = 16;

/// Name of the link with a hostile device.
const HOSTILE: &str = "hostile device";

/// How much to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct Amount {
    /// Operations, of all guests together [default: 60000, or as many as the time allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Seconds, of all guests together
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time: Option<u64>,
    /// Where to begin; the same seed makes the same operations [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Processors of each guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Print how often each operation ended with which error
    #[arg(long)]
    histogram: bool,
}

/// A device that lies does much less in the same time: the part of the operations that its guest does.
const HOSTILE_PART: u64 = 5;

/// Links that guests have, in turn; the last one's device is hostile. Their third peer sends messages back, or answers
/// doorbells only, or breaks the rules of channels.
fn links() -> [(&'static str, DevicePlan); 4] {
    let inmate = |behaviour: &str| {
        Some(SoftInmate {
            peer: 2,
            behaviour: behaviour.into(),
        })
    };
    let usual = DevicePlan {
        inmate: inmate("echo"),
        ..DevicePlan::default()
    };
    let mapped = DevicePlan {
        protection: Protection::Mapped,
        inmate: inmate("channel-echo"),
        ..usual.clone()
    };
    let bar2 = DevicePlan {
        shape: Shape::Bar2,
        vectors: 16,
        // As fast as it may it rings so often that the guest has time for little else.
        inmate: inmate("channel-attacker,rate=500"),
        ..mapped.clone()
    };
    [
        ("mapped", mapped.clone()),
        ("trap", usual),
        ("BAR 2", bar2),
        (HOSTILE, mapped),
    ]
}

/// Two peers of the link in one guest, with IDs 0 and 1.
fn devices(link: &DevicePlan) -> Vec<DevicePlan> {
    let device = |peer: u32| DevicePlan {
        slot: 5 + peer as u8,
        peer,
        peers: 3,
        ..link.clone()
    };
    vec![device(0), device(1)]
}

/// What a guest is like beside its devices.
struct How {
    cpus: u32,
    /// kmemleak is on.
    watches_leaks: bool,
}

impl How {
    /// For the kernel's command line.
    fn words(&self) -> String {
        let leaks = if self.watches_leaks { "" } else { NO_KMEMLEAK };
        format!("{CALM_TIMER} {leaks}")
    }
}

/// Runs guests until all is done; the results of each.
pub(crate) fn run(settings: &Settings, amount: &Amount) -> Result<Vec<TestResult>> {
    let kernel = settings.kernel()?;
    let seed = amount
        .seed
        .unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    let operations = match (amount.ops, amount.time) {
        (Some(operations), _) => operations,
        (None, Some(_)) => u64::MAX,
        (None, None) => SHORT,
    };
    let time = amount.time.map_or(Duration::MAX, Duration::from_secs);
    println!(
        "fuzzing {}; the first guest's seed is {seed}, each further one's is 1 more",
        kernel.title()
    );
    let folder = settings.run_folder("fuzz")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;

    // Few operations are shared by guests of all kinds.
    let each = operations.div_ceil(links().len() as u64).min(GUEST);
    let begin = Instant::now();
    let (mut all, mut results) = (Done::default(), Vec::new());
    while all.total < operations && begin.elapsed() < time {
        let left = time.saturating_sub(begin.elapsed()).as_secs().max(1);
        let seed = seed.wrapping_add(all.guests);
        let (kind, link) = &links()[(seed % 4) as usize];
        let part = if *kind == HOSTILE { HOSTILE_PART } else { 1 };
        let count = (each / part).clamp(1, operations - all.total);
        let seconds = left.min(GUEST_TIME * u64::from(settings.patience));
        let mut arguments = vec![seed.to_string(), count.to_string(), seconds.to_string()];
        if *kind == HOSTILE {
            arguments.push("hostile".into());
        }
        let how = How {
            cpus: amount.cpus,
            watches_leaks: all.guests % LEAK_ROUND < links().len() as u64,
        };
        let plan = Plan {
            run: "fuzz".into(),
            arguments,
            devices: devices(link),
            patience: settings.patience,
        };
        let name = format!("seed {seed}, {kind}");
        let (mut own, done) = guest(settings, &kernel, &folder, &archive, &plan, &name, &how)?;
        let has_failed = own.iter().any(TestResult::has_failed);
        if has_failed {
            let again = format!("to repeat it: make fuzz SEED={seed} OPS={}", each * 4);
            println!("{again}");
            if let Some(result) = own.iter_mut().find(|result| result.has_failed()) {
                result.notes.push(again);
            }
        }
        results.append(&mut own);
        all.add(&done);
        if has_failed || done.was_interrupted {
            break;
        }
    }
    println!("{}", all.text(begin.elapsed(), amount.histogram));
    let mut result = TestResult::from_reasons("operations were carried out", all.missing());
    result
        .notes
        .extend(all.text(begin.elapsed(), true).lines().map(Into::into));
    results.push(result);
    Ok(results)
}

/// One guest: its results, and what it did.
fn guest(
    settings: &Settings,
    kernel: &Kernel,
    folder: &Path,
    archive: &Path,
    plan: &Plan,
    name: &str,
    how: &How,
) -> Result<(Vec<TestResult>, Done)> {
    let step = Step::begin(format!("fuzz ({name})"), settings.verbose);
    let links = Links::start(settings, folder, &plan.devices)?;
    let mut spec = guest_spec("guest", kernel, archive, plan, &links);
    spec.cpus = Some(how.cpus);
    spec.words = format!("{} {}", spec.words, how.words());
    spec.prefix = settings.verbose.then(|| "guest | ".into());
    let mut guest = Guest::start(settings, folder, &spec)?;
    let ended = guest.wait(settings.limit_of(Duration::from_secs(GUEST_TIME), 1));
    if check_interrupted().is_err() {
        let mut done = Done::of(&guest.report_so_far());
        done.was_interrupted = true;
        step.end(&format!("interrupted after {} operations", done.total));
        return Ok((Vec::new(), done));
    }
    ended?;
    let end = guest.finish()?;
    let report: Vec<String> = end.report.lines().map(Into::into).collect();
    let done = Done::of(&report);
    let mut results = judge(name, &end);
    // What a hostile device tempts its peer to is the device's fault.
    if name.contains(HOSTILE) {
        links.finish()?;
    } else {
        results.extend(links.judge(name)?);
    }
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!("{} operations, {failed} failed", done.total));
    Ok((results, done))
}
