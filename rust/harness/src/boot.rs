// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot of a Linux guest and what is judged about every one of them.

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::link::{forbidden_accesses, left_behind, Link};
use crate::process::check_interrupted;
use crate::qemu::{GuestEnd, GuestSpec};
use crate::requests::Services;
use crate::scan::complaints_with_test;
use crate::settings::Settings;
use crate::tap::{Report, TestResult};
use anyhow::Result;
use ivshmem_device::statistics::Statistics;
use ivshmem_guest::plan::{DevicePlan, Plan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The programs that a guest may have beside its first process.
const PROGRAMS: &[&str] = &[
    "ivshmem-demo",
    "ivshmem-chat",
    "ivshmem-request",
    "ivshmem-send-file",
];

/// Words of the kernel's command line for guests in which many threads take turns all the time: a tick of a constant
/// rate. An emulated timer that is set anew at each turn takes a third of all time. Deadlines are met within a tick.
pub(crate) const CALM_TIMER: &str = "highres=off nohz=off";

/// Words of the kernel's command line for guests in which kmemleak does not watch. It takes half of the time of a
/// kernel that has it; others ignore the word.
pub(crate) const NO_KMEMLEAK: &str = "kmemleak=off";

/// The initramfs of all Linux guests, with our first process, the module and the programs.
pub(crate) fn initramfs(settings: &Settings, kernel: &Kernel) -> Result<Initramfs> {
    let mut archive = Initramfs::default()
        .file(
            &settings.guest_program(kernel, "ivshmem-guest")?,
            "init",
            0o755,
        )
        .file(&settings.module(kernel), "ivshmem.ko", 0o644)
        .text(
            "etc/kernel-release",
            0o644,
            &format!("{}\n", kernel.release),
        );
    for name in PROGRAMS {
        archive = archive.file(
            &settings.guest_program(kernel, name)?,
            &format!("bin/{name}"),
            0o755,
        );
    }
    Ok(archive)
}

/// The links of a guest or of several, by number.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<u32, Link>);

impl Links {
    /// Starts a device model for each link of `devices`.
    pub(crate) fn start(
        settings: &Settings,
        folder: &Path,
        devices: &[DevicePlan],
    ) -> Result<Self> {
        let mut by_link: BTreeMap<u32, Vec<DevicePlan>> = BTreeMap::new();
        for device in devices {
            by_link.entry(device.link).or_default().push(device.clone());
        }
        let mut links = Self::default();
        for (number, devices) in by_link {
            let name = format!("link{number}");
            links
                .0
                .insert(number, Link::start(settings, folder, &name, &devices)?);
        }
        Ok(links)
    }

    /// Slots and sockets of a guest's devices.
    pub(crate) fn sockets(&self, devices: &[DevicePlan]) -> Vec<(u8, PathBuf)> {
        devices
            .iter()
            .map(|device| (device.slot, self.0[&device.link].socket(device.peer)))
            .collect()
    }

    /// What a guest may ask of the device models.
    pub(crate) fn services(&self) -> Services {
        let control = |(&number, link): (&u32, &Link)| (number, link.control());
        Services {
            models: self.0.iter().map(control).collect(),
            ..Services::default()
        }
    }

    /// Takes the link with that number out.
    pub(crate) fn take(&mut self, number: u32) -> Link {
        self.0
            .remove(&number)
            .expect("links are numbered by the plan")
    }

    /// Kills all device models, as a crash would. Their statistics are lost.
    pub(crate) fn kill(&self) -> Result<()> {
        self.0.values().try_for_each(Link::kill)
    }

    /// Ends all device models; what they saw that must not be, as results for guests that powered off. A device model
    /// that fails is a result, too.
    pub(crate) fn judge(self, prefix: &str) -> Result<Vec<TestResult>> {
        let findings = self.finish();
        part(prefix, findings.map(|it| it.results(prefix).into()))
    }

    /// Ends all device models and says what they saw that must not be.
    pub(crate) fn finish(self) -> Result<Findings> {
        let mut findings = Findings::default();
        for (number, link) in self.0 {
            let name = format!("link {number}");
            findings.add(&name, &link.finish()?);
        }
        Ok(findings)
    }
}

/// What device models saw that must not be.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Accesses that stop a root cell on Jailhouse, and damage to memory that nobody may write.
    pub(crate) forbidden: Vec<String>,
    /// What was left set in registers by guests that powered off. One that was killed cannot help it.
    left_behind: Vec<String>,
}

impl Findings {
    /// Adds what the statistics of the link `name` say.
    pub(crate) fn add(&mut self, name: &str, statistics: &Statistics) {
        self.forbidden.extend(forbidden_accesses(name, statistics));
        self.left_behind.extend(left_behind(name, statistics));
    }

    /// As results, for guests that powered off.
    pub(crate) fn results(self, prefix: &str) -> [TestResult; 2] {
        [
            TestResult::from_reasons(
                format!("{prefix}: accesses fatal on Jailhouse: 0, and canaries untouched"),
                self.forbidden,
            ),
            TestResult::from_reasons(
                format!("{prefix}: shutdown leaves the devices silent and absent for their peers"),
                self.left_behind,
            ),
        ]
    }
}

/// A guest that carries out `plan`.
pub(crate) fn guest_spec(
    name: &str,
    kernel: &Kernel,
    initramfs: &Path,
    plan: &Plan,
    links: &Links,
) -> GuestSpec {
    GuestSpec {
        name: name.into(),
        machine: kernel.machine,
        kernel: kernel.boot.clone(),
        initramfs: Some(initramfs.into()),
        reports: true,
        services: links.services(),
        words: format!("{} {}", kernel.flavour.words(), plan.words()),
        devices: links.sockets(&plan.devices),
        ..GuestSpec::default()
    }
}

/// The results of a part of the work. One that could not be carried out is a failure, and the others go on,
/// unless somebody has interrupted us.
pub(crate) fn part(name: &str, results: Result<Vec<TestResult>>) -> Result<Vec<TestResult>> {
    check_interrupted()?;
    Ok(results.unwrap_or_else(|error| {
        let name = format!("{name}: can be carried out to the end");
        vec![TestResult::from_reasons(name, vec![format!("{error:#}")])]
    }))
}

/// The results of a guest that has ended: what it reported, that the report is complete, and that
/// its kernel did not complain. `prefix` goes in front of every name.
pub(crate) fn judge(prefix: &str, end: &GuestEnd) -> Vec<TestResult> {
    // The end mark belongs to no test.
    let report = Report::parse(&end.report.replace("# end\n", ""));
    let mut defects = report.defects();
    if !end.report.contains("# end\n") {
        defects.push("the guest died before the end of its report".into());
        let last = end.console.iter().rev().take(15).rev();
        defects.extend(last.map(|line| format!("console: {line}")));
    }
    if !end.status.success() {
        defects.push(end.how());
        defects.extend(end.messages.iter().cloned());
    }
    let mut results: Vec<TestResult> = report
        .results
        .into_iter()
        .map(|result| TestResult {
            name: format!("{prefix}: {}", result.name),
            ..result
        })
        .collect();
    let kernel = complaints_with_test(&end.console);
    results.push(TestResult::from_reasons(
        format!("{prefix}: the guest runs to its end and powers off"),
        defects,
    ));
    results.push(TestResult::from_reasons(
        format!("{prefix}: no report of any kernel checker"),
        kernel,
    ));
    results
}
