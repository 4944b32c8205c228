// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests that run inside a guest, one file per subject.
//!
//! A test is a function that panics where the driver does not do what the header says. It runs
//! in a process of its own, after all devices of the plan have been found bound. The first device
//! of the plan is the one under test; the second, where there is one, another peer of its link.

mod buffers;
mod channels;
#[cfg(target_arch = "x86_64")]
mod compat;
mod events;
mod faults;
mod info;
mod inmate;
mod ioctl;
mod load;
mod malformed;
mod mapping;
mod modes;
mod module;
mod node;
mod nowait;
pub(crate) mod peers;
mod poll;
mod power;
mod region;
mod removal;
mod samples;
mod sharing;
mod state;
mod storms;
mod subscription;
mod tracing;
mod vanish;
mod vectors;
mod visibility;

pub(crate) use channels::content;

use crate::{ask, system};
use ivshmem::{Deadline, Device, Event, EventBuffer, EventKind, Section};
use ivshmem_guest::plan::{DevicePlan, Plan};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One test.
pub(crate) struct Test {
    /// What it shows, as a sentence without a full stop.
    pub(crate) name: &'static str,
    /// The test itself.
    pub(crate) run: fn(&Env),
    /// Whether the devices of a plan have what the test needs.
    fits: fn(&Plan) -> bool,
    /// Whether it needs sections that are whole pages of the running kernel, or some that are not.
    whole_pages: Option<bool>,
}

impl Test {
    /// A test that fits every plan with one good device.
    const fn new(name: &'static str, run: fn(&Env)) -> Self {
        Self {
            name,
            run,
            fits: |plan| good_devices(plan) >= 1,
            whole_pages: None,
        }
    }

    /// A test that needs two peers of one link in the guest.
    const fn two_peers(name: &'static str, run: fn(&Env)) -> Self {
        Self::new(name, run)
            .only_if(|plan| good_devices(plan) >= 2 && plan.devices[0].link == plan.devices[1].link)
    }

    /// A test that needs something special.
    const fn only_if(mut self, fits: fn(&Plan) -> bool) -> Self {
        self.fits = fits;
        self
    }

    /// A test that maps sections, so all of them must be whole pages of the running kernel.
    const fn of_whole_pages(mut self) -> Self {
        self.whole_pages = Some(true);
        self
    }

    /// A test about sections that are not whole pages of the running kernel.
    const fn of_partial_pages(mut self) -> Self {
        self.whole_pages = Some(false);
        self
    }

    /// Whether it is a test for a guest with this plan and kernel.
    pub(crate) fn is_for(&self, plan: &Plan) -> bool {
        let pages = self.whole_pages;
        (self.fits)(plan) && pages.is_none_or(|whole| whole == has_whole_pages(plan))
    }
}

/// All suites.
pub(crate) const ALL: &[(&str, &[Test])] = &[
    ("info", info::TESTS),
    ("region", region::TESTS),
    ("mapping", mapping::TESTS),
    ("ioctl", ioctl::TESTS),
    ("state", state::TESTS),
    ("events", events::TESTS),
    ("sharing", sharing::TESTS),
    ("subscription", subscription::TESTS),
    ("poll", poll::TESTS),
    ("nowait", nowait::TESTS),
    ("buffers", buffers::TESTS),
    ("inmate", inmate::TESTS),
    #[cfg(target_arch = "x86_64")]
    ("compat", compat::TESTS),
    ("node", node::TESTS),
    ("visibility", visibility::TESTS),
    ("tracing", tracing::TESTS),
    ("module", module::TESTS),
    ("distribution", module::DISTRIBUTION),
    ("intx", modes::INTX),
    ("polling", modes::POLLING),
    ("storm", modes::STORM),
    ("power", power::POWER),
    ("hotplug", power::HOTPLUG),
    ("removal", removal::TESTS),
    ("faults", faults::TESTS),
    ("vanish", vanish::TESTS),
    ("storms", storms::TESTS),
    ("load", load::TESTS),
    ("vectors", vectors::TESTS),
    ("malformed", malformed::TESTS),
    ("channel-messages", channels::messages::TESTS),
    ("channel-poll", channels::poll::TESTS),
    ("channel-nowait", channels::nowait::TESTS),
    ("channel-confirm", channels::confirm::TESTS),
    ("channel-sessions", channels::sessions::TESTS),
    ("channel-rules", channels::rules::TESTS),
    ("channel-sharing", channels::sharing::TESTS),
    ("channel-broken", channels::broken::TESTS),
    ("channel-failures", channels::failures::TESTS),
    ("channel-removal", channels::removal::TESTS),
    ("channel-seen", channels::seen::TESTS),
    ("channel-power", channels::removal::POWER),
    ("samples", samples::TESTS),
    ("channel-peers", peers::soft::TESTS),
    ("channel-attack", peers::attack::TESTS),
    ("channel-inmate", peers::inmate::TESTS),
];

/// The tests of a suite.
pub(crate) fn find(suite: &str) -> Option<&'static [Test]> {
    let found = ALL.iter().find(|(name, _)| *name == suite)?;
    Some(found.1)
}

fn good_devices(plan: &Plan) -> usize {
    plan.devices
        .iter()
        .filter(|device| device.fault.is_none())
        .count()
}

/// Whether the devices interrupt. One that offers MSI-X has no INTx to fall back to.
fn interrupts(plan: &Plan) -> bool {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let nomsi = words.split_whitespace().any(|word| word == "pci=nomsi");
    good_devices(plan) >= 1 && (plan.devices[0].vectors == 0 || !nomsi)
}

/// Whether the sections of the device under test are whole pages of the running kernel.
fn has_whole_pages(plan: &Plan) -> bool {
    let page = rustix::param::page_size() as u64;
    let good = plan.devices.iter().find(|device| device.fault.is_none());
    good.is_some_and(|device| {
        [device.state_size, device.rw_size, device.output_size]
            .iter()
            .all(|size| size % page == 0)
    })
}

/// Whether they do with messages, one interrupt for each. A line may interrupt twice for one doorbell, and
/// for its neighbours', so nothing can be counted exactly.
fn message_signalled(plan: &Plan) -> bool {
    interrupts(plan) && plan.devices[0].vectors > 0
}

/// What a test works with.
pub(crate) struct Env {
    /// The plan of this guest.
    pub(crate) plan: Plan,
    /// The device files of the good devices, in the plan's order.
    nodes: Vec<(DevicePlan, PathBuf)>,
}

impl Env {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let plan = system::plan()?;
        let good = plan.devices.iter().filter(|device| device.fault.is_none());
        let nodes = good
            .map(|device| {
                let node = system::node(&device.bdf());
                let node = node.ok_or_else(|| format!("{} has no device file", device.bdf()))?;
                Ok((device.clone(), node))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { plan, nodes })
    }

    /// What the device under test must be.
    pub(crate) fn expected(&self) -> &DevicePlan {
        &self.nodes[0].0
    }

    /// Vectors of the device under test that interrupt: of more, the driver takes no more. The INTx
    /// line counts as one.
    pub(crate) fn vectors(&self) -> u32 {
        self.expected().vectors.clamp(1, system::VECTORS_MAX)
    }

    /// The file of the device under test.
    pub(crate) fn node(&self) -> &PathBuf {
        &self.nodes[0].1
    }

    /// Opens the device under test.
    pub(crate) fn open(&self) -> Device {
        Device::open(self.node()).expect("open the device")
    }

    /// A counter of the device under test in debugfs.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let node = self.node().file_name().expect("a name").to_string_lossy();
        let path = format!("/sys/kernel/debug/ivshmem/{node}/{name}");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.trim_end().parse().expect("a number")
    }

    /// Gives a command to the device model of the device under test: `vanish 0`, `stop`, ... Its answer.
    pub(crate) fn model(&self, command: &str) -> String {
        let answer = self.try_model(command);
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// As [`model`](Self::model), for commands that may be refused.
    pub(crate) fn try_model(&self, command: &str) -> Result<String, String> {
        ask::model(&self.plan, self.expected().link, command)
    }

    /// Another peer of the same link.
    pub(crate) fn other_expected(&self) -> &DevicePlan {
        &self.nodes[1].0
    }

    /// The file of the other peer's device.
    pub(crate) fn other_node(&self) -> &PathBuf {
        &self.nodes[1].1
    }

    /// Opens the other peer.
    pub(crate) fn open_other(&self) -> Device {
        Device::open(&self.nodes[1].1).expect("open the other peer's device")
    }
}

/// How long a wait for something that must happen may take: generous, as the machine may be busy.
fn soon() -> Duration {
    system::patient(Duration::from_secs(60))
}

/// Opens a device file as a plain file, with the flags of open(2).
fn open_file(node: &Path, read: bool, write: bool, flags: i32) -> File {
    let file = File::options()
        .read(read)
        .write(write)
        .custom_flags(flags)
        .open(node);
    file.expect("open the device")
}

/// All sections of a device with their names: state table, read/write section, each peer's output
/// section.
fn sections(device: &Device) -> Vec<(String, Section)> {
    let info = device.info();
    let mut sections = vec![
        ("state table".to_string(), info.state_table),
        ("read/write section".to_string(), info.rw),
    ];
    for peer in 0..info.max_peers {
        let section = info.output_of(peer).expect("each peer has one");
        sections.push((format!("output section of peer {peer}"), section));
    }
    sections.retain(|(_, section)| section.size > 0);
    sections
}

/// Everything that `device` has not seen, without waiting.
fn drain(device: &Device) -> Vec<Event> {
    let mut buffer = EventBuffer::new(64);
    let mut all = Vec::new();
    while let Ok(events) = device.events(&mut buffer, Deadline::NOW) {
        all.extend(events);
    }
    all
}

/// Waits for events and fetches them.
fn wait(device: &Device) -> Vec<Event> {
    let mut buffer = EventBuffer::new(64);
    let begin = std::time::Instant::now();
    let events = device.events(&mut buffer, Deadline::after(soon()));
    let events = events.expect("an event").collect();
    // At its deadline a call looks once more, whether it has been woken or not.
    assert!(begin.elapsed() < soon(), "nothing woke it but the deadline");
    events
}

/// Fetches events until there were `wanted` doorbells on `vector`; how many there were.
fn count_doorbells(device: &Device, vector: u32, wanted: u64) -> u64 {
    let mut total = 0;
    while total < wanted {
        total += wait(device)
            .iter()
            .map(|event| doorbells(event, vector))
            .sum::<u64>();
    }
    total
}

/// How many doorbells on `vector` an event tells of.
fn doorbells(event: &Event, vector: u32) -> u64 {
    match event.kind {
        EventKind::Doorbell { vector: v, count } if v == vector => count,
        _ => 0,
    }
}

/// The number that JSON gives for the first field called `name`.
fn number_in(json: &str, name: &str) -> u64 {
    let field = format!("\"{name}\":");
    let found = json.split_once(&field);
    let (_, rest) = found.unwrap_or_else(|| panic!("no {name} in {json}"));
    let digits = rest
        .trim_start()
        .split(|c: char| !c.is_ascii_digit())
        .next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

/// Tells threads of a scope to end when it is dropped, also by a failed assertion: a scope waits for
/// its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
