// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tracepoints, as trace-cmd and perf use them.

use super::visibility::{counter, fdinfo};
use super::{count_doorbells, soon, wait, Env, Test};
use crate::{helpers, raw, system};
use ivshmem::StateFlags;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub(super) const TESTS: &[Test] = &[
    Test::new("each thing that a program does is traced", program)
        .only_if(super::interrupts)
        .of_whole_pages(),
    Test::two_peers("a change of another peer's state is traced", state_change)
        .only_if(|plan| super::interrupts(plan) && super::good_devices(plan) >= 2),
    Test::new("removal, and a page fault after it, are traced", removal).of_whole_pages(),
    Test::new("a storm is traced, counted and shown", storm).only_if(super::message_signalled),
    Test::new("perf counts what a thread does", perf).only_if(super::interrupts),
    Test::new(
        "perf records each doorbell, its fields where the format file says",
        perf_fields,
    ),
    Test::new(
        "each event has a format file that trace-cmd can read",
        formats,
    ),
    Test::new("what is off is not traced", off).only_if(super::interrupts),
    Test::new("the module can be unloaded while it is traced", unload),
];

const TRACING: &str = "/sys/kernel/tracing";

/// A trace buffer of our own, with all events of the module on.
pub(super) struct Trace(PathBuf);

impl Trace {
    pub(super) fn start() -> Self {
        let instance = Path::new(TRACING).join("instances/ivshmem-test");
        fs::create_dir(&instance).expect("a trace instance");
        let trace = Self(instance);
        trace.enable(true);
        trace
    }

    fn enable(&self, on: bool) {
        fs::write(
            self.0.join("events/ivshmem/enable"),
            if on { "1" } else { "0" },
        )
        .expect("switch the events on or off");
    }

    /// What was traced of the device `node`: event, then fields other than the device.
    pub(super) fn lines(&self, node: &Path) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("trace")).expect("the trace");
        let device = format!(" device={}", number(node));
        let ours = text.lines().filter(|line| !line.starts_with('#'));
        ours.filter_map(|line| line.split_once(": ivshmem_").map(|(_, event)| event))
            .filter(|event| {
                event.split_once(':').is_some_and(|(_, fields)| {
                    fields == device || fields.starts_with(&format!("{device} "))
                })
            })
            .map(|event| event.replacen(&device, "", 1))
            .collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Without the module there is nothing to switch off.
        let _ = fs::write(self.0.join("events/ivshmem/enable"), "0");
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// The N of ivshmemN.
fn number(node: &Path) -> u32 {
    let name = node.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix("ivshmem"));
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

/// Checks that `wanted` were traced in this order, whatever else was.
pub(super) fn assert_order(lines: &[String], wanted: &[String]) {
    let mut rest = lines.iter();
    for line in wanted {
        assert!(
            rest.any(|traced| traced == line),
            "`{line}` is missing, or too early, in {lines:#?}"
        );
    }
}

fn program(env: &Env) {
    let trace = Trace::start();
    let device = env.open();
    let info = *device.info();
    let (own, vector) = (info.id, info.vectors_enabled - 1);
    let file = fdinfo(&device)["file"].clone();
    device.set_state(7, StateFlags::default()).expect("publish");
    device.ring(own, vector).expect("ring");
    count_doorbells(&device, vector, 1);
    let page = rustix::param::page_size();
    let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    let offset = info.rw.offset;
    let map = raw::mmap(Some(device.as_fd()), offset as i64, page, rights, flags).expect("map");
    map.load(0);
    drop(map);
    drop(device);
    let wanted = [
        format!("open: file={file}"),
        "state_set: state=7".into(),
        format!("doorbell: peer={own} vector={vector}"),
        format!("fault: offset={offset:#x} writable=0 mapped=1"),
        "state_set: state=0".into(),
        format!("release: file={file}"),
    ];
    assert_order(&trace.lines(env.node()), &wanted);
    // On a line the interrupt of our state may be late, and be taken for the doorbell's, which then comes when it comes.
    let answered = || {
        let lines = trace.lines(env.node());
        let mut rest = lines
            .iter()
            .skip_while(|line| !line.starts_with("doorbell"));
        rest.any(|line| *line == format!("interrupt: vector={vector}"))
    };
    assert!(system::wait_until(soon(), answered), "no interrupt");
}

fn state_change(env: &Env) {
    let trace = Trace::start();
    let (device, other) = (env.open(), env.open_other());
    for state in [7, 9] {
        device
            .set_state(state, StateFlags::default())
            .expect("publish");
        wait(&other);
    }
    let own = device.info().id;
    let node = &env.nodes[1].1;
    let wanted = [
        format!("state_change: peer={own} old_state=0 new_state=7"),
        format!("state_change: peer={own} old_state=7 new_state=9"),
    ];
    assert_order(&trace.lines(node), &wanted);
    // A call that fetches events looks at the table, too, and may do so before the interrupt comes,
    // which then tells of both changes.
    let interrupt = || trace.lines(node).contains(&"interrupt: vector=0".into());
    assert!(system::wait_until(soon(), interrupt), "no interrupt");
}

fn removal(env: &Env) {
    let trace = Trace::start();
    let offset = env.open().info().rw.offset;
    let node = env.node().to_str().expect("a plain name");
    let toucher = helpers::start("touch", &[node, &offset.to_string()]).ready();
    system::unbind(&env.expected().bdf()).expect("unbind");
    assert_eq!(toucher.wait().signal(), Some(libc::SIGBUS));
    let wanted = [
        format!("fault: offset={offset:#x} writable=0 mapped=1"),
        "gone:".into(),
        format!("fault: offset={offset:#x} writable=0 mapped=0"),
    ];
    assert_order(&trace.lines(env.node()), &wanted);
}

fn storm(env: &Env) {
    system::unload_module().expect("unload");
    system::load_module_with(c"throttle=1000").expect("load");
    system::ensure_ready(&env.plan).expect("ready");
    let trace = Trace::start();
    let device = env.open();
    let (own, vector) = (device.info().id, device.info().vectors_enabled - 1);
    let before = counter(env.node(), "may_have_lost");
    let stormed = system::wait_until(soon(), || {
        for _ in 0..100 {
            device.ring(own, vector).expect("ring");
        }
        counter(env.node(), "throttles") > 0
    });
    assert!(stormed, "never throttled");
    let told = || counter(env.node(), "may_have_lost") > before;
    assert!(system::wait_until(soon(), told), "never let go again");
    let unseen = fdinfo(&device)["unseen-doorbells"].clone();
    assert!(
        unseen.split(' ').any(|word| word.ends_with('+')),
        "{unseen}"
    );
    let wanted = ["throttle:".into(), "may_have_lost:".into()];
    assert_order(&trace.lines(env.node()), &wanted);
    drop((device, trace));
    // The next test loads it with its usual limit.
    system::unload_module().expect("unload");
}

/// The number of an event, by which perf asks for it.
fn id(event: &str) -> u64 {
    let path = Path::new(TRACING).join("events/ivshmem").join(event);
    let text = fs::read_to_string(path.join("id")).expect(event);
    text.trim().parse().expect("a number")
}

/// A field of an event, as its format file describes it.
#[derive(Debug)]
struct Field {
    name: String,
    offset: usize,
    size: usize,
}

impl Field {
    /// Reads a line like `field:u32 peer; offset:12; size:4; signed:0;`.
    fn parse(line: &str) -> Option<Self> {
        let parts = line.trim().strip_prefix("field:")?;
        let mut parts = parts.split(';').map(str::trim);
        let name = parts.next()?.rsplit(' ').next()?.into();
        let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
        Some(Self {
            name,
            offset: number("offset:")?,
            size: number("size:")?,
        })
    }

    /// Its value in a raw record.
    fn of(&self, record: &[u8]) -> u64 {
        let bytes = &record[self.offset..self.offset + self.size];
        let mut value = [0; 8];
        // A byte order that puts the lowest byte first, as on all machines that we know.
        value[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(value)
    }
}

/// The fields of an event that are its own, and its format file.
fn format(event: &str) -> (Vec<Field>, String) {
    let path = Path::new(TRACING).join("events/ivshmem").join(event);
    let text = fs::read_to_string(path.join("format")).expect(event);
    let fields = text.lines().filter_map(Field::parse);
    let own = fields.filter(|field| !field.name.starts_with("common_"));
    (own.collect(), text)
}

/// Events with their fields, as Documentation/observing.md has them.
const EVENTS: &[(&str, &[&str])] = &[
    ("ivshmem_interrupt", &["device", "vector"]),
    ("ivshmem_doorbell", &["device", "peer", "vector"]),
    ("ivshmem_state_set", &["device", "state"]),
    (
        "ivshmem_state_change",
        &["device", "peer", "old_state", "new_state"],
    ),
    ("ivshmem_throttle", &["device"]),
    ("ivshmem_may_have_lost", &["device"]),
    ("ivshmem_open", &["device", "file"]),
    ("ivshmem_release", &["device", "file"]),
    ("ivshmem_channel_open", &["device", "peer", "file"]),
    ("ivshmem_channel_link", &["device", "peer", "file", "link"]),
    (
        "ivshmem_channel_send",
        &["device", "peer", "number", "length"],
    ),
    (
        "ivshmem_channel_receive",
        &["device", "peer", "number", "length"],
    ),
    ("ivshmem_fault", &["device", "offset", "writable", "mapped"]),
    ("ivshmem_gone", &["device"]),
];

fn formats(_: &Env) {
    let folder = fs::read_dir(Path::new(TRACING).join("events/ivshmem")).expect("events");
    let folders = folder.flatten().filter(|entry| entry.path().is_dir());
    let mut there: Vec<String> = folders
        .map(|entry| entry.file_name().into_string().expect("plain"))
        .collect();
    there.sort();
    let mut listed: Vec<&str> = EVENTS.iter().map(|(event, _)| *event).collect();
    listed.sort_unstable();
    assert_eq!(there, listed);
    for (event, wanted) in EVENTS {
        let (mut fields, text) = format(event);
        fields.sort_by_key(|field| field.offset);
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, *wanted, "{event}");
        for pair in fields.windows(2) {
            assert!(pair[0].offset + pair[0].size <= pair[1].offset, "{text}");
        }
        // What trace-cmd prints with: each field of the structure by its name.
        let print = text.lines().find(|line| line.starts_with("print fmt: "));
        let print = print.expect("how to print it");
        for name in names {
            assert!(print.contains(&format!("REC->{name}")), "{print}");
        }
    }
}

fn perf_fields(env: &Env) {
    let device = env.open();
    let own = device.info().id;
    let sampler = raw::Sampler::new(id("ivshmem_doorbell")).expect("perf");
    let vectors = device.info().vectors.min(8);
    for vector in 0..vectors {
        device.ring(own, vector).expect("ring");
    }
    let (fields, text) = format("ivshmem_doorbell");
    let records = sampler.records();
    let values: Vec<Vec<u64>> = records
        .iter()
        .map(|record| fields.iter().map(|field| field.of(record)).collect())
        .collect();
    let number = u64::from(number(env.node()));
    let wanted: Vec<Vec<u64>> = (0..vectors)
        .map(|vector| vec![number, own.into(), vector.into()])
        .collect();
    assert_eq!(values, wanted, "{text}");
    assert!(sampler.records().is_empty(), "nothing has happened since");
}

fn perf(env: &Env) {
    let device = env.open();
    let (own, vector) = (device.info().id, device.info().vectors_enabled - 1);
    let rung = raw::perf_counter(id("ivshmem_doorbell")).expect("perf");
    let set = raw::perf_counter(id("ivshmem_state_set")).expect("perf");
    for _ in 0..5 {
        device.ring(own, vector).expect("ring");
        count_doorbells(&device, vector, 1);
    }
    let count = |counter| {
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::read(counter, &mut bytes), Ok(8));
        u64::from_ne_bytes(bytes)
    };
    assert_eq!(count(&rung), 5);
    assert_eq!(count(&set), 0);
}

fn off(env: &Env) {
    let trace = Trace::start();
    drop(env.open());
    trace.enable(false);
    let before = trace.lines(env.node());
    assert!(!before.is_empty());
    let device = env.open();
    device.ring(device.info().id, 0).expect("ring");
    count_doorbells(&device, 0, 1);
    assert_eq!(trace.lines(env.node()), before);
}

fn unload(env: &Env) {
    let trace = Trace::start();
    drop(env.open());
    system::unload_module().expect("unload");
    assert!(!Path::new(TRACING).join("events/ivshmem").exists());
    assert!(trace.lines(env.node()).is_empty(), "traced by what is gone");
    system::ensure_ready(&env.plan).expect("load again");
    assert!(Path::new(TRACING).join("events/ivshmem/enable").exists());
    trace.enable(true);
    drop(env.open());
    assert_eq!(trace.lines(env.node()).len(), 2, "open and release");
}
