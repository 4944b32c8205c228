// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest: QEMU as a process, its console and its report.

use crate::console::Console;
use crate::machine::Machine;
use crate::process::{wait_for, Process};
use crate::requests::Services;
use crate::settings::Settings;
use crate::spent::Since;
use anyhow::{bail, Context, Result};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Milliseconds that QEMU waits for an answer of the device model. The default of 5 s ends the link
/// for good when the machine is busy.
const DEVICE_TIMEOUT: u32 = 600_000;

/// Words of every Linux guest's command line. Warnings and worse go to the console.
const COMMAND_LINE: &str = "panic=-1 loglevel=5 mitigations=off nokaslr";

/// Longest command line that a kernel takes; it dies early and silently of a longer one.
const COMMAND_LINE_MAX: usize = 2047;

/// What a guest consists of.
#[derive(Debug, Default)]
pub(crate) struct GuestSpec {
    /// For messages and file names.
    pub(crate) name: String,
    /// What it runs on.
    pub(crate) machine: Machine,
    /// The guest reports on its second serial port.
    pub(crate) reports: bool,
    /// What the guest may ask for with its report; QEMU's monitor is added.
    pub(crate) services: Services,
    /// Kernel or bare-metal program.
    pub(crate) kernel: PathBuf,
    /// Initramfs of a Linux guest.
    pub(crate) initramfs: Option<PathBuf>,
    /// Words for the command line.
    pub(crate) words: String,
    /// Processors of a Linux guest, if not 2.
    pub(crate) cpus: Option<u32>,
    /// Slots and sockets of IVSHMEM devices.
    pub(crate) devices: Vec<(u8, PathBuf)>,
    /// Further options for QEMU.
    pub(crate) options: Vec<String>,
    /// A reset begins a new boot, and does not end QEMU.
    pub(crate) may_reset: bool,
    /// Milliseconds that QEMU waits for an answer of the device model, if not minutes. One that
    /// dies with a request in its hands is noticed only then.
    pub(crate) device_timeout: Option<u32>,
    /// Shown in front of each console line; without it the console is not shown.
    pub(crate) prefix: Option<String>,
}

/// A running guest.
#[derive(Debug)]
pub(crate) struct Guest {
    process: Process,
    /// The kernel's console, or the inmate's.
    pub(crate) console: Console,
    report: Option<Console>,
    /// Of the report's socket and the monitor's.
    _sockets: Option<TempDir>,
    /// File with QEMU's own words.
    messages: PathBuf,
    /// The limit within which it did not end by itself.
    overdue: Option<Duration>,
    settings: Settings,
}

/// How a guest ended.
#[derive(Debug)]
pub(crate) struct GuestEnd {
    /// QEMU's.
    pub(crate) status: ExitStatus,
    /// It did not end within this limit, and was killed.
    pub(crate) overdue: Option<Duration>,
    /// The console's lines.
    pub(crate) console: Vec<String>,
    /// The report's text.
    pub(crate) report: String,
    /// QEMU's own words, but for warnings.
    pub(crate) messages: Vec<String>,
}

impl Guest {
    /// Starts a guest. Its console is kept as `NAME.console` in `folder`.
    pub(crate) fn start(settings: &Settings, folder: &Path, spec: &GuestSpec) -> Result<Self> {
        let mut command = command(settings, spec)?;
        let messages = folder.join(format!("{}.qemu", spec.name));
        command
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(
                folder.join(format!("{}.qemu", spec.name)),
            )?);
        let listener = spec.reports.then(|| add_report(&mut command)).transpose()?;
        let (listener, sockets) = listener.unzip();
        let mut process = Process::start(&spec.name, &mut command)?;
        let stdout = process.child.stdout.take().context("no pipe")?;
        let log = folder.join(format!("{}.console", spec.name));
        let console = Console::follow(stdout, &log, spec.prefix.clone())?;
        let mut services = spec.services.clone();
        services.patience = settings.patience;
        services.qmp = sockets.as_ref().map(|sockets| monitor(sockets.path()));
        let report = match listener {
            Some(listener) => accept(settings, &mut process, &listener)?
                .map(|stream| {
                    let log = folder.join(format!("{}.report", spec.name));
                    follow_report(stream, &log, services)
                })
                .transpose()?,
            None => None,
        };
        Ok(Self {
            process,
            console,
            report,
            _sockets: sockets,
            messages,
            overdue: None,
            settings: settings.clone(),
        })
    }

    /// The exit status, if it has ended.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>> {
        self.process.poll()
    }

    /// Kills QEMU, as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// The lines of its report so far.
    pub(crate) fn report_so_far(&self) -> Vec<String> {
        self.report.as_ref().map_or(Vec::new(), Console::lines)
    }

    /// Waits for the guest's end. One that does not end within `limit` is killed, so that what it has reported
    /// by then can be judged; that it had to be is told by its [`GuestEnd`].
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<()> {
        if wait_for(limit, || self.process.poll())?.is_none() {
            self.give_up(limit)?;
        }
        Ok(())
    }

    /// Kills a guest that has not ended within `limit`.
    pub(crate) fn give_up(&mut self, limit: Duration) -> Result<()> {
        if self.process.poll()?.is_none() {
            self.overdue = Some(limit);
            self.kill()?;
        }
        Ok(())
    }

    /// How the guest has ended; the usual limit is for one that nobody has waited for.
    pub(crate) fn finish(mut self) -> Result<GuestEnd> {
        if self.overdue.is_none() {
            self.wait(self.settings.limit())?;
        }
        let status = self.process.wait(self.settings.limit())?;
        self.console.finish();
        let report = match &mut self.report {
            Some(report) => {
                report.finish();
                report.lines().join("\n") + "\n"
            }
            None => String::new(),
        };
        Ok(GuestEnd {
            status,
            overdue: self.overdue,
            console: self.console.lines(),
            report,
            messages: std::fs::read_to_string(&self.messages)?
                .lines()
                .filter(|line| !line.contains(": warning: "))
                .map(Into::into)
                .collect(),
        })
    }
}

impl GuestEnd {
    /// How QEMU ended, as a sentence.
    pub(crate) fn how(&self) -> String {
        match self.overdue {
            Some(limit) => format!(
                "QEMU did not end within {} s, and was killed",
                limit.as_secs()
            ),
            None => format!("QEMU ended with {}", self.status),
        }
    }
}

/// QEMU with all of a guest but its serial ports.
pub(crate) fn command(settings: &Settings, spec: &GuestSpec) -> Result<Command> {
    let mut command = Command::new(settings.qemu(spec.machine));
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args((!spec.may_reset).then_some("-no-reboot"))
        .args(&spec.options)
        .args(spec.machine.options())
        .args(["-accel", "tcg", "-m", "256", "-kernel"])
        .arg(&spec.kernel);
    match &spec.initramfs {
        Some(initramfs) => {
            let line = linux_command_line(spec)?;
            let cpus = spec.cpus.unwrap_or(2).to_string();
            command
                .args(["-smp", &cpus, "-append", &line, "-initrd"])
                .arg(initramfs);
        }
        None => {
            // The bare-metal inmate ends through this device.
            command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
            command.args(["-append", &spec.words]);
        }
    }
    for (slot, socket) in &spec.devices {
        let device = json!({
            "driver": "vfio-user-pci",
            "addr": format!("{slot:x}"),
            "x-msg-timeout": spec.device_timeout.unwrap_or(DEVICE_TIMEOUT),
            "socket": { "type": "unix", "path": socket.to_string_lossy() },
        });
        command.args(["-device", &device.to_string()]);
    }
    Ok(command)
}

/// Keeps a guest's report, with the time that each result took, and answers what it asks for in between.
fn follow_report(stream: UnixStream, log: &Path, services: Services) -> Result<Console> {
    let mut answers = stream.try_clone()?;
    let mut since = Since::now();
    Console::follow_with(stream, log, None, move |line| {
        if let Some(answer) = services.answer(line) {
            // A guest that has died does not wait for it.
            let _ = answers.write_all(answer.as_bytes());
        }
        let ends = ["ok ", "not ok ", "TAP "];
        let note = ends.iter().any(|mark| line.starts_with(mark));
        let note = note.then(|| format!("# took {}", since.spent()));
        if note.is_some() {
            since = Since::now();
        }
        note
    })
}

/// QEMU's monitor.
fn monitor(folder: &Path) -> PathBuf {
    folder.join("qmp")
}

/// Adds a second serial port, whose other end is the socket that is returned, and a monitor. The
/// folder is that of their sockets.
fn add_report(command: &mut Command) -> Result<(UnixListener, TempDir)> {
    let folder = tempfile::Builder::new().prefix("ivshmem-").tempdir()?;
    let path = folder.path().join("report");
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let chardev = format!("socket,id=report,path={}", path.display());
    command.args(["-chardev", &chardev, "-serial", "chardev:report"]);
    let monitor = format!(
        "unix:{},server=on,wait=off",
        monitor(folder.path()).display()
    );
    command.args(["-qmp", &monitor]);
    Ok((listener, folder))
}

/// The command line of a Linux guest.
fn linux_command_line(spec: &GuestSpec) -> Result<String> {
    let machine = spec.machine.kernel_words();
    let line = format!("{machine} {COMMAND_LINE} {}", spec.words);
    if line.len() > COMMAND_LINE_MAX {
        bail!(
            "the kernel takes command lines of {COMMAND_LINE_MAX} bytes, not of {}",
            line.len()
        );
    }
    Ok(line)
}

/// QEMU's end of the report; `None` if QEMU ends without it.
fn accept(
    settings: &Settings,
    process: &mut Process,
    listener: &UnixListener,
) -> Result<Option<UnixStream>> {
    let stream = wait_for(settings.limit(), || match listener.accept() {
        Ok((stream, _)) => Ok(Some(Some(stream))),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Ok(process.poll()?.map(|_| None))
        }
        Err(error) => Err(error.into()),
    })?;
    let stream = stream.flatten();
    if let Some(stream) = &stream {
        stream.set_nonblocking(false)?;
    }
    Ok(stream)
}
