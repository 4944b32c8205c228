// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link: the device model as a process, and its statistics.

use crate::console::Console;
use crate::process::{wait_for, Process};
use crate::settings::Settings;
use anyhow::{bail, Context, Result};
use ivshmem_device::statistics::{LeftBehind, Statistics, FORMAT};
use ivshmem_guest::plan::DevicePlan;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running device model.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    process: Process,
    messages: Console,
    statistics: PathBuf,
    /// Short path, as socket addresses are limited to 107 bytes. Goes with the link.
    sockets: TempDir,
    settings: Settings,
}

impl Link {
    /// Starts a device model for the link that `devices` are on, and waits until it listens.
    pub(crate) fn start(
        settings: &Settings,
        folder: &Path,
        name: &str,
        devices: &[DevicePlan],
    ) -> Result<Self> {
        let sockets = tempfile::Builder::new().prefix("ivshmem-").tempdir()?;
        let statistics = folder.join(format!("{name}.json"));
        let mut command = Command::new(settings.program("ivshmem-device")?);
        command
            .arg("--socket-dir")
            .arg(sockets.path())
            .arg("--stats")
            .arg(&statistics)
            .arg("--control")
            .arg(control(sockets.path()))
            .args(options(devices))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join(format!("{name}.stderr")))?);
        let mut process = Process::start(name, &mut command)?;
        let stdout = process.child.stdout.take().context("no pipe")?;
        let messages = Console::follow(stdout, &folder.join(format!("{name}.log")), None)?;
        let mut link = Self {
            name: name.into(),
            process,
            messages,
            statistics,
            sockets,
            settings: settings.clone(),
        };
        link.wait_until_listening(folder)?;
        Ok(link)
    }

    fn wait_until_listening(&mut self, folder: &Path) -> Result<()> {
        let (process, messages) = (&mut self.process, &self.messages);
        let status = wait_for(self.settings.limit(), || {
            if messages.count("listening") > 0 {
                return Ok(Some(None));
            }
            Ok(process.poll()?.map(Some))
        })?;
        match status {
            Some(None) => Ok(()),
            Some(Some(status)) => {
                let reason = folder.join(format!("{}.stderr", self.name));
                let reason = fs::read_to_string(reason).unwrap_or_default();
                bail!(
                    "the device model ended at once ({status}): {}",
                    reason.trim()
                )
            }
            None => bail!("the device model does not listen"),
        }
    }

    /// The socket of `peer`.
    pub(crate) fn socket(&self, peer: u32) -> PathBuf {
        self.sockets.path().join(format!("peer{peer}.sock"))
    }

    /// The socket on which the device model takes commands.
    pub(crate) fn control(&self) -> PathBuf {
        control(self.sockets.path())
    }

    /// Kills the device model, as a crash would.
    pub(crate) fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Ends the device model and reads its statistics.
    pub(crate) fn finish(mut self) -> Result<Statistics> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(self.settings.limit())?;
        if !status.success() {
            bail!("the device model `{}` ended with {status}", self.name);
        }
        let shown = self.statistics.display();
        let text = fs::read_to_string(&self.statistics)
            .with_context(|| format!("the device model left no statistics in {shown}"))?;
        let statistics: Statistics = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not what it should be"))?;
        if statistics.format != FORMAT || !statistics.last {
            bail!("{shown} is not the last of format {FORMAT}");
        }
        Ok(statistics)
    }
}

fn control(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// The options that make a link as the plan wants it. What all its devices have in common is
/// taken from the first.
fn options(devices: &[DevicePlan]) -> Vec<String> {
    let common = &devices[0];
    let mut options: Vec<String> = [
        ("--peers", common.peers.to_string()),
        ("--state-size", format!("{:#x}", common.state_size)),
        ("--rw-size", format!("{:#x}", common.rw_size)),
        ("--output-size", format!("{:#x}", common.output_size)),
        ("--vectors", common.vectors.to_string()),
        ("--protocol", format!("{:#x}", common.protocol)),
        ("--shape", common.shape.to_string()),
        ("--protection", common.protection.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_string(), value])
    .collect();
    if let Some(inmate) = &common.inmate {
        options.extend(["--inmate".into(), inmate.to_string()]);
    }
    for device in devices {
        if let Some(fault) = &device.fault {
            options.extend(["--fault".into(), format!("{fault}@{}", device.peer)]);
        }
    }
    options
}

/// What peers had left set when their guest powered off, which their drivers are to put back.
pub(crate) fn left_behind(name: &str, statistics: &Statistics) -> Vec<String> {
    let peers = statistics.peers.iter();
    peers
        .filter(|peer| peer.left_behind != LeftBehind::default())
        .map(|peer| format!("{name}: peer {} left {:?}", peer.id, peer.left_behind))
        .collect()
}

/// What in the statistics must be 0: accesses that stop a root cell on Jailhouse, and damage to
/// memory that nobody may write.
pub(crate) fn forbidden_accesses(name: &str, statistics: &Statistics) -> Vec<String> {
    let mut reasons = Vec::new();
    if statistics.fatal_accesses != 0 {
        reasons.push(format!(
            "{name}: {} accesses would have stopped a cell on Jailhouse",
            statistics.fatal_accesses
        ));
    }
    for peer in &statistics.peers {
        if peer.fatal.total() != 0 {
            reasons.push(format!("{name}: peer {}: {:?}", peer.id, peer.fatal));
        }
    }
    let canaries = &statistics.canaries;
    if canaries.damage() != 0 {
        reasons.push(format!("{name}: damaged: {canaries:?}"));
    }
    if canaries.checks == 0 {
        reasons.push(format!("{name}: nobody looked at the canaries"));
    }
    reasons
}
