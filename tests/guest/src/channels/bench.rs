// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast messages go: through channels, and through what they are compared with. Both guests do the
//! same steps in the same order; peer 0 measures, peer 1 answers.
//!
//! Results are comments of the report, `bench WAY SECTION KIND SIZE VALUE`: messages per second
//! (`stream`, `copy`, `call`), or the median of round trips in nanoseconds (`trip`; `anywhere` before the programs are
//! placed; of `pingpong` between interrupt handlers). SECTION is the size of the output sections in bytes, 0 where there
//! are none. Where there are, `statistics WAY/SECTION/KIND/SIZE/COUNT/begin JSON`
//! and `.../end JSON` tell what the device model had counted before and after these COUNT messages or round trips.
//! `rust/harness/src/channels/bench.rs` reads them.

use super::cost::tell_statistics;
use super::place::{self, Placed};
use super::stream;
use super::transport::{connect, Confirm, Transport};
use super::Failure;
use crate::report::{Outcome, Report};
use crate::system;
use ivshmem::Device;
use ivshmem_guest::plan::Plan;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Short and long messages, in bytes.
pub(super) const SHORT: usize = 64;
pub(super) const LONG: usize = 4096;

/// The vector for doorbells between interrupt handlers; neither channels nor rings use it on this link.
const PING_VECTOR: u32 = 3;
/// Round trips that show on which processor a way interrupts.
const TRIAL: u64 = 50;
/// Most of them at once.
const PING_MAX: u64 = 4096;
/// How long they may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How many of each are sent, and how many round trips are made.
pub(super) struct Amounts {
    pub(super) short: u64,
    pub(super) long: u64,
    pub(super) trips: u64,
}

/// Measures everything as often as the plan's first argument says; the second is how many short
/// messages are in a stream.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [rounds, short] = plan.arguments.as_slice() else {
        return Err("arguments are ROUNDS,MESSAGES".into());
    };
    let (rounds, short): (u32, u64) = (rounds.parse()?, short.parse()?);
    system::ensure_ready(plan)?;
    let mut bench = Bench::new(plan, short)?;
    bench.counts = true;
    let result = (0..rounds).try_for_each(|_| bench.round(report));
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![error.to_string()]),
    };
    Ok(report.result("everything is measured", &outcome)?)
}

/// A link to the other guest.
pub(super) struct Link {
    /// Our device file.
    pub(super) node: PathBuf,
    /// Size of an output section in bytes.
    section: u64,
    /// The harness's number for it.
    number: u32,
}

/// One of the two guests, and its ways to the other.
pub(super) struct Bench<'a> {
    plan: &'a Plan,
    /// The device model's counts are told with what is measured.
    counts: bool,
    pub(super) id: u32,
    pub(super) amounts: Amounts,
    /// The links, each with its size of output sections.
    pub(super) links: Vec<Link>,
    pub(super) tcp: stream::Stream<std::net::TcpStream>,
    serial: stream::Stream<File>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(plan: &'a Plan, short: u64) -> Result<Self, Failure> {
        let id = plan.devices[0].peer;
        stream::set_up_network(id)?;
        let mut links = Vec::new();
        for device in &plan.devices {
            let node = system::node(&device.bdf()).ok_or("no device file")?;
            let section = Device::open(&node)?.info().output.size;
            let number = device.link;
            links.push(Link {
                node,
                section,
                number,
            });
        }
        Ok(Self {
            plan,
            counts: false,
            id,
            amounts: Amounts {
                short,
                long: short / 4,
                trips: (short / 20).max(1),
            },
            links,
            tcp: stream::tcp(id)?,
            serial: stream::serial()?,
        })
    }

    /// Measures everything once.
    fn round(&self, report: &mut Report) -> Result<(), Failure> {
        for link in &self.links {
            for way in ["channel", "ring"] {
                let transport = connect(way, &link.node, Confirm::WhenRead)?;
                transport.wait_up()?;
                self.all(transport.as_ref(), way, Some(link), report)?;
                // What follows begins with the sections anew, which resets whoever has not received all.
                self.meet()?;
            }
        }
        self.all(&self.tcp, "tcp", None, report)?;
        self.all(&self.serial, "serial", None, report)?;
        self.ping_pong(report)?;
        if self.id == 0 {
            let copies = copies(self.amounts.short);
            report.comment(&format!("bench memcpy 0 copy {LONG} {copies:.0}"))?;
            let calls = calls(self.amounts.short)?;
            report.comment(&format!("bench null 0 call {SHORT} {calls:.0}"))?;
        }
        Ok(())
    }

    /// Returns when the other guest is here, too.
    pub(super) fn meet(&self) -> Result<(), Failure> {
        self.serial.send(&[0; SHORT])?;
        take(&self.serial, &mut [0; SHORT])
    }

    /// Round trips of doorbells between the two interrupt handlers, on the first link.
    fn ping_pong(&self, report: &mut Report) -> Result<(), Failure> {
        let name = self.links[0].node.file_name().ok_or("no device file")?;
        let file = Path::new("/sys/kernel/debug/ivshmem")
            .join(name)
            .join("pingpong");
        if self.id == 1 {
            fs::write(&file, format!("answer 0 {PING_VECTOR}"))?;
            self.serial.send(&[0; SHORT])?;
            take(&self.serial, &mut [0; SHORT])?;
            return Ok(fs::write(&file, "off")?);
        }
        take(&self.serial, &mut [0; SHORT])?;
        let count = self.amounts.trips.min(PING_MAX);
        fs::write(&file, format!("ask 1 {PING_VECTOR} {count}"))?;
        let mut told = String::new();
        let done = system::wait_until(system::patient(LIMIT), || {
            told = fs::read_to_string(&file).unwrap_or_default();
            told.starts_with(&format!("{count} round trips"))
        });
        self.serial.send(&[0; SHORT])?;
        let median = told.split(' ').nth(4).filter(|_| done);
        let median = median.ok_or_else(|| format!("no round trips of doorbells: {told}"))?;
        Ok(report.comment(&format!("bench pingpong 0 trip 0 {median}"))?)
    }

    /// All that is measured of one transport, which is called `way` and uses `link`, if any.
    fn all(
        &self,
        way: &dyn Transport,
        name: &str,
        link: Option<&Link>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let section = link.map_or(0, |link| link.section);
        let before = place::taken()?;
        if let Some(trip) = self.trips(way, self.amounts.trips)? {
            report.comment(&format!("bench {name} {section} anywhere {SHORT} {trip}"))?;
        }
        let _placed = Placed::by_interrupts(&before)?;
        for (size, count) in [(SHORT, self.amounts.short), (LONG, self.amounts.long)] {
            if self.id == 0 {
                let what = format!("{name}/{section}/stream/{size}/{count}");
                let rate = self.counted(&what, link, report, || send(way, size, count))?;
                report.comment(&format!("bench {name} {section} stream {size} {rate:.0}"))?;
            } else {
                receive(way, size, count)?;
            }
        }
        let count = self.amounts.trips;
        if self.id == 0 {
            let what = format!("{name}/{section}/trip/{SHORT}/{count}");
            let trip = self.counted(&what, link, report, || call(way, count))?;
            report.comment(&format!("bench {name} {section} trip {SHORT} {trip}"))?;
        } else {
            answer(way, count)?;
        }
        Ok(())
    }

    /// Has this thread run where the interrupts come that wake it.
    pub(super) fn place(&self, way: &dyn Transport) -> Result<Placed, Failure> {
        let before = place::taken()?;
        self.trips(way, TRIAL)?;
        Placed::by_interrupts(&before)
    }

    /// Round trips; their median, for the first guest.
    fn trips(&self, way: &dyn Transport, count: u64) -> Result<Option<u128>, Failure> {
        if self.id == 0 {
            return Ok(Some(call(way, count)?));
        }
        answer(way, count)?;
        Ok(None)
    }

    /// Measures, and tells what the device model of `link` has counted before and afterwards.
    fn counted<T>(
        &self,
        what: &str,
        link: Option<&Link>,
        report: &mut Report,
        measure: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut tell = |phase: &str| match link.filter(|_| self.counts) {
            Some(link) => {
                tell_statistics(self.plan, link.number, &format!("{what}/{phase}"), report)
            }
            None => Ok(()),
        };
        tell("begin")?;
        let value = measure()?;
        tell("end")?;
        Ok(value)
    }
}

fn take(way: &dyn Transport, buffer: &mut [u8]) -> Result<(), Failure> {
    match way.receive(buffer)? {
        Some(length) if length == buffer.len() => Ok(()),
        Some(length) => Err(format!("a message of {length} bytes came").into()),
        None => Err("the other guest has closed".into()),
    }
}

/// Sends `count` messages, and waits until the other guest says that it has got the last: messages per
/// second.
pub(super) fn send(way: &dyn Transport, size: usize, count: u64) -> Result<f64, Failure> {
    let message = vec![0x5a; size];
    let begin = Instant::now();
    for _ in 0..count {
        way.send(&message)?;
    }
    take(way, &mut [0; SHORT])?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

pub(super) fn receive(way: &dyn Transport, size: usize, count: u64) -> Result<(), Failure> {
    let mut buffer = vec![0; size];
    for _ in 0..count {
        take(way, &mut buffer)?;
    }
    Ok(way.send(&[0; SHORT])?)
}

/// Sends a message and waits for the answer, `count` times: the median in nanoseconds.
pub(super) fn call(way: &dyn Transport, count: u64) -> Result<u128, Failure> {
    let mut times = Vec::new();
    let mut answer = [0; SHORT];
    for _ in 0..count {
        let begin = Instant::now();
        way.send(&[0x5a; SHORT])?;
        take(way, &mut answer)?;
        times.push(begin.elapsed().as_nanos());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

pub(super) fn answer(way: &dyn Transport, count: u64) -> Result<(), Failure> {
    let mut message = [0; SHORT];
    for _ in 0..count {
        take(way, &mut message)?;
        way.send(&message)?;
    }
    Ok(())
}

/// Copies of a long message in memory, per second.
fn copies(count: u64) -> f64 {
    let source = vec![0x5a; LONG];
    let mut target = vec![0; LONG];
    let begin = Instant::now();
    for _ in 0..count {
        black_box(&mut target).copy_from_slice(black_box(&source));
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// Writes of a short message that goes nowhere, per second: what a system call costs.
pub(super) fn calls(count: u64) -> Result<f64, Failure> {
    let mut nowhere = File::options().write(true).open("/dev/null")?;
    let begin = Instant::now();
    for _ in 0..count {
        nowhere.write_all(&[0x5a; SHORT])?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}
