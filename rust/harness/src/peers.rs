// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channels of a guest with peers that are not Linux: the bare-metal inmate beside it, and an attacker in the
//! device model for as long as one likes.

use crate::boot::{guest_spec, initramfs, judge, Links};
use crate::demo::{INMATE_SUCCESS, LONGEST};
use crate::progress::Step;
use crate::qemu::{Guest, GuestSpec};
use crate::settings::Settings;
use crate::suites::with_peers;
use crate::tap::TestResult;
use anyhow::Result;
use ivshmem_guest::plan::{DevicePlan, Plan};
use ivshmem_guest::INMATE_SESSIONS;
use std::time::Duration;

/// A guest and the bare-metal inmate on one link.
pub(crate) fn with_the_inmate(settings: &Settings) -> Result<Vec<TestResult>> {
    let name = "channel with the bare-metal inmate";
    let kernel = settings.kernel()?;
    let folder = settings.run_folder("channel-inmate")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let step = Step::begin(name, settings.verbose);
    let peer = |peer| DevicePlan {
        peer,
        ..with_peers()
    };
    let links = Links::start(settings, &folder, &[peer(0), peer(1)])?;
    let plan = Plan {
        run: "suites".into(),
        arguments: vec!["channel-inmate".into()],
        devices: vec![peer(0)],
        patience: settings.patience,
    };
    let mut spec = guest_spec("guest", &kernel, &archive, &plan, &links);
    spec.prefix = settings.verbose.then(|| "guest | ".into());
    // Should nothing else end it, its own limit does.
    let timeout = settings.limit().as_secs().min(LONGEST);
    let inmate = GuestSpec {
        name: "inmate".into(),
        kernel: settings.inmate()?,
        words: format!("mode=channel-echo rounds={INMATE_SESSIONS} timeout={timeout}"),
        devices: links.sockets(&[peer(1)]),
        prefix: settings.verbose.then(|| "inmate | ".into()),
        ..GuestSpec::default()
    };
    let inmate = Guest::start(settings, &folder, &inmate)?;
    let guest = Guest::start(settings, &folder, &spec)?;
    let guest = guest.finish()?;
    let inmate = inmate.finish()?;
    let mut results = judge(name, &guest);
    let mut reasons = Vec::new();
    if inmate.status.code() != Some(INMATE_SUCCESS) {
        reasons.push(inmate.how());
    }
    // The root cell connects again at once, so the inmate may see the end of a session by the next one.
    let over = |line: &&String| {
        line.contains("is over: the peer has closed it")
            || line.contains("is over: the peer has restarted or left")
    };
    let count = inmate.console.iter().filter(over).count();
    if count != INMATE_SESSIONS as usize {
        reasons.push(format!("{count} of {INMATE_SESSIONS} sessions have ended"));
    }
    if !reasons.is_empty() {
        reasons.extend(inmate.console.iter().rev().take(10).rev().cloned());
    }
    results.push(TestResult::from_reasons(
        format!("{name}: the inmate sees each session come and go, and ends well"),
        reasons,
    ));
    results.extend(links.judge(name)?);
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    Ok(results)
}

/// A guest in which a peer attacks its channels for `time` seconds.
pub(crate) fn attack(settings: &Settings, time: u64, seed: u64) -> Result<Vec<TestResult>> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder("attack")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let name = format!("attack, {}", kernel.title());
    let step = Step::begin(format!("{name}: {time} s, seed {seed}"), settings.verbose);
    let plan = Plan {
        run: "attack".into(),
        arguments: vec![time.to_string(), seed.to_string()],
        devices: vec![with_peers()],
        patience: settings.patience,
    };
    let links = Links::start(settings, &folder, &plan.devices)?;
    let mut spec = guest_spec("guest", &kernel, &archive, &plan, &links);
    spec.prefix = settings.verbose.then(|| "guest | ".into());
    let mut guest = Guest::start(settings, &folder, &spec)?;
    guest.wait(settings.limit_of(Duration::from_secs(2), time))?;
    let end = guest.finish()?;
    let mut results = judge("attack", &end);
    results.extend(links.judge("attack")?);
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    let words = end
        .report
        .lines()
        .filter_map(|line| line.strip_prefix("# attack: "));
    words.for_each(|words| println!("  {words}"));
    Ok(results)
}
