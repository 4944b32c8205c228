// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt modes other than MSI-X, the self-test, and storms.

use super::faults::{wait_for_state, Faulty};
use super::{count_doorbells, doorbells, drain, soon, wait, Env, StopOnDrop, Test};
use crate::system;
use ivshmem::{
    ConnectOptions, Deadline, Device, Error, EventBuffer, EventKind, InterruptMode, StateFlags,
    Subject,
};
use rustix::io::Errno;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Devices that share an INTx line: the plan has no vectors, and slots that are equal modulo 4.
pub(super) const INTX: &[Test] = &[
    Test::two_peers("INTx: the mode is named, with one vector", intx_info),
    Test::two_peers(
        "INTx: doorbells arrive at both devices of a line",
        intx_doorbells,
    ),
    Test::two_peers("INTx: the last doorbell of any burst is seen", intx_burst),
    Test::two_peers(
        "INTx: a doorbell that comes while the handler looks at channels is heard",
        intx_beside_channels,
    ),
    Test::two_peers(
        "INTx: a doorbell that comes while programs look at their own state is heard",
        intx_beside_own_state,
    ),
    Test::two_peers(
        "INTx: our own state reads as it was published, in a whole table and in pieces",
        intx_own_state,
    ),
    Test::two_peers("INTx: states are told apart from doorbells", intx_states),
    Test::two_peers(
        "INTx: beside a peer whose state is all-ones doorbells are heard, and a lost change to it is told",
        intx_all_ones,
    ),
    Test::two_peers(
        "INTx: a neighbour on the line works on while a device is unbound and bound",
        intx_neighbour,
    ),
    Test::two_peers(
        "the self-test says that interrupts arrive",
        self_test_passed,
    ),
];

/// A guest in which neither MSI-X nor INTx works.
pub(super) const POLLING: &[Test] = &[
    Test::two_peers("polling: info and log name the mode", polling_info),
    Test::two_peers("polling: changes of states are seen", polling_states),
    // bad input: waiting for doorbells alone in polling mode => `EOPNOTSUPP` instead of hanging
    Test::two_peers(
        "polling: a wait for doorbells alone is EOPNOTSUPP instead of hanging",
        polling_doorbells,
    ),
    Test::two_peers("polling: a doorbell can be rung", polling_ring),
    // bad input: subscribing to a vector in polling mode => `ENXIO`
    Test::two_peers("polling: no vector can be subscribed to", polling_subscribe),
];

/// Peers that ring as fast as they can.
pub(super) const STORM: &[Test] = &[
    Test::new(
        "the self-test says that interrupts arrive",
        self_test_passed,
    ),
    // bad input: a peer that rings as fast as it can => the device is silenced 10 ms at a time, and files are told `IVSHMEM_EVENT_MAY_HAVE_LOST`
    Test::new(
        "a storm is throttled, files are told that events may have been lost, and it goes on",
        storm,
    ),
    // bad input: the module parameter `throttle` with a value below the number of windows a second has, or between their multiples => the limit holds as it is
    Test::new(
        "a storm stays under any limit: 1, and 150, interrupts a second",
        small_limits,
    ),
    Test::new("without a limit nothing is throttled", no_limit),
];

fn own(env: &Env) -> u32 {
    env.expected().peer
}

/// A file of the device's folder in sysfs.
fn attribute(env: &Env, name: &str) -> String {
    let node = env.node().file_name().expect("a name").to_string_lossy();
    let path = format!("/sys/class/ivshmem/{node}/{name}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim_end().into()
}

fn self_test_passed(env: &Env) {
    assert_eq!(attribute(env, "self_test"), "passed");
}

fn intx_info(env: &Env) {
    for device in [env.open(), env.open_other()] {
        let info = device.info();
        assert_eq!(info.interrupt_mode, InterruptMode::Intx);
        assert_eq!((info.vectors, info.vectors_enabled), (1, 1));
    }
    assert_eq!(attribute(env, "interrupt_mode"), "intx");
}

/// Waits until `device` has been interrupted.
fn interrupted(device: &Device) {
    while !wait(device).iter().any(|event| doorbells(event, 0) > 0) {}
}

fn intx_doorbells(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    for _ in 0..20 {
        device.ring(env.other_expected().peer, 0).expect("ring");
        interrupted(&other);
        other.ring(own(env), 0).expect("ring");
        interrupted(&device);
        // A neighbour's interrupts count too.
        drain(&device);
        drain(&other);
    }
}

fn intx_burst(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let word = device.info().output.offset;
    for round in 1..=20_u32 {
        for number in 1..=50 {
            device
                .write_word(word, round * 100 + number)
                .expect("write");
            device.ring(env.other_expected().peer, 0).expect("ring");
        }
        // Whoever looks after each interrupt sees the last word in the end.
        let last = round * 100 + 50;
        while other.read_word(word).expect("read") != last {
            interrupted(&other);
        }
    }
}

/// The handler reads much for a channel that is busy. What is rung meanwhile, by somebody who has already heard of
/// this interrupt, must not be lost in it.
fn intx_beside_channels(env: &Env) {
    const ROUNDS: u32 = 300;
    let (device, other) = (env.open(), env.open_other());
    let connect = |device: &Device, peer| device.connect(peer, ConnectOptions::new());
    let near = connect(&device, env.other_expected().peer).expect("connect");
    let far = connect(&other, own(env)).expect("connect");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while !done.load(Relaxed) {
                near.send(b"ping").expect("send");
                far.receive(&mut buffer).expect("receive");
                far.send(b"pong").expect("send");
                near.receive(&mut buffer).expect("receive");
            }
        });
        assert_all_heard(env, &device, ROUNDS);
    });
}

/// A read of our own state tells QEMU's device that the interrupt has come, so it is for the handler alone.
fn intx_beside_own_state(env: &Env) {
    const ROUNDS: u32 = 300;
    let device = env.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        scope.spawn(|| {
            let mut table = [0; 16];
            while !done.load(Relaxed) {
                device.state(own(env)).expect("state");
                device.read_at(&mut table, 0).expect("read");
                std::thread::yield_now();
            }
        });
        assert_all_heard(env, &device, ROUNDS);
    });
}

/// Rings its own device, each time when it has heard the last.
fn assert_all_heard(env: &Env, device: &Device, rounds: u32) {
    for round in 0..rounds {
        drain(device);
        device.ring(own(env), 0).expect("ring");
        let mut buffer = EventBuffer::new(8);
        let is_heard = device
            .events(&mut buffer, Deadline::after(soon()))
            .is_ok_and(|mut events| events.any(|event| doorbells(&event, 0) > 0));
        assert!(is_heard, "doorbell {round} was lost");
    }
}

/// What programs read of our own state with INTx is what was published.
fn intx_own_state(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let id = own(env);
    for value in [7, u32::MAX, 0x0102_0304] {
        device
            .set_state(value, StateFlags::default())
            .expect("publish");
        assert_eq!(device.state(id).expect("state"), value);
        assert_eq!(other.state(id).expect("state"), value);
        // In every way to cut the table.
        let mut whole = [0; 16];
        other.read_at(&mut whole, 0).expect("read");
        for start in 0..16 {
            for end in start..=16 {
                let mut part = vec![0xee; end - start];
                device.read_at(&mut part, start as u64).expect("read");
                assert_eq!(part, whole[start..end], "from {start} to {end}");
            }
        }
    }
}

fn intx_states(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    other.set_state(3, StateFlags::default()).expect("publish");
    let is_it = |event: &ivshmem::Event| matches!(event.kind, EventKind::State { new: 3, .. });
    while !wait(&device).iter().any(is_it) {}
    device.ring(own(env), 0).expect("ring");
    let told = wait(&device);
    assert!(told.iter().all(|event| doorbells(event, 0) > 0), "{told:?}");
}

/// All-ones is what a device that is gone reads as, so the driver looks twice.
fn intx_all_ones(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let peer = env.other_expected().peer;
    let publish = |state| {
        let published = other.set_state(state, StateFlags::default());
        published.expect("publish");
    };
    publish(u32::MAX);
    wait_for_state(&device, peer, u32::MAX);
    let witness = env.open();
    // For longer than the driver leaves it alone.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        assert_all_heard(env, &device, 20);
    }
    assert!(!drain(&witness).iter().any(|event| event.may_have_lost));
    publish(0);
    wait_for_state(&device, peer, 0);
    drain(&device);
    let faulty = Faulty::begin(env, &format!("lose {} 1", own(env)));
    publish(u32::MAX);
    let (mut seen, mut lost) = (false, false);
    while !(seen && lost) {
        for event in wait(&device) {
            seen |= matches!(event.kind, EventKind::State { new: u32::MAX, .. });
            lost |= event.may_have_lost;
        }
    }
    faulty.end();
    assert_all_heard(env, &device, 20);
}

/// Interrupts are on their way to the device while it goes.
fn intx_neighbour(env: &Env) {
    let other = env.open_other();
    let bdf = env.expected().bdf();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                other.ring(own(env), 0).expect("ring");
            }
        });
        let _stop = StopOnDrop(&done);
        // With an interrupt line, and somebody who rings all the time, each costs a kernel with all checkers 8 s.
        let rounds = if system::has_checkers() { 2 } else { 5 };
        for _ in 0..rounds {
            system::unbind(&bdf).expect("unbind");
            drain(&other);
            other.ring(env.other_expected().peer, 0).expect("ring");
            interrupted(&other);
            system::bind(&bdf).expect("bind");
            drain(&other);
            other.ring(env.other_expected().peer, 0).expect("ring");
            interrupted(&other);
        }
    });
}

fn polling_info(env: &Env) {
    let info = *env.open().info();
    assert_eq!(info.interrupt_mode, InterruptMode::Polling);
    assert_eq!(info.vectors_enabled, 0);
    assert_eq!(attribute(env, "interrupt_mode"), "polling");
    let log = system::kernel_log().expect("kernel log");
    assert!(log.iter().any(|line| line.contains("(polling)")), "{log:?}");
}

fn polling_states(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    for value in [1, 2, 0, 0xffff_ffff, 5] {
        other
            .set_state(value, StateFlags::default())
            .expect("publish");
        // A file that a test before has closed may be heard first.
        let is_it = |event: &ivshmem::Event| matches!(event.kind, EventKind::State { new, .. } if new == value);
        while !wait(&device).iter().any(is_it) {}
    }
}

fn polling_doorbells(env: &Env) {
    let device = env.open();
    device
        .subscribe(Subject::AllPeers, false)
        .expect("unsubscribe");
    let mut buffer = EventBuffer::new(1);
    let now = device.events(&mut buffer, Deadline::NOW).map(drop);
    assert_eq!(now, Err(Error::WouldBlock));
    for deadline in [Deadline::NEVER, Deadline::after(soon())] {
        let got = device.events(&mut buffer, deadline).map(drop);
        assert_eq!(got.unwrap_err().errno(), Some(Errno::OPNOTSUPP));
    }
    // Our own state is no news, so a wait for that would never end either.
    device
        .subscribe(Subject::Peer(own(env)), true)
        .expect("subscribe");
    let got = device
        .events(&mut buffer, Deadline::after(soon()))
        .map(drop);
    assert_eq!(got.unwrap_err().errno(), Some(Errno::OPNOTSUPP));
}

fn polling_ring(env: &Env) {
    let device = env.open();
    for vector in 0..device.info().vectors {
        device
            .ring(env.other_expected().peer, vector)
            .expect("ring");
    }
    let is_doorbell = |event: &ivshmem::Event| matches!(event.kind, EventKind::Doorbell { .. });
    assert!(!drain(&device).iter().any(is_doorbell));
}

fn polling_subscribe(env: &Env) {
    let device = env.open();
    let error = device.subscribe(Subject::Vector(0), true).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NXIO));
}

/// The module again, with a parameter.
fn reload(env: &Env, parameters: &std::ffi::CStr) -> Env {
    system::unload_module().expect("unload");
    system::load_module_with(parameters).expect("load");
    system::ensure_ready(&env.plan).expect("devices are back");
    Env::new().expect("devices are back")
}

/// Rings ourselves for `time`, fetching all the while. Returns how often we rang, how many interrupts
/// were counted, and whether any may have been lost.
fn ring_for(env: &Env, device: &Device, time: Duration) -> (u64, u64, bool) {
    let vector = env.vectors() - 1;
    let (mut rung, mut counted, mut lost) = (0, 0, false);
    let begin = Instant::now();
    while begin.elapsed() < time {
        device.ring(own(env), vector).expect("ring");
        rung += 1;
        for event in drain(device) {
            counted += doorbells(&event, vector);
            lost |= event.may_have_lost;
        }
    }
    (rung, counted, lost)
}

/// Rings ourselves as fast as that goes, and sees that interrupts stay under `limit` a second, which the driver knows.
fn stays_under(env: &Env, limit: u64) -> Device {
    let device = env.open();
    let time = Duration::from_secs(2);
    let (rung, counted, lost) = ring_for(env, &device, time);
    assert!(rung > 2 * limit * 2, "only {rung} doorbells: no storm");
    // A window's worth more at either end, and each time that the device is silenced one may be on its way.
    let pauses = limit.min(100);
    let most = (limit + pauses) * (time.as_secs() + 1);
    assert!(counted <= most, "{counted} interrupts of {rung} doorbells");
    assert!(counted >= 1 && lost, "{counted} interrupts, lost: {lost}");
    assert!(env.counter("throttles") > 0);
    device
}

fn storm(env: &Env) {
    let env = &reload(env, c"throttle=200");
    let device = stays_under(env, 200);
    // In quiet it is as before.
    while wait_quiet(&device) {}
    let vector = env.vectors() - 1;
    for _ in 0..3 {
        device.ring(own(env), vector).expect("ring");
        assert_eq!(count_doorbells(&device, vector, 1), 1);
        assert!(!wait_quiet(&device));
    }
    drop(device);
    reload(env, c"");
}

/// Whether something happens within two pauses of a throttled device.
fn wait_quiet(device: &Device) -> bool {
    let deadline = Deadline::after(Duration::from_millis(50));
    device.events(&mut EventBuffer::new(64), deadline).is_ok()
}

fn small_limits(env: &Env) {
    for (limit, parameter) in [(1, c"throttle=1"), (150, c"throttle=150")] {
        let env = &reload(env, parameter);
        drop(stays_under(env, limit));
    }
    reload(env, c"");
}

fn no_limit(env: &Env) {
    let env = &reload(env, c"throttle=0");
    let device = env.open();
    let (_, counted, lost) = ring_for(env, &device, Duration::from_millis(500));
    assert!(counted > 0 && !lost, "{counted} interrupts, lost: {lost}");
    assert_eq!(env.counter("throttles"), 0);
    drop(device);
    reload(env, c"");
}
