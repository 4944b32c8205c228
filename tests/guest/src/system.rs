// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's kernel as seen from user space: module, driver, devices, log.

use ivshmem::{Deadline, Device, EventBuffer, EventKind, StateFlags};
use ivshmem_guest::plan::{DevicePlan, Plan};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where the harness puts the module.
const MODULE_FILE: &str = "/ivshmem.ko";
/// Name of module and driver.
pub(crate) const NAME: &str = "ivshmem";
/// The driver's directory.
pub(crate) const DRIVER: &str = "/sys/bus/pci/drivers/ivshmem";
/// The device class.
pub(crate) const CLASS: &str = "/sys/class/ivshmem";

/// Most vectors that the driver takes of a device, by its header.
pub(crate) const VECTORS_MAX: u32 = 64;

/// The plan on the kernel command line.
pub(crate) fn plan() -> Result<Plan, Box<dyn std::error::Error>> {
    Ok(Plan::parse(&fs::read_to_string("/proc/cmdline")?)?)
}

/// A time limit with the patience that the plan on the kernel command line asks for, in any process of the guest.
pub(crate) fn patient(limit: Duration) -> Duration {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    // Who goes by the plan has read it before, and said what is wrong with it.
    PLAN.get_or_init(|| plan().unwrap_or_default())
        .patient(limit)
}

/// Loads the module.
pub(crate) fn load_module() -> Result<(), Errno> {
    load_module_with(c"")
}

/// Loads the module with `parameters`, separated by blanks.
pub(crate) fn load_module_with(parameters: &CStr) -> Result<(), Errno> {
    let file = rustix::fs::open(MODULE_FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::system::finit_module(&file, parameters, 0)
}

/// Unloads the module; `EWOULDBLOCK` while it is in use.
pub(crate) fn unload_module() -> Result<(), Errno> {
    rustix::system::delete_module(c"ivshmem", libc::O_NONBLOCK)
}

/// Whether the module is loaded.
pub(crate) fn module_is_loaded() -> bool {
    Path::new("/sys/module").join(NAME).exists()
}

/// The device file that serves the PCI device at `bdf`.
pub(crate) fn node(bdf: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(CLASS).ok()?;
    let name = entries
        .flatten()
        .map(|entry| entry.file_name())
        .find(|name| {
            let device = fs::read_link(Path::new(CLASS).join(name).join("device"));
            device.is_ok_and(|target| target.ends_with(bdf))
        })?;
    Some(Path::new("/dev").join(name))
}

/// Whether the driver is bound to the PCI device at `bdf`.
pub(crate) fn is_bound(bdf: &str) -> bool {
    Path::new(DRIVER).join(bdf).exists()
}

/// Binds the driver.
pub(crate) fn bind(bdf: &str) -> io::Result<()> {
    fs::write(Path::new(DRIVER).join("bind"), bdf)
}

/// Unbinds the driver.
pub(crate) fn unbind(bdf: &str) -> io::Result<()> {
    fs::write(Path::new(DRIVER).join("unbind"), bdf)
}

/// Waits until `condition` holds; false if it does not within `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns when every interrupt of `device` that was raised before has been taken.
///
/// An interrupt is on its way for a while: QEMU's main loop has to see it, and the processor that it
/// goes to has to run. So `vector` is rung twice: when the second doorbell arrives, that loop has been
/// through with everything that came before the first. Then every processor is made to run.
///
/// Whatever is on its way on `vector` itself may be taken for one of the doorbells, so that should be
/// a vector on which nothing else happens.
pub(crate) fn settle(device: &Path, vector: u32) -> Result<(), ivshmem::Error> {
    let device = Device::open(device)?;
    let id = device.info().id;
    let mut buffer = EventBuffer::new(64);
    for _ in 0..2 {
        device.ring(id, vector)?;
        let deadline = Deadline::after(patient(Duration::from_secs(120)));
        let arrived = |event: ivshmem::Event| matches!(event.kind, EventKind::Doorbell { vector: v, .. } if v == vector);
        while !device.events(&mut buffer, deadline)?.any(arrived) {}
    }
    visit_all_processors();
    Ok(())
}

/// Lets this thread run on each processor in turn. One that runs a program has taken the interrupts
/// that were pending.
fn visit_all_processors() {
    let Ok(all) = sched_getaffinity(None) else {
        return;
    };
    for processor in (0..CpuSet::MAX_CPU).filter(|&processor| all.is_set(processor)) {
        let mut one = CpuSet::new();
        one.set(processor);
        // It returns on that processor. Should it fail, only certainty is lost.
        let _ = sched_setaffinity(None, &one);
    }
    let _ = sched_setaffinity(None, &all);
}

/// The system calls that a `poll` of a library may be.
#[cfg(target_arch = "x86_64")]
pub(crate) const POLL_CALLS: &[i64] = &[libc::SYS_poll, libc::SYS_ppoll];
/// The system calls that a `poll` of a library may be.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const POLL_CALLS: &[i64] = &[libc::SYS_ppoll];

/// How many threads of this process sleep in one of the system calls `calls`.
pub(crate) fn threads_in(calls: &[i64]) -> usize {
    threads_of("self", calls)
}

/// How many threads of the process `id` sleep in one of the system calls `calls`. Who asks is none of them,
/// though it would find itself reading.
pub(crate) fn threads_of(id: &str, calls: &[i64]) -> usize {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else {
        return 0;
    };
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    tasks
        .flatten()
        .filter(|task| task.file_name() != own.as_str())
        .filter(|task| sleeps_in(&task.path(), calls))
        .count()
}

/// Whether the thread `id` of this process sleeps in one of the system calls `calls`.
pub(crate) fn thread_is_in(id: i32, calls: &[i64]) -> bool {
    sleeps_in(&PathBuf::from(format!("/proc/self/task/{id}")), calls)
}

/// Whether the thread with that folder in /proc sleeps in one of the system calls `calls`.
fn sleeps_in(task: &Path, calls: &[i64]) -> bool {
    let call = fs::read_to_string(task.join("syscall")).unwrap_or_default();
    let number = call
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number| calls.contains(&number))
}

/// Loads the module and binds each device of the plan that should be bound, whatever a test has
/// left behind.
pub(crate) fn ensure_ready(plan: &Plan) -> io::Result<()> {
    if !module_is_loaded() {
        load_module()?;
    }
    for device in plan.devices.iter().filter(|device| device.fault.is_none()) {
        ensure_bound(device)?;
    }
    Ok(())
}

/// As [`ensure_ready`], and waits for interrupts that a test has left on their way.
pub(crate) fn ensure_settled(plan: &Plan) -> io::Result<()> {
    ensure_ready(plan)?;
    for device in plan.devices.iter().filter(|device| device.fault.is_none()) {
        let node = node(&device.bdf()).unwrap_or_default();
        // The last vector that it has; a device that is polled has none, and takes no interrupts.
        let vectors = Device::open(&node)?.info().vectors_enabled;
        if let Some(vector) = vectors.checked_sub(1) {
            settle(&node, vector)?;
        }
    }
    Ok(())
}

/// Has each device publish a state that stays when its file is closed.
pub(crate) fn keep_states(plan: &Plan) -> io::Result<()> {
    ensure_ready(plan)?;
    for device in plan.devices.iter().filter(|device| device.fault.is_none()) {
        let node = node(&device.bdf()).unwrap_or_default();
        let flags = StateFlags::default().keep();
        Device::open(&node)?.set_state(5, flags)?;
    }
    Ok(())
}

fn ensure_bound(device: &DevicePlan) -> io::Result<()> {
    let bdf = device.bdf();
    // A device that went without notice and is back needs a new start.
    let gone = |node: PathBuf| matches!(fs::File::open(node), Err(error) if error.raw_os_error() == Some(libc::ENODEV));
    if is_bound(&bdf) && node(&bdf).is_some_and(gone) {
        unbind(&bdf)?;
    }
    if !is_bound(&bdf) {
        bind(&bdf)?;
    }
    // devtmpfs makes the file in a thread of its own.
    let there = wait_until(patient(Duration::from_secs(30)), || {
        node(&bdf).is_some_and(|node| node.exists())
    });
    if there {
        Ok(())
    } else {
        Err(io::Error::other(format!("{bdf} has no device file")))
    }
}

/// Whether this kernel watches memory and locks, and is several times slower for it.
pub(crate) fn has_checkers() -> bool {
    Path::new("/sys/kernel/debug/kmemleak").exists()
}

/// All lines of the kernel's log so far, without prefixes.
pub(crate) fn kernel_log() -> io::Result<Vec<String>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    let mut lines = Vec::new();
    let mut record = vec![0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(lines),
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                let message = text.split_once(';').map_or(text.as_ref(), |(_, rest)| rest);
                lines.extend(message.lines().next().map(Into::into));
            }
            // The oldest record was overwritten while we read: go on with the next.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lines),
            Err(error) => return Err(error),
        }
    }
}

/// Writes a line into the kernel's log, to find it again there.
pub(crate) fn mark_log(text: &str) -> io::Result<()> {
    fs::write("/dev/kmsg", text)
}
