// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes wrong on demand: the device model does it when a test says so.
//!
//! The plan has two peers of one link in the guest, room for a third one that is not there, and
//! another link with a soft inmate that answers (for the storms).

use super::subscription::{count_of, counted, new_eventfd};
use super::{count_doorbells, drain, soon, wait, Env, Test};
use crate::system;
use ivshmem::{
    Deadline, Device, Error, Event, EventBuffer, EventKind, Section, StateFlags, Subject,
};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[
    // bad input: a command to the device model that is nonsense => refused with a sentence
    Test::two_peers(
        "commands: nonsense is refused with a sentence",
        nonsense,
    ),
    // bad input: a doorbell that is lost on its way => the wait goes on until its deadline; the next doorbell wakes
    Test::two_peers(
        "a lost doorbell: a wait ends at its deadline, and the next doorbell wakes",
        lost_doorbell,
    ),
    // bad input: a change of state whose interrupt is lost => found within a second or so, with `IVSHMEM_EVENT_MAY_HAVE_LOST`
    Test::two_peers(
        "a lost interrupt: the change of state is found, and files are told that events may have been lost",
        lost_state,
    ),
    Test::two_peers(
        "a lost interrupt: eventfds for vectors are counted up once, those for states for the change alone",
        lost_state_by_eventfd,
    ),
    // bad input: a device that loses each second interrupt => the last state is always seen
    Test::two_peers(
        "each second interrupt lost: the last state is always seen",
        lost_every,
    ),
    // bad input: a device that never interrupts => `self_test` in sysfs says `failed`, a line in the log says so; the driver goes on
    Test::two_peers(
        "no interrupt at all: the self-test says so, and the driver goes on",
        self_test_fails,
    ),
    // bad input: a peer that publishes garbage as its state => each record follows from the one before
    Test::two_peers(
        "garbage states of a peer: each record follows from the one before",
        garbage,
    ),
    // bad input: garbage in the state table => records stay consistent, and all is well afterwards
    Test::two_peers(
        "a garbage state table: records stay consistent, and all is well afterwards",
        garbage_table,
    ),
    // bad input: a peer that fills its memory with garbage all the time => reads and mappings go on, and what is ours stays
    Test::two_peers(
        "hostile contents: reads and mappings go on, and what is ours stays",
        scribble,
    ),
    // bad input: a peer that dies => its state is 0, with an event
    Test::two_peers("death of a peer: its state is 0", death),
    // bad input: a device that answers slowly => it works, slowly
    Test::two_peers("a device that answers slowly works", slow),
];

/// How long something goes wrong in a test.
const WHILE: Duration = Duration::from_secs(1);

/// Ends all faults when dropped, also by a failed assertion.
pub(super) struct Faulty<'a>(&'a Env);

impl<'a> Faulty<'a> {
    /// Makes something go wrong.
    pub(super) fn begin(env: &'a Env, command: &str) -> Self {
        let faulty = Self(env);
        env.model(command);
        faulty
    }

    /// All goes right again.
    pub(super) fn end(self) {}
}

impl Drop for Faulty<'_> {
    fn drop(&mut self) {
        let stopped = self.0.try_model("stop");
        // A failed test says why it failed.
        assert!(std::thread::panicking() || stopped.is_ok(), "{stopped:?}");
    }
}

fn own(env: &Env) -> u32 {
    env.expected().peer
}

fn peer(env: &Env) -> u32 {
    env.other_expected().peer
}

/// Publishes without an owner that would take it back.
fn publish(device: &Device, state: u32) {
    let flags = StateFlags::default();
    device.set_state(state, flags).expect("publish");
}

/// Waits for an event for which `is_it` holds.
pub(super) fn wait_for(device: &Device, is_it: impl Fn(&Event) -> bool) {
    while !wait(device).iter().any(&is_it) {}
}

/// Waits for the record that says that `peer` has got the state `value`.
pub(super) fn wait_for_state(device: &Device, whose: u32, value: u32) {
    wait_for(
        device,
        |event| matches!(event.kind, EventKind::State { peer, new, .. } if (peer, new) == (whose, value)),
    );
}

fn nonsense(env: &Env) {
    for (command, words) in [
        ("dance", "no command `dance`"),
        ("vanish", "write `vanish PEER [memory]`"),
        ("vanish x", "`x` is not a value of PEER"),
        ("vanish 9", "there is no peer 9"),
        ("storm 0 1 99", "there is no vector 99"),
        ("return 0", "not gone"),
    ] {
        let error = env.try_model(command).expect_err(command);
        assert!(error.contains(words), "{command}: {error}");
    }
    assert_eq!(env.model("status"), "");
}

fn lost_doorbell(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let vector = env.vectors() - 1;
    let faulty = Faulty::begin(env, &format!("lose {} 1", own(env)));
    drain(&device);
    other.ring(own(env), vector).expect("ring");
    let deadline = Deadline::after(Duration::from_millis(500));
    let lost = device.events(&mut EventBuffer::new(4), deadline).map(drop);
    assert_eq!(lost, Err(Error::TimedOut));
    assert_eq!(env.model("status"), "");
    other.ring(own(env), vector).expect("ring");
    assert_eq!(count_doorbells(&device, vector, 1), 1);
    faulty.end();
}

fn lost_state(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let _faulty = Faulty::begin(env, &format!("lose {} 1", own(env)));
    publish(&other, 7);
    wait_for_state(&device, peer(env), 7);
    wait_for(&device, |event| event.may_have_lost);
}

fn lost_state_by_eventfd(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let [one, any, states] = [
        Subject::Vector(env.vectors() - 1),
        Subject::AllVectors,
        Subject::AllPeers,
    ]
    .map(|subject| {
        let fd = new_eventfd();
        let attached = device.attach_eventfd(subject, Some(fd.as_fd()));
        attached.expect("attach");
        fd
    });
    let _faulty = Faulty::begin(env, &format!("lose {} 1", own(env)));
    publish(&other, 7);
    assert_eq!(count_of(&states), 1);
    assert_eq!((count_of(&one), count_of(&any)), (1, 1));
    wait_for(&device, |event| event.may_have_lost);
    assert_eq!(counted(&states), 0, "a state");
}

fn lost_every(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let _faulty = Faulty::begin(env, &format!("lose-every {} 2", own(env)));
    for state in 1..=10 {
        publish(&other, state);
        wait_for_state(&device, peer(env), state);
    }
}

fn self_test_fails(env: &Env) {
    let bdf = env.expected().bdf();
    system::unbind(&bdf).expect("unbind");
    let faulty = Faulty::begin(env, &format!("lose {} 1000000", own(env)));
    system::bind(&bdf).expect("bind");
    system::ensure_ready(&env.plan).expect("bound");
    let env = &Env::new().expect("devices are back");
    let node = env.node().file_name().expect("a name").to_string_lossy();
    let path = format!("/sys/class/ivshmem/{node}/self_test");
    let said = std::fs::read_to_string(path).expect("read");
    assert_eq!(said.trim_end(), "failed");
    let log = system::kernel_log().expect("kernel log");
    let words = format!("{bdf}: self-test: interrupts do not arrive");
    assert!(log.iter().any(|line| line.contains(&words)), "{log:#?}");
    // Without interrupts states are still seen, and with them doorbells again.
    let (device, other) = (env.open(), env.open_other());
    publish(&other, 5);
    wait_for_state(&device, peer(env), 5);
    faulty.end();
    let vector = env.vectors() - 1;
    other.ring(own(env), vector).expect("ring");
    count_doorbells(&device, vector, 1);
    drop(device);
    // For the tests to come it says that interrupts arrive.
    system::unbind(&bdf).expect("unbind");
    system::bind(&bdf).expect("bind");
}

/// Records that must come while states are garbage.
const RECORDS: usize = 50;

/// Fetches events for some time, until there were `least` records of states, and checks that those of each
/// peer follow from each other; how many there were. `states` is what the states were before.
fn follow(device: &Device, states: &mut BTreeMap<u32, u32>, time: Duration, least: usize) -> usize {
    let info = *device.info();
    let begin = Instant::now();
    let mut records = 0;
    let mut buffer = EventBuffer::new(64);
    while begin.elapsed() < time || (records < least && begin.elapsed() < soon()) {
        let deadline = Deadline::after(Duration::from_millis(100));
        let events = match device.events(&mut buffer, deadline) {
            Ok(events) => events,
            Err(Error::TimedOut) => continue,
            Err(error) => panic!("{error}"),
        };
        for event in events {
            let EventKind::State {
                peer,
                old,
                new,
                changes,
            } = event.kind
            else {
                continue;
            };
            assert!(peer < info.max_peers && peer != info.id, "{event:?}");
            assert!(changes > u64::from(old == new), "{event:?}");
            let before = states.insert(peer, new);
            assert!(
                before.is_none_or(|before| before == old),
                "{before:?} {event:?}"
            );
            records += 1;
        }
    }
    records
}

/// Memory that is free, in KiB.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("read");
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

fn garbage(env: &Env) {
    // One file fetches, one never does: what a peer does takes no memory.
    let (device, sleeper, other) = (env.open(), env.open(), env.open_other());
    let before = free_memory();
    let faulty = Faulty::begin(env, &format!("garbage {} 42", peer(env)));
    let mut states = BTreeMap::new();
    let records = follow(&device, &mut states, WHILE, RECORDS);
    assert!(records >= RECORDS, "only {records} records");
    assert!(before.saturating_sub(free_memory()) < 16 * 1024);
    faulty.end();
    follow(&device, &mut states, Duration::from_millis(1500), 0);
    assert_eq!(device.state(peer(env)).as_ref(), Ok(&states[&peer(env)]));
    assert!(drain(&sleeper).len() <= 1 + env.vectors() as usize);
    publish(&other, 77);
    wait_for_state(&device, peer(env), 77);
}

fn garbage_table(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    publish(&other, 3);
    wait_for_state(&device, peer(env), 3);
    let faulty = Faulty::begin(env, "garbage-table 4711");
    let mut states = BTreeMap::new();
    let records = follow(&device, &mut states, WHILE, RECORDS);
    assert!(records >= RECORDS, "only {records} records");
    for id in 0..device.info().max_peers {
        device.state(id).expect("any value");
    }
    faulty.end();
    // The device model has put the table right and interrupted.
    let right = |&id: &u32| device.state(id) == Ok(if id == peer(env) { 3 } else { 0 });
    assert!((0..device.info().max_peers).all(|id| right(&id)));
    follow(&device, &mut states, Duration::from_millis(1500), 0);
    assert_eq!(states[&peer(env)], 3);
}

fn scribble(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let info = *device.info();
    let ours = [0x5a; 64];
    device.write_at(&ours, info.output.offset).expect("write");
    let theirs = info.output_of(peer(env)).expect("exists");
    let faulty = Faulty::begin(env, &format!("scribble {} 99", peer(env)));
    // Where this kernel's pages are larger than the sections, only read reaches them.
    let map = |section: Section| {
        section
            .is_mappable()
            .then(|| device.map(section).expect("map"))
    };
    let (map, first) = (map(info.rw), map(theirs));
    let vector = env.vectors() - 1;
    let end = Instant::now() + WHILE;
    let mut seen = std::collections::BTreeSet::new();
    while Instant::now() < end {
        let mut bytes = [0; 256];
        let read = device.read_at(&mut bytes, theirs.offset);
        assert_eq!(read, Ok(bytes.len()));
        seen.insert(match &map {
            Some(map) => map.word(0).expect("a word").load(Ordering::Relaxed),
            None => device.read_word(info.rw.offset).expect("read"),
        });
        if let Some(first) = &first {
            first.read(0, &mut bytes).expect("read");
        }
        // We may write there too, and it may be overwritten at once.
        device.write_word(info.rw.offset + 4, 1).expect("write");
        other.ring(own(env), vector).expect("ring");
        count_doorbells(&device, vector, 1);
    }
    assert!(seen.len() > 1, "nobody scribbles: {seen:?}");
    faulty.end();
    let mut bytes = [0; 64];
    device
        .read_at(&mut bytes, info.output.offset)
        .expect("read");
    assert_eq!(bytes, ours);
}

fn death(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    // A peer without a guest comes and dies.
    let third = device.info().max_peers - 1;
    let faulty = Faulty::begin(env, &format!("inmate {third}:quiet"));
    wait_for_state(&device, third, third + 1);
    env.model(&format!("die {third}"));
    wait_for_state(&device, third, 0);
    // And so does one whose device is in this guest: its own driver finds it gone.
    publish(&other, 9);
    wait_for_state(&device, peer(env), 9);
    env.model(&format!("die {}", peer(env)));
    wait_for_state(&device, peer(env), 0);
    faulty.end();
    drop(other);
    let bdf = env.other_expected().bdf();
    system::unbind(&bdf).expect("unbind");
    system::bind(&bdf).expect("bind");
    system::ensure_ready(&env.plan).expect("both are back");
    let env = &Env::new().expect("both are back");
    let other = env.open_other();
    publish(&other, 4);
    wait_for_state(&device, peer(env), 4);
}

fn slow(env: &Env) {
    const DELAY: Duration = Duration::from_millis(50);
    let (device, other) = (env.open(), env.open_other());
    let command = format!("slow {} {}", peer(env), DELAY.as_millis());
    let faulty = Faulty::begin(env, &command);
    let begin = Instant::now();
    publish(&other, 6);
    wait_for_state(&device, peer(env), 6);
    assert!(begin.elapsed() >= DELAY);
    let vector = env.vectors() - 1;
    other.ring(own(env), vector).expect("ring");
    assert_eq!(count_doorbells(&device, vector, 1), 1);
    let bdf = env.other_expected().bdf();
    drop(other);
    system::unbind(&bdf).expect("unbind");
    system::bind(&bdf).expect("bind");
    faulty.end();
    assert!(system::wait_until(soon(), || system::node(&bdf).is_some()));
}
