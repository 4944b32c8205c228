// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens to the devices and workers while operations run.

use crate::ask;
use crate::system;
use ivshmem_fuzz::{Random, Tally};
use ivshmem_guest::plan::Plan;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

/// Operations between two disturbances.
const PERIOD: u64 = 12_000;
/// The same with a hostile device, which makes operations slow.
const HOSTILE_PERIOD: u64 = 400;
/// Longest time that a device is away if no operation ends meanwhile.
const AWAY: Duration = Duration::from_secs(2);
/// The number of disturbances in the stream of random numbers: no thread has it.
const THREAD: u64 = 1 << 20;

/// Disturbs. What the k-th disturbance is follows from the seed and k; when it comes does not.
pub(crate) struct Disturber {
    /// Addresses of the devices.
    devices: Vec<String>,
    seed: u64,
    done: u64,
    /// When the next one is due, in operations.
    next: u64,
    /// Processes that were killed in this batch.
    killed: Vec<usize>,
    counts: BTreeMap<&'static str, u64>,
    /// The first device is to lie while operations run.
    is_hostile: bool,
    /// It does.
    lies: bool,
}

impl Disturber {
    pub(crate) fn new(plan: &Plan, seed: u64, is_hostile: bool) -> Self {
        let devices = plan.devices.iter().map(|device| device.bdf()).collect();
        Self {
            devices,
            seed,
            done: 0,
            next: if is_hostile { HOSTILE_PERIOD } else { PERIOD },
            killed: Vec::new(),
            counts: BTreeMap::new(),
            is_hostile,
            lies: false,
        }
    }

    /// How often each thing was done.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(name, count)| (*name, *count))
    }

    pub(crate) fn has_killed(&self, process: usize) -> bool {
        self.killed.contains(&process)
    }

    pub(crate) fn forget_killed(&mut self) {
        self.killed.clear();
    }

    /// Disturbs if it is time.
    pub(crate) fn perhaps(
        &mut self,
        plan: &Plan,
        tally: &Tally,
        workers: &mut [Child],
    ) -> io::Result<()> {
        if self.is_hostile && !self.lies {
            let seed = Random::of(self.seed, THREAD, (1 << 40) | self.done).any();
            ask::model(plan, 0, &format!("hostile 0 {seed}")).map_err(io::Error::other)?;
            self.lies = true;
            *self.counts.entry("became hostile").or_default() += 1;
        }
        if tally.total() < self.next {
            return Ok(());
        }
        let mut random = Random::of(self.seed, THREAD, self.done);
        self.done += 1;
        let name = match random.below(20) {
            0..=9 => self.unbind(&mut random, tally)?,
            10..=12 => self.remove(&mut random, tally)?,
            13..=15 => move_interrupts(&mut random)?,
            16 | 17 => trace(&mut random)?,
            18 => write_parameter(&mut random)?,
            _ => {
                let process = random.below(workers.len() as u64) as usize;
                workers[process].kill()?;
                self.killed.push(process);
                "SIGKILL"
            }
        };
        *self.counts.entry(name).or_default() += 1;
        let period = if self.is_hostile {
            HOSTILE_PERIOD
        } else {
            PERIOD
        };
        self.next = tally.total() + period / 2 + random.below(period);
        Ok(())
    }

    /// Makes everything as it was.
    pub(crate) fn restore(&mut self, plan: &Plan) -> io::Result<()> {
        if self.lies {
            ask::model(plan, 0, "stop").map_err(io::Error::other)?;
            self.lies = false;
            // Its numbers are true again after a reset, and are looked at when it is found. Both go, so that they have
            // the names again that workers know: while the first was refused, the second may have come by its name.
            for device in &self.devices {
                let path = format!("/sys/bus/pci/devices/{device}/remove");
                if fs::exists(&path)? {
                    fs::write(path, "1")?;
                }
            }
            fs::write("/sys/bus/pci/rescan", "1")?;
        }
        switch_tracing(false)
    }

    fn device(&self, random: &mut Random) -> String {
        self.devices[random.below(self.devices.len() as u64) as usize].clone()
    }

    fn unbind(&self, random: &mut Random, tally: &Tally) -> io::Result<&'static str> {
        let device = self.device(random);
        if self.is_hostile {
            // It may have been refused, and may be again.
            let _ = system::unbind(&device);
            stay_away(random, tally);
            let _ = system::bind(&device);
            return Ok("unbind/bind");
        }
        system::unbind(&device)?;
        stay_away(random, tally);
        system::bind(&device)?;
        Ok("unbind/bind")
    }

    fn remove(&self, random: &mut Random, tally: &Tally) -> io::Result<&'static str> {
        let device = self.device(random);
        fs::write(format!("/sys/bus/pci/devices/{device}/remove"), "1")?;
        stay_away(random, tally);
        fs::write("/sys/bus/pci/rescan", "1")?;
        Ok("remove/rescan")
    }
}

/// Waits until some operations have found the device gone.
fn stay_away(random: &mut Random, tally: &Tally) {
    let (until, begin) = (tally.total() + random.below(400), Instant::now());
    while tally.total() < until && begin.elapsed() < AWAY {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Moves an interrupt of the driver to another processor.
fn move_interrupts(random: &mut Random) -> io::Result<&'static str> {
    let table = fs::read_to_string("/proc/interrupts")?;
    let ours: Vec<&str> = table
        .lines()
        .filter(|line| line.contains(system::NAME))
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .collect();
    if !ours.is_empty() {
        let number = random.pick(&ours);
        let mask = 1 + random.below(3);
        // It may go meanwhile, or refuse a processor.
        let _ = fs::write(format!("/proc/irq/{number}/smp_affinity"), mask.to_string());
    }
    Ok("interrupt moved")
}

fn trace(random: &mut Random) -> io::Result<&'static str> {
    switch_tracing(random.one_in(2))?;
    Ok("tracing switched")
}

fn switch_tracing(on: bool) -> io::Result<()> {
    fs::write(
        "/sys/kernel/tracing/events/ivshmem/enable",
        if on { "1" } else { "0" },
    )
}

/// Parameters are constant while the module is loaded: that is refused.
fn write_parameter(random: &mut Random) -> io::Result<&'static str> {
    let path = "/sys/module/ivshmem/parameters/throttle";
    if fs::exists(path)? && fs::write(path, random.magnitude().to_string()).is_ok() {
        return Err(io::Error::other("the parameter throttle can be written"));
    }
    Ok("parameter write")
}
