// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest can be told to do.

use crate::channels;
use crate::fuzz;
use crate::report::{Outcome, Report};
use crate::runner;
use crate::soak;
use crate::suites::{peers, Env};
use crate::system;
use crate::traffic;
use ivshmem_guest::plan::Plan;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::Command;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

/// Does what the plan says.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    match plan.run.as_str() {
        "suites" => {
            runner::run_suites(plan, report)?;
            // For the shutdown to put back.
            Ok(system::keep_states(plan)?)
        }
        "demo" => program("/bin/ivshmem-demo", plan, report),
        "traffic" => traffic::run(plan, report),
        "fuzz" => fuzz::run(plan, report),
        "soak" => soak::run(plan, report),
        "attack" => attack(plan, report),
        "shell" => shell(plan),
        _ if channels::run(plan, report)? => Ok(()),
        other => Err(format!("nothing to do for `ivshmem.run={other}`").into()),
    }
}

/// Runs a program with the plan's arguments, its output on the console.
fn program(path: &str, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    system::ensure_ready(plan)?;
    let status = Command::new(path).args(&plan.arguments).status()?;
    let outcome = if status.success() {
        Outcome::Passed
    } else {
        Outcome::Failed(vec![format!("it ended with {status}")])
    };
    report.result(&format!("{path} ends well"), &outcome)?;
    Ok(())
}

/// Lets a peer attack its channels, by `SECONDS,SEED`.
fn attack(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [seconds, seed] = plan.arguments.as_slice() else {
        return Err("the arguments are SECONDS,SEED".into());
    };
    let (time, seed) = (Duration::from_secs(seconds.parse()?), seed.parse()?);
    system::ensure_ready(plan)?;
    let env = Env::new()?;
    let result = catch_unwind(AssertUnwindSafe(|| peers::attack::attack(&env, time, seed)));
    let outcome = match result {
        Ok(words) => {
            report.comment(&format!("attack: {words}"))?;
            Outcome::Passed
        }
        // The panic's words are on the console.
        Err(_) => Outcome::Failed(vec![format!("seed {seed}: see the console")]),
    };
    report.result(
        "other channels keep their order and their messages under attack",
        &outcome,
    )?;
    Ok(())
}

/// An interactive shell with the module loaded.
fn shell(plan: &Plan) -> Result<(), Failure> {
    system::ensure_ready(plan)?;
    for device in &plan.devices {
        let bdf = device.bdf();
        let node = system::node(&bdf).unwrap_or_default();
        println!("{} is peer {} ({bdf})", node.display(), device.peer);
    }
    println!("ivshmem-demo, -chat, -request and -send-file (`--help`) and busybox are there; `exit` powers the guest off.");
    Command::new("/bin/busybox")
        .args(["--install", "-s", "/bin"])
        .status()?;
    // setsid gives the shell a controlling terminal, for Ctrl-C.
    Command::new("/bin/busybox")
        .args(["setsid", "-c", "/bin/busybox", "sh", "-l"])
        .env("PATH", "/bin")
        .env("PS1", "guest# ")
        .status()?;
    Ok(())
}
