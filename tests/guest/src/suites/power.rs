// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine sleeps, or loses a CPU, with files open.

use super::subscription::{count_of, counted, new_eventfd};
use super::{count_doorbells, drain, interrupts, soon, wait, Env, Test};
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags, Subject};
use ivshmem_guest::plan::Plan;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Sleep of all devices. What a test finds in the kernel's log belongs to all of them.
pub(super) const POWER: &[Test] = &[
    Test::new(
        "suspend and resume: doorbells arrive afterwards, and files are told that events may have been lost",
        doorbells_after_sleep,
    )
    .only_if(interrupts),
    Test::new(
        "suspend and resume: eventfds for vectors are counted up once, those for states are not",
        eventfds_after_sleep,
    )
    .only_if(interrupts),
    Test::two_peers(
        "suspend and resume, polling: no file is told of doorbells, and states are seen",
        polled_over_sleep,
    )
    .only_if(is_polled),
    Test::two_peers(
        "suspend and resume: peers see our state as 0 meanwhile, and as it was afterwards, with its owner",
        state_over_sleep,
    ),
    Test::new(
        "suspend and resume: a live mapping and a blocked reader go on",
        calls_over_sleep,
    )
    .only_if(interrupts)
    .of_whole_pages(),
    Test::new("suspend and resume: many times", many_sleeps).only_if(interrupts),
];

/// CPUs that come and go.
pub(super) const HOTPLUG: &[Test] = &[
    Test::new(
        "a CPU goes offline: files are told that events may have been lost",
        cpu_offline,
    )
    .only_if(interrupts),
    Test::new(
        "a CPU goes offline: eventfds for vectors are counted up, those for states are not",
        eventfds_after_cpu_offline,
    )
    .only_if(interrupts),
    Test::new(
        "a CPU goes offline and comes back while doorbells are rung: none is missed at the end",
        cpu_offline_under_load,
    )
    .only_if(interrupts),
    Test::two_peers(
        "a CPU goes offline, polling: no file is told of doorbells, and states are seen",
        polled_over_cpu_offline,
    )
    .only_if(is_polled),
];

/// Whether there are two peers that no interrupt reaches.
fn is_polled(plan: &Plan) -> bool {
    super::good_devices(plan) >= 2 && !interrupts(plan)
}

/// Sends all devices to sleep and wakes them: all phases, interrupts and other CPUs switched off, but not
/// the machine itself, which in an emulator hardly wakes again.
pub(super) fn sleep() {
    let modes = fs::read_to_string("/sys/power/mem_sleep").unwrap_or_default();
    let (state, test) = if modes.contains("deep") {
        ("mem", "core")
    } else {
        ("freeze", "platform")
    };
    let write = |path: &str, text: &str| {
        fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    };
    write("/sys/power/pm_test", test);
    let delay = "/sys/module/suspend/parameters/pm_test_delay";
    if Path::new(delay).exists() {
        write(delay, "0");
    }
    write("/sys/power/state", state);
    write("/sys/power/pm_test", "none");
}

/// Switches a CPU on or off.
pub(super) fn set_online(cpu: &Path, online: bool) {
    let path = cpu.join("online");
    let text = if online { "1" } else { "0" };
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// CPUs that can be switched off: not all have a switch.
pub(super) fn cpus() -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/devices/system/cpu").expect("CPUs");
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("online").exists())
        .collect()
}

/// Whether `device` is told that doorbells may have been lost.
fn has_lost(device: &Device) -> bool {
    drain(device).iter().any(|event| event.may_have_lost)
}

/// Rings ourselves on each vector until it is heard.
fn ring_all(env: &Env, device: &Device) {
    drain(device);
    for vector in 0..env.vectors() {
        device.ring(env.expected().peer, vector).expect("ring");
        // On a line that is shared, a neighbour's count as well.
        assert!(count_doorbells(device, vector, 1) >= 1, "vector {vector}");
    }
}

/// Eventfds of `device`, for our last vector and for states.
fn eventfds(env: &Env, device: &Device) -> [OwnedFd; 2] {
    ring_all(env, device);
    [Subject::Vector(env.vectors() - 1), Subject::AllPeers].map(|subject| {
        let fd = new_eventfd();
        let attached = device.attach_eventfd(subject, Some(fd.as_fd()));
        attached.expect("attach");
        fd
    })
}

fn eventfds_after_sleep(env: &Env) {
    let device = env.open();
    let [vector, states] = eventfds(env, &device);
    sleep();
    let count = count_of(&vector);
    // On a line that is shared, a neighbour's interrupts count as well.
    assert!(
        count == 1 || !super::message_signalled(&env.plan),
        "{count} times"
    );
    assert_eq!(counted(&states), 0, "no state has changed");
}

fn eventfds_after_cpu_offline(env: &Env) {
    let device = env.open();
    let [vector, states] = eventfds(env, &device);
    for cpu in cpus() {
        counted(&vector);
        set_online(&cpu, false);
        let count = counted(&vector);
        set_online(&cpu, true);
        assert!(count >= 1, "{} went, and nothing says so", cpu.display());
    }
    assert_eq!(counted(&states), 0, "no state has changed");
}

/// Does `something` to a device that polls: doorbells are nothing to it before and after.
fn polled_over(env: &Env, something: impl FnOnce()) {
    let (device, other) = (env.open(), env.open_other());
    let any = new_eventfd();
    let attached = device.attach_eventfd(Subject::AllVectors, Some(any.as_fd()));
    attached.expect("attach");
    something();
    let mut fds = [PollFd::new(&device, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll");
    assert_eq!(fds[0].revents(), PollFlags::empty());
    let told = drain(&device);
    let doorbell = |event: &ivshmem::Event| matches!(event.kind, EventKind::Doorbell { .. });
    assert!(!told.iter().any(doorbell), "{told:?}");
    assert_eq!(counted(&any), 0, "an eventfd for doorbells");
    other.set_state(9, StateFlags::default()).expect("publish");
    let is_it = |event: &ivshmem::Event| matches!(event.kind, EventKind::State { new: 9, .. });
    while !wait(&device).iter().any(is_it) {}
}

fn polled_over_sleep(env: &Env) {
    polled_over(env, sleep);
}

fn polled_over_cpu_offline(env: &Env) {
    polled_over(env, || {
        for cpu in cpus() {
            set_online(&cpu, false);
            set_online(&cpu, true);
        }
    });
}

fn doorbells_after_sleep(env: &Env) {
    let device = env.open();
    ring_all(env, &device);
    let before = env.counter("sleeps");
    sleep();
    assert_eq!(env.counter("sleeps"), before + 1);
    assert!(has_lost(&device), "no event says so");
    ring_all(env, &device);
    assert!(!has_lost(&device), "said once");
}

fn state_over_sleep(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let id = env.expected().peer;
    device.set_state(7, StateFlags::default()).expect("publish");
    while other.state(id) != Ok(7) {
        wait(&other);
    }
    drain(&other);
    sleep();
    let changed = |event: &ivshmem::Event| match event.kind {
        EventKind::State { peer, changes, .. } => peer == id && changes > 0,
        _ => false,
    };
    // It may sleep before, or wake after us: what it surely sees is that something was.
    let lost = drain(&other)
        .iter()
        .any(|event| event.may_have_lost || changed(event));
    // One that polls sees a state that is as before.
    let polls = is_polled(&env.plan);
    assert!(lost || polls, "the other peer was told nothing");
    assert_eq!(other.state(id), Ok(7));
    assert_eq!(device.state(id), Ok(7));
    let busy = env.open().set_state(1, StateFlags::default());
    assert_eq!(busy.unwrap_err().errno(), Some(rustix::io::Errno::BUSY));
    drop(device);
    let zero = || other.state(id) == Ok(0);
    assert!(system::wait_until(soon(), zero), "the owner is closed");
    // Nothing published is nothing afterwards.
    sleep();
    assert_eq!(other.state(id), Ok(0));
}

fn calls_over_sleep(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let section = info.output;
    let mapping = device.map_mut(section).expect("map");
    let word = mapping.word(0).expect("a word");
    word.store(0x5eed, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let reader = env.open();
        let blocked = scope.spawn(move || {
            let deadline = Deadline::after(soon());
            let mut buffer = EventBuffer::new(4);
            reader.events(&mut buffer, deadline).map(Iterator::count)
        });
        let asleep = || system::threads_in(&[libc::SYS_ioctl]) == 1;
        assert!(
            system::wait_until(soon(), asleep),
            "the reader does not wait"
        );
        sleep();
        let got = blocked.join().expect("no panic");
        assert!(matches!(got, Ok(1..)), "woken with news: {got:?}");
    });
    assert_eq!(word.load(Ordering::SeqCst), 0x5eed);
    assert_eq!(device.read_word(section.offset), Ok(0x5eed));
    let mut buffer = EventBuffer::new(4);
    let now = device.events(&mut buffer, Deadline::NOW).map(drop);
    assert_ne!(now, Err(Error::Gone));
}

fn many_sleeps(env: &Env) {
    let device = env.open();
    for _ in 0..3 {
        sleep();
        ring_all(env, &device);
    }
}

fn cpu_offline(env: &Env) {
    let device = env.open();
    for cpu in cpus() {
        drain(&device);
        set_online(&cpu, false);
        let lost = has_lost(&device);
        set_online(&cpu, true);
        assert!(lost, "{} went, and no event says so", cpu.display());
        ring_all(env, &device);
    }
}

fn cpu_offline_under_load(env: &Env) {
    const CYCLES: u32 = 5;
    let device = env.open();
    let (vector, id) = (env.vectors() - 1, env.expected().peer);
    let word = device.info().output.offset;
    let cpus = cpus();
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| {
            for _ in 0..CYCLES {
                for cpu in &cpus {
                    set_online(cpu, false);
                    set_online(cpu, true);
                }
            }
        });
        // Every doorbell is heard before the next is rung, or an event says that it may be lost.
        let mut number = 0;
        while !switch.is_finished() {
            number += 1;
            device.write_word(word, number).expect("write");
            device.ring(id, vector).expect("ring");
            let heard = wait(&device);
            assert!(!heard.is_empty());
        }
        switch.join().expect("CPUs can be switched");
        assert!(number > CYCLES, "only {number} doorbells");
    });
    ring_all(env, &device);
}
