// SPDX-License-Identifier: MIT OR Apache-2.0
//! `soak`: the device goes and comes back, again and again, under a process that has everything open;
//! and nothing is left behind.
//!
//! In each cycle every role of that process (`tests/fuzz`, module `soak`) is first seen in place; then
//! the device goes, and every role must be told so within a limit; then it comes back.

mod figures;

use crate::report::{Outcome, Report};
use crate::system;
use figures::Figures;
use ivshmem_fuzz::soak::{self, Board, Role};
use ivshmem_guest::plan::Plan;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Where the counts of the process are.
const BOARD: &str = "/tmp/soak-board";
/// Where its words go.
const OUTPUT: &str = "/tmp/soak-output";
/// How long all roles may take to be in place, or to be told, before patience.
const LIMIT: Duration = Duration::from_secs(60);
/// Cycles before the figures are taken for the first time: what is made once is made then.
const WARM_UP: u64 = 5;
/// Cycles between two words to the harness.
const TOLD: u64 = 10;

/// How the device goes and comes back.
#[derive(Clone, Copy)]
enum Way {
    /// By the driver's files in sysfs.
    Unbind,
    /// With all of the PCI device.
    Remove,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Unbind => "unbind/bind",
            Self::Remove => "remove/rescan",
        }
    }

    fn go(self, device: &str) -> std::io::Result<()> {
        match self {
            Self::Unbind => system::unbind(device),
            Self::Remove => fs::write(format!("/sys/bus/pci/devices/{device}/remove"), "1"),
        }
    }

    fn come(self, device: &str) -> std::io::Result<()> {
        match self {
            Self::Unbind => system::bind(device),
            Self::Remove => fs::write("/sys/bus/pci/rescan", "1"),
        }
    }
}

/// Does as many cycles of each way as the plan's argument says.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cycles: u64 = plan.arguments.first().ok_or("how many cycles?")?.parse()?;
    system::ensure_ready(plan)?;
    let mut process = Soaked::start(plan)?;
    let warm = process.cycles(Way::Unbind, WARM_UP, report)?;
    let warm = warm.or(process.cycles(Way::Remove, WARM_UP, report)?);
    let warm = warm.or(process.end()?);
    report.result("each role is told, to warm up", &outcome(warm))?;
    let before = Figures::take()?;

    let mut process = Soaked::start(plan)?;
    for way in [Way::Unbind, Way::Remove] {
        let begin = Instant::now();
        let failure = process.cycles(way, cycles, report)?;
        let each = begin.elapsed().as_secs_f64() * 1000.0 / cycles as f64;
        if failure.is_none() {
            let [place, goes, told, comes] = std::mem::take(&mut process.parts)
                .map(|part| part.as_secs_f64() * 1000.0 / cycles as f64);
            report.comment(&format!(
                "soak {}: {cycles} cycles, {each:.0} ms each ({place:.0} until all is in use, {goes:.0} to go, \
                 {told:.0} until all are told, {comes:.0} to come)",
                way.name()
            ))?;
        }
        let name = format!(
            "{cycles} cycles of {} under load: no hang, every blocked call returned as documented",
            way.name()
        );
        report.result(&name, &outcome(failure))?;
    }
    for &role in Role::ALL {
        report.comment(&format!(
            "soak told {}: {}",
            process.board.told(role),
            role.name()
        ))?;
    }
    let failure = process.end()?;
    report.result("the process under load ends well", &outcome(failure))?;
    let after = Figures::take()?;
    for (name, reasons) in before.compare(&after, 2 * cycles) {
        let outcome = if reasons.is_empty() {
            Outcome::Passed
        } else {
            Outcome::Failed(reasons)
        };
        report.result(name, &outcome)?;
    }
    Ok(())
}

fn outcome(failure: Option<String>) -> Outcome {
    match failure {
        None => Outcome::Passed,
        Some(text) => Outcome::Failed(text.lines().map(Into::into).collect()),
    }
}

/// The process with everything open, and what it is told.
struct Soaked<'a> {
    plan: &'a Plan,
    device: String,
    board: Board,
    process: Child,
    /// Cycles so far.
    done: u64,
    /// How long the four parts of all cycles took.
    parts: [Duration; 4],
    failed: bool,
}

impl<'a> Soaked<'a> {
    fn start(plan: &'a Plan) -> Result<Self, Failure> {
        system::ensure_ready(plan)?;
        let board = Board::create(BOARD)?;
        let node = |index: usize| {
            let bdf = plan.devices[index].bdf();
            system::node(&bdf).ok_or_else(|| format!("{bdf} has no device file"))
        };
        let output = File::create(OUTPUT)?;
        let process = Command::new("/proc/self/exe")
            .arg("soak-worker")
            .args([node(0)?, node(1)?])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let device = plan.devices[0].bdf();
        Ok(Self {
            plan,
            device,
            board,
            process,
            done: 0,
            parts: [Duration::ZERO; 4],
            failed: false,
        })
    }

    fn limit(&self) -> Duration {
        self.plan.patient(LIMIT)
    }

    /// Waits until `count` of all roles is at least `wanted`; what went wrong otherwise.
    fn wait(&mut self, wanted: u64, count: fn(&Board, Role) -> u64, what: &str) -> Option<String> {
        let mut ended = None;
        let (board, process) = (&self.board, &mut self.process);
        let limit = self.plan.patient(LIMIT);
        system::wait_until(limit, || {
            ended = process.try_wait().ok().flatten();
            ended.is_some() || Role::ALL.iter().all(|&role| count(board, role) >= wanted)
        });
        if let Some(status) = ended {
            let said = fs::read_to_string(OUTPUT).unwrap_or_default();
            return Some(format!(
                "cycle {}: the process ended with {status}:\n{said}",
                self.done
            ));
        }
        let late = Role::ALL
            .iter()
            .filter(|&&role| count(board, role) < wanted);
        let late: Vec<String> = late.map(|&role| self.where_is(role)).collect();
        (!late.is_empty()).then(|| format!("cycle {}: not {what}: {}", self.done, late.join("\n")))
    }

    /// What a role's thread hangs in.
    fn where_is(&self, role: Role) -> String {
        let task = format!(
            "/proc/{}/task/{}/stack",
            self.process.id(),
            self.board.thread(role)
        );
        format!(
            "{}:\n{}",
            role.name(),
            fs::read_to_string(task).unwrap_or_default()
        )
    }

    /// Lets the device go and come back `count` times; what went wrong.
    fn cycles(
        &mut self,
        way: Way,
        count: u64,
        report: &mut Report,
    ) -> Result<Option<String>, Failure> {
        for cycle in 0..count {
            if self.failed {
                return Ok(Some("not done, as something went wrong before".into()));
            }
            self.done += 1;
            let wanted = self.done;
            let mut clock = Instant::now();
            let mut failure = self.wait(wanted, Board::in_place, "in place");
            self.took(0, &mut clock);
            if failure.is_none() {
                way.go(&self.device)?;
                self.took(1, &mut clock);
                failure = self.wait(wanted, Board::told, "told that the device is gone");
                self.took(2, &mut clock);
                way.come(&self.device)?;
                self.took(3, &mut clock);
            }
            if failure.is_some() {
                self.failed = true;
                return Ok(failure);
            }
            if (cycle + 1) % TOLD == 0 || cycle + 1 == count {
                report.comment(&format!("soak {} {}", way.name(), cycle + 1))?;
            }
        }
        Ok(None)
    }

    /// Adds the time since `clock` to a part of the cycles, and begins the next.
    fn took(&mut self, part: usize, clock: &mut Instant) {
        self.parts[part] += clock.elapsed();
        *clock = Instant::now();
    }

    /// Ends the process: all roles, by a last cycle.
    fn end(&mut self) -> Result<Option<String>, Failure> {
        if self.failed {
            self.process.kill()?;
            self.process.wait()?;
            system::ensure_ready(self.plan)?;
            return Ok(Some("it was killed, as something went wrong before".into()));
        }
        let failure = self.wait(self.done + 1, Board::in_place, "in place");
        self.board.stop();
        Way::Unbind.go(&self.device)?;
        let mut status = None;
        system::wait_until(self.limit(), || {
            status = self.process.try_wait().ok().flatten();
            status.is_some()
        });
        Way::Unbind.come(&self.device)?;
        let failure = failure.or(match status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{status}\n{}", fs::read_to_string(OUTPUT)?)),
            None => Some("it does not end".into()),
        });
        system::ensure_ready(self.plan)?;
        Ok(failure)
    }
}

impl Drop for Soaked<'_> {
    fn drop(&mut self) {
        // It has ended, in the good case.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The worker's part, in its process: its exit status.
pub(crate) fn work(node: &str, peer: &str) -> i32 {
    if !Path::new(node).exists() {
        eprintln!("{node} is missing");
        return 2;
    }
    match soak::run(BOARD, node, peer) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}
