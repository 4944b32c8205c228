// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks the harness for something that only it can do: make the device go wrong, wake the guest...
//!
//! A request is a line on the report's serial port, and the answer comes back there; the harness's
//! side, which says what there is to ask for, is `rust/harness/src/requests.rs`. Any process of the
//! guest may ask, several one after the other.

use crate::report;
use ivshmem_guest::plan::Plan;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{flock, FlockOperation};
use rustix::termios::{tcflush, QueueSelector};
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How long an answer may take, before patience: longer than the harness waits for others.
const LIMIT: Duration = Duration::from_secs(90);

/// Longest line that is a request.
const REQUEST_MAX: usize = 1000;

/// Gives `command` to the device model of `link`; what it answers.
///
/// # Errors
///
/// What is wrong with the command, as the device model says.
pub(crate) fn model(plan: &Plan, link: u32, command: &str) -> Result<String, String> {
    ask(plan, &format!("model {link} {command}"))
}

/// Gives a command to QEMU's monitor, with arguments as JSON, such as `{}`; what it returns, as JSON.
///
/// # Errors
///
/// What QEMU says.
pub(crate) fn qmp(plan: &Plan, command: &str, arguments: &str) -> Result<String, String> {
    ask(plan, &format!("qmp {command} {arguments}"))
}

/// Asks the harness itself for something; what it answers.
///
/// # Errors
///
/// What the harness says is wrong.
pub(crate) fn harness(plan: &Plan, words: &str) -> Result<String, String> {
    ask(plan, words)
}

/// Makes a request of the harness.
fn ask(plan: &Plan, words: &str) -> Result<String, String> {
    if words.contains('\n') || words.len() > REQUEST_MAX {
        return Err("a request is one line, and not a long one".into());
    }
    let limit = plan.patient(LIMIT);
    let answer = talk(words, limit).map_err(|error| format!("no answer ({error}): {words}"))?;
    match answer.split_once(' ') {
        Some(("ok", text)) => Ok(text.trim_end().into()),
        Some(("error:", reason)) => Err(reason.into()),
        _ => Err(format!("`{answer}` is no answer")),
    }
}

fn talk(words: &str, limit: Duration) -> io::Result<String> {
    let mut port = report::port()?;
    // Released with the file. The process that reports does not write while a test runs.
    flock(&port, FlockOperation::LockExclusive)?;
    // What somebody who died did not wait for.
    tcflush(&port, QueueSelector::IFlush)?;
    let number = format!("{}.{}", std::process::id(), monotonic());
    port.write_all(format!("?{number} {words}\n").as_bytes())?;
    let end = Instant::now() + limit;
    let mut text = Vec::new();
    loop {
        while let Some(length) = text.iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&text[..length]).into_owned();
            text.drain(..=length);
            let answer = line.strip_prefix('!').and_then(|it| it.split_once(' '));
            match answer {
                Some((given, answer)) if given == number => return Ok(answer.into()),
                _ => {}
            }
        }
        read_some(&mut port, &mut text, end)?;
    }
}

/// Reads what there is, or waits for it until `end`.
fn read_some(port: &mut File, text: &mut Vec<u8>, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let ready = poll(&mut [PollFd::new(&*port, PollFlags::IN)], Some(&timeout))?;
    if ready == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut bytes = [0; 256];
    let length = port.read(&mut bytes)?;
    text.extend_from_slice(&bytes[..length]);
    Ok(())
}

/// A number that no two requests of a process share.
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
