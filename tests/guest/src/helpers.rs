// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small programs that tests start as separate processes, to let them die or hold files.
//!
//! A helper says `ready` on its standard output when it has done its part, and then stays until
//! its standard input ends, unless its part is to die.

mod channel;

use crate::raw;
use ivshmem::{Deadline, Device, EventBuffer, StateFlags};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running helper; killed when dropped.
#[derive(Debug)]
pub(crate) struct Helper(Child);

/// How a helper ended.
#[derive(Debug)]
pub(crate) struct End(ExitStatus);

/// Starts the helper called `name`.
pub(crate) fn start(name: &str, arguments: &[&str]) -> Helper {
    let child = Command::new("/proc/self/exe")
        .args(["helper", name])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Helper(child.expect("start a helper"))
}

impl Helper {
    /// Waits until it has done its part.
    pub(crate) fn ready(mut self) -> Self {
        let stdout = self.0.stdout.as_mut().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        self
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }

    /// Lets it go on, and waits for its end.
    pub(crate) fn wait(mut self) -> End {
        drop(self.0.stdin.take());
        End(self.0.wait().expect("wait"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl End {
    /// The signal that it died of.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.0.signal()
    }

    /// Its exit status.
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.code()
    }
}

/// Runs the helper called `name`, in its process.
pub(crate) fn run(name: &str, arguments: &[&str]) {
    match (name, arguments) {
        ("store", [node, mode, offset]) => store(node, mode, offset),
        ("hold-state", [node, value]) => hold_state(node, value),
        ("touch", [node, offset]) => touch(node, offset),
        ("touch-on", [node, offset]) => touch_on(node, offset),
        ("wait-events", [node]) => wait_events(node),
        ("wait-poll", [node]) => wait_poll(node),
        ("give", [node, path, mode, position]) => give(node, path, mode, position),
        ("watch-word", [node, offset, last]) => watch_word(node, offset, last),
        ("blocked-write", [node, value]) => blocked_write(node, value),
        ("channel", [node, peer, mode, script]) => channel::run(node, peer, mode, script),
        ("give-channel", [node, peer, path]) => channel::give(node, peer, path),
        ("stay", []) => stay(),
        _ => panic!("no helper `{name}` with {arguments:?}"),
    }
}

/// Says that its part is done.
fn ready() {
    println!("ready");
    std::io::stdout().flush().expect("flush");
}

/// Says that all is done, and stays until the standard input ends.
fn stay() {
    ready();
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("read");
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Stores through a read-only mapping, which should be its end.
fn store(node: &str, mode: &str, offset: &str) {
    let device = Device::options()
        .read_only(mode == "ro")
        .open(node)
        .expect("open");
    let page = rustix::param::page_size();
    let offset = number(offset) as i64;
    let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    let map = raw::mmap(Some(device.as_fd()), offset, page, rights, flags).expect("map");
    map.store(0, 0xdead_beef);
}

/// Publishes a state and keeps the file open.
fn hold_state(node: &str, value: &str) {
    let device = Device::open(node).expect("open");
    device
        .set_state(number(value) as u32, StateFlags::default())
        .expect("publish");
    stay();
}

/// Maps a page, touches it, and touches it again when told: by then the device is gone.
fn touch(node: &str, offset: &str) {
    let device = Device::open(node).expect("open");
    let page = rustix::param::page_size();
    let offset = number(offset) as i64;
    let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    let map = raw::mmap(Some(device.as_fd()), offset, page, rights, flags).expect("map");
    map.load(0);
    stay();
    map.load(0);
}

/// Maps a page, and touches it and maps it again until that is its end.
fn touch_on(node: &str, offset: &str) {
    let device = Device::open(node).expect("open");
    let page = rustix::param::page_size();
    let offset = number(offset) as i64;
    let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    let map = || raw::mmap(Some(device.as_fd()), offset, page, rights, flags);
    let first = map().expect("map");
    first.load(0);
    ready();
    loop {
        // One that has been touched, and one that has not.
        first.load(0);
        if let Ok(next) = map() {
            next.load(0);
        }
    }
}

/// Waits for events without limit. Status 0 if the device goes meanwhile.
fn wait_events(node: &str) {
    let device = Device::open(node).expect("open");
    ready();
    let got = device
        .events(&mut EventBuffer::new(1), Deadline::NEVER)
        .map(drop);
    assert_eq!(got, Err(ivshmem::Error::Gone));
}

/// Polls for input without limit. Status 0 if the device goes meanwhile.
fn wait_poll(node: &str) {
    use rustix::event::{poll, PollFd, PollFlags};
    let device = Device::open(node).expect("open");
    ready();
    let mut fds = [PollFd::new(&device, PollFlags::IN | PollFlags::PRI)];
    poll(&mut fds, None).expect("poll");
    let got = fds[0].revents();
    assert!(got.contains(PollFlags::HUP | PollFlags::ERR), "{got:?}");
}

/// Opens the device and sends the file to the socket `path`; unless it is open for reading only it has
/// published 7, and one doorbell that it has not fetched. Ends.
fn give(node: &str, path: &str, mode: &str, position: &str) {
    use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let read_only = mode == "ro";
    let device = Device::options()
        .read_only(read_only)
        .open(node)
        .expect("open");
    if !read_only {
        device.set_state(7, StateFlags::default()).expect("publish");
        let witness = Device::open(node).expect("open");
        ring_oneself(&device, &witness);
        // A polled device has none.
        let mut buffer = EventBuffer::new(64);
        let fetched = device.events(&mut buffer, Deadline::NOW).is_ok();
        assert_eq!(fetched, device.info().vectors_enabled > 0);
        ring_oneself(&device, &witness);
    }
    let position = number(position) as i64;
    raw::lseek(&device, position, libc::SEEK_SET).expect("lseek");
    let socket = std::os::unix::net::UnixStream::connect(path).expect("connect");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [device.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let byte = [std::io::IoSlice::new(b"f")];
    sendmsg(&socket, &byte, &mut control, SendFlags::empty()).expect("sendmsg");
    ready();
}

/// Rings ourselves on the last vector and waits until that has arrived.
fn ring_oneself(device: &Device, witness: &Device) {
    let info = device.info();
    if let Some(vector) = info.vectors_enabled.checked_sub(1) {
        device.ring(info.id, vector).expect("ring");
        let mut buffer = EventBuffer::new(64);
        witness
            .events(&mut buffer, Deadline::NEVER)
            .map(drop)
            .expect("an event");
    }
}

/// Looks at a word after each event, until it says `last`.
fn watch_word(node: &str, offset: &str, last: &str) {
    let device = Device::open(node).expect("open");
    let (offset, last) = (number(offset), number(last) as u32);
    let mut buffer = EventBuffer::new(64);
    ready();
    while device.read_word(offset).expect("read") != last {
        let events = device.events(&mut buffer, Deadline::NEVER);
        events.map(drop).expect("an event");
    }
}

/// Publishes a state, and then writes from a page that never comes.
fn blocked_write(node: &str, value: &str) {
    let device = Device::open(node).expect("open");
    let value = number(value) as u32;
    device
        .set_state(value, StateFlags::default())
        .expect("publish");
    let memory = raw::Unresolved::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(
                memory.somebody_waits(crate::system::patient(Duration::from_secs(60))),
                "nobody does"
            );
            ready();
        });
        let (map, offset) = (memory.map(), device.info().output.offset);
        let got = map.pwrite_at(&device, memory.missing(), 64, offset);
        panic!("the page has come: {got:?}");
    });
}
