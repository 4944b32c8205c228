// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two Linux guests on one link, or on several.

use super::{peers, Profiler, Schedule};
use crate::boot::{guest_spec, initramfs, judge, Links, CALM_TIMER};
use crate::process::wait_for;
use crate::qemu::{Guest, GuestSpec};
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use ivshmem_guest::plan::{DevicePlan, Plan, Protection};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What two guests are to do.
#[derive(Debug, Clone)]
pub(super) struct Roles {
    /// Folder for consoles and the like.
    pub(super) folder: String,
    /// The jobs, by peer ID.
    pub(super) runs: [&'static str; 2],
    /// Their arguments.
    pub(super) arguments: Vec<String>,
    /// Size of the output sections in bytes, for each link.
    pub(super) sections: Vec<u64>,
    /// Each guest has a log that outlives it.
    pub(super) logs: bool,
    /// They have what channels are compared with: a network, and a serial port to each other.
    pub(super) peers: bool,
    /// The plugin that profiles them, if they are to be.
    pub(super) profiler: Option<PathBuf>,
    /// The second guest is reset now and then.
    pub(super) schedule: Option<Arc<Schedule>>,
    /// How long it may take, beyond the usual limit and before patience: so many steps of that length.
    pub(super) steps: (Duration, u64),
}

impl Roles {
    /// Two guests that do the same job.
    pub(super) fn same(run: &'static str, arguments: Vec<String>) -> Self {
        Self {
            folder: run.into(),
            runs: [run, run],
            arguments,
            sections: vec![0x4000],
            peers: false,
            logs: false,
            profiler: None,
            schedule: None,
            steps: (Duration::ZERO, 0),
        }
    }

    /// The devices of `peer`, one for each link.
    fn devices(&self, peer: u32) -> Vec<DevicePlan> {
        let sections = (0_u8..).zip(&self.sections);
        sections
            .map(|(link, &size)| Self::device(link, peer, size))
            .collect()
    }

    fn device(link: u8, peer: u32, output_size: u64) -> DevicePlan {
        DevicePlan {
            slot: 0x10 + link,
            link: link.into(),
            peer,
            protection: Protection::Mapped,
            // Whole pages of every kernel: user-space rings map them.
            state_size: 0x4000,
            rw_size: 0x4000,
            output_size,
            // The bench uses one more than channels and rings do.
            vectors: 5,
            ..DevicePlan::default()
        }
    }
}

/// Two running guests, peers 0 and 1 of all links.
pub(super) struct Pair {
    folder: PathBuf,
    links: Links,
    guests: Vec<Guest>,
    logs: [PathBuf; 2],
    limit: Duration,
    /// Of what connects them besides the links.
    _sockets: TempDir,
}

/// How two guests ended.
pub(super) struct Ended {
    /// What they reported, and what is judged about every guest.
    pub(super) results: Vec<TestResult>,
    /// The text of their reports, by peer ID.
    pub(super) reports: Vec<String>,
    /// Their logs, by peer ID; empty if they had none.
    pub(super) logs: [String; 2],
}

impl Pair {
    /// Starts two guests.
    pub(super) fn start(settings: &Settings, roles: &Roles) -> Result<Self> {
        let kernel = settings.kernel()?;
        let folder = settings.run_folder(&roles.folder)?;
        let archive = folder.join("initramfs");
        let mut content = initramfs(settings, &kernel)?;
        if roles.peers {
            content = peers::files(&kernel, &folder, content)?;
        }
        content.write(&archive)?;
        let logs = [0, 1].map(|peer| folder.join(format!("guest{peer}.log")));
        let devices = [roles.devices(0), roles.devices(1)].concat();
        let links = Links::start(settings, &folder, &devices)?;
        let sockets = tempfile::Builder::new().prefix("ivshmem-").tempdir()?;
        let mut guests = Vec::new();
        for (peer, log) in (0..2).zip(&logs) {
            let plan = Plan {
                run: roles.runs[peer as usize].into(),
                arguments: roles.arguments.clone(),
                devices: roles.devices(peer),
                patience: settings.patience,
            };
            let name = format!("guest{peer}");
            let mut spec = GuestSpec {
                prefix: settings.verbose.then(|| format!("{name} | ")),
                may_reset: roles.schedule.is_some(),
                ..guest_spec(&name, &kernel, &archive, &plan, &links)
            };
            spec.services.schedule.clone_from(&roles.schedule);
            if roles.logs {
                spec.options.extend(log_port(log));
            }
            if roles.peers {
                spec.options.extend(peers::options(peer, sockets.path()));
                // What is measured sleeps and wakes all the time.
                spec.words = format!("{} {CALM_TIMER}", spec.words);
            }
            if let Some(plugin) = &roles.profiler {
                let socket = sockets.path().join(format!("profiler{peer}"));
                spec.options.extend(Profiler::options(plugin, &socket));
                spec.services.profiler = Some(Profiler::new(socket, folder.join(&name)));
            }
            guests.push(Guest::start(settings, &folder, &spec)?);
        }
        Ok(Self {
            folder,
            links,
            guests,
            logs,
            limit: settings.limit_of(roles.steps.0, roles.steps.1),
            _sockets: sockets,
        })
    }

    /// Where consoles and the like are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the end of both, and judges them; `name` goes in front of what is found.
    pub(super) fn finish(mut self, name: &str) -> Result<Ended> {
        let guests = &mut self.guests;
        let ended = wait_for(self.limit, || {
            let mut running = guests.len();
            for guest in guests.iter_mut() {
                if guest.poll()?.is_some() {
                    running -= 1;
                    let report = guest.report_so_far();
                    let failed = report.iter().any(|line| line.starts_with("not ok"));
                    if failed || !report.iter().any(|line| line == "# end") {
                        // The other one would wait for it.
                        return Ok(Some(false));
                    }
                }
            }
            Ok((running == 0).then_some(true))
        })?;
        for guest in &mut self.guests {
            match ended {
                Some(true) => {}
                Some(false) => guest.kill()?,
                None => guest.give_up(self.limit)?,
            }
        }
        let mut results = Vec::new();
        let mut reports = Vec::new();
        for (peer, guest) in self.guests.into_iter().enumerate() {
            let end = guest.finish()?;
            results.extend(judge(&format!("{name}: guest {peer}"), &end));
            reports.push(end.report);
        }
        results.extend(self.links.judge(name)?);
        Ok(Ended {
            results,
            reports,
            logs: self
                .logs
                .map(|log| fs::read_to_string(log).unwrap_or_default()),
        })
    }
}

/// A virtio-serial port whose other end is a file. Without an I/O thread in between, what the guest
/// writes is in the file before it goes on.
fn log_port(file: &Path) -> Vec<String> {
    [
        "-device",
        "virtio-serial-pci,ioeventfd=off",
        "-chardev",
        &format!("file,id=log,path={}", file.display()),
        "-device",
        "virtserialport,chardev=log,name=ivshmem.log",
    ]
    .map(Into::into)
    .into()
}
