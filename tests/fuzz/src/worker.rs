// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process of a run: threads that carry operations out, and a watchdog that ends their waits.

use crate::execute::{socket_name, Executor};
use crate::facts::{Channels, Facts, Span};
use crate::generate::generate;
use crate::message::Ledger;
use crate::op::{
    Op, Slot, CHANNELS, CLOSED, EPOLLS, EVENTFDS, FIRST_EPOLL, FIRST_EVENTFD, PIPE, PLAIN, SLOTS,
    SOCKET,
};
use crate::oracle::expect;
use crate::sys::{self, Address, Arena, Own, Raw};
use crate::tally::Tally;
use ivshmem::{uapi, Device, InterruptMode};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What all operations are made of.
    pub seed: u64,
    /// Which of the run's processes this is, from 0 on.
    pub process: usize,
    /// Processes of the run.
    pub processes: usize,
    /// Threads of each process.
    pub threads: usize,
    /// Number of each thread's first operation.
    pub first: u64,
    /// Operations of each thread.
    pub count: u64,
    /// File of the [`Tally`].
    pub tally: String,
    /// File of the ledger of messages, made by [`create_ledger`](crate::create_ledger).
    pub ledger: String,
    /// Which channels there are.
    pub channels: Channels,
    /// The device lies: what operations return is not judged.
    pub is_hostile: bool,
    /// How long a single operation may take, waits included.
    pub limit: Duration,
}

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(50);
/// Failures that end the process, to tell of several at once.
const TOLD: u64 = 10;

/// Attributes in /sys/class/ivshmem/ivshmemN.
const ATTRIBUTES: &[&str] = &[
    "id",
    "max_peers",
    "protocol",
    "vectors",
    "vectors_enabled",
    "interrupt_mode",
    "self_test",
    "region_size",
    "channels",
    "state",
    "state_table/size",
    "rw/offset",
    "rw/mappable",
    "outputs/size",
    "output/offset",
    "uevent",
    "dev",
    "power/control",
    "power/runtime_status",
    "device/vendor",
    "device/class",
    "device/irq",
];
/// Files in /sys/kernel/debug/ivshmem/ivshmemN.
const DEBUG: &[&str] = &[
    "vectors",
    "peers",
    "doorbells_rung",
    "files_open",
    "wakeups",
    "throttles",
    "may_have_lost",
    "channels",
    "channels_up",
    "messages_received",
];
/// Files that are there once.
const OTHERS: &[&str] = &[
    "/sys/module/ivshmem/refcnt",
    "/sys/module/ivshmem/parameters/throttle",
    "/proc/interrupts",
];

/// Names of files, made before the operations begin.
#[derive(Debug)]
pub(crate) struct Paths {
    nodes: [CString; 2],
    fdinfo: Vec<CString>,
    system: Vec<CString>,
}

impl Paths {
    fn new() -> Self {
        let path = |text: String| CString::new(text).unwrap_or_default();
        let mut system: Vec<_> = OTHERS.iter().map(|name| path((*name).into())).collect();
        for device in 0..2 {
            let attributes = ATTRIBUTES
                .iter()
                .map(|name| format!("/sys/class/ivshmem/ivshmem{device}/{name}"));
            let counters = DEBUG
                .iter()
                .map(|name| format!("/sys/kernel/debug/ivshmem/ivshmem{device}/{name}"));
            system.extend(attributes.chain(counters).map(path));
        }
        Self {
            nodes: [0, 1].map(|device| path(format!("/dev/ivshmem{device}"))),
            fdinfo: (0..SLOTS + CHANNELS)
                .map(|slot| path(format!("/proc/self/fdinfo/{}", Slot(slot).fd())))
                .collect(),
            system,
        }
    }

    pub(crate) fn node(&self, device: u32) -> &CStr {
        &self.nodes[device as usize]
    }

    pub(crate) fn fdinfo(&self, slot: Slot) -> &CStr {
        &self.fdinfo[usize::from(slot.0)]
    }

    pub(crate) fn system(&self, index: u16) -> &CStr {
        &self.system[usize::from(index) % self.system.len()]
    }
}

impl Facts {
    /// Asks the devices, which must be bound.
    ///
    /// # Errors
    ///
    /// If they are not what this program is made for.
    pub fn of_devices() -> io::Result<Self> {
        let own = Own::new()?;
        let devices =
            [0, 1].map(|n| Device::open(format!("/dev/ivshmem{n}")).map_err(io::Error::other));
        let [first, second] = devices;
        let devices = [first?, second?];
        let info = [*devices[0].info(), *devices[1].info()];
        if info[0].id != 0 || info[1].id != 1 || info[0].region_size > 0x1_0000 {
            return Err(io::Error::other(
                "the devices are not peers 0 and 1 of a small link",
            ));
        }
        let mut bytes = [Vec::new(), Vec::new()];
        for (bytes, device) in bytes.iter_mut().zip(&devices) {
            let done = sys::ioctl(
                device.as_fd().as_raw_fd(),
                uapi::IVSHMEM_IOC_INFO,
                own.address(0),
            );
            if done != 0 {
                return Err(io::Error::from_raw_os_error(-done as i32));
            }
            *bytes = own.get::<136>(0).into();
        }
        let span = |section: ivshmem::Section| Span {
            offset: section.offset,
            size: section.size,
        };
        Ok(Self {
            page: 4096,
            peers: info[0].max_peers,
            vectors: info[0].vectors,
            vectors_enabled: info[0].vectors_enabled,
            polling: info[0].interrupt_mode == InterruptMode::Polling,
            region: info[0].region_size,
            rw: span(info[0].rw),
            output: span(info[0].output),
            info: bytes,
            channels: Channels::None,
            home: 0,
        })
    }
}

/// What all threads of the process share.
struct Process<'a> {
    job: &'a Job,
    facts: &'a Facts,
    tally: &'a Tally,
    failures: AtomicU64,
}

/// Runs a worker to its end: whether all went well. What did not is told on the standard error.
///
/// Leaves everything open and mapped: that the process ends is part of the test.
///
/// # Errors
///
/// If it cannot begin.
pub fn run(job: &Job) -> io::Result<bool> {
    let tally = Tally::open(&job.tally)?;
    let facts = Facts {
        channels: job.channels,
        home: job.process as u32 % 2,
        ..Facts::of_devices()?
    };
    let all = job.processes * job.threads;
    let ledger = Ledger::open(&job.ledger, all, job.first, job.count)?;
    let paths = Paths::new();
    let arena = Arena::new()?;
    sys::handle_wake();
    prepare(job.process)?;
    let process = Process {
        job,
        facts: &facts,
        tally: &tally,
        failures: AtomicU64::new(0),
    };
    let threads: Vec<AtomicI32> = (0..job.threads).map(|_| AtomicI32::new(0)).collect();
    let executors = (0..job.threads)
        .map(|thread| {
            let global = process.global(thread);
            Executor::new(arena, &facts, &paths, &ledger, &tally, global)
        })
        .collect::<io::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        for (index, executor) in executors.into_iter().enumerate() {
            let (process, id) = (&process, &threads[index]);
            scope.spawn(move || process.work(index, &executor, id));
        }
        process.watch(&threads);
    });
    tally.add_signals(sys::signals());
    Ok(process.failures.load(Ordering::Relaxed) == 0)
}

/// Opens what operations need besides the devices, at its numbers.
fn prepare(process: usize) -> io::Result<()> {
    let own = Own::new()?;
    let place = |fd: Raw, number: i32| -> io::Result<()> {
        if fd < 0 || sys::dup3(fd as i32, number, libc::O_CLOEXEC) < 0 || sys::close(fd as i32) < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    for index in 0..i32::from(EVENTFDS) {
        place(sys::eventfd2(0, libc::EFD_NONBLOCK), FIRST_EVENTFD + index)?;
    }
    for index in 0..i32::from(EPOLLS) {
        place(sys::epoll_create1(0), FIRST_EPOLL + index)?;
    }
    if sys::pipe2(own.address(0), libc::O_NONBLOCK) < 0 {
        return Err(io::Error::last_os_error());
    }
    for end in 0..2 {
        place(
            i32::from_ne_bytes(own.get(end * 4)).into(),
            PIPE + end as i32,
        )?;
    }
    place(
        sys::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0),
        SOCKET,
    )?;
    let name = socket_name(process);
    own.put(0, &name);
    if sys::bind(SOCKET, own.address(0), name.len() as u32) < 0 {
        return Err(io::Error::last_os_error());
    }
    let plain = format!("/tmp/fuzz-plain-{process}");
    std::fs::write(&plain, vec![0x5a; 16384])?;
    let plain = CString::new(plain)?;
    place(sys::openat(libc::AT_FDCWD, &plain, libc::O_RDWR, 0), PLAIN)?;
    // Nothing is there.
    sys::close(CLOSED);
    debug_assert!(Address::NOWHERE.len() == 5);
    Ok(())
}

impl Process<'_> {
    /// Number of a thread among those of all processes.
    fn global(&self, thread: usize) -> usize {
        self.job.process * self.job.threads + thread
    }

    fn work(&self, thread: usize, executor: &Executor<'_>, id: &AtomicI32) {
        id.store(sys::gettid() as i32, Ordering::Release);
        let global = self.global(thread);
        for number in self.job.first..self.job.first + self.job.count {
            if self.tally.is_stopped() {
                break;
            }
            let op = generate(self.job.seed, global as u64, number, self.facts);
            let begin = sys::now();
            let result = executor.run(number, &op);
            let time = sys::now() - begin;
            self.tally.count(global, op.kind(), result, time);
            if !self.job.is_hostile && !expect(&op, self.facts).allows(result) {
                self.fail(global, number, &op, result, executor);
            }
        }
        id.store(-1, Ordering::Release);
    }

    fn fail(&self, thread: usize, number: u64, op: &Op, result: Raw, executor: &Executor<'_>) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < TOLD {
            let result = describe(result, executor.reason());
            eprintln!("thread {thread}, operation {number}: {result}, which is not documented for it: {op:?}");
        }
        if before + 1 >= TOLD {
            self.tally.stop();
        }
    }

    /// Ends waits, until all threads have ended.
    fn watch(&self, threads: &[AtomicI32]) {
        let begin: Vec<u64> = (0..threads.len())
            .map(|thread| self.tally.of_thread(self.global(thread)))
            .collect();
        let mut last: Vec<(u64, Instant)> =
            begin.iter().map(|count| (*count, Instant::now())).collect();
        loop {
            std::thread::sleep(LOOK);
            let mut running = false;
            for (thread, id) in threads.iter().enumerate() {
                let id = id.load(Ordering::Acquire);
                if id < 0 {
                    continue;
                }
                running = true;
                let count = self.tally.of_thread(self.global(thread));
                if count != last[thread].0 {
                    last[thread] = (count, Instant::now());
                } else if last[thread].1.elapsed() > self.job.limit {
                    self.hang(thread, id, count - begin[thread]);
                } else if id > 0 {
                    self.tally.add_woken();
                    sys::tgkill(std::process::id() as i32, id, sys::WAKE);
                }
            }
            if !running {
                return;
            }
        }
    }

    /// Says what a thread hangs in, and ends the process.
    fn hang(&self, thread: usize, id: i32, done: u64) -> ! {
        let (global, number) = (self.global(thread), self.job.first + done);
        let op = generate(self.job.seed, global as u64, number, self.facts);
        let stack =
            std::fs::read_to_string(format!("/proc/self/task/{id}/stack")).unwrap_or_default();
        eprintln!("thread {global}, operation {number}: does not end: {op:?}\n{stack}");
        self.tally.stop();
        std::process::exit(3)
    }
}

fn describe(result: Raw, reason: &str) -> String {
    match result {
        crate::execute::WRONG_RESULT => reason.into(),
        0.. => format!("success with {result}"),
        _ => format!("{}", io::Error::from_raw_os_error(-result as i32)),
    }
}
