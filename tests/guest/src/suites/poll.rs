// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll`: which bits, when, and that it consumes nothing.

use super::{drain, open_file, soon, wait, Env, Test};
use ivshmem::{Device, StateFlags};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "a fresh file: EPOLLOUT if open for writing, nothing else",
        fresh,
    ),
    Test::new("EPOLLIN from a doorbell until it is fetched", doorbell),
    Test::two_peers(
        "EPOLLPRI from a state change until it is fetched",
        state_change,
    ),
    Test::new("poll consumes nothing", consumes_nothing),
    Test::new(
        "poll of one file does not see what another has fetched",
        per_file,
    ),
    Test::new("a blocked poll is woken by a doorbell", woken),
    Test::two_peers(
        "a blocked poll for EPOLLPRI alone is woken by a state change",
        woken_by_state,
    ),
    Test::new(
        "an epoll instance reports each doorbell, edge-triggered too",
        epoll,
    ),
];

const ALL: PollFlags = PollFlags::IN
    .union(PollFlags::PRI)
    .union(PollFlags::OUT)
    .union(PollFlags::RDNORM)
    .union(PollFlags::WRNORM);
const READABLE: PollFlags = PollFlags::IN.union(PollFlags::RDNORM);
const WRITABLE: PollFlags = PollFlags::OUT.union(PollFlags::WRNORM);

fn look(fd: impl AsFd) -> PollFlags {
    let mut fds = [PollFd::new(&fd, ALL)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll");
    fds[0].revents()
}

fn limit() -> Timespec {
    Timespec::try_from(soon()).expect("a limit")
}

/// Polls for `events`; false if they do not come.
fn comes(fd: impl AsFd, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(&fd, events)];
    poll(&mut fds, Some(&limit())).expect("poll") == 1 && fds[0].revents().intersects(events)
}

fn own(env: &Env) -> u32 {
    env.expected().peer
}

fn fresh(env: &Env) {
    assert_eq!(look(env.open()), WRITABLE);
    assert_eq!(
        look(open_file(env.node(), true, false, 0)),
        PollFlags::empty()
    );
    assert_eq!(look(open_file(env.node(), false, true, 0)), WRITABLE);
}

fn doorbell(env: &Env) {
    let device = env.open();
    for _ in 0..3 {
        device.ring(own(env), 0).expect("ring");
        assert!(comes(&device, PollFlags::IN));
        assert_eq!(look(&device), READABLE | WRITABLE);
        drain(&device);
        assert_eq!(look(&device), WRITABLE);
    }
}

fn state_change(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    other.set_state(3, StateFlags::default()).expect("publish");
    assert!(comes(&device, PollFlags::PRI));
    // Vector 0 has been interrupted too.
    assert_eq!(look(&device), READABLE | WRITABLE | PollFlags::PRI);
    drain(&device);
    assert_eq!(look(&device), WRITABLE);
}

fn consumes_nothing(env: &Env) {
    let device = env.open();
    device.ring(own(env), 0).expect("ring");
    assert!(comes(&device, PollFlags::IN));
    for _ in 0..100 {
        assert!(look(&device).contains(PollFlags::IN));
    }
    let mut bytes = [0; 16];
    device.read_at(&mut bytes, 0).expect("read");
    device.state(0).expect("state");
    assert!(look(&device).contains(PollFlags::IN));
    assert_eq!(wait(&device).len(), 1);
}

fn per_file(env: &Env) {
    let (first, second) = (env.open(), env.open());
    first.ring(own(env), 0).expect("ring");
    assert!(comes(&first, PollFlags::IN));
    drain(&first);
    assert_eq!(look(&first), WRITABLE);
    assert!(look(&second).contains(PollFlags::IN));
    // A duplicate is the same file.
    let duplicate = first.as_fd().try_clone_to_owned().expect("dup");
    assert_eq!(look(&duplicate), WRITABLE);
}

/// Has a thread poll for `events` until it sleeps, does `something`, and expects it to wake.
fn wakes(device: &Device, events: PollFlags, something: impl FnOnce()) {
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| comes(device, events));
        let sleeps = crate::system::wait_until(soon(), || {
            crate::system::threads_in(crate::system::POLL_CALLS) > 0 || waiter.is_finished()
        });
        assert!(sleeps, "the waiter does not wait");
        something();
        assert!(waiter.join().expect("the waiter"), "not woken");
    });
}

fn woken(env: &Env) {
    let device = env.open();
    for vector in 0..env.vectors() {
        wakes(&device, PollFlags::IN, || {
            device.ring(own(env), vector).expect("ring")
        });
        drain(&device);
    }
}

fn woken_by_state(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    wakes(&device, PollFlags::PRI, || {
        other.set_state(4, StateFlags::default()).expect("publish");
    });
}

fn epoll(env: &Env) {
    use rustix::event::epoll;
    let device = env.open();
    for edge in [epoll::EventFlags::empty(), epoll::EventFlags::ET] {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let flags = epoll::EventFlags::IN | edge;
        epoll::add(&instance, &device, epoll::EventData::new_u64(1), flags).expect("add");
        for round in 0..5 {
            device.ring(own(env), 0).expect("ring");
            let mut events = Vec::with_capacity(4);
            let got = epoll::wait(
                &instance,
                rustix::buffer::spare_capacity(&mut events),
                Some(&limit()),
            );
            assert_eq!(got, Ok(1), "round {round}, {flags:?}");
            drain(&device);
        }
    }
}
