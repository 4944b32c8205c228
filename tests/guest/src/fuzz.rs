// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fuzz`: random operations by several processes on two devices that come and go.
//!
//! A run is a sequence of batches, every second one with channels. In each, [`PROCESSES`] workers (`tests/fuzz`) with [`THREADS`]
//! threads each carry out so many operations, while this process disturbs them ([`disturb`]). After each,
//! when all workers have ended, the devices must work as on the first day ([`invariants`]).

mod disturb;
mod invariants;

use crate::report::{Outcome, Report};
use crate::system;
use disturb::Disturber;
use invariants::Healthy;
use ivshmem_fuzz::worker::{self, Job};
use ivshmem_fuzz::{create_ledger, Channels, Extra, Kind, Tally, ERRNOS};
use ivshmem_guest::plan::Plan;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Workers that run at once.
const PROCESSES: usize = 2;
/// Threads of each.
const THREADS: usize = 3;
/// Operations of a thread in a batch, at most.
const BATCH: u64 = 5_000;
/// Batches of a run, at least: with and without channels, each of them twice.
const BATCHES: u64 = 4;
/// Where the counts are.
const TALLY: &str = "/tmp/fuzz-tally";
/// What became of messages.
const LEDGER: &str = "/tmp/fuzz-ledger";
/// Longest time of a single operation, before patience.
const LIMIT: Duration = Duration::from_secs(60);

/// What the plan's arguments say.
struct Wanted {
    seed: u64,
    operations: u64,
    time: Duration,
    /// The first device lies while operations run.
    is_hostile: bool,
    /// Who the third peer of the link is to a channel.
    third: Channels,
}

/// A part of a run.
struct Batch {
    /// Number of each thread's first operation.
    first: u64,
    /// Operations of each thread.
    count: u64,
    channels: Channels,
}

impl Wanted {
    fn parse(plan: &Plan) -> Result<Self, Failure> {
        let [seed, operations, seconds, rest @ ..] = plan.arguments.as_slice() else {
            return Err("the arguments are SEED,OPERATIONS,SECONDS[,hostile]".into());
        };
        Ok(Self {
            seed: seed.parse()?,
            operations: operations.parse()?,
            time: Duration::from_secs(seconds.parse()?),
            is_hostile: rest.iter().any(|word| word == "hostile"),
            third: if inmate(plan).starts_with("channel-attacker") {
                Channels::Hostile
            } else {
                Channels::Honest
            },
        })
    }

    /// The batch that begins with each thread's operation `first`. Where batches begin follows from the plan alone,
    /// except that the last one ends where there are `left` operations no more.
    fn batch(&self, first: u64, left: u64) -> Batch {
        let threads = (PROCESSES * THREADS) as u64;
        let length = (self.operations / threads / BATCHES).clamp(1, BATCH);
        Batch {
            first,
            count: left.div_ceil(threads).min(length - first % length),
            channels: if first / length % 2 == 0 {
                Channels::None
            } else {
                self.third
            },
        }
    }
}

/// What the third peer of the link does.
fn inmate(plan: &Plan) -> &str {
    let inmate = plan
        .devices
        .first()
        .and_then(|device| device.inmate.as_ref());
    inmate.map_or("", |inmate| &inmate.behaviour)
}

/// Runs until all operations are done or the time is over.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let wanted = Wanted::parse(plan)?;
    system::ensure_ready(plan)?;
    let tally = Tally::create(TALLY)?;
    let healthy = Healthy::first(plan)?;
    let mut disturber = Disturber::new(plan, wanted.seed, wanted.is_hostile);
    let begin = Instant::now();
    let (mut failures, mut first) = (Vec::new(), 0);
    while failures.is_empty() && tally.total() < wanted.operations && begin.elapsed() < wanted.time
    {
        let left = wanted.operations - tally.total();
        let part = wanted.batch(first, left);
        failures = batch(plan, &wanted, &tally, &mut disturber, &part)?;
        first += part.count;
        // A failure that is found now is this batch's.
        if let Err(error) = system::ensure_ready(plan)
            .map_err(Failure::from)
            .and_then(|()| healthy.check(plan))
        {
            failures.push(format!("after operations {}..{first}: {error}", part.first));
        }
        report.comment(&format!("fuzz total {}", tally.total()))?;
    }
    tell(report, &tally, &disturber)?;
    let seconds = begin.elapsed().as_secs_f64();
    report.comment(&format!(
        "{:.0} operations per second",
        tally.total() as f64 / seconds
    ))?;
    let name = "each operation ends as the header documents, and the devices work after each batch";
    let outcome = if failures.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed(failures)
    };
    report.result(name, &outcome)?;
    Ok(())
}

/// One batch: what went wrong.
fn batch(
    plan: &Plan,
    wanted: &Wanted,
    tally: &Tally,
    disturber: &mut Disturber,
    part: &Batch,
) -> Result<Vec<String>, Failure> {
    create_ledger(LEDGER, PROCESSES * THREADS, part.count)?;
    let limit = plan.patient(LIMIT);
    let mut workers = (0..PROCESSES)
        .map(|process| start(wanted, process, part, limit))
        .collect::<Result<Vec<_>, _>>()?;
    let begun: Vec<u64> = (0..PROCESSES)
        .map(|process| tally.of_thread(process * THREADS))
        .collect();
    let have_begun =
        || (0..PROCESSES).all(|process| tally.of_thread(process * THREADS) > begun[process]);
    let mut ends: Vec<Option<ExitStatus>> = vec![None; PROCESSES];
    let mut moved = (tally.total(), Instant::now());
    while ends.iter().any(Option::is_none) {
        std::thread::sleep(Duration::from_millis(20));
        for (worker, end) in workers.iter_mut().zip(&mut ends) {
            *end = worker.try_wait()?;
        }
        // They look at the devices first, which must be there then.
        if have_begun() && ends.iter().all(Option::is_none) {
            disturber.perhaps(plan, tally, &mut workers)?;
        }
        if tally.total() != moved.0 {
            moved = (tally.total(), Instant::now());
        } else if moved.1.elapsed() > limit * 2 {
            return Ok(vec![format!("the workers do not end: {}", said())]);
        }
    }
    disturber.restore(plan)?;
    tally.go_on();
    let mut failures = Vec::new();
    for (process, end) in ends.into_iter().flatten().enumerate() {
        if !end.success() && !disturber.has_killed(process) {
            failures.push(format!("process {process} ended with {end}"));
        }
    }
    if !failures.is_empty() {
        failures.extend(said().lines().map(Into::into));
    }
    disturber.forget_killed();
    Ok(failures)
}

fn output(process: usize) -> String {
    format!("/tmp/fuzz-worker-{process}")
}

/// What the workers said.
fn said() -> String {
    let texts = (0..PROCESSES).filter_map(|process| std::fs::read_to_string(output(process)).ok());
    texts.collect()
}

fn start(wanted: &Wanted, process: usize, part: &Batch, limit: Duration) -> Result<Child, Failure> {
    let output = File::create(output(process))?;
    let is_hostile = u64::from(wanted.is_hostile);
    let words = [
        wanted.seed,
        process as u64,
        part.first,
        part.count,
        limit.as_secs(),
        is_hostile,
        CHANNELS
            .iter()
            .position(|&channels| channels == part.channels)
            .unwrap_or(0) as u64,
    ];
    let child = Command::new("/proc/self/exe")
        .arg("fuzz-worker")
        .args(words.map(|word| word.to_string()))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok(child)
}

/// Which channels there are, by the number that stands for it in a worker's arguments.
const CHANNELS: [Channels; 3] = [Channels::None, Channels::Honest, Channels::Hostile];

/// The worker's part, in its process: its exit status.
pub(crate) fn work(arguments: &[&str]) -> i32 {
    let numbers: Vec<u64> = arguments
        .iter()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [seed, process, first, count, limit, is_hostile, channels] = numbers[..] else {
        eprintln!("the arguments are SEED PROCESS FIRST COUNT LIMIT HOSTILE CHANNELS");
        return 2;
    };
    let job = Job {
        seed,
        process: process as usize,
        processes: PROCESSES,
        threads: THREADS,
        first,
        count,
        tally: TALLY.into(),
        ledger: LEDGER.into(),
        channels: CHANNELS[channels as usize % CHANNELS.len()],
        is_hostile: is_hostile != 0,
        limit: Duration::from_secs(limit),
    };
    match worker::run(&job) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("the worker cannot begin: {error}");
            2
        }
    }
}

/// Tells what was done, for the harness to add up.
fn tell(report: &mut Report, tally: &Tally, disturber: &Disturber) -> Result<(), Failure> {
    for &kind in Kind::ALL {
        let counts: Vec<String> = (0..ERRNOS)
            .map(|errno| (errno, tally.outcomes(kind, errno)))
            .filter(|(_, count)| *count > 0)
            .map(|(errno, count)| format!("{errno}:{count}"))
            .collect();
        report.comment(&format!("fuzz kind {} {}", kind.name(), counts.join(" ")))?;
        let milliseconds = tally.nanoseconds(kind) / 1_000_000;
        report.comment(&format!("fuzz time {} {milliseconds}", kind.name()))?;
    }
    let [bus, segv] = tally.signals();
    report.comment(&format!("fuzz also SIGBUS {bus}"))?;
    report.comment(&format!("fuzz also SIGSEGV {segv}"))?;
    report.comment(&format!("fuzz also wake-ups {}", tally.woken()))?;
    for what in Extra::ALL {
        report.comment(&format!("fuzz also {} {}", what.name(), tally.extra(what)))?;
    }
    for (name, count) in disturber.counts() {
        report.comment(&format!("fuzz also {name} {count}"))?;
    }
    Ok(())
}
