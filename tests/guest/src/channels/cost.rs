// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages in one direction, for the harness to see what register accesses they cost: each on a link
//! that is idle, and then as many at once as fit.

use super::Failure;
use crate::ask;
use crate::report::{Outcome, Report};
use crate::system;
use ivshmem::{Channel, ConnectOptions, Deadline, Device};
use ivshmem_guest::plan::Plan;
use ivshmem_protocol::channel::layout::{block, Section};
use std::time::Duration;

/// Bytes of a message.
const SIZE: usize = 64;
/// A wait for the receiver, before patience.
const LIMIT: Duration = Duration::from_secs(120);

/// Sends as the plan's arguments say, or receives: how many on an idle link, and how many at once.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [idle, saturated] = plan.arguments.as_slice() else {
        return Err("arguments are IDLE,SATURATED".into());
    };
    let (idle, saturated): (u64, u64) = (idle.parse()?, saturated.parse()?);
    system::ensure_ready(plan)?;
    let node = system::node(&plan.devices[0].bdf()).ok_or("no device file")?;
    let device = Device::open(node)?;
    let peer = 1 - device.info().id;
    let channel = device.connect(peer, ConnectOptions::new())?;
    channel.wait_writable(Deadline::NEVER)?;
    let (name, result) = if device.info().id == 0 {
        let sender = Sender {
            plan,
            device: &device,
            peer,
            channel: &channel,
        };
        let result = sender.send(idle, saturated, report);
        ("messages are sent on an idle link, and at once", result)
    } else {
        let result = receive(&channel, idle + saturated);
        ("all messages are received", result)
    };
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    };
    Ok(report.result(name, &outcome)?)
}

/// Receives `count` messages, and the end.
fn receive(channel: &Channel, count: u64) -> Result<(), Failure> {
    let mut buffer = [0; SIZE];
    let mut received = 0;
    while channel.receive(&mut buffer)?.is_some() {
        received += 1;
    }
    if received != count {
        return Err(format!("{received} messages came, not {count}").into());
    }
    Ok(())
}

struct Sender<'a> {
    plan: &'a Plan,
    device: &'a Device,
    peer: u32,
    channel: &'a Channel,
}

impl Sender<'_> {
    fn send(&self, idle: u64, saturated: u64, report: &mut Report) -> Result<(), Failure> {
        let message = [7; SIZE];
        let mut tell = |phase| tell_statistics(self.plan, 0, phase, report);
        self.wait_until_awaited()?;
        tell("begin")?;
        for _ in 0..idle {
            self.channel.send(&message)?;
            self.wait_until_awaited()?;
        }
        tell("idle")?;
        for _ in 0..saturated {
            self.channel.send(&message)?;
        }
        self.wait_until_awaited()?;
        tell("saturated")
    }

    /// Returns when the receiver has got everything and waits for more. It has said so in its block,
    /// which everybody may read, and reading it costs no register access.
    fn wait_until_awaited(&self) -> Result<(), Failure> {
        let info = self.device.info();
        let place = |owner: u32, other: u32| -> Result<u64, Failure> {
            let section = info.output_of(owner)?;
            let section = Section {
                offset: section.offset as usize,
                size: section.size as u32,
                max_peers: info.max_peers as u16,
            };
            Ok(section.block(other as u16).ok_or("no block")? as u64)
        };
        let (own, theirs) = (place(info.id, self.peer)?, place(self.peer, info.id)?);
        let word = |at: u64, field: usize| self.device.read_word(at + field as u64);
        let mut result = Ok(());
        let there = system::wait_until(self.plan.patient(LIMIT), || {
            let words = (|| {
                let written = word(own, block::WRITTEN)?;
                let waited = word(theirs, block::DATA_EVENT)?;
                Ok(written == waited && written == word(theirs, block::CONSUMED)?)
            })();
            result = words.as_ref().map(|_| ()).map_err(Clone::clone);
            words.unwrap_or(true)
        });
        result.map_err(|error: ivshmem::Error| error)?;
        if there {
            Ok(())
        } else {
            Err("the receiver does not wait for messages".into())
        }
    }
}

/// Tells the harness what the device model of `link` has counted up to `phase`.
pub(super) fn tell_statistics(
    plan: &Plan,
    link: u32,
    phase: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    let statistics = ask::model(plan, link, "statistics")?;
    Ok(report.comment(&format!("statistics {phase} {statistics}"))?)
}
