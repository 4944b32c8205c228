// SPDX-License-Identifier: MIT OR Apache-2.0
//! The module on Debian's arm64 kernel: it loads, and it unloads.

use crate::initramfs::Initramfs;
use crate::progress::Step;
use crate::qemu::{Guest, GuestSpec, Machine};
use crate::scan::complaints_with_test;
use crate::settings::Settings;
use crate::tap::{Report, TestResult};
use anyhow::Result;

/// The guest's first process: a shell script, as our own program is built for x86-64.
const INIT: &str = include_str!("arm64-init.sh");

/// Boots it and judges.
pub(crate) fn run(settings: &Settings) -> Result<Vec<TestResult>> {
    let kernel = settings.kernel_arm64()?;
    let folder = settings.run_folder("arm64")?;
    let archive = folder.join("initramfs");
    Initramfs::default()
        .file(&kernel.busybox, "bin/busybox", 0o755)
        .file(&settings.module_in_build(&kernel), "ivshmem.ko", 0o644)
        .text("release", 0o644, &kernel.release)
        .text("init", 0o755, INIT)
        .write(&archive)?;
    let step = Step::begin(
        format!("guest \"arm64\", {}", kernel.release),
        settings.verbose,
    );
    let spec = GuestSpec {
        name: "guest".into(),
        machine: Machine::Virt,
        kernel: kernel.boot,
        initramfs: Some(archive),
        prefix: settings.verbose.then(|| "arm64 | ".into()),
        ..GuestSpec::default()
    };
    let end = Guest::start(settings, &folder, &spec)?.finish()?;
    let report = Report::parse(&end.console.join("\n"));
    let mut defects = report.defects();
    if !defects.is_empty() || !end.status.success() {
        defects.push(format!("QEMU ended with {}", end.status));
        defects.extend(end.console.iter().rev().take(10).rev().cloned());
    }
    let named = |result: TestResult| TestResult {
        name: format!("arm64: {}", result.name),
        ..result
    };
    let mut results: Vec<_> = report.results.into_iter().map(named).collect();
    results.push(TestResult::from_reasons(
        "arm64: the guest runs to its end and powers off",
        defects,
    ));
    let kernel = complaints_with_test(&end.console);
    results.push(TestResult::from_reasons(
        "arm64: no report of any kernel checker",
        kernel,
    ));
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    Ok(results)
}
