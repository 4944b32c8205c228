// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens when a cell or the device model dies in the middle of a conversation; and that the
//! conversation itself is what it should be.

use crate::boot::{judge, part};
use crate::demo::{count_messages, Conversation, Outcome, Stage, Victim, INMATE_SUCCESS};
use crate::qemu::GuestEnd;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use ivshmem_guest::plan::Protection;

/// Runs all of them.
pub(crate) fn run(settings: &Settings) -> Result<Vec<TestResult>> {
    let mut results = part("demo", demo_is_complete(settings))?;
    results.extend(part("peer dies", inmate_dies(settings))?);
    results.extend(part("QEMU killed", root_cell_dies(settings))?);
    results.extend(part("device model dies", device_model_dies(settings))?);
    Ok(results)
}

fn conversation(greeting: &str, rounds: u32) -> Conversation {
    Conversation {
        greeting: greeting.into(),
        rounds,
        period: 100,
    }
}

/// A conversation that goes on until somebody dies.
fn endless() -> Conversation {
    conversation("Hi!", 100_000)
}

fn result(name: &str, reasons: Vec<String>) -> TestResult {
    TestResult::from_reasons(name, reasons)
}

/// `reason` unless `holds`.
fn unless(holds: bool, reason: impl Into<String>) -> Vec<String> {
    if holds {
        Vec::new()
    } else {
        vec![reason.into()]
    }
}

fn demo_is_complete(settings: &Settings) -> Result<Vec<TestResult>> {
    let stage = Stage::set(settings, "tests-demo", Protection::Trap)?;
    let mut results = Vec::new();
    for (name, greeting) in [
        (
            "demo: Received message from Inmate: Hi! ten times, both end well",
            "Hi!",
        ),
        (
            "demo: another greeting is what arrives",
            // What a kernel, or the program itself, would complain with is a text like any other.
            r#"ivshmem-demo: Oops, BUG: "Grüße" from C:\ # 1 "#,
        ),
    ] {
        let conversation = conversation(greeting, 10);
        let file = format!("talk-{}", results.len());
        let outcome = stage.converse(&file, &conversation, None, false)?;
        let count = count_messages(&outcome.root.console, &conversation);
        let mut reasons = outcome.reasons;
        reasons.extend(unless(count == 10, format!("{count} messages")));
        results.push(result(name, reasons));
    }
    results.push(result(
        "demo: accesses fatal on Jailhouse: 0",
        stage.finish()?,
    ));
    Ok(results)
}

/// The root cell's program said `words` and ended with another status than 0, its guest went on to
/// an orderly end, and the demo as a whole has failed.
fn root_cell_reports(prefix: &str, outcome: &Outcome, words: &str) -> Vec<TestResult> {
    let said = outcome
        .root
        .console
        .iter()
        .any(|line| line.contains("ivshmem-demo: ") && line.contains(words));
    let mut reported = unless(
        said,
        format!("the root cell's program does not say `{words}`"),
    );
    let failed = outcome
        .root
        .report
        .contains("not ok 1 - /bin/ivshmem-demo ends well");
    reported.extend(unless(
        failed,
        "the root cell's program did not end with a failure",
    ));
    if !reported.is_empty() {
        reported.extend(last_lines(&outcome.root));
    }
    let mut results = vec![result(
        &format!("{prefix}: the root cell's program reports it and exits non-zero"),
        reported,
    )];
    results.push(result(
        &format!("{prefix}: the demo fails with a clear line"),
        unless(
            outcome.reasons.iter().any(|reason| reason.contains(words)),
            format!("its reasons are {:?}", outcome.reasons),
        ),
    ));
    let goes_on = judge(prefix, &outcome.root).into_iter();
    results.extend(goes_on.filter(|result| !result.name.contains("/bin/ivshmem-demo")));
    results
}

/// What is wrong unless the console has exactly one line with `words`.
fn once(end: &GuestEnd, words: &str) -> Vec<String> {
    let lines = end.console.iter().filter(|line| line.contains(words));
    match lines.count() {
        1 => Vec::new(),
        count => vec![format!("the console has {count} lines with `{words}`")],
    }
}

fn last_lines(end: &GuestEnd) -> Vec<String> {
    end.console.iter().rev().take(8).rev().cloned().collect()
}

fn inmate_dies(settings: &Settings) -> Result<Vec<TestResult>> {
    let stage = Stage::set(settings, "tests-inmate-dies", Protection::Trap)?;
    let outcome = stage.converse("talk", &endless(), Some(Victim::Inmate), false)?;
    // bad input: the inmate's QEMU is killed => the root cell's program says `peer 1 has left` and exits non-zero; its guest goes on
    let prefix = "peer dies (the inmate's QEMU is killed)";
    let mut results = root_cell_reports(prefix, &outcome, "peer 1 has left");
    let name = format!("{prefix}: accesses fatal on Jailhouse: 0");
    results.push(result(&name, stage.finish()?));
    Ok(results)
}

fn root_cell_dies(settings: &Settings) -> Result<Vec<TestResult>> {
    let stage = Stage::set(settings, "tests-root-dies", Protection::Trap)?;
    // bad input: the root cell's QEMU is killed => the inmate sees it and ends well; the device model goes on, and new guests attach
    let prefix = "QEMU killed (the root cell's)";
    let outcome = stage.converse("talk", &endless(), Some(Victim::RootCell), false)?;
    let mut reasons = unless(
        outcome.inmate.status.code() == Some(INMATE_SUCCESS),
        format!("the inmate's QEMU ended with {}", outcome.inmate.status),
    );
    reasons.extend(unless(
        outcome
            .inmate
            .console
            .iter()
            .any(|line| line.contains("peer 0 left")),
        "the inmate did not say that the root cell has left",
    ));
    if !reasons.is_empty() {
        reasons.extend(last_lines(&outcome.inmate));
    }
    let mut results = vec![result(
        &format!("{prefix}: the inmate goes on, sees it and ends well"),
        reasons,
    )];
    let again = stage.converse("again", &conversation("Hi!", 10), None, false)?;
    results.push(result(
        &format!("{prefix}: the device model goes on, new guests attach and talk"),
        again.reasons,
    ));
    let name = format!("{prefix}: accesses fatal on Jailhouse: 0");
    results.push(result(&name, stage.finish()?));
    Ok(results)
}

fn device_model_dies(settings: &Settings) -> Result<Vec<TestResult>> {
    // Loads of a mapped memory do not ask the device model; a trapped one is asked ten times a second. And slowly, so
    // that there is a quiet moment to die in.
    let stage = Stage::set(settings, "tests-device-model-dies", Protection::Mapped)?;
    let slow = Conversation {
        period: 3000,
        ..endless()
    };
    let outcome = stage.converse("talk", &slow, Some(Victim::DeviceModel), false)?;
    // bad input: the device model is killed => the root cell's program and the inmate say so and end; nothing hangs
    let prefix = "device model dies";
    let mut results = root_cell_reports(prefix, &outcome, "the device is gone");
    results.push(result(
        &format!("{prefix}: the driver sees that the device does not answer, and says so once"),
        once(&outcome.root, "the device has gone without notice"),
    ));
    results.push(result(
        &format!("{prefix}: the inmate says so and ends"),
        unless(
            outcome
                .inmate
                .console
                .iter()
                .any(|line| line.contains("IVSHMEM: error: ")),
            last_lines(&outcome.inmate).join("; "),
        ),
    ));
    Ok(results)
}
