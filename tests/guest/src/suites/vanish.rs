// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device that is gone without notice, as one that was pulled: everything reads all-ones.

use super::faults::{wait_for_state, Faulty};
use super::{count_doorbells, drain, number_in, soon, Env, Test};
use crate::{helpers, system};
use ivshmem::{Deadline, Device, Error, Event, EventBuffer, EventKind, StateFlags};
use rustix::event::{poll, PollFd, PollFlags};
use std::fs;
use std::thread;
use std::time::Duration;

pub(super) const TESTS: &[Test] = &[
    // bad input: a device that is gone without notice => within a second or so as at removal: `ENODEV`, hang-up, `SIGBUS`; a line in the log
    Test::two_peers(
        "a device that vanishes: blocked calls end with ENODEV, poll hangs up, mappings are gone",
        ends_all,
    ),
    // bad input: a device that is gone with its memory => no state is read out of it, then `ENODEV`; files stay dead when it is back
    Test::two_peers(
        "a device that vanishes with its memory: files are dead, and stay so when it is back",
        with_memory,
    ),
    // bad input: unbinding a device that is gone => its registers are not touched
    Test::two_peers(
        "a device that has vanished: its registers are never touched again",
        untouched,
    ),
    Test::two_peers(
        "a device that has vanished while no file was open: its registers are not touched at unbinding either",
        unseen,
    ),
    // bad input: `remove` and `rescan` of a device that is gone => it is found again when it is back
    Test::two_peers(
        "a device that has vanished can be removed, and found again when it is back",
        removed,
    ),
    // bad input: binding a device that is gone => refused
    Test::two_peers(
        "a device that is gone when the driver is bound is refused",
        refused,
    ),
];

/// The number of the other system call of that name; arm64 has `ppoll` only.
#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = libc::SYS_ppoll;

/// Polls until `device` hangs up. Nothing else happens before: what reads all-ones is nobody's state.
fn poll_until_gone(device: &Device) {
    drain(device);
    let mut fds = [PollFd::new(device, PollFlags::IN | PollFlags::PRI)];
    poll(&mut fds, None).expect("poll");
    let got = fds[0].revents();
    assert!(got.contains(PollFlags::HUP | PollFlags::ERR), "{got:?}");
}

/// Waits until `device` is known to be gone. What reads all-ones is nobody's state.
fn wait_until_gone(device: &Device) {
    let mut buffer = EventBuffer::new(16);
    let is_void =
        |event: &Event| matches!(event.kind, EventKind::State { new, .. } if new == u32::MAX);
    loop {
        match device.events(&mut buffer, Deadline::NEVER) {
            Ok(mut events) => assert!(!events.any(|event| is_void(&event))),
            Err(Error::Gone) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Binds the driver again, to the device that is back, and shows that it works.
fn works_again(env: &Env) {
    let bdf = env.expected().bdf();
    if system::is_bound(&bdf) {
        system::unbind(&bdf).expect("unbind");
    }
    system::ensure_ready(&env.plan).expect("bound");
    let env = &Env::new().expect("devices are back");
    let (device, other) = (env.open(), env.open_other());
    let vector = env.vectors() - 1;
    other.ring(env.expected().peer, vector).expect("ring");
    count_doorbells(&device, vector, 1);
    other.set_state(8, StateFlags::default()).expect("publish");
    wait_for_state(&device, env.other_expected().peer, 8);
}

fn vanish(env: &Env) -> Faulty<'_> {
    Faulty::begin(env, &format!("vanish {}", env.expected().peer))
}

fn ends_all(env: &Env) {
    let device = env.open();
    let node = env.node().to_string_lossy();
    let offset = device.info().rw.offset.to_string();
    let touch = helpers::start("touch-on", &[&node, &offset]).ready();
    let (reader, poller) = (env.open(), env.open());
    let faulty = thread::scope(|scope| {
        let reader = scope.spawn(|| wait_until_gone(&reader));
        let poller = scope.spawn(|| poll_until_gone(&poller));
        let calls = [libc::SYS_ioctl, libc::SYS_ppoll, POLL];
        assert!(system::wait_until(soon(), || system::threads_in(&calls) == 2));
        let faulty = vanish(env);
        reader.join().expect("a blocked wait ends");
        poller.join().expect("poll hangs up");
        faulty
    });
    // A touch of a mapping is SIGBUS.
    let end = touch.wait();
    assert_eq!(end.signal(), Some(libc::SIGBUS), "{end:?}");
    wait_until_gone(&device);
    assert_eq!(device.ring(0, 0), Err(Error::Gone));
    assert_eq!(device.state(0), Err(Error::Gone));
    assert_eq!(device.read_word(0), Err(Error::Gone));
    let log = system::kernel_log().expect("kernel log");
    let says = |line: &&String| line.contains("has gone without notice");
    assert!(log.iter().rev().any(|line| says(&line)), "{log:?}");
    faulty.end();
    works_again(env);
}

fn with_memory(env: &Env) {
    let device = env.open();
    let other = env.open_other();
    let command = format!("vanish {} memory", env.expected().peer);
    let faulty = Faulty::begin(env, &command);
    wait_until_gone(&device);
    faulty.end();
    // The other peer's device is not gone.
    other.set_state(3, StateFlags::default()).expect("publish");
    drop(other);
    for _ in 0..2 {
        assert_eq!(device.state(0), Err(Error::Gone));
        works_again(env);
    }
}

/// What the device model has counted of the registers of the device under test.
fn accesses(env: &Env) -> String {
    let text = env.model(&format!("statistics {}", env.expected().peer));
    let begin = text.find("\"register_reads\"").expect("counts");
    let end = text.find("\"odd_width_accesses\"").expect("counts");
    text[begin..end].into()
}

fn untouched(env: &Env) {
    let device = env.open();
    device.set_state(5, StateFlags::default()).expect("publish");
    let faulty = vanish(env);
    wait_until_gone(&device);
    let before = accesses(env);
    assert!(device.ring(0, 0).is_err() && device.set_state(6, StateFlags::default()).is_err());
    // Longer than the driver's timers.
    thread::sleep(Duration::from_millis(2500));
    drop(device);
    system::unbind(&env.expected().bdf()).expect("unbind");
    assert_eq!(accesses(env), before);
    faulty.end();
    works_again(env);
}

fn unseen(env: &Env) {
    let faulty = vanish(env);
    let before = accesses(env);
    system::unbind(&env.expected().bdf()).expect("unbind");
    assert_eq!(accesses(env), before);
    faulty.end();
    works_again(env);
}

fn removed(env: &Env) {
    let device = env.open();
    let bdf = env.expected().bdf();
    let faulty = vanish(env);
    wait_until_gone(&device);
    fs::write(format!("/sys/bus/pci/devices/{bdf}/remove"), "1").expect("remove");
    assert!(!system::is_bound(&bdf));
    faulty.end();
    fs::write("/sys/bus/pci/rescan", "1").expect("rescan");
    assert_eq!(device.state(0), Err(Error::Gone));
    works_again(env);
}

fn refused(env: &Env) {
    let bdf = env.expected().bdf();
    system::unbind(&bdf).expect("unbind");
    let faulty = vanish(env);
    let bound = system::bind(&bdf);
    assert!(bound.is_err() && !system::is_bound(&bdf), "{bound:?}");
    let text = env.model(&format!("statistics {}", env.expected().peer));
    assert!(number_in(&text, "gone_accesses") > 0, "{text}");
    faulty.end();
    works_again(env);
}
