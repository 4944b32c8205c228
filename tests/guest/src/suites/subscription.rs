// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subscriptions, and being told by eventfd.

use super::{count_doorbells, doorbells, drain, soon, wait, Env, Test};
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags, Subject};
use rustix::event::{eventfd, EventfdFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "a vector that is not subscribed is not reported",
        vector_off,
    ),
    Test::new(
        "what happened while a vector was not subscribed is not reported later",
        nothing_later,
    ),
    Test::new(
        "subscribing again keeps what has not been seen",
        again_keeps,
    ),
    Test::new("a subscription is the file's own", own_subscription),
    Test::two_peers(
        "states that are not subscribed are not reported",
        states_off,
    ),
    Test::new(
        "an event that is not subscribed ends no wait",
        unwanted_wakes_nobody,
    ),
    // bad input: subscribing to a vector or peer that there is not => `ENXIO`
    Test::new(
        "subscribing to a vector or peer out of range is ENXIO",
        out_of_range,
    ),
    Test::new(
        "an eventfd counts each interrupt on its vector, and no other",
        counts_vector,
    ),
    Test::new(
        "an eventfd for all vectors counts each of them",
        counts_all_vectors,
    ),
    Test::two_peers("an eventfd for states counts changes", counts_states),
    Test::new(
        "an eventfd can be replaced and taken off, and goes with the file",
        replaced_and_removed,
    ),
    Test::new("many files with eventfds are all told", many_files),
    // bad input: attaching the 1025th eventfd to a device => `ENOSPC`
    Test::new(
        "a device takes 1024 eventfds, tells all of them, and refuses one more with ENOSPC",
        limited,
    ),
    Test::new(
        "an eventfd works whatever is subscribed",
        independent_of_subscription,
    ),
    // bad input: attaching what is no eventfd; no descriptor; to a single peer => `EINVAL`; `EBADF`; `ENXIO`
    Test::new(
        "what is no eventfd is EINVAL, no descriptor EBADF, a single peer ENXIO",
        bad_eventfds,
    ),
];

fn own(env: &Env) -> u32 {
    env.expected().peer
}

/// Rings ourselves, and returns when the interrupt has been taken.
fn ring_and_see(env: &Env, vector: u32) {
    let witness = env.open();
    witness.ring(own(env), vector).expect("ring");
    assert_eq!(count_doorbells(&witness, vector, 1), 1);
}

pub(super) fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd")
}

/// What the eventfd has counted since it was last looked at.
pub(super) fn counted(fd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(fd, &mut count) {
        Ok(8) => u64::from_ne_bytes(count),
        Err(Errno::AGAIN) => 0,
        other => panic!("eventfd: {other:?}"),
    }
}

/// Waits until the eventfd has counted something.
pub(super) fn count_of(fd: &OwnedFd) -> u64 {
    let mut count = 0;
    let come = system::wait_until(soon(), || {
        count = counted(fd);
        count > 0
    });
    assert!(come, "the eventfd was not counted up");
    count
}

fn last_vector(env: &Env) -> u32 {
    env.expected().vectors - 1
}

fn vector_off(env: &Env) {
    let device = env.open();
    let vector = last_vector(env);
    device
        .subscribe(Subject::Vector(vector), false)
        .expect("unsubscribe");
    for vector in 0..=vector {
        ring_and_see(env, vector);
    }
    let told = drain(&device);
    for other in 0..vector {
        let count: u64 = told.iter().map(|event| doorbells(event, other)).sum();
        assert_eq!(count, 1, "vector {other}: {told:?}");
    }
    let count: u64 = told.iter().map(|event| doorbells(event, vector)).sum();
    assert_eq!(count, 0, "{told:?}");
}

fn nothing_later(env: &Env) {
    let device = env.open();
    device
        .subscribe(Subject::AllVectors, false)
        .expect("unsubscribe");
    ring_and_see(env, 0);
    device
        .subscribe(Subject::AllVectors, true)
        .expect("subscribe");
    assert!(drain(&device).is_empty());
    ring_and_see(env, 0);
    assert_eq!(count_doorbells(&device, 0, 1), 1);
}

fn again_keeps(env: &Env) {
    let device = env.open();
    ring_and_see(env, 0);
    device
        .subscribe(Subject::Vector(0), true)
        .expect("subscribe");
    assert_eq!(count_doorbells(&device, 0, 1), 1);
}

fn own_subscription(env: &Env) {
    let (device, other) = (env.open(), env.open());
    device
        .subscribe(Subject::AllVectors, false)
        .expect("unsubscribe");
    ring_and_see(env, 0);
    assert_eq!(count_doorbells(&other, 0, 1), 1);
    assert!(drain(&device).is_empty());
}

fn states_off(env: &Env) {
    let peer = env.other_expected().peer;
    let (device, all, other) = (env.open(), env.open(), env.open_other());
    device
        .subscribe(Subject::Peer(peer), false)
        .expect("unsubscribe");
    other.set_state(9, StateFlags::default()).expect("publish");
    let is_it = |event: &ivshmem::Event| matches!(event.kind, EventKind::State { peer: who, .. } if who == peer);
    while !wait(&all).iter().any(is_it) {}
    assert!(!drain(&device).iter().any(is_it));
    device
        .subscribe(Subject::AllPeers, true)
        .expect("subscribe");
    other.set_state(10, StateFlags::default()).expect("publish");
    let mut told = wait(&device);
    while !told.iter().any(is_it) {
        told = wait(&device);
    }
    let expected = EventKind::State {
        peer,
        old: 9,
        new: 10,
        changes: 1,
    };
    assert!(told.iter().any(|event| event.kind == expected), "{told:?}");
}

fn unwanted_wakes_nobody(env: &Env) {
    let device = env.open();
    device
        .subscribe(Subject::AllVectors, false)
        .expect("unsubscribe");
    device
        .subscribe(Subject::AllPeers, false)
        .expect("unsubscribe");
    let deadline = Deadline::after(std::time::Duration::from_millis(300));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut buffer = EventBuffer::new(1);
            device.events(&mut buffer, deadline).map(drop)
        });
        for _ in 0..3 {
            ring_and_see(env, 0);
        }
        assert_eq!(waiter.join().expect("a waiter"), Err(Error::TimedOut));
    });
}

fn out_of_range(env: &Env) {
    let device = env.open();
    let info = *device.info();
    for vector in [info.vectors_enabled, u32::MAX - 1] {
        let error = device.subscribe(Subject::Vector(vector), true);
        assert_eq!(error.unwrap_err().errno(), Some(Errno::NXIO), "{vector}");
    }
    for peer in [info.max_peers, u32::MAX - 1] {
        let error = device.subscribe(Subject::Peer(peer), true);
        assert_eq!(error.unwrap_err().errno(), Some(Errno::NXIO), "{peer}");
    }
}

fn counts_vector(env: &Env) {
    let device = env.open();
    let vector = last_vector(env);
    let fd = new_eventfd();
    device
        .attach_eventfd(Subject::Vector(vector), Some(fd.as_fd()))
        .expect("attach");
    for _ in 0..10 {
        ring_and_see(env, vector);
        assert_eq!(count_of(&fd), 1);
    }
    for other in 0..vector {
        ring_and_see(env, other);
    }
    assert_eq!(counted(&fd), 0, "another vector");
    assert_eq!(
        count_doorbells(&device, vector, 10),
        10,
        "events are not used up"
    );
}

fn counts_all_vectors(env: &Env) {
    let device = env.open();
    let fd = new_eventfd();
    device
        .attach_eventfd(Subject::AllVectors, Some(fd.as_fd()))
        .expect("attach");
    for vector in 0..env.expected().vectors {
        ring_and_see(env, vector);
        assert_eq!(count_of(&fd), 1, "vector {vector}");
    }
}

fn counts_states(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let fd = new_eventfd();
    device
        .attach_eventfd(Subject::AllPeers, Some(fd.as_fd()))
        .expect("attach");
    for value in [3, 4, 0] {
        other
            .set_state(value, StateFlags::default())
            .expect("publish");
        assert_eq!(count_of(&fd), 1, "state {value}");
    }
    ring_and_see(env, 0);
    assert_eq!(counted(&fd), 0, "a doorbell on vector 0 is no change");
}

fn replaced_and_removed(env: &Env) {
    let device = env.open();
    let (first, second) = (new_eventfd(), new_eventfd());
    let subject = Subject::Vector(0);
    let attach = |fd: Option<&OwnedFd>| {
        device
            .attach_eventfd(subject, fd.map(AsFd::as_fd))
            .expect("attach");
    };
    attach(Some(&first));
    attach(Some(&second));
    ring_and_see(env, 0);
    assert_eq!((counted(&first), count_of(&second)), (0, 1));
    attach(None);
    attach(None);
    ring_and_see(env, 0);
    assert_eq!((counted(&first), counted(&second)), (0, 0));
    attach(Some(&first));
    drop(device);
    ring_and_see(env, 0);
    assert_eq!(counted(&first), 0, "the file is closed");
}

fn many_files(env: &Env) {
    let fd = new_eventfd();
    let files: Vec<Device> = (0..50).map(|_| env.open()).collect();
    for file in &files {
        file.attach_eventfd(Subject::Vector(0), Some(fd.as_fd()))
            .expect("attach");
    }
    ring_and_see(env, 0);
    assert_eq!(counted(&fd), 50);
    drop(files);
    ring_and_see(env, 0);
    assert_eq!(counted(&fd), 0);
}

fn limited(env: &Env) {
    const MOST: usize = 1024;
    let (fd, vectors) = (new_eventfd(), env.expected().vectors);
    let attach = |file: &Device, subject, wanted: bool| {
        let got = file.attach_eventfd(subject, wanted.then(|| fd.as_fd()));
        got.map_err(|error| error.errno())
    };
    // In an order that is not the driver's.
    let subjects = || {
        let vectors = (0..vectors).rev().map(Subject::Vector);
        [Subject::AllPeers, Subject::AllVectors]
            .into_iter()
            .chain(vectors)
    };
    let mut files = Vec::new();
    let (mut attached, mut on_vector_0) = (0, 0);
    while attached < MOST {
        files.push(env.open());
        let file = files.last().expect("a file");
        for subject in subjects().take(MOST - attached) {
            assert_eq!(attach(file, subject, true), Ok(()), "number {attached}");
            attached += 1;
            let is_told = matches!(subject, Subject::AllVectors | Subject::Vector(0));
            on_vector_0 += u64::from(is_told);
        }
    }
    let late = env.open();
    let full = Err(Some(Errno::NOSPC));
    assert_eq!(attach(&late, Subject::Vector(0), true), full);
    ring_and_see(env, 0);
    assert_eq!(counted(&fd), on_vector_0);
    // Another one instead of one of them is not one more.
    assert_eq!(attach(&files[0], Subject::Vector(0), true), Ok(()));
    assert_eq!(attach(&files[0], Subject::Vector(0), false), Ok(()));
    assert_eq!(attach(&late, Subject::Vector(0), true), Ok(()));
    assert_eq!(attach(&late, Subject::AllVectors, true), full);
    files.pop();
    assert_eq!(attach(&late, Subject::AllVectors, true), Ok(()));
    drop(files);
    ring_and_see(env, 0);
    assert_eq!(counted(&fd), 2, "those of the late one");
}

fn independent_of_subscription(env: &Env) {
    let device = env.open();
    let fd = new_eventfd();
    device
        .subscribe(Subject::AllVectors, false)
        .expect("unsubscribe");
    device
        .attach_eventfd(Subject::Vector(0), Some(fd.as_fd()))
        .expect("attach");
    ring_and_see(env, 0);
    assert_eq!(count_of(&fd), 1);
    assert!(drain(&device).is_empty());
}

fn bad_eventfds(env: &Env) {
    let device = env.open();
    let errno = |subject, fd: &OwnedFd| {
        let result = device.attach_eventfd(subject, Some(fd.as_fd()));
        result.unwrap_err().errno()
    };
    let (reader, _writer) = rustix::pipe::pipe().expect("pipe");
    assert_eq!(errno(Subject::Vector(0), &reader), Some(Errno::INVAL));
    let fd = new_eventfd();
    let vectors = device.info().vectors_enabled;
    assert_eq!(errno(Subject::Vector(vectors), &fd), Some(Errno::NXIO));
    assert_eq!(errno(Subject::Peer(1), &fd), Some(Errno::NXIO));
}
