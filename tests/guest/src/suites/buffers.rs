// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers of programs that are not what they seem: memory whose pages do not come until another
//! program says so, and mappings of the device itself.

use super::{drain, soon, Env, Test};
use crate::raw::{self, bytes_of_mut, Outcome, Unresolved};
use crate::{helpers, system};
use ivshmem::uapi::{self, ivshmem_events};
use ivshmem::{Device, Error};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

pub(super) const TESTS: &[Test] = &[
    // bad input: `pread` into memory that never comes (userfaultfd), and the device goes => removal does not wait; when the memory comes, the bytes that had been read, then `ENODEV`
    Test::new(
        "a user buffer that never resolves: pread waits for it, unbind does not",
        read,
    ),
    // bad input: a long `pread` that meets such memory half-way => what came before the device went
    Test::new(
        "a user buffer that never resolves: a long pread gives what came before unbind",
        long_read,
    ),
    // bad input: `pwrite` from memory that never comes, and the device goes => removal does not wait; when the memory comes, `ENODEV`
    Test::new(
        "a user buffer that never resolves: pwrite waits for it, unbind does not",
        write,
    ),
    // bad input: the same with `remove` in sysfs => the same
    Test::new(
        "a user buffer that never resolves: sysfs remove does not wait for it",
        removed,
    ),
    // bad input: a place for events that never comes, and the device goes => removal does not wait; when the memory comes, the events that had happened, then `ENODEV`
    Test::new(
        "a user buffer that never resolves: IVSHMEM_IOC_EVENTS waits for it, unbind does not",
        records,
    )
    .only_if(super::interrupts),
    // bad input: a place for events that never comes, and another thread that fetches => the other thread gets the events, the first `EAGAIN`
    Test::new(
        "a user buffer that never resolves: another thread fetches from the same file",
        others_fetch,
    )
    .only_if(super::interrupts),
    // bad input: an argument of an ioctl that never comes, and the device goes => removal does not wait; when the memory comes, `ENODEV` (or `EINVAL` if it is no good request)
    Test::new(
        "an ioctl's argument that never resolves: unbind does not wait for it",
        arguments,
    ),
    // bad input: reading a file in debugfs into memory that never comes, or writing from such memory, and the device goes => removal does not wait
    Test::new(
        "a user buffer that never resolves: files in debugfs wait for it, unbind does not",
        debug_files,
    ),
    // bad input: SIGKILL to a process that waits for such memory => it dies, and its state returns to 0
    Test::new(
        "a process that waits for such a buffer can be killed, and its state returns to 0",
        killed,
    ),
    Test::new(
        "a buffer that is a mapping of the device itself is filled and sent",
        own_mapping,
    )
    .of_whole_pages(),
    // bad input: a buffer that is a mapping of a device that has gone => `EFAULT`
    Test::new(
        "a buffer that is a mapping of a device that has gone is EFAULT",
        dead_mapping,
    )
    .of_whole_pages(),
];

/// Lets the page come, also when a test fails: the thread that waits for it is waited for.
struct ResolveOnDrop<'a>(&'a Unresolved);

impl Drop for ResolveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.resolve();
    }
}

/// Has `call` wait for a page that does not come, does `meanwhile`, and lets the page come; what the
/// call ends with.
fn while_blocked<T: Send>(
    call: impl FnOnce(&Unresolved) -> T + Send,
    meanwhile: impl FnOnce(),
) -> T {
    let memory = Unresolved::new();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| call(&memory));
        let resolve = ResolveOnDrop(&memory);
        let waits = memory.somebody_waits(soon());
        assert!(waits, "the call did not come to its page");
        meanwhile();
        assert!(!caller.is_finished(), "the call did not wait for its page");
        drop(resolve);
        caller.join().expect("the call returns")
    })
}

fn unbind(env: &Env) {
    system::unbind(&env.expected().bdf()).expect("unbind");
}

/// No call on `device` gets anywhere.
fn is_dead(device: &Device) {
    assert_eq!(device.state(0), Err(Error::Gone));
    assert_eq!(device.read_at(&mut [0; 8], 0), Err(Error::Gone));
}

fn read(env: &Env) {
    let device = env.open();
    let offset = device.info().output.offset;
    let got = while_blocked(
        |memory| memory.map().pread_at(&device, memory.missing(), 64, offset),
        || unbind(env),
    );
    assert_eq!(got, Ok(64), "the bytes had been read");
    is_dead(&device);
}

fn long_read(env: &Env) {
    let device = env.open();
    let mut page = 0;
    let got = while_blocked(
        |memory| {
            page = memory.missing();
            memory.map().pread_at(&device, 0, 2 * page, 0)
        },
        || unbind(env),
    );
    // Of the second page, what was on its way when it was missing.
    let done = got.expect("a part of it");
    assert!(
        (page..page + 4096).contains(&done),
        "{done} of {}",
        2 * page
    );
    is_dead(&device);
}

fn write(env: &Env) {
    let device = env.open();
    let offset = device.info().output.offset;
    let got = while_blocked(
        |memory| {
            let map = memory.map();
            map.pwrite_at(&device, memory.missing(), 64, offset)
        },
        || unbind(env),
    );
    assert_eq!(got, Err(Errno::NODEV), "nothing can have been written");
    is_dead(&device);
}

fn removed(env: &Env) {
    let device = env.open();
    let offset = device.info().output.offset;
    let path = format!("/sys/bus/pci/devices/{}/remove", env.expected().bdf());
    let got = while_blocked(
        |memory| {
            let map = memory.map();
            map.pwrite_at(&device, memory.missing(), 64, offset)
        },
        || fs::write(&path, "1").expect("remove"),
    );
    assert_eq!(got, Err(Errno::NODEV));
    is_dead(&device);
    fs::write("/sys/bus/pci/rescan", "1").expect("rescan");
}

/// Fetches one event into `address`, without waiting for one.
fn fetch_to(device: &Device, address: u64) -> Outcome {
    let mut request = ivshmem_events {
        records: address,
        capacity: 1,
        record_size: 48,
        deadline: uapi::IVSHMEM_DEADLINE_NOW.into(),
        ..Default::default()
    };
    let call = uapi::IVSHMEM_IOC_EVENTS;
    raw::ioctl(device, call, bytes_of_mut(&mut request))?;
    Ok(request.count as usize)
}

/// Rings ourselves, and waits until a file says so.
fn pending_doorbell(env: &Env, device: &Device) {
    use rustix::event::{poll, PollFd, PollFlags};
    let vector = env.vectors() - 1;
    device.ring(device.info().id, vector).expect("ring");
    let mut fds = [PollFd::new(device, PollFlags::IN)];
    poll(&mut fds, None).expect("poll");
}

fn records(env: &Env) {
    let device = env.open();
    pending_doorbell(env, &device);
    let got = while_blocked(
        |memory| fetch_to(&device, memory.map().address() + memory.missing() as u64),
        || unbind(env),
    );
    assert_eq!(got, Ok(1), "it had happened before");
    assert_eq!(fetch_to(&device, 0), Err(Errno::NODEV));
    is_dead(&device);
}

fn others_fetch(env: &Env) {
    let device = env.open();
    pending_doorbell(env, &device);
    let got = while_blocked(
        |memory| fetch_to(&device, memory.map().address() + memory.missing() as u64),
        || {
            assert_eq!(
                drain(&device).len(),
                1,
                "held up by another thread's buffer"
            )
        },
    );
    assert_eq!(got, Err(Errno::AGAIN), "told twice");
}

fn arguments(env: &Env) {
    for call in [
        uapi::IVSHMEM_IOC_GET_STATE,
        uapi::IVSHMEM_IOC_SUBSCRIBE,
        uapi::IVSHMEM_IOC_SET_STATE,
        uapi::IVSHMEM_IOC_DOORBELL,
        uapi::IVSHMEM_IOC_EVENTS,
        uapi::IVSHMEM_IOC_EVENTFD,
    ] {
        let device = env.open();
        let got = while_blocked(
            |memory| memory.map().ioctl_at(&device, call, memory.missing()),
            || unbind(env),
        );
        // Once it has come, it is all zeroes, which some calls refuse before they look at the device.
        let zeroes_are_wrong = [
            uapi::IVSHMEM_IOC_EVENTS,
            uapi::IVSHMEM_IOC_EVENTFD,
            uapi::IVSHMEM_IOC_SUBSCRIBE,
        ];
        let wanted = if zeroes_are_wrong.contains(&call) {
            Errno::INVAL
        } else {
            Errno::NODEV
        };
        assert_eq!(got, Err(wanted), "number {call:#x}");
        is_dead(&device);
        system::ensure_ready(&env.plan).expect("bind again");
    }
}

fn debug_files(env: &Env) {
    let name = env.node().file_name().expect("a name").to_owned();
    let directory = Path::new("/sys/kernel/debug/ivshmem").join(name);
    let vectors = File::open(directory.join("vectors")).expect("open");
    let got = while_blocked(
        |memory| memory.map().pread_at(&vectors, memory.missing(), 8, 0),
        || unbind(env),
    );
    assert_eq!(got, Ok(8), "of what it was when it was opened");
    assert!(!directory.exists());
    system::ensure_ready(&env.plan).expect("bind again");
    let pingpong = directory.join("pingpong");
    let pingpong = File::options().write(true).open(pingpong).expect("open");
    let got = while_blocked(
        |memory| memory.map().pwrite_at(&pingpong, memory.missing(), 8, 0),
        || unbind(env),
    );
    assert_eq!(got, Err(Errno::INVAL), "zeroes are no line");
}

fn killed(env: &Env) {
    let node = env.node().to_str().expect("a plain name");
    let device = env.open();
    let own = env.expected().peer;
    let helper = helpers::start("blocked-write", &[node, "7"]).ready();
    assert_eq!(device.state(own), Ok(7));
    helper.kill();
    let returned = system::wait_until(soon(), || device.state(own) == Ok(0));
    assert!(returned, "the state of a dead process stays");
}

fn own_mapping(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let page = rustix::param::page_size();
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let (offset, flags) = (info.output.offset as i64, libc::MAP_SHARED);
    let map = || raw::mmap(Some(device.as_fd()), offset, page, rights, flags).expect("map");
    device.write_at(&[0x77; 64], info.rw.offset).expect("write");
    // Each time a mapping that has not been touched, so that the copy faults.
    let got = map().pread_at(&device, 128, 64, info.rw.offset);
    assert_eq!(got, Ok(64));
    let mut bytes = [0; 64];
    let place = info.output.offset + 128;
    device.read_at(&mut bytes, place).expect("read");
    assert_eq!(bytes, [0x77; 64]);
    let got = map().pwrite_at(&device, 128, 64, info.rw.offset + 64);
    assert_eq!(got, Ok(64));
    let place = info.rw.offset + 64;
    device.read_at(&mut bytes, place).expect("read");
    assert_eq!(bytes, [0x77; 64]);
}

fn dead_mapping(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let page = rustix::param::page_size();
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let (offset, flags) = (info.output.offset as i64, libc::MAP_SHARED);
    let map = raw::mmap(Some(device.as_fd()), offset, page, rights, flags).expect("map");
    unbind(env);
    system::ensure_ready(&env.plan).expect("bind again");
    let new = Env::new().expect("the device is back").open();
    let got = map.pread_at(&new, 0, 64, info.rw.offset);
    assert_eq!(got, Err(Errno::FAULT));
    let got = map.pwrite_at(&new, 0, 64, info.rw.offset);
    assert_eq!(got, Err(Errno::FAULT));
}
