// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer that rings as fast as it can, from inside the device model, so that the guest's processors
//! have nothing to do with it but to take the interrupts.
//!
//! The plan has two peers of one link in the guest, of which the first is the victim, and behind them
//! a device of another link with a soft inmate that answers.

use super::faults::{wait_for_state, Faulty};
use super::{count_doorbells, doorbells, drain, number_in, soon, Env, Test};
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags};
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[
    // bad input: a peer that rings as fast as it can => interrupts stay under the limit of the module parameter `throttle`
    Test::two_peers(
        "storm: interrupts taken per second stay under the throttle's limit",
        under_the_limit,
    ),
    // bad input: ... and each interrupt costs a lot, as the device is slow (many peers or eventfds cost as well) => the device is silenced when they take most of a processor's time, however few they are
    Test::two_peers(
        "storm: a device whose few interrupts take most of a processor's time is silenced, with the usual limit, too",
        costly,
    ),
    // bad input: ... and changes its state meanwhile => all changes are seen, in the end everything is delivered
    Test::two_peers(
        "storm: changes of state are all seen meanwhile, and afterwards everything is delivered",
        nothing_is_missed,
    ),
    // bad input: ... beside a second device => that one keeps its event rate, by half at least
    Test::two_peers(
        "storm: a second device in the same guest keeps at least half of the event rate that it has \
         under the same storm with the victim's INT_CTRL off",
        second_device,
    ),
];

/// Interrupts per second that a device may take in these tests: few enough for any machine.
const LIMIT: u64 = 1000;

/// The module again, with that limit. Dropped, it is as usual again.
struct Limited {
    env: Env,
}

impl Limited {
    fn new(env: &Env) -> Self {
        Self {
            env: reload(env, c"throttle=1000"),
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // After a failed assertion files may still be open, and the next test reports it.
        if !std::thread::panicking() {
            reload(&self.env, c"");
        }
    }
}

fn reload(env: &Env, parameters: &std::ffi::CStr) -> Env {
    system::unload_module().expect("unload");
    system::load_module_with(parameters).expect("load");
    system::ensure_ready(&env.plan).expect("devices are back");
    Env::new().expect("devices are back")
}

/// The second peer rings the first on `vector` from now on.
fn storm(env: &Env, vector: u32) -> Faulty<'_> {
    let (from, to) = (env.other_expected().peer, env.expected().peer);
    Faulty::begin(env, &format!("storm {from} {to} {vector}"))
}

/// Interrupts that a file is told of within `time`, and whether there may have been more.
fn taken(device: &Device, time: Duration) -> (u64, bool) {
    let end = Instant::now() + time;
    let (mut count, mut lost) = (0, false);
    let mut buffer = EventBuffer::new(64);
    while Instant::now() < end {
        match device.events(&mut buffer, Deadline::after(Duration::from_millis(100))) {
            Ok(events) => {
                for event in events {
                    lost |= event.may_have_lost;
                    if let EventKind::Doorbell { count: more, .. } = event.kind {
                        count += more;
                    }
                }
            }
            Err(error) => assert_eq!(error, Error::TimedOut),
        }
    }
    (count, lost)
}

fn under_the_limit(env: &Env) {
    const TIME: Duration = Duration::from_secs(2);
    let limited = Limited::new(env);
    let env = &limited.env;
    let device = env.open();
    for vector in [0, env.vectors() - 1] {
        let faulty = storm(env, vector);
        let begin = Instant::now();
        let (count, lost) = taken(&device, TIME);
        // Whole seconds begun, as the last fetch may be late.
        let seconds = begin.elapsed().as_secs() + 1;
        let text = env.model(&format!("statistics {}", env.other_expected().peer));
        faulty.end();
        let rung = number_in(&text, "storm_doorbells");
        assert!(rung > 10 * LIMIT, "only {rung} doorbells: no storm");
        assert!(count > 0 && count <= LIMIT * seconds, "{count} interrupts");
        assert!(lost, "files are told that events may have been lost");
    }
    assert!(env.counter("throttles") > 0);
    drop(device);
}

fn costly(env: &Env) {
    /// How long the device takes for each register: a handler that rings is as slow. The limit allows 10 microseconds.
    const DELAY: u32 = 50;
    let (own, other) = (env.expected().peer, env.other_expected().peer);
    let vector = env.vectors() - 1;
    let node = env.node().file_name().expect("a name").to_string_lossy();
    let pingpong = format!("/sys/kernel/debug/ivshmem/{node}/pingpong");
    std::fs::write(&pingpong, format!("answer {other} {vector}")).expect("answer");
    let device = env.open();
    let before = env.counter("throttles");
    let faulty = Faulty::begin(env, &format!("slow {own} {DELAY}"));
    env.model(&format!("storm {other} {own} {vector}"));
    let silenced = system::wait_until(soon(), || env.counter("throttles") > before);
    let (count, lost) = taken(&device, Duration::from_secs(1));
    std::fs::write(&pingpong, "off").expect("off");
    faulty.end();
    assert!(silenced && lost, "{count} interrupts, lost: {lost}");
}

/// Waits until nothing happens any more.
fn wait_until_quiet(device: &Device) {
    let mut buffer = EventBuffer::new(64);
    let quiet = || Deadline::after(Duration::from_millis(300));
    while device.events(&mut buffer, quiet()).is_ok() {}
}

fn nothing_is_missed(env: &Env) {
    let limited = Limited::new(env);
    let env = &limited.env;
    let (device, other) = (env.open(), env.open_other());
    let faulty = storm(env, env.vectors() - 1);
    for state in 1..=20 {
        let flags = StateFlags::default();
        other.set_state(state, flags).expect("publish");
        wait_for_state(&device, env.other_expected().peer, state);
    }
    faulty.end();
    // Whatever was the storm's last comes, or the flag says that it may be lost; then there is rest.
    wait_until_quiet(&device);
    for vector in 0..env.vectors() {
        other.ring(env.expected().peer, vector).expect("ring");
        assert_eq!(count_doorbells(&device, vector, 1), 1);
    }
    assert!(drain(&device).is_empty());
    drop((device, other));
}

/// How often within `time` the soft inmate answers on the last vector, with a short rest after each
/// answer, so that the device itself stays under the limit.
fn answers(device: &Device, inmate: u32, time: Duration) -> u64 {
    let vector = device.info().vectors_enabled - 1;
    let end = Instant::now() + time;
    let mut count = 0;
    let mut buffer = EventBuffer::new(64);
    while Instant::now() < end {
        device.ring(inmate, vector).expect("ring");
        let mut answered = false;
        while !answered {
            let events = device.events(&mut buffer, Deadline::after(soon()));
            answered = events
                .expect("an answer")
                .any(|event| doorbells(&event, vector) > 0);
        }
        count += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    count
}

fn second_device(env: &Env) {
    const TIME: Duration = Duration::from_millis(400);
    const ROUNDS: u32 = 5;
    const TRIES: u32 = 3;
    /// Fewer answers tell nothing.
    const LEAST: u64 = 40;
    let limited = Limited::new(env);
    let env = &limited.env;
    let victim = env.expected().bdf();
    let (plan, node) = &env.nodes[2];
    let inmate = plan.inmate.as_ref().expect("the plan has one").peer;
    let second = Device::open(node).expect("open the second device");
    // The inmate answers peers that are there.
    let flags = StateFlags::default();
    second.set_state(1, flags).expect("publish");
    let faulty = storm(env, 0);
    // In turns, as others may need the machine, too; and for longer if they did so in the wrong ones.
    let (mut off, mut on) = (0, 0);
    for round in 0..ROUNDS * TRIES {
        if round > 0 && round % ROUNDS == 0 && off > LEAST && 2 * on >= off {
            break;
        }
        system::unbind(&victim).expect("unbind");
        off += answers(&second, inmate, TIME);
        system::ensure_ready(&env.plan).expect("bound");
        let device = Env::new().expect("bound").open();
        drain(&device);
        let begin = Instant::now();
        on += answers(&second, inmate, TIME);
        let seconds = begin.elapsed().as_secs() + 1;
        let victims: u64 = drain(&device).iter().map(|event| doorbells(event, 0)).sum();
        assert!(victims > 0 && victims <= LIMIT * seconds, "{victims}");
    }
    faulty.end();
    let text =
        format!("second device: {off} answers with INT_CTRL off, {on} with a throttled storm");
    system::mark_log(&format!("{text}\n")).expect("kernel log");
    assert!(
        off > LEAST,
        "only {off} answers: the machine is too slow to tell"
    );
    assert!(2 * on >= off, "{text}");
    drop(second);
}
