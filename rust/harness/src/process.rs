// SPDX-License-Identifier: MIT OR Apache-2.0
//! Child processes that do not outlive the harness.
//!
//! Each child is in a process group of its own, so that Ctrl-C reaches the harness only, which
//! then ends everything in order. Should the harness itself be killed, the kernel kills the
//! children: the death signal is bound to the *thread* that started them, so children are started
//! by the main thread only. The only file of this crate with `unsafe`.
#![allow(unsafe_code)]

use anyhow::{bail, Context, Result};
use rustix::process::{
    kill_process, kill_process_group, set_parent_process_death_signal, Pid, Signal,
};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Set by SIGINT, SIGTERM or SIGHUP.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How often waits look.
const STEP: Duration = Duration::from_millis(10);

/// Makes signals end the harness in order: waits fail from then on. A second signal ends it at
/// once.
pub(crate) fn handle_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Fails after Ctrl-C.
pub(crate) fn check_interrupted() -> Result<()> {
    let interrupted = INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed));
    if interrupted {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits until `condition` gives something; `None` after `limit`. Fails after Ctrl-C.
pub(crate) fn wait_for<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let end = Instant::now() + limit;
    loop {
        check_interrupted()?;
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(STEP);
    }
}

/// A child process; killed with its group when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pub(crate) child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        command.process_group(0);
        Self::start_in_our_group(name, command)
    }

    /// As [`start`](Self::start), but in the harness's own process group, which the terminal is
    /// for: for what a person talks to.
    pub(crate) fn start_in_our_group(name: &str, command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        // SAFETY: between fork and exec only this system call is made, which neither allocates
        // nor takes a lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program} (for {name})"))?;
        Ok(Self {
            name: name.into(),
            child,
            ended: None,
        })
    }

    /// The exit status, if it has ended.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for the end; an error if it does not come within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match wait_for(limit, || self.poll())? {
            Some(status) => Ok(status),
            None => bail!("{} did not end within {} s", self.name, limit.as_secs()),
        }
    }

    /// Sends `signal`, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.poll()?.is_none() {
            kill_process(self.pid(), signal)?;
        }
        Ok(())
    }

    /// Kills it. It must not have been waited for.
    pub(crate) fn kill(&self) -> Result<()> {
        Ok(kill_process(self.pid(), Signal::KILL)?)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It is still there, so the group is ours, if it has one. A failure would leave it to
            // the death signal.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = kill_process(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
