// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doorbells, and events: counting, waiting, deadlines.

use super::{count_doorbells, doorbells, drain, soon, wait, Env, StopOnDrop, Test};
use crate::raw::{self, bytes_of_mut};
use crate::system;
use ivshmem::uapi::{self, ivshmem_event, ivshmem_events};
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags};
use rustix::time::{clock_gettime, ClockId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "a doorbell to oneself arrives on each vector, once",
        self_doorbell,
    ),
    Test::two_peers(
        "a doorbell arrives at the other peer on each vector, once",
        other_doorbell,
    ),
    Test::new("several openers each count each doorbell", several_openers),
    Test::new(
        "a file sees only what happened after it was opened",
        from_open_on,
    ),
    Test::new(
        "doorbells in a burst: at least one, never more than sent, and the last one wakes",
        burst,
    )
    .only_if(|plan| {
        plan.devices
            .first()
            .is_some_and(|device| device.vectors > 1)
    }),
    Test::new("doorbells on several vectors are told apart", vectors_apart),
    Test::new(
        "what does not fit into the buffer stays for the next call",
        small_buffer,
    ),
    Test::two_peers("one call stores everything that fits", everything),
    Test::two_peers(
        "state changes do not hide doorbells from a buffer of one",
        no_starvation,
    ),
    Test::two_peers("state changes come first", states_first),
    Test::two_peers(
        "a peer that goes and comes back gives changes with old equal to new",
        came_back,
    ),
    Test::two_peers(
        "a state change counts as a doorbell on vector 0 too",
        state_on_vector_0,
    ),
    Test::new(
        "times are CLOCK_MONOTONIC, between ringing and fetching",
        times,
    ),
    Test::new(
        "records larger than known are filled with zeroes",
        larger_records,
    ),
    // bad input: fetching when there is nothing, without waiting => `EAGAIN`
    Test::new("no event and no waiting is EAGAIN", again),
    // bad input: the same with `O_NONBLOCK`, whatever the deadline => `EAGAIN`
    Test::new(
        "no event on an O_NONBLOCK file is EAGAIN whatever the deadline",
        nonblocking,
    ),
    // bad input: waiting until a deadline, and nothing happens => `ETIMEDOUT`, not before it
    Test::new(
        "no event until the deadline is ETIMEDOUT, not before it",
        timed_out,
    ),
    // bad input: a deadline in the past => `ETIMEDOUT` at once, or the events that are there
    Test::new(
        "a deadline in the past is ETIMEDOUT at once, with events it is none",
        past_deadline,
    ),
    // bad input: a signal while waiting => `EINTR`
    Test::new("a signal is EINTR", interrupted),
    // bad input: signals with `SA_RESTART` while waiting => the wait goes on, and the deadline stays
    Test::new(
        "a signal with SA_RESTART does not move the deadline",
        restarted,
    ),
    Test::new("a wait without limit ends with a doorbell", woken),
    Test::new(
        "many waiting files are all woken by one doorbell",
        all_woken,
    ),
    Test::new(
        "two threads that share a file share its events",
        shared_file,
    ),
];

fn own(env: &Env) -> u32 {
    env.expected().peer
}

fn ring_self(env: &Env, device: &Device, vector: u32) {
    device.ring(own(env), vector).expect("ring");
}

fn fetch_now(device: &Device) -> Result<(), Error> {
    device
        .events(&mut EventBuffer::new(8), Deadline::NOW)
        .map(drop)
}

fn self_doorbell(env: &Env) {
    let device = env.open();
    for round in 0..3 {
        for vector in 0..env.vectors() {
            ring_self(env, &device, vector);
            let events = wait(&device);
            assert_eq!(
                events.len(),
                1,
                "round {round}, vector {vector}: {events:?}"
            );
            assert_eq!(doorbells(&events[0], vector), 1, "{events:?}");
            assert!(!events[0].may_have_lost);
        }
    }
    assert_eq!(fetch_now(&device), Err(Error::WouldBlock));
}

fn other_doorbell(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let peer = env.other_expected().peer;
    for vector in 0..env.vectors() {
        device.ring(peer, vector).expect("ring");
        let events = wait(&other);
        assert_eq!(events.len(), 1, "vector {vector}: {events:?}");
        assert_eq!(doorbells(&events[0], vector), 1, "{events:?}");
    }
    assert_eq!(fetch_now(&device), Err(Error::WouldBlock), "nobody rang us");
}

fn several_openers(env: &Env) {
    const ROUNDS: u64 = 50;
    let files: Vec<_> = (0..20).map(|_| env.open()).collect();
    let vector = env.vectors() - 1;
    for _ in 0..ROUNDS {
        ring_self(env, &files[0], vector);
        // In lock-step with the first file; the others fetch whenever they like.
        assert_eq!(count_doorbells(&files[0], vector, 1), 1);
    }
    for (index, file) in files.iter().enumerate().skip(1) {
        assert_eq!(
            count_doorbells(file, vector, ROUNDS),
            ROUNDS,
            "file {index}"
        );
        assert_eq!(fetch_now(file), Err(Error::WouldBlock), "file {index}");
    }
}

fn from_open_on(env: &Env) {
    let device = env.open();
    ring_self(env, &device, 0);
    assert_eq!(count_doorbells(&device, 0, 1), 1);
    let late = env.open();
    assert_eq!(fetch_now(&late), Err(Error::WouldBlock));
    ring_self(env, &device, 0);
    assert_eq!(count_doorbells(&late, 0, 1), 1);
}

fn burst(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let vector = env.vectors() - 1;
    let count = |file: &Device| {
        drain(file)
            .iter()
            .map(|event| doorbells(event, vector))
            .sum()
    };
    for length in [2, 10, 100, 1000] {
        for _ in 0..length {
            ring_self(env, &device, vector);
        }
        // The last one wakes, however they merge.
        let mut first = count_doorbells(&device, vector, 1);
        system::settle(env.node(), 0).expect("settle");
        first += count(&device);
        let other: u64 = count(&second);
        assert_eq!(first, other, "the files do not agree");
        assert!((1..=length).contains(&first), "{first} of {length}");
    }
}

fn vectors_apart(env: &Env) {
    let device = env.open();
    let vectors = env.vectors();
    for vector in 0..vectors {
        ring_self(env, &device, vector);
    }
    let mut seen = vec![0; vectors as usize];
    while seen.iter().any(|&count| count == 0) {
        for event in wait(&device) {
            for (vector, count) in (0..).zip(seen.iter_mut()) {
                *count += doorbells(&event, vector);
            }
        }
    }
    assert!(seen.iter().all(|&count| count == 1), "{seen:?}");
}

fn small_buffer(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let vectors = env.vectors();
    for vector in 0..vectors {
        ring_self(env, &device, vector);
        // Until the interrupt has been taken.
        assert_eq!(count_doorbells(&second, vector, 1), 1);
    }
    let mut buffer = EventBuffer::new(1);
    let mut seen = Vec::new();
    while let Ok(events) = device.events(&mut buffer, Deadline::NOW) {
        let events: Vec<_> = events.collect();
        assert_eq!(events.len(), 1);
        seen.extend(events);
    }
    let mut told: Vec<_> = seen
        .iter()
        .map(|event| match event.kind {
            EventKind::Doorbell { vector, count } => (vector, count),
            _ => panic!("{event:?}"),
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        (0..vectors).map(|vector| (vector, 1)).collect::<Vec<_>>()
    );
}

/// Lets `value` be the other peer's state, and waits until `device` could be told of it.
fn other_publishes(env: &Env, device: &Device, other: &Device, value: u32) {
    let witness = Device::open(env.node()).expect("open");
    other
        .set_state(value, StateFlags::default())
        .expect("publish");
    while !wait(&witness)
        .iter()
        .any(|event| matches!(event.kind, EventKind::State { new, .. } if new == value))
    {}
    assert_eq!(device.state(env.other_expected().peer), Ok(value));
}

fn states_first(env: &Env) {
    let (device, second, other) = (env.open(), env.open(), env.open_other());
    let vector = env.vectors() - 1;
    ring_self(env, &device, vector);
    assert_eq!(count_doorbells(&second, vector, 1), 1);
    other_publishes(env, &device, &other, 5);
    let kinds: Vec<_> = drain(&device)
        .iter()
        .map(|event| matches!(event.kind, EventKind::State { .. }))
        .collect();
    assert!(kinds.len() >= 2, "{kinds:?}");
    assert!(kinds.is_sorted_by(|a, b| a >= b), "{kinds:?}");
    assert!(kinds[0]);
}

fn everything(env: &Env) {
    let (device, witness, other) = (env.open(), env.open(), env.open_other());
    let vectors = env.vectors();
    for vector in 0..vectors {
        ring_self(env, &device, vector);
        assert_eq!(count_doorbells(&witness, vector, 1), 1);
    }
    other_publishes(env, &device, &other, 5);
    let mut buffer = EventBuffer::new(2 * vectors as usize);
    let events = device.events(&mut buffer, Deadline::NOW).expect("events");
    assert_eq!(
        events.len(),
        vectors as usize + 1,
        "each vector, and a state"
    );
}

fn no_starvation(env: &Env) {
    let (device, witness, other) = (env.open(), env.open(), env.open_other());
    let vector = env.vectors() - 1;
    ring_self(env, &device, vector);
    assert_eq!(count_doorbells(&witness, vector, 1), 1);
    let mut buffer = EventBuffer::new(1);
    let mut rang = false;
    // There is always a new state: 2 calls for it, vector 0 and the doorbell are 4 at most.
    for value in 1..=4 {
        other_publishes(env, &device, &other, value);
        let mut events = device.events(&mut buffer, Deadline::NOW).expect("an event");
        rang |= events.any(|event| doorbells(&event, vector) == 1);
    }
    assert!(rang, "four calls told of states only");
}

fn came_back(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    for value in [5, 0, 5] {
        other_publishes(env, &device, &other, value);
    }
    drain(&device);
    for value in [0, 5] {
        other_publishes(env, &device, &other, value);
    }
    let states: Vec<_> = drain(&device)
        .into_iter()
        .filter(|event| matches!(event.kind, EventKind::State { .. }))
        .collect();
    let expected = EventKind::State {
        peer: env.other_expected().peer,
        old: 5,
        new: 5,
        changes: 2,
    };
    assert_eq!(states.len(), 1, "{states:?}");
    assert_eq!(states[0].kind, expected);
}

fn state_on_vector_0(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    other_publishes(env, &device, &other, 6);
    assert_eq!(count_doorbells(&device, 0, 1), 1);
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn times(env: &Env) {
    let device = env.open();
    for _ in 0..10 {
        let before = monotonic();
        ring_self(env, &device, 0);
        let events = wait(&device);
        let after = monotonic();
        let time = events[0].time;
        assert!(
            before <= time && time <= after,
            "{before:?} {time:?} {after:?}"
        );
    }
}

fn larger_records(env: &Env) {
    const RECORD: usize = 64;
    let device = env.open();
    let vectors = env.vectors().min(2) as usize;
    let second = env.open();
    for vector in 0..vectors as u32 {
        ring_self(env, &device, vector);
        assert_eq!(count_doorbells(&second, vector, 1), 1);
    }
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let map = raw::mmap(None, 0, 4096, rights, libc::MAP_PRIVATE).expect("memory");
    for offset in (0..4096).step_by(4) {
        map.store(offset, 0xaaaa_aaaa);
    }
    let mut request = ivshmem_events {
        records: map.address(),
        capacity: 8,
        record_size: RECORD as u32,
        ..Default::default()
    };
    raw::ioctl(
        &device,
        uapi::IVSHMEM_IOC_EVENTS,
        bytes_of_mut(&mut request),
    )
    .expect("fetch");
    assert_eq!(request.count as usize, vectors);
    for record in 0..vectors {
        let begin = record * RECORD;
        assert_eq!(map.load(begin), uapi::IVSHMEM_EVENT_DOORBELL);
        assert_eq!(map.load(begin + 4), record as u32, "index");
        for offset in (size_of::<ivshmem_event>()..RECORD).step_by(4) {
            assert_eq!(map.load(begin + offset), 0, "tail");
        }
    }
    assert_eq!(
        map.load(vectors * RECORD),
        0xaaaa_aaaa,
        "behind the last record"
    );
}

fn again(env: &Env) {
    let device = env.open();
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(fetch_now(&device), Err(Error::WouldBlock));
    }
    assert!(begin.elapsed() < soon());
}

fn nonblocking(env: &Env) {
    let device = Device::options()
        .nonblocking(true)
        .open(env.node())
        .expect("open");
    for deadline in [Deadline::NOW, Deadline::after(soon()), Deadline::NEVER] {
        let got = device.events(&mut EventBuffer::new(8), deadline).map(drop);
        assert_eq!(got, Err(Error::WouldBlock));
    }
    ring_self(env, &device, 0);
    assert!(system::wait_until(soon(), || fetch_now(&device).is_ok()));
}

fn timed_out(env: &Env) {
    let device = env.open();
    for wait in [1, 20, 150] {
        let wait = Duration::from_millis(wait);
        let end = monotonic() + wait;
        let got = device
            .events(&mut EventBuffer::new(8), Deadline::at(end))
            .map(drop);
        assert_eq!(got, Err(Error::TimedOut));
        assert!(monotonic() >= end, "too early");
    }
}

fn past_deadline(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let past = Deadline::at(Duration::from_nanos(1));
    let fetch = || {
        device
            .events(&mut EventBuffer::new(8), past)
            .map(|events| events.len())
    };
    assert_eq!(fetch(), Err(Error::TimedOut));
    ring_self(env, &device, 0);
    assert_eq!(count_doorbells(&second, 0, 1), 1);
    assert_eq!(fetch(), Ok(1));
}

fn interrupted(env: &Env) {
    let device = env.open();
    raw::alarm_every(100, false);
    for deadline in [Deadline::NEVER, Deadline::after(soon())] {
        let got = device.events(&mut EventBuffer::new(8), deadline).map(drop);
        assert_eq!(got, Err(Error::Interrupted));
    }
}

fn restarted(env: &Env) {
    let device = env.open();
    raw::alarm_every(20, true);
    let end = monotonic() + Duration::from_millis(300);
    let got = device
        .events(&mut EventBuffer::new(8), Deadline::at(end))
        .map(drop);
    assert_eq!(got, Err(Error::TimedOut));
    assert!(monotonic() >= end, "too early");
}

/// Runs `wait` in a thread for each file, rings when all of them sleep in the kernel, and expects
/// all of them to end.
fn woken_by_one(env: &Env, files: &[Device], wait: fn(&Device) -> u64) {
    let ringer = env.open();
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .map(|file| scope.spawn(move || wait(file)))
            .collect();
        let asleep = || system::threads_in(&[libc::SYS_ioctl]) >= threads.len();
        assert!(
            system::wait_until(soon(), asleep),
            "the waiters do not wait"
        );
        ringer.ring(own(env), 0).expect("ring");
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a waiter"))
            .sum()
    });
    assert_eq!(total, files.len() as u64);
}

fn wait_for_ever(device: &Device) -> u64 {
    let mut buffer = EventBuffer::new(8);
    let events = device
        .events(&mut buffer, Deadline::NEVER)
        .expect("an event");
    events.map(|event| doorbells(&event, 0)).sum()
}

fn woken(env: &Env) {
    woken_by_one(env, &[env.open()], wait_for_ever);
}

fn all_woken(env: &Env) {
    let files: Vec<_> = (0..30).map(|_| env.open()).collect();
    woken_by_one(env, &files, wait_for_ever);
}

fn shared_file(env: &Env) {
    const ROUNDS: u64 = 200;
    let (device, ringer, witness) = (env.open(), env.open(), env.open());
    let counted = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end_early = StopOnDrop(&failed);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut buffer = EventBuffer::new(4);
                while counted.load(Ordering::SeqCst) < ROUNDS && !failed.load(Ordering::Relaxed) {
                    let soon = Deadline::after(Duration::from_millis(50));
                    match device.events(&mut buffer, soon) {
                        Ok(events) => {
                            let count: u64 = events.map(|event| doorbells(&event, 0)).sum();
                            counted.fetch_add(count, Ordering::SeqCst);
                        }
                        Err(Error::TimedOut) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..ROUNDS {
            ring_self(env, &ringer, 0);
            assert_eq!(count_doorbells(&witness, 0, 1), 1);
        }
        // All is well so far: the threads end when they have counted all.
        std::mem::forget(end_early);
    });
    assert_eq!(counted.load(Ordering::SeqCst), ROUNDS);
    assert_eq!(fetch_now(&device), Err(Error::WouldBlock));
}
