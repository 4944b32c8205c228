// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of two guests that ring each other as often as they are told, while both read and write their
//! sections.
//!
//! Both run the same program; the one with the lower ID begins. They meet by their states, and talk
//! through their output sections:
//!
//! | offset | word or bytes |
//! | --- | --- |
//! | 0 | how many doorbells this side has sent freely |
//! | 4 | how many of the other's it has seen |
//! | 64 | a text of [`TEXT`] bytes that tells its round |

use crate::report::{Outcome, Report};
use crate::system;
use ivshmem::{Deadline, Device, EventBuffer, EventKind, Info, Mapping, MappingMut, StateFlags};
use ivshmem_guest::plan::Plan;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Files that only count, beside the one that waits.
const WATCHERS: usize = 3;
/// How often the watchers are asked, in rounds.
const ASK_EVERY: u64 = 1000;
/// Longest burst of doorbells.
const BURST_MAX: u64 = 200;
/// Bytes that are exchanged in each round.
const TEXT: usize = 64;
const SENT: usize = 0;
const SEEN: usize = 4;
const TEXT_AT: usize = 64;
/// The state of a side that is done.
const END: u32 = 3;
/// A wait for one thing, before patience.
const LIMIT: Duration = Duration::from_secs(120);

type Failure = Box<dyn std::error::Error>;

/// Rings as often as the plan's argument says, once in lock-step and once freely.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    system::ensure_ready(plan)?;
    let count = plan
        .arguments
        .first()
        .ok_or("how many doorbells?")?
        .parse()?;
    let node = system::node(&plan.devices[0].bdf()).ok_or("no device file")?;
    let side = Side::open(&node, plan.patient(LIMIT))?;

    side.meet(1)?;
    let begin = Instant::now();
    let locked = side.lock_step(count);
    report.comment(&format!(
        "lock-step: {:.1} s",
        begin.elapsed().as_secs_f32()
    ))?;
    let name = format!(
        "{count} doorbells in lock-step while both read and write their sections: \
         every open file counts each exactly"
    );
    report.result(&name, &outcome(&locked))?;
    locked?;

    side.meet(2)?;
    let begin = Instant::now();
    let free = side.freely(count);
    report.comment(&format!("freely: {:.1} s", begin.elapsed().as_secs_f32()))?;
    if let Ok(taken) = &free {
        report.comment(&format!("interrupts taken of {count} doorbells: {taken}"))?;
    }
    let name = format!(
        "{count} doorbells sent freely: all files agree, counts lie between 1 and what was sent, \
         the last doorbell always wakes"
    );
    report.result(&name, &outcome(&free))?;
    free?;
    side.part()
}

fn outcome<T>(result: &Result<T, Failure>) -> Outcome {
    match result {
        Ok(_) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    }
}

/// This guest's end.
struct Side {
    device: Device,
    watchers: Vec<Device>,
    info: Info,
    peer: u32,
    vector: u32,
    own: MappingMut,
    theirs: Mapping,
    limit: Duration,
}

impl Side {
    fn open(node: &Path, limit: Duration) -> Result<Self, Failure> {
        let device = Device::open(node)?;
        let info = *device.info();
        let peer = 1 - info.id;
        let watchers = (0..WATCHERS)
            .map(|_| Device::open(node))
            .collect::<Result<_, _>>()?;
        let own = device.map_mut(info.output)?;
        for word in [SENT, SEEN] {
            own.word(word)?.store(0, Ordering::Relaxed);
        }
        Ok(Self {
            theirs: device.map(info.output_of(peer)?)?,
            own,
            vector: info.vectors - 1,
            device,
            watchers,
            info,
            peer,
            limit,
        })
    }

    /// Waits for the other side to get as far as `phase`.
    fn meet(&self, phase: u32) -> Result<(), Failure> {
        self.device.set_state(phase, StateFlags::default())?;
        let there = || {
            self.device
                .state(self.peer)
                .is_ok_and(|state| state >= phase)
        };
        if system::wait_until(self.limit, there) {
            Ok(())
        } else {
            Err(format!("the other guest does not come to phase {phase}").into())
        }
    }

    /// Waits until the other side needs us no more: it has come to its end, or has even left.
    fn part(&self) -> Result<(), Failure> {
        self.device.set_state(END, StateFlags::default())?;
        let done = || {
            self.device
                .state(self.peer)
                .is_ok_and(|state| state == 0 || state >= END)
        };
        if system::wait_until(self.limit, done) {
            Ok(())
        } else {
            Err("the other guest does not come to its end".into())
        }
    }

    /// Rings and is rung in turn. Whoever is rung looks at what the other wrote.
    fn lock_step(&self, count: u64) -> Result<(), Failure> {
        let mut totals = vec![0; self.watchers.len()];
        for round in 1..=count {
            if self.info.id == 0 {
                self.say(round)?;
            }
            let taken = self.wait()?;
            if taken != 1 {
                return Err(format!("round {round}: {taken} interrupts instead of 1").into());
            }
            self.hear(round)?;
            if round % ASK_EVERY == 0 || round == count {
                self.ask_watchers(&mut totals)?;
                if totals.iter().any(|&total| total != round) {
                    return Err(format!("round {round}: other files counted {totals:?}").into());
                }
            }
            if self.info.id != 0 {
                self.say(round)?;
            }
        }
        Ok(())
    }

    /// Writes the text of a round, once through the mapping and once through the file, and rings.
    fn say(&self, round: u64) -> Result<(), Failure> {
        let text = text(round, self.info.id);
        if round % 2 == 0 {
            self.own.write(TEXT_AT, &text)?;
        } else {
            let offset = self.info.output.offset + TEXT_AT as u64;
            self.device.write_at(&text, offset)?;
        }
        Ok(self.device.ring(self.peer, self.vector)?)
    }

    /// Reads the other's text of a round, the other way round, and checks it.
    fn hear(&self, round: u64) -> Result<(), Failure> {
        let mut bytes = [0; TEXT];
        if round % 2 == 0 {
            let offset = self.info.output_of(self.peer)?.offset + TEXT_AT as u64;
            self.device.read_at(&mut bytes, offset)?;
        } else {
            self.theirs.read(TEXT_AT, &mut bytes)?;
        }
        if bytes != text(round, self.peer) {
            return Err(format!("round {round}: the other's section has {bytes:x?}").into());
        }
        Ok(())
    }

    /// Waits for doorbells; how many interrupts there were.
    fn wait(&self) -> Result<u64, Failure> {
        let mut buffer = EventBuffer::new(16);
        loop {
            let deadline = Deadline::after(self.limit);
            let events = self.device.events(&mut buffer, deadline)?;
            let taken = self.doorbells(events);
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    fn doorbells(&self, events: ivshmem::Events<'_>) -> u64 {
        events
            .map(|event| match event.kind {
                EventKind::Doorbell { vector, count } if vector == self.vector => count,
                _ => 0,
            })
            .sum()
    }

    /// Adds to `totals` what the watchers have not yet been told.
    fn ask_watchers(&self, totals: &mut [u64]) -> Result<(), Failure> {
        let mut buffer = EventBuffer::new(16);
        for (watcher, total) in self.watchers.iter().zip(totals) {
            loop {
                match watcher.events(&mut buffer, Deadline::NOW) {
                    Ok(events) => *total += self.doorbells(events),
                    Err(ivshmem::Error::WouldBlock) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Both ring in bursts, as fast as they can, and take what comes. Gives the interrupts taken.
    fn freely(&self, count: u64) -> Result<u64, Failure> {
        let taken = std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(count).map_err(|error| error.to_string()));
            let taken = self.receive(count);
            sender.join().map_err(|_| "the sender panicked")??;
            taken
        })?;
        self.agree(taken, count)
    }

    /// Sends bursts; each must be seen to its end before the next begins: nothing but its last
    /// doorbell can wake the other side for that.
    fn send(&self, count: u64) -> Result<(), Failure> {
        let sent = self.own.word(SENT)?;
        let seen = self.theirs.word(SEEN)?;
        let mut random = 0x9e37_79b9_u32;
        let mut number = 0;
        while number < count {
            // xorshift: any sequence will do, and a failure is repeated by the same one.
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let burst = 1 + u64::from(random) % BURST_MAX;
            for _ in 0..burst.min(count - number) {
                number += 1;
                sent.store(number as u32, Ordering::Release);
                self.device.ring(self.peer, self.vector)?;
            }
            let all_seen = || u64::from(seen.load(Ordering::Acquire)) == number;
            if !wait_busy(self.limit, all_seen) {
                return Err(format!("doorbell {number}, the last of a burst, woke nobody").into());
            }
        }
        Ok(())
    }

    /// Takes interrupts until all that the other side sends has been seen.
    fn receive(&self, count: u64) -> Result<u64, Failure> {
        let sent = self.theirs.word(SENT)?;
        let seen = self.own.word(SEEN)?;
        let mut taken = 0;
        loop {
            taken += self.wait()?;
            let number = sent.load(Ordering::Acquire);
            seen.store(number, Ordering::Release);
            if u64::from(number) == count {
                return Ok(taken);
            }
        }
    }

    /// All files have counted the same, when the last interrupts are in; within bounds.
    fn agree(&self, mut taken: u64, count: u64) -> Result<u64, Failure> {
        let mut totals = vec![0; self.watchers.len()];
        let mut buffer = EventBuffer::new(16);
        let mut result = Ok(());
        let agreed = system::wait_until(self.limit, || {
            if let Ok(events) = self.device.events(&mut buffer, Deadline::NOW) {
                taken += self.doorbells(events);
            }
            result = self.ask_watchers(&mut totals);
            result.is_err() || totals.iter().all(|&total| total == taken)
        });
        result?;
        if !agreed {
            return Err(format!("the files do not agree: {taken} and {totals:?}").into());
        }
        if !(1..=count).contains(&taken) {
            return Err(format!("{taken} interrupts of {count} doorbells").into());
        }
        Ok(taken)
    }
}

/// As [`system::wait_until`], for what takes microseconds: lets others run instead of sleeping.
fn wait_busy(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    true
}

/// What `peer` writes in a round.
fn text(round: u64, peer: u32) -> [u8; TEXT] {
    let mut text = [0; TEXT];
    for (i, byte) in (0_u64..).zip(text.iter_mut()) {
        *byte = (round.wrapping_mul(31) + i * 7 + u64::from(peer) * 101) as u8;
    }
    text
}
