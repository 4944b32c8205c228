// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many messages in both directions at once, each of which must arrive once, whole and in order.

use super::message::{make, mix, Checker};
use super::transport::{connect, Confirm, Transport};
use super::Failure;
use crate::report::{Outcome, Report};
use crate::system;
use ivshmem_guest::plan::Plan;
use std::thread;
use std::time::Instant;

/// Most messages that are acknowledged together.
const BATCH_MAX: u64 = 16;

/// Exchanges messages as the plan's arguments say: over what, how many each way, of which seed.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [transport, count, seed] = plan.arguments.as_slice() else {
        return Err("arguments are TRANSPORT,COUNT,SEED".into());
    };
    let (count, seed): (u64, u64) = (count.parse()?, seed.parse()?);
    system::ensure_ready(plan)?;
    let device = &plan.devices[0];
    let node = system::node(&device.bdf()).ok_or("no device file")?;
    let transport = connect(transport, &node, Confirm::WhenTold)?;
    transport.wait_up()?;
    let exchange = Exchange {
        transport: transport.as_ref(),
        count,
        own: mix(seed ^ u64::from(device.peer)),
        theirs: mix(seed ^ u64::from(1 - device.peer)),
    };
    let begin = Instant::now();
    let result = exchange.run();
    let seconds = begin.elapsed().as_secs_f64();
    report.comment(&format!("exchange: {seconds:.1} s"))?;
    let name = format!(
        "{count} messages of random sizes each way at once: 0 lost, duplicated, reordered, corrupted; all confirmed"
    );
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    };
    Ok(report.result(&name, &outcome)?)
}

struct Exchange<'a> {
    transport: &'a dyn Transport,
    count: u64,
    own: u64,
    theirs: u64,
}

impl Exchange<'_> {
    fn run(&self) -> Result<(), Failure> {
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send());
            let received = self.receive();
            let sent = sender.join().map_err(|_| "the sender panicked")?;
            received.and(sent)
        })
    }

    /// Sends all messages, and one more that says that we have seen them confirmed.
    fn send(&self) -> Result<(), Failure> {
        let largest = self.transport.largest();
        let mut buffer = vec![0; largest];
        for number in 1..=self.count {
            let length = make(self.own, number, largest, &mut buffer);
            let sent = self.transport.send(&buffer[..length]);
            sent.map_err(|error| format!("sending message {number}: {error}"))?;
        }
        let confirmed = self.transport.wait_confirmed(self.count);
        confirmed.map_err(|error| format!("waiting for all confirmations: {error}"))?;
        let progress = self.transport.progress()?;
        if progress.confirmed != self.count {
            return Err(format!("{} messages are confirmed", progress.confirmed).into());
        }
        let length = make(self.own, self.count + 1, largest, &mut buffer);
        Ok(self.transport.send(&buffer[..length])?)
    }

    /// Receives all messages and the one behind them, after which the other end may go.
    fn receive(&self) -> Result<(), Failure> {
        let largest = self.transport.largest();
        let mut buffer = vec![0; largest];
        let mut checker = Checker::new(Some(self.theirs), largest);
        let mut acknowledged = 0;
        for number in 1..=self.count + 1 {
            let received = self.transport.receive(&mut buffer);
            let received = received.map_err(|error| format!("receiving {number}: {error}"))?;
            let length = received.ok_or_else(|| format!("the end, before message {number}"))?;
            checker.check(&buffer[..length])?;
            let batch = 1 + mix(number) % BATCH_MAX;
            if number - acknowledged >= batch || number == self.count {
                self.transport.acknowledge(number)?;
                acknowledged = number;
            }
        }
        Ok(())
    }
}
