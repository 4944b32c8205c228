// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring and RWF_NOWAIT: reading and writing never wait for events.

use super::{count_doorbells, drain, open_file, soon, Env, Test};
use crate::raw::{self, Map, Ring};
use crate::system;
use ivshmem::StateFlags;
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "io_uring: READ and WRITE at offsets end at once, though no event is pending",
        at_once,
    ),
    // bad input: READ or WRITE of io_uring where one may not => what `pread` and `pwrite` say: `EACCES`, `ENOSPC`, `EBADF`, 0 bytes
    Test::new(
        "io_uring: READ and WRITE where pread and pwrite are refused are refused alike",
        refused,
    ),
    Test::new(
        "io_uring: POLL_ADD for EPOLLIN ends with a doorbell",
        polled,
    )
    .only_if(super::interrupts),
    Test::two_peers(
        "io_uring: POLL_ADD for EPOLLPRI ends with a change of a state",
        polled_state,
    ),
    Test::new(
        "io_uring: a multishot POLL_ADD tells of each doorbell, and consumes nothing",
        multishot,
    )
    .only_if(super::interrupts),
    // bad input: an io_uring poll that is armed when the device goes => it ends with `EPOLLHUP` and `EPOLLERR`; new requests are `ENODEV`
    Test::new(
        "io_uring: removal during an armed poll ends it with a hang-up",
        removed,
    ),
    Test::new(
        "io_uring: an armed poll keeps the file open, and the state with it",
        keeps_open,
    ),
    Test::new(
        "RWF_NOWAIT: preadv2 and pwritev2 transfer, though no event is pending",
        nowait_flag,
    ),
];

/// Bits that the kernel knows a bad end by.
const GONE: usize = (libc::EPOLLHUP | libc::EPOLLERR) as usize;

/// Memory for requests, which stays for ever.
pub(super) fn memory(length: usize, value: u32) -> &'static Map {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let map = raw::mmap(None, 0, length, rights, libc::MAP_PRIVATE).expect("memory");
    for offset in (0..length).step_by(4) {
        map.store(offset, value);
    }
    Box::leak(Box::new(map))
}

/// Threads that io_uring has started because a request could not be carried out at once.
pub(super) fn workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("tasks");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    let names = tasks.flatten().filter_map(|task| name(task).ok());
    names.filter(|name| name.starts_with("iou-wrk")).count()
}

fn at_once(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let mut ring = Ring::new();
    assert_eq!(drain(&device), [], "an event is pending");
    for (round, section) in [info.rw, info.output].into_iter().enumerate() {
        for length in [4, 8, 512, 0x1000] {
            let (from, to) = (
                memory(length, 0x1234_5670 + round as u32),
                memory(length, 0),
            );
            ring.write(&device, from, section.offset, 1);
            assert_eq!(ring.ended(), [(1, Ok(length))], "write of {length} bytes");
            ring.read(&device, to, section.offset, 2);
            assert_eq!(ring.ended(), [(2, Ok(length))], "read of {length} bytes");
            assert_eq!(to.load(length - 4), from.load(length - 4));
        }
    }
    let to = memory(4, 7);
    for offset in (0..info.region_size).step_by(0x1000) {
        ring.read(&device, to, offset, offset);
        assert_eq!(ring.ended(), [(offset, Ok(4))], "offset {offset:#x}");
    }
    assert_eq!(workers(), 0, "a request was handed to a worker");
}

fn refused(env: &Env) {
    let device = env.open();
    let read_only = open_file(env.node(), true, false, 0);
    let write_only = open_file(env.node(), false, true, 0);
    let info = *device.info();
    let bytes = memory(8, 1);
    let mut ring = Ring::new();
    ring.write(&device, bytes, 0, 1);
    assert_eq!(ring.wait(), [(1, Err(Errno::ACCESS))], "the state table");
    ring.write(&device, bytes, info.region_size, 2);
    assert_eq!(ring.wait(), [(2, Err(Errno::NOSPC))], "behind the end");
    ring.read(&device, bytes, info.region_size, 3);
    assert_eq!(ring.wait(), [(3, Ok(0))], "behind the end");
    ring.write(&read_only, bytes, info.output.offset, 4);
    assert_eq!(ring.wait(), [(4, Err(Errno::BADF))], "open for reading");
    ring.read(&write_only, bytes, info.output.offset, 5);
    assert_eq!(ring.wait(), [(5, Err(Errno::BADF))], "open for writing");
}

/// Waits for the end of one request, number 1, which is a poll: its events.
fn events(ring: &mut Ring) -> usize {
    let ended = ring.wait();
    let [(1, Ok(events))] = ended[..] else {
        panic!("{ended:?}");
    };
    events
}

fn polled(env: &Env) {
    let device = env.open();
    let (own, vector) = (device.info().id, env.vectors() - 1);
    let mut ring = Ring::new();
    ring.poll(&device, libc::EPOLLIN, false, 1);
    assert_eq!(ring.ended(), [], "nothing has happened");
    device.ring(own, vector).expect("ring");
    assert_eq!(events(&mut ring), libc::EPOLLIN as usize);
    // What is there already ends a poll at once.
    ring.poll(&device, libc::EPOLLIN, false, 1);
    assert_eq!(ring.ended(), [(1, Ok(libc::EPOLLIN as usize))]);
    assert_eq!(count_doorbells(&device, vector, 1), 1, "poll consumed it");
}

fn polled_state(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let mut ring = Ring::new();
    ring.poll(&other, libc::EPOLLPRI, false, 1);
    assert_eq!(ring.ended(), [], "nothing has happened");
    device.set_state(7, StateFlags::default()).expect("publish");
    assert_eq!(events(&mut ring), libc::EPOLLPRI as usize);
}

fn multishot(env: &Env) {
    let device = env.open();
    let (own, vector) = (device.info().id, env.vectors() - 1);
    let mut ring = Ring::new();
    ring.poll(&device, libc::EPOLLIN, true, 1);
    for _ in 0..20 {
        device.ring(own, vector).expect("ring");
        assert_eq!(events(&mut ring), libc::EPOLLIN as usize);
        assert_eq!(count_doorbells(&device, vector, 1), 1);
    }
}

fn removed(env: &Env) {
    let device = env.open();
    let mut ring = Ring::new();
    ring.poll(&device, libc::EPOLLIN, false, 1);
    ring.poll(&device, libc::EPOLLPRI, false, 2);
    ring.poll(&device, libc::EPOLLIN, true, 3);
    assert_eq!(ring.ended(), [], "nothing has happened");
    system::unbind(&env.expected().bdf()).expect("unbind");
    let mut ended = Vec::new();
    while ended.len() < 3 {
        ended.extend(ring.wait());
    }
    ended.sort_by_key(|&(number, _)| number);
    for (number, events) in ended {
        let events = events.expect("no error");
        assert_eq!(events & GONE, GONE, "request {number}: {events:#x}");
    }
    ring.read(&device, memory(8, 0), 0, 4);
    assert_eq!(ring.wait(), [(4, Err(Errno::NODEV))]);
    ring.write(&device, memory(8, 0), device.info().output.offset, 5);
    assert_eq!(ring.wait(), [(5, Err(Errno::NODEV))]);
}

fn keeps_open(env: &Env) {
    let watcher = env.open();
    let own = env.expected().peer;
    let device = env.open();
    device.set_state(7, StateFlags::default()).expect("publish");
    let mut ring = Ring::new();
    ring.poll(&device, libc::EPOLLPRI, false, 1);
    drop(device);
    assert_eq!(watcher.state(own), Ok(7), "the request has the file");
    drop(ring);
    let returned = system::wait_until(soon(), || watcher.state(own) == Ok(0));
    assert!(returned, "the state stays though nobody has the file");
}

fn nowait_flag(env: &Env) {
    let device = env.open();
    let info = *device.info();
    assert_eq!(drain(&device), [], "an event is pending");
    for section in [info.rw, info.output] {
        let (offset, bytes) = (section.offset as i64, [0x5a; 600]);
        let mut back = [0; 600];
        let written = raw::pwritev2(device.as_fd(), &bytes, offset, libc::RWF_NOWAIT);
        assert_eq!(written, Ok(600));
        let read = raw::preadv2(device.as_fd(), &mut back, offset, libc::RWF_NOWAIT);
        assert_eq!(read, Ok(600));
        assert_eq!(back, bytes);
    }
    let refused = raw::pwritev2(device.as_fd(), &[0; 4], 0, libc::RWF_NOWAIT);
    assert_eq!(refused, Err(Errno::ACCESS), "the state table");
}
