// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `bench` measures, once more with a profiler in QEMU: which function of the kernel a message costs
//! how many instructions, in each guest.
//!
//! The harness is asked to keep what the profiler has counted before and after each step, and finds the
//! names of functions in the log: /proc/kallsyms. A comment `profile STEP COUNT` says how many messages or
//! calls a step was. The other half is `rust/harness/src/channels/profile.rs`.

use super::bench::{answer, call, calls, receive, send, Bench, LONG, SHORT};
use super::log::Log;
use super::transport::{connect, Confirm, Transport};
use super::Failure;
use crate::ask;
use crate::report::{Outcome, Report};
use crate::system;
use ivshmem_guest::plan::Plan;
use std::fs;

/// Goes through all steps; the plan's argument is how many short messages a stream has.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [short] = plan.arguments.as_slice() else {
        return Err("the argument is MESSAGES".into());
    };
    let short = short.parse()?;
    system::ensure_ready(plan)?;
    write_symbols()?;
    let bench = Bench::new(plan, short)?;
    let outcome = match steps(plan, &bench, report) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    };
    Ok(report.result("everything is profiled", &outcome)?)
}

/// Functions of the kernel and its modules.
fn write_symbols() -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/kallsyms")?;
    let is_code = |line: &&str| matches!(line.split(' ').nth(1), Some("t" | "T" | "w" | "W"));
    let lines: Vec<&str> = text.lines().filter(is_code).collect();
    Log::open()?.line(&lines.join("\n"))
}

fn steps(plan: &Plan, bench: &Bench, report: &mut Report) -> Result<(), Failure> {
    let mut profile = Profile {
        plan,
        bench,
        report,
    };
    let amounts = &bench.amounts;
    profile.step("null", amounts.short, |first| {
        if first {
            calls(amounts.short)?;
        }
        Ok(())
    })?;
    let node = &bench.links.first().ok_or("no device file")?.node;
    for way in ["channel", "ring"] {
        let transport = connect(way, node, Confirm::WhenRead)?;
        transport.wait_up()?;
        let _placed = bench.place(transport.as_ref())?;
        profile.stream(way, transport.as_ref(), SHORT, amounts.short)?;
        profile.stream(way, transport.as_ref(), LONG, amounts.long)?;
        profile.step(&format!("{way}-trip"), amounts.trips, |first| {
            if first {
                call(transport.as_ref(), amounts.trips)?;
                return Ok(());
            }
            answer(transport.as_ref(), amounts.trips)
        })?;
        bench.meet()?;
    }
    let _placed = bench.place(&bench.tcp)?;
    profile.stream("tcp", &bench.tcp, SHORT, amounts.short)
}

struct Profile<'a> {
    plan: &'a Plan,
    bench: &'a Bench<'a>,
    report: &'a mut Report,
}

impl Profile<'_> {
    /// Carries out `step` of `count` messages in both guests at once; it is told whether this is the first.
    fn step(
        &mut self,
        name: &str,
        count: u64,
        step: impl FnOnce(bool) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.bench.meet()?;
        ask::harness(self.plan, &format!("profile {name} begin"))?;
        self.bench.meet()?;
        step(self.bench.id == 0)?;
        ask::harness(self.plan, &format!("profile {name} end"))?;
        Ok(self.report.comment(&format!("profile {name} {count}"))?)
    }

    /// Messages of `size` bytes from the first guest to the other.
    fn stream(
        &mut self,
        name: &str,
        way: &dyn Transport,
        size: usize,
        count: u64,
    ) -> Result<(), Failure> {
        self.step(&format!("{name}-{size}"), count, |first| {
            if first {
                send(way, size, count)?;
                return Ok(());
            }
            receive(way, size, count)
        })
    }
}
