// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs tests, each in a process of its own.
//!
//! The process is this program again. What it prints are the diagnostics, its exit status the
//! result; one that does not end in time is reported with what it hangs in, and killed.

use crate::report::{Outcome, Report};
use crate::suites::{self, Env, Test};
use crate::system;
use ivshmem_guest::plan::Plan;
use ivshmem_guest::TEST_MARK;
use rustix::process::{kill_process_group, Pid, Signal, WaitOptions};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a test may take, times the plan's patience.
const LIMIT: Duration = Duration::from_secs(180);
/// Diagnostics of a test kept for the report.
const LINES: usize = 40;
/// Where a test's output goes.
const OUTPUT: &str = "/tmp/test-output";

/// Runs all tests of the suites named in the plan that fit its devices.
pub(crate) fn run_suites(plan: &Plan, report: &mut Report) -> io::Result<()> {
    for suite in &plan.arguments {
        let Some(tests) = suites::find(suite) else {
            let reason = vec![format!("there is no suite `{suite}`")];
            report.result(&format!("{suite}: exists"), &Outcome::Failed(reason))?;
            continue;
        };
        for (number, test) in tests.iter().enumerate() {
            if !test.is_for(plan) {
                continue;
            }
            let outcome = match system::ensure_settled(plan) {
                Ok(()) => run_apart(plan, suite, number, test.name)?,
                Err(error) => Outcome::Failed(vec![format!("the devices are not ready: {error}")]),
            };
            report.result(&format!("{suite}: {}", test.name), &outcome)?;
        }
    }
    Ok(())
}

/// Runs one test in a child.
fn run_apart(plan: &Plan, suite: &str, number: usize, name: &str) -> io::Result<Outcome> {
    let output = File::create(OUTPUT)?;
    // Marks in the kernel's log tell which test a line belongs to.
    system::mark_log(&format!("{TEST_MARK}{suite}: {name}\n"))?;
    let mut child = Command::new("/proc/self/exe")
        .args(["test", suite, &number.to_string()])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    let status = wait(&mut child, plan.patient(LIMIT))?;
    let Some(status) = status else {
        let mut reasons = vec!["does not end in time; it hangs in:".to_string()];
        reasons.extend(kernel_stack(child.id()));
        reasons.extend(diagnostics()?);
        end_group(&child);
        return Ok(Outcome::Failed(reasons));
    };
    end_group(&child);
    if status.success() {
        return Ok(Outcome::Passed);
    }
    let mut reasons = diagnostics()?;
    reasons.push(describe(status));
    Ok(Outcome::Failed(reasons))
}

/// Kills what a test has left behind, and buries it, as is the first process's duty.
fn end_group(child: &Child) {
    // There may be nobody left.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Waits for `child`; none if it does not end in time.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut result = Ok(None);
    system::wait_until(limit, || {
        result = child.try_wait();
        !matches!(result, Ok(None))
    });
    result
}

fn kernel_stack(pid: u32) -> Vec<String> {
    let stack = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    stack.lines().map(Into::into).collect()
}

fn diagnostics() -> io::Result<Vec<String>> {
    let text = String::from_utf8_lossy(&fs::read(OUTPUT)?).into_owned();
    let lines: Vec<String> = text.lines().map(Into::into).collect();
    let skipped = lines.len().saturating_sub(LINES);
    Ok(lines.into_iter().skip(skipped).collect())
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("died of signal {signal}"),
        None => format!("ended with status {}", status.code().unwrap_or(-1)),
    }
}

/// The child's part: runs the test and panics where it fails.
pub(crate) fn run_one(suite: &str, number: &str) {
    let test: Option<&Test> = suites::find(suite)
        .zip(number.parse::<usize>().ok())
        .and_then(|(tests, number)| tests.get(number));
    let test = test.expect("the runner names tests that exist");
    let env = Env::new().expect("the plan and its devices");
    (test.run)(&env);
}

/// Prints all tests.
pub(crate) fn list() {
    for (suite, tests) in suites::ALL {
        for test in *tests {
            println!("{suite}: {}", test.name);
        }
    }
}
