// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that has everything open, blocked, mapped and in flight that a device can go under.
//!
//! Each [`Role`] is a thread that opens the device, says that it is in place, does its part until the
//! device goes, checks that it was told so as the header says, and begins anew when the device is
//! back. The [`Board`] shows how often each has been in place and how often it was told.

use crate::sys::{self, Arena, Shared, PAGE, PART};
use ivshmem::{Deadline, Device, Error, EventBuffer, StateFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Stops a run with a reason.
type Failure = Box<dyn std::error::Error>;

macro_rules! roles {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// What a thread does while the device goes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Role { $(#[doc = $text] $name),* }

        impl Role {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What it does, for people.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

roles! {
    Reader = "waits for events that come, without limit: ENODEV",
    Sleeper = "waits for events that never come, without limit: ENODEV",
    Poller = "polls without limit: POLLHUP and POLLERR",
    Epoller = "waits in epoll without limit: EPOLLHUP and EPOLLERR",
    Counter = "waits for an eventfd, which is counted up a last time",
    Loader = "reads touched mappings: SIGBUS",
    Storer = "writes touched mappings: SIGBUS",
    Caller = "has ioctls in flight: ENODEV",
    Copier = "has reads and writes in flight: ENODEV",
    Opener = "opens, maps and closes",
}

/// Words of a role on the board.
const WORDS: usize = 3;

/// How far each role is, in memory that processes share.
#[derive(Debug)]
pub struct Board(Shared);

impl Board {
    const COUNT: usize = 1 + Role::ALL.len() * WORDS;

    /// Makes the file of a board, with all counts 0.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn create(path: &str) -> io::Result<Self> {
        Ok(Self(Shared::create(path, Self::COUNT)?))
    }

    fn open(path: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(Shared::map(&file, Self::COUNT)?))
    }

    fn word(&self, role: Role, index: usize) -> &AtomicU64 {
        &self.0.words()[1 + role as usize * WORDS + index]
    }

    /// How often `role` has been in place.
    #[must_use]
    pub fn in_place(&self, role: Role) -> u64 {
        self.word(role, 0).load(Ordering::Acquire)
    }

    /// How often it was told, as it must be, that the device is gone.
    #[must_use]
    pub fn told(&self, role: Role) -> u64 {
        self.word(role, 1).load(Ordering::Acquire)
    }

    /// Its thread.
    #[must_use]
    pub fn thread(&self, role: Role) -> u64 {
        self.word(role, 2).load(Ordering::Acquire)
    }

    /// Has all roles end when the device goes the next time.
    pub fn stop(&self) {
        self.0.words()[0].store(1, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.0.words()[0].load(Ordering::Acquire) != 0
    }
}

/// Runs all roles on the device file `node`, and rings it and changes states through `peer`, another
/// peer's, until the board says stop.
///
/// # Errors
///
/// If one is not told of the device's end as the header says.
pub fn run(board: &str, node: &str, peer: &str) -> Result<(), Failure> {
    let board = Board::open(board)?;
    let arena = Arena::new()?;
    let arrival = Arrival::default();
    std::thread::scope(|scope| {
        for &role in Role::ALL {
            let (board, arrival) = (&board, &arrival);
            scope.spawn(move || {
                if let Err(error) = play(role, board, arrival, node, arena) {
                    eprintln!("the thread that {}: {error}", role.name());
                    std::process::exit(1);
                }
            });
        }
        if let Err(error) = disturb(&board, peer) {
            eprintln!("the other peer: {error}");
            std::process::exit(1);
        }
    });
    Ok(())
}

/// Rings the device under test and changes the state that it sees.
fn disturb(board: &Board, peer: &str) -> Result<(), Failure> {
    let device = Device::open(peer)?;
    let vectors = device.info().vectors;
    for round in 0u32.. {
        if board.is_stopped() {
            break;
        }
        device.ring(0, round % vectors)?;
        if round % 16 == 0 {
            device.set_state(1 + round % 7, StateFlags::default())?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A role's life.
fn play(
    role: Role,
    board: &Board,
    arrival: &Arrival,
    node: &str,
    arena: Arena,
) -> Result<(), Failure> {
    board
        .word(role, 2)
        .store(sys::gettid() as u64, Ordering::Release);
    while let Some(device) = arrival.open(role, board, node)? {
        let ready = || {
            board.word(role, 0).fetch_add(1, Ordering::AcqRel);
        };
        match role {
            Role::Reader => reader(&device, true, ready)?,
            Role::Sleeper => reader(&device, false, ready)?,
            Role::Poller => poller(&device, ready)?,
            Role::Epoller => epoller(&device, ready)?,
            Role::Counter => counter(&device, ready)?,
            Role::Loader => toucher(&device, arena, 0, false, ready)?,
            Role::Storer => toucher(&device, arena, PART, true, ready)?,
            Role::Caller => caller(&device, ready)?,
            Role::Copier => copier(&device, ready)?,
            Role::Opener => opener(node, ready)?,
        }
        // Whatever it is asked, a dead file says so.
        if device.state(0) != Err(Error::Gone) {
            return Err("the file is not dead".into());
        }
        board.word(role, 1).fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

/// That the device is back. One role looks for it, [`Role::Opener`], and wakes the others: if all of them looked, that
/// would take most of the time in which it comes.
#[derive(Debug, Default)]
struct Arrival {
    guard: Mutex<()>,
    came: Condvar,
}

impl Arrival {
    /// How often somebody looks.
    const LOOK: Duration = Duration::from_millis(2);
    /// How long others wait at most: they may begin to wait a little too late.
    const WAIT: Duration = Duration::from_millis(100);

    /// Waits for it for a while.
    fn wait(&self, role: Role) {
        if role == Role::Opener {
            std::thread::sleep(Self::LOOK);
            return;
        }
        // Nobody panics with it, and nothing is guarded.
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.came.wait_timeout(guard, Self::WAIT));
    }

    /// Opens the device when it is there; none if that is not to be waited for.
    fn open(&self, role: Role, board: &Board, node: &str) -> Result<Option<Device>, Failure> {
        while !board.is_stopped() {
            match Device::open(node) {
                Ok(device) => {
                    self.came.notify_all();
                    return Ok(Some(device));
                }
                Err(error) if is_away(&error) => self.wait(role),
                Err(error) => return Err(error.into()),
            }
        }
        self.came.notify_all();
        Ok(None)
    }
}

/// Whether a call failed as there is no device now: no node, or one that leads nowhere.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Gone => true,
        Error::Open { errno, .. } | Error::NotADevice { errno, .. } => {
            matches!(
                errno.raw_os_error(),
                libc::ENOENT | libc::ENXIO | libc::ENODEV
            )
        }
        _ => false,
    }
}

fn reader(device: &Device, wants_events: bool, ready: impl Fn()) -> Result<(), Failure> {
    if !wants_events {
        for subject in [ivshmem::Subject::AllVectors, ivshmem::Subject::AllPeers] {
            device.subscribe(subject, false)?;
        }
    }
    let mut buffer = EventBuffer::new(8);
    ready();
    loop {
        match device.events(&mut buffer, Deadline::NEVER) {
            Ok(events) if wants_events => drop(events.count()),
            Ok(_) => return Err("there was an event that nobody has asked for".into()),
            Err(Error::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn poller(device: &Device, ready: impl Fn()) -> Result<(), Failure> {
    let own = sys::Own::new()?;
    let fd = device.as_fd().as_raw_fd();
    own.put(0, &fd.to_ne_bytes());
    own.put(4, &[0; 4]);
    ready();
    let count = sys::ppoll(own.address(0), 1, sys::Address::NOWHERE[0], 0, 8);
    let bits = i16::from_ne_bytes(own.get(6));
    hung_up(count, bits.into())
}

fn epoller(device: &Device, ready: impl Fn()) -> Result<(), Failure> {
    let own = sys::Own::new()?;
    let epoll = sys::owned(sys::epoll_create1(libc::EPOLL_CLOEXEC))?;
    own.put(0, &[0; 16]);
    let (epoll_fd, fd) = (epoll.as_raw_fd(), device.as_fd().as_raw_fd());
    if sys::epoll_ctl(epoll_fd, libc::EPOLL_CTL_ADD, fd, own.address(0)) < 0 {
        return Err(io::Error::last_os_error().into());
    }
    ready();
    let count = sys::epoll_pwait(epoll_fd, own.address(64), 1, -1, 0, 8);
    let bits = i32::from_ne_bytes(own.get(64));
    hung_up(count, bits)
}

/// Lets others run, after every few of a busy role's operations: there are many of them, and the device has to
/// be taken away meanwhile.
fn pause(round: u64) {
    if round % 16 == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What poll and epoll must say of a device that is gone, if they are asked for nothing.
fn hung_up(count: i64, bits: i32) -> Result<(), Failure> {
    if count != 1 || bits != i32::from(libc::POLLHUP | libc::POLLERR) {
        return Err(format!("returned {count}, with bits {bits:#x}").into());
    }
    Ok(())
}

fn counter(device: &Device, ready: impl Fn()) -> Result<(), Failure> {
    let eventfd = sys::owned(sys::eventfd2(0, libc::EFD_CLOEXEC))?;
    let own = sys::Own::new()?;
    for subject in [ivshmem::Subject::AllVectors, ivshmem::Subject::AllPeers] {
        device.attach_eventfd(subject, Some(eventfd.as_fd()))?;
    }
    ready();
    loop {
        if sys::read(eventfd.as_raw_fd(), own.address(0), 8) != 8 {
            return Err(io::Error::last_os_error().into());
        }
        if device.state(0) == Err(Error::Gone) {
            return Ok(());
        }
    }
}

fn toucher(
    device: &Device,
    arena: Arena,
    at: usize,
    stores: bool,
    ready: impl Fn(),
) -> Result<(), Failure> {
    let section = device.info().rw;
    let rights = libc::PROT_READ | if stores { libc::PROT_WRITE } else { 0 };
    let fd = device.as_fd().as_raw_fd();
    let length = (section.size as usize).min(PART);
    if arena.map(at, length, rights, libc::MAP_SHARED, fd, section.offset) < 0 {
        return Err(io::Error::last_os_error().into());
    }
    let before = sys::bus_errors_at(at);
    ready();
    for round in 0usize.. {
        pause(round as u64);
        let word = at + round * 68 % length;
        if stores {
            arena.store(word, round as u32);
        } else {
            arena.load(word);
        }
        if round % 64 == 0 && device.state(0) == Err(Error::Gone) {
            break;
        }
    }
    // Calls end before the pages go: touch all of them until each has raised it, once.
    let all = (length / PAGE) as u64;
    let raised = || sys::bus_errors_at(at) - before;
    while raised() < all {
        for page in (at..at + length).step_by(PAGE) {
            arena.load(page);
        }
        pause(0);
    }
    arena.unmap(at, length);
    if raised() != all {
        return Err(format!("{} SIGBUS of {all} pages", raised()).into());
    }
    Ok(())
}

fn caller(device: &Device, ready: impl Fn()) -> Result<(), Failure> {
    let info = *device.info();
    ready();
    for round in 0u32.. {
        pause(round.into());
        let done = match round % 4 {
            0 => device.ring(info.id, round % info.vectors),
            1 => device.state(1).map(drop),
            2 => device.set_state(round, StateFlags::default().take_over()),
            _ => device.subscribe(ivshmem::Subject::AllPeers, true),
        };
        match done {
            Ok(()) => {}
            Err(Error::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copier(device: &Device, ready: impl Fn()) -> Result<(), Failure> {
    let own = device.info().output;
    let mut bytes = [0; 256];
    ready();
    for round in 0u64.. {
        pause(round);
        let offset = own.offset + round * 8 % (own.size - 256);
        let done = if round % 2 == 0 {
            device.read_at(&mut bytes, offset).map(drop)
        } else {
            device.write_at(&bytes, offset).map(drop)
        };
        match done {
            Ok(()) => {}
            Err(Error::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn opener(node: &str, ready: impl Fn()) -> Result<(), Failure> {
    ready();
    loop {
        pause(0);
        let done = Device::open(node).and_then(|device| device.map(device.info().output).map(drop));
        match done {
            Ok(()) => {}
            Err(error) if is_away(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
