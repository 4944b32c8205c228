// SPDX-License-Identifier: MIT OR Apache-2.0
//! `shell`: a guest to play in, with the module loaded, two peers of a link and a soft inmate.

use crate::boot::{guest_spec, initramfs, Links};
use crate::process::{check_interrupted, Process};
use crate::qemu;
use crate::settings::Settings;
use anyhow::Result;
use ivshmem_guest::plan::{DevicePlan, Plan, SoftInmate};
use std::time::Duration;

/// Runs until the person leaves the shell.
pub(crate) fn run(settings: &Settings) -> Result<bool> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder("shell")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?
        .file(&kernel.busybox, "bin/busybox", 0o755)
        .write(&archive)?;
    let device = |peer: u32| DevicePlan {
        slot: 5 + peer as u8,
        peer,
        peers: 3,
        inmate: Some(SoftInmate {
            peer: 2,
            behaviour: "demo".into(),
        }),
        ..DevicePlan::default()
    };
    let plan = Plan {
        run: "shell".into(),
        devices: vec![device(0), device(1)],
        ..Plan::default()
    };
    let links = Links::start(settings, &folder, &plan.devices)?;
    let mut spec = guest_spec("shell", &kernel, &archive, &plan, &links);
    spec.reports = false;
    let mut command = qemu::command(settings, &spec)?;
    // Ctrl-C belongs to the guest's shell. Nobody reads the report.
    command.args([
        "-chardev",
        "stdio,id=terminal,signal=off",
        "-serial",
        "chardev:terminal",
    ]);
    command.args(["-serial", "null"]);
    println!(
        "Booting {}; the inmate (peer 2) talks to peer 0: try `ivshmem-demo -t 2`.",
        kernel.title()
    );
    let mut guest = Process::start_in_our_group("shell", &mut command)?;
    while guest.poll()?.is_none() {
        check_interrupted()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let reasons = links.finish()?.forbidden;
    for reason in &reasons {
        println!("{reason}");
    }
    Ok(reasons.is_empty())
}
