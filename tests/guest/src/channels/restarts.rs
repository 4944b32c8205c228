// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two sides of which one is restarted again and again: its process killed, its driver unbound, its
//! whole guest reset. When and how, the harness says (`rust/harness/src/channels/schedule.rs`).

use super::log::Log;
use super::session::{self, Scene, Why};
use super::Failure;
use crate::ask;
use crate::report::{Outcome, Report};
use crate::system;
use ivshmem_guest::plan::Plan;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a process may take to end once its device is gone, before patience.
const LIMIT: Duration = Duration::from_secs(120);

fn node(plan: &Plan) -> Result<PathBuf, Failure> {
    system::ensure_ready(plan)?;
    let node = system::node(&plan.devices[0].bdf());
    Ok(node.ok_or("no device file")?)
}

/// The side that stays: connects again whenever a session has ended, until the harness says that it is
/// over.
pub(crate) fn stay(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let transport = plan.arguments.first().ok_or("by which transport?")?;
    let node = node(plan)?;
    let log = Log::open()?;
    let finish = AtomicBool::new(false);
    let scene = Scene {
        transport,
        node: &node,
        log: &log,
        finish: &finish,
    };
    let result = loop {
        match session::run(&scene, || {}) {
            Ok(Why::Gone | Why::Broken) => break Err("a session is gone or broken".into()),
            Ok(_) if ask::harness(plan, "over")? == "yes" => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    tell(
        report,
        "the side that stays connects again each time",
        result,
    )
}

/// The side that is restarted.
pub(crate) fn restart(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let result = restart_all(plan, report);
    tell(
        report,
        "the side that is restarted comes back each time",
        result,
    )
}

fn tell(report: &mut Report, name: &str, result: Result<(), Failure>) -> Result<(), Failure> {
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    };
    Ok(report.result(name, &outcome)?)
}

fn restart_all(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let transport = plan.arguments.first().ok_or("by which transport?")?;
    loop {
        let order = ask::harness(plan, "next")?;
        report.comment(&format!("next: {order}"))?;
        let words: Vec<&str> = order.split(' ').collect();
        let mut worker = Worker::start(&node(plan)?, transport)?;
        if !words.contains(&"early") {
            worker.wait_established()?;
        }
        let delay = words.get(1).map_or(Ok(0), |number| number.parse())?;
        // The moment is what the test is about: any.
        thread::sleep(Duration::from_micros(delay));
        match words[0] {
            "kill" => worker.kill()?,
            "unbind" => {
                system::unbind(&plan.devices[0].bdf())?;
                worker.wait_end(plan)?;
            }
            "reset" => reset(plan)?,
            "end" => return worker.finish(plan),
            _ => return Err(format!("the harness says `{order}`").into()),
        }
    }
}

/// Has this guest reset.
fn reset(plan: &Plan) -> Result<(), Failure> {
    // The answer may come before the reset, or never.
    ask::qmp(plan, "system_reset", "{}")?;
    loop {
        thread::park();
    }
}

/// The process that has the session.
struct Worker {
    child: Child,
    /// It maps the device.
    maps: bool,
}

impl Worker {
    fn start(node: &Path, transport: &str) -> Result<Self, Failure> {
        let child = Command::new("/proc/self/exe")
            .args(["channel-worker", &node.to_string_lossy(), transport])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let maps = transport == "ring";
        Ok(Self { child, maps })
    }

    /// Waits until both sides have the session.
    fn wait_established(&mut self) -> Result<(), Failure> {
        let output = self.child.stdout.take().ok_or("no pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            return Err(format!("its process ended before it had a session: {status}").into());
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("its process ended before it was killed: {status}").into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait_end(&mut self, plan: &Plan) -> Result<(), Failure> {
        let mut status = None;
        system::wait_until(plan.patient(LIMIT), || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) if status.success() => Ok(()),
            // Who has mappings is told so of a device that is gone.
            Some(status) if status.signal() == Some(libc::SIGBUS) && self.maps => Ok(()),
            Some(status) => Err(format!("its process ended with {status}").into()),
            None => Err("its process does not end".into()),
        }
    }

    /// Has the session finished in good order.
    fn finish(mut self, plan: &Plan) -> Result<(), Failure> {
        self.child.stdin.take().ok_or("no pipe")?.write_all(b"\n")?;
        self.wait_end(plan)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended, in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's part, in its process: its exit status. It has one session, tells by a line when that is
/// established, and finishes it when it gets a line.
pub(crate) fn work(node: &str, transport: &str) -> i32 {
    static FINISH: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let mut line = String::new();
        if matches!(std::io::stdin().read_line(&mut line), Ok(length) if length > 0) {
            FINISH.store(true, Ordering::Relaxed);
        }
    });
    let result = Log::open().and_then(|log| {
        let scene = Scene {
            transport,
            node: Path::new(node),
            log: &log,
            finish: &FINISH,
        };
        session::run(&scene, || println!("established"))
    });
    match result {
        Ok(Why::Gone) => 0,
        Ok(why) => {
            eprintln!("the session ended by itself: {why:?}");
            1
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}
