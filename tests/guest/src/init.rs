// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first process: mounts, does what the plan says, reports, powers off.

use crate::aftermath;
use crate::duties;
use crate::report::{Outcome, Report};
use crate::system;
use rustix::fs::Mode;
use rustix::mount::{mount, MountFlags};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Never returns: ends with power-off, whatever happens.
pub(crate) fn run() -> ! {
    let done = catch_unwind(AssertUnwindSafe(|| {
        mount_all()?;
        let mut report = Report::open()?;
        if let Err(error) = work(&mut report) {
            let reasons = vec![error.to_string()];
            report.result(
                "init: the plan can be carried out",
                &Outcome::Failed(reasons),
            )?;
        }
        report.finish()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    }));
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("init: {error}"),
        Err(_) => eprintln!("init: panicked"),
    }
    rustix::fs::sync();
    let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    panic!("the guest does not power off: {error:?}");
}

fn mount_all() -> rustix::io::Result<()> {
    let none = MountFlags::empty();
    for (source, target, kind) in [
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("devtmpfs", "/dev", "devtmpfs"),
        ("tmpfs", "/tmp", "tmpfs"),
        ("debugfs", "/sys/kernel/debug", "debugfs"),
        ("tracefs", "/sys/kernel/tracing", "tracefs"),
    ] {
        match rustix::fs::mkdir(target, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        mount(source, target, kind, none, None)?;
    }
    Ok(())
}

fn work(report: &mut Report) -> Result<(), Box<dyn std::error::Error>> {
    let plan = system::plan()?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    report.comment(&format!("kernel {}", release.trim()))?;
    duties::run(&plan, report)?;
    Ok(aftermath::look(report)?)
}
