// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device goes and comes while everything that a program can do is under way.

use super::{soon, Env, StopOnDrop, Test};
use crate::helpers;
use crate::system;
use ivshmem::{Deadline, Device, Error, EventBuffer, EventKind, StateFlags, Subject};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

pub(super) const TESTS: &[Test] = &[
    // bad input: sysfs `remove` with readers blocked, mappings touched, eventfds attached, ioctls in flight => each call ends with `ENODEV`, `poll` with `EPOLLHUP`, mappings with SIGBUS; nothing hangs
    Test::new(
        "sysfs remove and rescan, many times, with everything under way",
        remove_rescan,
    )
    .of_whole_pages(),
    // bad input: unbinding with all that under way => the same
    Test::new(
        "unbind and bind, many times, with everything under way",
        unbind_bind,
    )
    .of_whole_pages(),
];

/// How often it goes: the soak test does it more often. With a line, and after it, each access to the memory is a
/// trap: slow.
fn rounds(env: &Env) -> usize {
    if super::message_signalled(&env.plan) {
        2
    } else {
        1
    }
}

/// How often each worker has done its part before the device goes.
const WARM: u64 = 5;

fn remove_rescan(env: &Env) {
    let bdf = env.expected().bdf();
    let path = format!("/sys/bus/pci/devices/{bdf}");
    for _ in 0..rounds(env) {
        round(env, || {
            fs::write(format!("{path}/remove"), "1").expect("remove");
            assert!(!Path::new(&path).exists(), "it is still there");
        });
        fs::write("/sys/bus/pci/rescan", "1").expect("rescan");
        assert!(Path::new(&path).exists(), "it is not found again");
    }
    works_as_new(env);
}

fn unbind_bind(env: &Env) {
    for _ in 0..rounds(env) {
        round(env, || {
            system::unbind(&env.expected().bdf()).expect("unbind");
        });
    }
    works_as_new(env);
}

/// Has everything under way, lets the device go by `go`, and sees each call end as it must.
fn round(env: &Env, go: impl FnOnce()) {
    system::ensure_ready(&env.plan).expect("ready");
    let env = Env::new().expect("the device is there");
    let rang = eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
    let device = env.open();
    device
        .attach_eventfd(Subject::AllVectors, Some(rang.as_fd()))
        .expect("attach");
    let changed = eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
    device
        .attach_eventfd(Subject::AllPeers, Some(changed.as_fd()))
        .expect("attach");
    let node = env.node().to_str().expect("a plain name");
    let offset = device.info().rw.offset.to_string();
    let toucher = helpers::start("touch-on", &[node, &offset]).ready();
    let stop = AtomicBool::new(false);
    // Their threads, once they are about to sleep.
    let asleep = [AtomicI32::new(0), AtomicI32::new(0)];
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let workers = [
            Worker::start(scope, &env, &stop, ring),
            Worker::start(scope, &env, &stop, publish),
            Worker::start(scope, &env, &stop, look),
            Worker::start(scope, &env, &stop, read),
            Worker::start(scope, &env, &stop, write),
            Worker::start(scope, &env, &stop, map),
            Worker::start(scope, &env, &stop, fetch),
        ];
        let sleepers = [
            scope.spawn(|| sleep_in_call(&env, &asleep[0])),
            scope.spawn(|| sleep_in_poll(&env, &asleep[1])),
        ];
        let warm = || workers.iter().all(Worker::is_warm);
        assert!(system::wait_until(soon(), warm), "a worker does not get on");
        let calls: Vec<i64> = [system::POLL_CALLS, &[libc::SYS_ioctl]].concat();
        let blocked = || {
            let mut threads = asleep.iter().map(|thread| thread.load(Ordering::Relaxed));
            threads.all(|thread| system::thread_is_in(thread, &calls))
        };
        assert!(system::wait_until(soon(), blocked), "nobody is blocked");
        go();
        for worker in workers {
            worker.end();
        }
        for sleeper in sleepers {
            sleeper.join().expect("woken");
        }
    });
    assert_eq!(toucher.wait().signal(), Some(libc::SIGBUS));
    assert!(counted(&changed) >= 1, "the last count");
    assert!(!super::interrupts(&env.plan) || counted(&rang) >= 1);
    assert_eq!(device.state(0), Err(Error::Gone));
}

/// What an eventfd has counted.
fn counted(eventfd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    assert_eq!(rustix::io::read(eventfd, &mut bytes), Ok(8));
    u64::from_ne_bytes(bytes)
}

/// One thing that a program can do with a device.
type Work = fn(&Device) -> Result<(), Error>;

/// A thread that does something with a file of its own until the device has gone.
struct Worker<'scope> {
    thread: ScopedJoinHandle<'scope, ()>,
    done: Arc<AtomicU64>,
}

impl<'scope> Worker<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        env: &Env,
        stop: &'env AtomicBool,
        work: Work,
    ) -> Self {
        let device = env.open();
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let thread = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match work(&device) {
                    Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        assert_eq!(error, Error::Gone);
                        return;
                    }
                };
            }
        });
        Self { thread, done }
    }

    fn is_warm(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= WARM
    }

    /// Its last call was `ENODEV`.
    fn end(self) {
        self.thread.join().expect("it ends with ENODEV");
    }
}

fn ring(device: &Device) -> Result<(), Error> {
    device.ring(device.info().id, 0)
}

fn publish(device: &Device) -> Result<(), Error> {
    for value in [1, 2] {
        device.set_state(value, StateFlags::default())?;
    }
    Ok(())
}

fn look(device: &Device) -> Result<(), Error> {
    device.state(device.info().id).map(drop)
}

fn read(device: &Device) -> Result<(), Error> {
    // All at once: in pieces, so that it may be cut short.
    device.read_at(&mut [0; 0x4000], 0).map(drop)
}

fn write(device: &Device) -> Result<(), Error> {
    let offset = device.info().output.offset;
    device.write_at(&[0xa5; 0x800], offset).map(drop)
}

fn map(device: &Device) -> Result<(), Error> {
    match device.map(device.info().rw) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NODEV) => Err(Error::Gone),
        Err(error) => panic!("{error}"),
        Ok(_) => Ok(()),
    }
}

/// Fetches what there is, without waiting.
fn fetch(device: &Device) -> Result<(), Error> {
    match device
        .events(&mut EventBuffer::new(8), Deadline::NOW)
        .map(drop)
    {
        Err(Error::WouldBlock) => Ok(()),
        other => other,
    }
}

/// A file that hears of nothing: a wait with it ends with the device only.
fn deaf(env: &Env) -> Device {
    let device = env.open();
    if super::interrupts(&env.plan) {
        device
            .subscribe(Subject::AllVectors, false)
            .expect("unsubscribe");
        device
            .subscribe(Subject::AllPeers, false)
            .expect("unsubscribe");
    }
    device
}

fn sleep_in_call(env: &Env, thread: &AtomicI32) {
    let device = deaf(env);
    thread.store(
        rustix::thread::gettid().as_raw_nonzero().get(),
        Ordering::Relaxed,
    );
    let mut buffer = EventBuffer::new(1);
    let got = device.events(&mut buffer, Deadline::NEVER).map(drop);
    assert_eq!(got, Err(Error::Gone));
}

fn sleep_in_poll(env: &Env, thread: &AtomicI32) {
    let device = deaf(env);
    thread.store(
        rustix::thread::gettid().as_raw_nonzero().get(),
        Ordering::Relaxed,
    );
    let mut fds = [PollFd::new(&device, PollFlags::IN | PollFlags::PRI)];
    poll(&mut fds, None).expect("poll");
    let got = fds[0].revents();
    assert!(got.contains(PollFlags::HUP | PollFlags::ERR), "{got:?}");
}

/// After all that, the device is as one that has just come.
fn works_as_new(env: &Env) {
    system::ensure_ready(&env.plan).expect("ready");
    let env = Env::new().expect("the device is there");
    assert_eq!(env.counter("files_open"), 0, "somebody has it open");
    let device = env.open();
    let own = device.info().id;
    assert_eq!(device.state(own), Ok(0), "a state of before");
    device.set_state(3, StateFlags::default()).expect("publish");
    if super::interrupts(&env.plan) {
        device.ring(own, 0).expect("ring");
        let told = super::wait(&device);
        let rung = |event: &ivshmem::Event| matches!(event.kind, EventKind::Doorbell { .. });
        assert!(told.iter().any(rung), "{told:?}");
    }
}
