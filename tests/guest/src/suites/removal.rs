// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unbinding with files open, mappings live and readers blocked, as Jailhouse does it; and rebinding.

use super::{drain, soon, wait, Env, Test};
use crate::helpers;
use crate::raw;
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) const TESTS: &[Test] = &[
    // bad input: any call on a file whose device has gone => `ENODEV`
    Test::new("unbind with a file open: every call on it is ENODEV", calls),
    // bad input: `poll` of a file whose device has gone => `EPOLLHUP` and `EPOLLERR`
    Test::new(
        "unbind with a file open: poll says EPOLLHUP and EPOLLERR",
        hang_up,
    ),
    // bad input: waiting for events when the device goes => `ENODEV`
    Test::new(
        "unbind wakes a blocked reader of events with ENODEV",
        blocked_reader,
    ),
    // bad input: waiting in `poll` when the device goes => `EPOLLHUP` and `EPOLLERR`
    Test::new("unbind wakes a blocked poll with EPOLLHUP", blocked_poll),
    // bad input: touching a mapping of a device that has gone => SIGBUS
    Test::new(
        "unbind with a live mapping: touching it raises SIGBUS",
        live_mapping,
    )
    .of_whole_pages(),
    // bad input: touching a page for the first time after the device has gone => SIGBUS
    Test::new(
        "unbind with a mapping never touched: touching it raises SIGBUS",
        untouched_mapping,
    )
    .of_whole_pages(),
    // bad input: unbinding with many files open and mapped => it does not wait for them
    Test::new("unbind does not wait for user space", does_not_wait).of_whole_pages(),
    // bad input: touching mappings of many files, some of them closed, when the device has gone => SIGBUS for each
    Test::new(
        "unbind takes the pages out of the mappings of many files, whatever was closed before",
        many_mappings,
    )
    .of_whole_pages(),
    Test::two_peers(
        "unbind takes the published state back, and the other peer sees it",
        state_gone,
    ),
    // bad input: ringing a peer whose device has gone => it is lost, without an error
    Test::two_peers("unbind leaves other devices at work", others_work),
    // bad input: using an old file after the device has come back => `ENODEV`: open it again
    Test::new(
        "rebind gives a fresh device, and old files stay dead",
        rebind,
    )
    .of_whole_pages(),
    Test::new(
        "sysfs remove and rescan bring the device back",
        remove_rescan,
    ),
    Test::new("unbind and rebind many times with files open", many_times).of_whole_pages(),
    // bad input: `rmmod` while a file of a device that has gone is open => `EAGAIN` (in use)
    Test::new(
        "rmmod after unbind is refused while a dead file is open, and clean afterwards",
        module,
    ),
];

/// Unbinds the device under test.
fn unbind(env: &Env) {
    system::unbind(&env.expected().bdf()).expect("unbind");
}

/// Binds it again and opens it.
fn rebind_and_open(env: &Env) -> Device {
    system::ensure_ready(&env.plan).expect("bind again");
    Env::new().expect("the device is back").open()
}

fn calls(env: &Env) {
    let (device, owner) = (env.open(), env.open());
    let info = *device.info();
    owner.set_state(5, StateFlags::default()).expect("publish");
    unbind(env);
    let mut bytes = [0; 8];
    assert_eq!(device.read_at(&mut bytes, 0), Err(Error::Gone));
    assert_eq!(
        device.read_at(&mut bytes, info.region_size),
        Err(Error::Gone),
        "at the end"
    );
    assert_eq!(device.write_at(&bytes, info.rw.offset), Err(Error::Gone));
    assert_eq!(device.write_at(&bytes, 0), Err(Error::Gone), "not EACCES");
    assert_eq!(device.state(0), Err(Error::Gone));
    assert_eq!(device.set_state(1, StateFlags::default()), Err(Error::Gone));
    // Not EBUSY for the one, and nobody is to be told by the other.
    assert_eq!(owner.set_state(0, StateFlags::default()), Err(Error::Gone));
    assert_eq!(device.ring(info.id, 0), Err(Error::Gone));
    for deadline in [Deadline::NOW, Deadline::after(soon()), Deadline::NEVER] {
        let got = device.events(&mut EventBuffer::new(4), deadline).map(drop);
        assert_eq!(got, Err(Error::Gone));
    }
    assert_eq!(
        // It begins on a page of every kernel.
        device
            .map(info.state_table)
            .map(drop)
            .map_err(|error| error.errno()),
        Err(Some(Errno::NODEV))
    );
    assert_eq!(raw::lseek(&device, 0, libc::SEEK_END), Err(Errno::NODEV));
    let mut raw_info = ivshmem::uapi::ivshmem_info::default();
    let call = ivshmem::uapi::IVSHMEM_IOC_INFO;
    let got = raw::ioctl(&device, call, raw::bytes_of_mut(&mut raw_info));
    assert_eq!(got, Err(Errno::NODEV));
}

fn hang_up(env: &Env) {
    let device = env.open();
    unbind(env);
    let mut fds = [PollFd::new(&device, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll");
    let got = fds[0].revents();
    assert!(got.contains(PollFlags::HUP | PollFlags::ERR), "{got:?}");
}

/// Starts a helper that blocks in one of `calls`, unbinds, and expects it to end well.
fn blocked(env: &Env, helper: &str, calls: &[i64]) {
    let node = env.node().to_str().expect("a plain name");
    let helper = helpers::start(helper, &[node]).ready();
    let id = helper.id().to_string();
    let asleep = || system::threads_of(&id, calls) == 1;
    assert!(
        system::wait_until(soon(), asleep),
        "the helper does not wait"
    );
    unbind(env);
    assert_eq!(helper.wait().code(), Some(0));
}

fn blocked_reader(env: &Env) {
    blocked(env, "wait-events", &[libc::SYS_ioctl]);
}

fn blocked_poll(env: &Env) {
    blocked(env, "wait-poll", system::POLL_CALLS);
}

fn live_mapping(env: &Env) {
    let info = *env.open().info();
    let node = env.node().to_str().expect("a plain name");
    let touchers: Vec<_> = [info.state_table, info.rw, info.output]
        .iter()
        .map(|section| helpers::start("touch", &[node, &section.offset.to_string()]).ready())
        .collect();
    unbind(env);
    for toucher in touchers {
        assert_eq!(toucher.wait().signal(), Some(libc::SIGBUS));
    }
}

fn untouched_mapping(env: &Env) {
    let device = env.open();
    let section = device.info().rw;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let (offset, length) = (section.offset as i64, section.size as usize);
    let fd = Some(device.as_fd());
    let map = raw::mmap(fd, offset, length, rights, libc::MAP_SHARED).expect("map");
    unbind(env);
    assert_eq!(raw::signal_in_child(|| map.store(0, 1)), Some(libc::SIGBUS));
    let load = || assert_eq!(map.load(0), 0);
    assert_eq!(raw::signal_in_child(load), Some(libc::SIGBUS));
    // Giving it back works.
    drop(map);
}

fn does_not_wait(env: &Env) {
    let files: Vec<_> = (0..50).map(|_| env.open()).collect();
    let maps: Vec<_> = files.iter().map(|file| file.map(file.info().rw)).collect();
    let begin = Instant::now();
    unbind(env);
    assert!(
        begin.elapsed() < system::patient(Duration::from_secs(20)),
        "{:?}",
        begin.elapsed()
    );
    assert!(maps.iter().all(Result::is_ok));
    assert!(files.iter().all(|file| file.state(0) == Err(Error::Gone)));
}

fn many_mappings(env: &Env) {
    let section = env.open().info().rw;
    let page = rustix::param::page_size();
    let mut files: Vec<_> = (0..60).map(|_| env.open()).collect();
    let map = |file: &Device| {
        let (offset, rights) = (section.offset as i64, libc::PROT_READ);
        let map = raw::mmap(Some(file.as_fd()), offset, page, rights, libc::MAP_SHARED);
        let map = map.expect("map");
        map.load(0);
        map
    };
    let mut maps: Vec<_> = files.iter().map(map).collect();
    // A third is closed for good, a third has but its mapping.
    drop((files.drain(..40), maps.drain(..20)));
    unbind(env);
    for (index, map) in maps.iter().enumerate() {
        let signal = raw::signal_in_child(|| {
            map.load(0);
        });
        assert_eq!(signal, Some(libc::SIGBUS), "mapping {index}");
    }
}

fn state_gone(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let own = env.expected().peer;
    device
        .set_state(9, StateFlags::default().keep())
        .expect("publish");
    while other.state(own) != Ok(9) {}
    wait(&other);
    drain(&other);
    unbind(env);
    let went = |event: ivshmem::Event| matches!(event.kind, EventKind::State { peer, new: 0, .. } if peer == own);
    assert!(wait(&other).into_iter().any(went), "no event");
    assert_eq!(other.state(own), Ok(0));
}

fn others_work(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let peer = env.other_expected().peer;
    unbind(env);
    assert_eq!(device.state(0), Err(Error::Gone));
    other.set_state(3, StateFlags::default()).expect("publish");
    other.ring(peer, 0).expect("ring");
    assert_eq!(super::count_doorbells(&other, 0, 1), 1);
    // Ringing the peer that has gone is lost, not an error.
    other.ring(env.expected().peer, 0).expect("ring");
}

fn rebind(env: &Env) {
    let old = env.open();
    old.set_state(9, StateFlags::default()).expect("publish");
    let section = old.info().output;
    let dead_map = old.map(section).expect("map");
    unbind(env);
    let new = rebind_and_open(env);
    assert_eq!(new.info(), old.info(), "the same device");
    assert_eq!(new.state(new.info().id), Ok(0));
    assert_eq!(old.state(0), Err(Error::Gone), "old files stay dead");
    assert_eq!(old.ring(0, 0), Err(Error::Gone));
    new.set_state(4, StateFlags::default())
        .expect("not owned by a dead file");
    new.ring(new.info().id, 0).expect("ring");
    assert_eq!(super::count_doorbells(&new, 0, 1), 1);
    let map = new.map_mut(section).expect("map");
    map.word(0)
        .expect("inside")
        .store(6, std::sync::atomic::Ordering::Relaxed);
    // Closing the old file must not touch the new device's state.
    drop(dead_map);
    drop(old);
    assert_eq!(new.state(new.info().id), Ok(4));
}

fn remove_rescan(env: &Env) {
    let device = env.open();
    let bdf = env.expected().bdf();
    let path = format!("/sys/bus/pci/devices/{bdf}");
    fs::write(format!("{path}/remove"), "1").expect("remove");
    assert_eq!(device.state(0), Err(Error::Gone));
    assert!(!fs::exists(&path).expect("sysfs"));
    fs::write("/sys/bus/pci/rescan", "1").expect("rescan");
    let new = rebind_and_open(env);
    new.ring(new.info().id, 0).expect("ring");
    assert_eq!(super::count_doorbells(&new, 0, 1), 1);
    assert_eq!(device.state(0), Err(Error::Gone));
}

fn many_times(env: &Env) {
    let mut dead = Vec::new();
    for _ in 0..8 {
        let device = rebind_and_open(env);
        device.set_state(1, StateFlags::default()).expect("publish");
        let map = device.map(device.info().outputs).expect("map");
        unbind(env);
        dead.push((device, map));
    }
    let new = rebind_and_open(env);
    assert!(dead
        .iter()
        .all(|(device, _)| device.state(0) == Err(Error::Gone)));
    drop(dead);
    assert_eq!(new.state(new.info().id), Ok(0));
}

fn module(env: &Env) {
    let device = env.open();
    for bound in env
        .plan
        .devices
        .iter()
        .filter(|device| system::is_bound(&device.bdf()))
    {
        system::unbind(&bound.bdf()).expect("unbind");
    }
    assert_eq!(
        system::unload_module(),
        Err(Errno::AGAIN),
        "the file's code would go"
    );
    drop(device);
    system::unload_module().expect("unload");
    assert!(!system::module_is_loaded());
    let device = rebind_and_open(env);
    device.ring(env.expected().peer, 0).expect("ring");
    assert_eq!(super::count_doorbells(&device, 0, 1), 1);
}
